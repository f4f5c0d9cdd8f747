"""Certificates a second, from CSR to stored and logged, on one core; beside a loop of `openssl x509 -req`.

`make bench-ca`. What is timed for us: a PKCS #10 request in DER goes into `Authority.enrol` (a signed challenge) or
`Authority.renew` (the current certificate), and the PEM chain comes out after its line of the log was fsynced in a
store on disk, as the server does it, `--tasks` requests at a time. CSRs and proofs are made beforehand. Everything runs
on one core, SQLite and threads included. openssl does less: it signs a request that it has on disk, checks no caller,
and keeps no record; each run is a process. `--exit` makes a rate below the bar (300/s, issue 7) an error.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.bucket import Bucket
from ca.checkpoints import checkpoint_if_due, verify_log
from ca.roots import slot_of
from ca.store.sqlite import SqliteStore
from ca.store.threads import StoreThreads
from certs.bundle import root_hash
from certs.csr import make_csr
from certs.keys import new_key
from tests.ca.office import DEMO, Office, open_office
from tests.kit.tools import need

BAR = 300.0
UNLIMITED = 1e9
Work = list[Callable[[], Awaitable[object]]]


def main() -> int:
    """Print one line for each way, and the ratio."""
    options = _parser().parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    print(f"Python {platform.python_version()} ({sys.executable}), core {core}, {options.count} certificates a round")
    rates: dict[str, list[Rate]] = {"enrol": [], "renew": [], "openssl": []}
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        for number in range(options.rounds):  # interleaved, so that a busy moment hits all of them
            folder = Path(name) / str(number)
            folder.mkdir()
            ours = trio.run(_ours, folder, options.count, options.tasks)
            for way, rate in (*ours.items(), ("openssl", _openssl(folder, options.openssl))):
                rates[way].append(rate)
    wall = {way: median(rate.wall for rate in found) for way, found in rates.items()}
    for way, found in rates.items():
        spread = f"{min(rate.wall for rate in found):.0f} to {max(rate.wall for rate in found):.0f}"
        cpu = median(rate.cpu for rate in found)
        print(f"{TITLES[way]:<60} {wall[way]:6.0f} /s ({spread}); {cpu:5.0f} a second of CPU time")
    worst = min(wall["enrol"], wall["renew"])
    print(f"{'ours / openssl':<60} {worst / wall['openssl']:6.1f}")
    print(f"{'the bar':<60} {BAR:6.0f} /s {'held' if worst >= BAR else 'NOT HELD'}")
    return 1 if options.exit and worst < BAR else 0


@dataclass(frozen=True, slots=True)
class Rate:
    """Certificates a second: of the clock, and of CPU time (all threads), which a busy machine does not blur."""

    wall: float
    cpu: float


TITLES = {
    "enrol": "ours, enrolment key: challenge, CSR → stored and logged",
    "renew": "ours, renewal: current certificate, CSR → stored and logged",
    "openssl": "openssl x509 -req, a process each, no record",
}


async def _ours(folder: Path, count: int, tasks: int) -> dict[str, Rate]:
    office = _office(folder)
    entries = [office.entry(f"service-{number}") for number in range(32)]
    keys = [office.key(entry) for entry in entries]
    csrs = [make_csr(new_key()) for _ in range(count)]
    proofs = [office.answer(entries[n % 32].id, keys[n % 32], csr) for n, csr in enumerate(csrs)]
    authority = office.authority
    first: list[tuple[x509.Certificate, ...]] = []

    async def enrol(number: int) -> None:
        issued = await authority.enrol(csrs[number], proofs[number])
        first.append(office.chain(issued))

    async def renew(number: int) -> None:
        await authority.renew(csrs[number], first[number])

    found = {"enrol": await _timed(enrol, count, tasks), "renew": await _timed(renew, count, tasks)}
    checkpoint_if_due(office.store, DEMO, office.issuer, office.clock.now)
    report = verify_log(office.store, DEMO)
    assert office.store.issued_count() == 2 * count
    assert report.findings == [], report.findings
    office.store.close()
    return found


def _office(folder: Path) -> Office:
    """An office whose store is on disk."""
    office = open_office(bucket=Bucket(UNLIMITED, UNLIMITED))
    store = SqliteStore(folder / "ca.sqlite3", create=True)
    root = office.issuer.root
    store.add_slot(slot_of(root, "root", office.clock.now))
    store.add_slot(slot_of(office.issuer.certificate, "issuer", office.clock.now, root=root_hash(root)))
    office.store = store  # type: ignore[assignment]
    office.threads = office.authority._store = StoreThreads(store)
    return office


async def _timed(act: Callable[[int], Awaitable[None]], count: int, tasks: int) -> Rate:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await act(number)

    began, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(worker)
    return Rate(count / (time.perf_counter() - began), count / (time.process_time() - cpu))


def _openssl(folder: Path, count: int) -> Rate:
    office = open_office()
    key = office.issuer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(folder / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, key)
    os.close(descriptor)
    (folder / "issuer.pem").write_bytes(office.issuer.certificate.public_bytes(Encoding.PEM))
    (folder / "leaf.csr").write_bytes(make_csr(new_key()))
    words = [
        need("openssl"), "x509", "-req", "-inform", "DER", "-in", "leaf.csr", "-CA", "issuer.pem", "-CAkey", "key.pem",
        "-days", "1", "-out", "leaf.pem",
    ]  # fmt: skip
    began, before = time.perf_counter(), os.times()
    for _ in range(count):
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    took, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Rate(count / took, count / max(cpu, 0.01))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="certificates in each round and way")
    parser.add_argument("--openssl", type=int, default=100, help="runs of openssl in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=64, help="requests at a time")
    parser.add_argument("--dir", help="where the stores are made: a real disk, for fsync to mean something")
    parser.add_argument("--exit", action="store_true", help="exit with 1 where the bar is not held")
    return parser


if __name__ == "__main__":
    sys.exit(main())
