"""A CA that is killed (SIGKILL) at the nth thing that it does to its disk; tests/ca/test_killed.py runs it.

Every statement that SQLite runs and every file that is made durable counts as a step. What has left the CA (printed to
standard output, as a sidecar would have received it) is what the test holds against the store afterwards.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import trio

import certs.store
from ca.attest.proof import KeyProof, TokenProof
from ca.authority import Authority
from ca.enrolling import grant_key, grant_token
from ca.roots import load_bundle, load_issuer
from ca.rotating import RootRotation
from ca.schedule import Schedule
from ca.store.sqlite import SqliteStore
from ca.store.threads import StoreThreads
from certs.bundle import BundleSet
from certs.csr import make_csr
from certs.enrolment import EnrolmentKey, JoinToken
from certs.keys import new_key
from certs.source import Source
from tests.ca.office import ADDRESS, DAY, DEMO, NOW, HandClock

PASS = b"correct horse battery staple"


class Death:
    """Counts steps, and kills this very process before the nth."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(directory: Path, story: str, at: int) -> None:
    """Live through the story, die at step `at`, or say "done" at its end."""
    store, death = SqliteStore(directory / "ca.sqlite3"), Death(at)
    store._db.set_trace_callback(death.step)
    write = certs.store.write_private

    def dying_write(path: Path, data: bytes) -> None:
        death.step()
        write(path, data)
        death.step()

    for module in (certs.store, sys.modules["certs.keys"]):
        module.write_private = dying_write  # type: ignore[attr-defined]
    STORIES[story](directory, store)
    print("done", flush=True)


def issue(directory: Path, store: SqliteStore) -> None:
    """A join token is spent for a certificate and a key; then two enrolments by that key, at once."""
    issuer, threads, bundles = load_issuer(directory, store, PASS), StoreThreads(store), Source[BundleSet]("bundle")
    bundles.publish(BundleSet((load_bundle(store, DEMO),)))
    authority = Authority(DEMO, issuer, threads, bundles, HandClock())
    entry = store.entries()[0]
    token = grant_token(store, entry, ADDRESS, NOW).proof
    own = EnrolmentKey.generate()
    assert isinstance(token, JoinToken)

    async def enrol(proof: TokenProof | KeyProof, csr: bytes) -> None:
        issued = await authority.enrol(csr, proof)
        print(f"issued {issued.leaf.serial_number:x}", flush=True)

    async def both() -> None:
        csr = make_csr(new_key())
        await enrol(TokenProof(token.token, own.public_bytes), csr)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nonce = authority.challenge(entry.id).nonce
                nursery.start_soon(enrol, KeyProof(entry.id, nonce, own.sign(DEMO, entry.id, nonce, csr)), csr)

    trio.run(both)


def turn(directory: Path, store: SqliteStore) -> None:
    """An issuing CA is prepared, takes over, and the old one retires."""
    schedule = Schedule(directory, store, DEMO, PASS)
    for day in (15, 25, 30):
        schedule.round(NOW + day * DAY)


def hand_out(directory: Path, store: SqliteStore) -> None:
    """An operator makes a key, and removes the entry."""
    entry = store.entries()[0]
    grant_key(store, entry, ADDRESS, NOW)
    store.remove_entry(entry.id, NOW)


def rotate(directory: Path, store: SqliteStore) -> None:
    """A new root is announced, takes over, and is alone; then another, and that one is turned back half-way."""
    rotation = RootRotation(directory, store, DEMO, PASS)
    rotation.begin(NOW)
    while rotation.round(NOW):
        pass
    rotation.begin(NOW)
    rotation.round(NOW)
    rotation.abort(NOW)
    while rotation.round(NOW):
        pass


STORIES: dict[str, Callable[[Path, SqliteStore], None]] = {
    "issue": issue,
    "turn": turn,
    "hand_out": hand_out,
    "rotate": rotate,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
