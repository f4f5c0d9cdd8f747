"""No certificate without its record: limits, full disks, shared commits, cancelled and killed requests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from ca.attest.join_token import hash_token
from ca.attest.proof import TokenProof
from ca.bucket import Bucket
from ca.errors import (
    IssuerUnusable,
    ProofRefused,
    StoreUnavailable,
    TooManyIssuances,
)
from ca.store.sqlite import SqliteStore
from certs.bundle import root_hash
from tests.ca.office import DAY, an_issuer, open_office
from tests.kit.trio_time import in_trio


def test_the_bucket_refuses_without_spending_a_token() -> None:
    office = open_office(bucket=Bucket(rate=1, burst=1))
    entry = office.entry()
    trio.run(office.issue, entry)
    proof = office.token(entry)
    with pytest.raises(TooManyIssuances) as refusal:
        trio.run(office.authority.enrol, office.csr, proof)
    assert refusal.value.retry_after == pytest.approx(1.0)
    office.clock.now += 1
    trio.run(office.authority.enrol, office.csr, proof)


def test_a_bad_proof_takes_nothing_from_the_bucket() -> None:
    office = open_office(bucket=Bucket(rate=1, burst=1))
    entry = office.entry()
    for _ in range(5):
        with pytest.raises(ProofRefused):
            trio.run(office.authority.enrol, office.csr, TokenProof("x" * 43, bytes(32)))
    trio.run(office.issue, entry)


def test_without_a_record_there_is_no_certificate() -> None:
    office = open_office()
    entry = office.entry()
    office.store.broken = True
    with pytest.raises(StoreUnavailable, match="disk is full"):
        trio.run(office.issue, entry)
    office.store.broken = False
    trio.run(office.issue, entry)
    assert len(office.store.issuances()) == 1


def test_an_expired_issuer_spends_no_token() -> None:
    office = open_office(an_issuer(issuer_ttl=DAY))
    entry = office.entry()
    office.clock.now += 2 * DAY
    proof = office.token(entry)
    with pytest.raises(IssuerUnusable):
        trio.run(office.authority.enrol, office.csr, proof)
    found = office.store.token(hash_token(proof.token))
    assert found is not None
    assert found.used_at is None


@in_trio
async def test_many_at_once_share_commits_and_all_are_recorded() -> None:
    office = open_office()
    entry = office.entry()
    key, issued = office.key(entry), set[str]()

    async def enrol() -> None:
        done = await office.authority.enrol(office.csr, office.answer(entry.id, key))
        assert office.store.issuance(f"{done.leaf.serial_number:x}") is not None
        issued.add(root_hash(done.leaf))

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(enrol)
    assert {line.certificate_sha256 for line in office.store.issuances(1000)} == issued
    assert sum(office.store.commits) == 60
    assert len(office.store.commits) <= 60


@in_trio
async def test_one_failed_commit_fails_all_who_shared_it_and_no_other() -> None:
    office = open_office()
    entry = office.entry()
    key, outcomes = office.key(entry), list[str]()

    async def enrol() -> None:
        try:
            await office.authority.enrol(office.csr, office.answer(entry.id, key))
            outcomes.append("issued")
        except StoreUnavailable:
            outcomes.append("failed")

    office.store.broken = True
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(enrol)
    office.store.broken = False
    await enrol()
    assert outcomes == ["failed"] * 10 + ["issued"]


@in_trio
async def test_whoever_is_cancelled_takes_nobody_along() -> None:
    office = open_office()
    entry = office.entry()
    key, done = office.key(entry), list[int]()

    async def enrol(number: int, scope: trio.CancelScope) -> None:
        with scope:
            await office.authority.enrol(office.csr, office.answer(entry.id, key))
            done.append(number)

    scopes = [trio.CancelScope() for _ in range(20)]
    async with trio.open_nursery() as nursery:
        for number, scope in enumerate(scopes):
            nursery.start_soon(enrol, number, scope)
        for turn in range(8):
            await trio.testing.wait_all_tasks_blocked() if turn == 0 else await trio.lowlevel.checkpoint()
            scopes[turn * 2].cancel()
    assert set(done) >= {number for number in range(20) if number % 2 or number >= 16}
    assert len(office.store.issuances(100)) >= len(done)


KILLED = """
import os, signal, sys, time
from pathlib import Path
import trio
from ca.authority import Authority
from ca.store.threads import StoreThreads
from tests.ca import office as kit

class Fatal(StoreThreads):
    async def record(self, issuance):
        if sys.argv[2] == "after":
            await super().record(issuance)
        os.kill(os.getpid(), signal.SIGKILL)

from ca.store.sqlite import SqliteStore
o = kit.open_office()
store = SqliteStore(Path(sys.argv[1]), create=True)
o.store = store
threads = Fatal(store)
o.threads = threads
o.authority = Authority(kit.DEMO, o.issuer, threads, o.bundles, o.clock)
entry = o.entry()
issued = trio.run(o.issue, entry)
print(issued.chain_pem.decode(), flush=True)
"""


@pytest.mark.parametrize(("when", "lines"), [("before", 0), ("after", 1)])
def test_killed_between_record_and_send_nothing_left_without_its_record(tmp_path: Path, when: str, lines: int) -> None:
    path = tmp_path / "ca.sqlite3"
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), when],
        capture_output=True, timeout=60, cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert ran.stdout == b""
    store = SqliteStore(path)
    assert len(store.issuances()) == lines
    store.close()
