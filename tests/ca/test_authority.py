"""Who gets a certificate, and who does not: each proof, each refusal, and the order of things."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.attest.enrolment_key import Challenges
from ca.attest.join_token import hash_token
from ca.attest.proof import KeyProof, TokenProof, parse_proof
from ca.bucket import Bucket
from ca.errors import (
    BadRequest,
    ClientCertificateNeeded,
    InvalidEntry,
    IssuerUnusable,
    ProofRefused,
    RenewalRefused,
    StoreUnavailable,
    TokenUsed,
    TooManyIssuances,
)
from ca.store.sqlite import SqliteStore
from certs.bundle import BundleSet, root_hash
from certs.csr import make_csr
from certs.enrolment import EnrolmentKey
from certs.errors import InvalidCsr
from certs.keys import new_key
from certs.svid import X509Svid
from certs.verify import verify_chain
from tests.ca.office import DAY, NOW, an_issuer, open_office, sha256
from tests.kit.trio_time import in_trio

OTHER_KEY = EnrolmentKey.generate()


# ---- the entry decides -------------------------------------------------------------------------------------------


def a_greedy_csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request that asks for everything that it has no business to ask for."""
    names = [
        x509.UniformResourceIdentifier("spiffe://demo.mesh/mesh/ca"),
        x509.UniformResourceIdentifier("spiffe://demo.mesh/ns/default/sa/admin"),
        x509.DNSName("admin.internal"),
    ]
    usage = x509.KeyUsage(True, True, True, True, True, True, True, False, False)
    return (
        x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")]))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


@in_trio
async def test_a_csr_decides_nothing_but_the_key() -> None:
    office = open_office()
    entry, key = office.entry("orders", "orders.internal", ttl=3600.0), new_key()
    csr = a_greedy_csr(key)
    issued = await office.authority.enrol(csr, office.answer(entry.id, office.key(entry), csr))
    svid = X509Svid.parse(issued.chain_pem, key)
    names = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [entry.spiffe_id.text, "orders.internal"]
    assert list(svid.leaf.subject) == []
    assert svid.not_after == NOW + 3600
    assert verify_chain(svid.chain, office.bundles.current, NOW) == entry.spiffe_id
    assert svid.chain[1] == office.issuer.certificate


@in_trio
async def test_every_certificate_has_its_line_in_the_log() -> None:
    office = open_office()
    entry = office.entry("orders", "a.b")
    issued = await office.issue(entry)
    [line] = office.store.issuances()
    assert line.serial == f"{issued.leaf.serial_number:x}"
    assert (line.entry, line.spiffe_id) == (entry.id, entry.spiffe_id.text)
    assert (line.dns_names, line.issued_at, line.proof) == (("a.b",), NOW, "enrolment_key")
    assert line.proof_detail == office.store.keys(entry.id)[0].key_id
    assert line.certificate_sha256 == sha256(issued.leaf)
    assert line.issuer_serial == office.issuer.serial
    assert (line.not_before, line.not_after) == (NOW - 60, NOW + DAY)


@in_trio
async def test_the_ca_serves_under_its_own_name_and_cannot_be_renewed_from_outside() -> None:
    office = open_office()
    svid = await office.authority.issue_own(new_key())
    assert svid.spiffe_id.text == "spiffe://demo.mesh/mesh/ca"
    assert office.store.issuances()[0].proof == "self"
    with pytest.raises(RenewalRefused, match="entry"):
        await office.authority.renew(office.csr, svid.chain)


BAD_CSRS = [
    b"",
    b"nonsense",
    make_csr(new_key())[:-1],
    make_csr(new_key())[:-1] + b"\0",
    make_csr(new_key()) + b"\0",
    b"\x30" * 20_000,
]


@pytest.mark.parametrize("csr", BAD_CSRS)
def test_a_csr_that_cannot_be_read_costs_no_token(csr: bytes) -> None:
    office = open_office()
    proof = office.token(office.entry())

    async def ask() -> None:
        with pytest.raises(InvalidCsr):
            await office.authority.enrol(csr, proof)

    trio.run(ask)
    assert office.store.issuances() == ()
    found = office.store.token(hash_token(proof.token))
    assert found is not None
    assert found.used_at is None


def test_a_weak_key_gets_nothing() -> None:
    office = open_office()
    weak = rsa.generate_private_key(65537, 1024)
    for key in (weak, ec.generate_private_key(ec.SECP256K1())):
        csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        with pytest.raises(InvalidCsr):
            trio.run(office.authority.enrol, csr, office.token(office.entry(f"a{id(key)}")))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 250), st.binary(min_size=1, max_size=4), st.integers(0, 4))
def test_a_damaged_csr_is_refused_or_is_still_the_same_key(at: int, junk: bytes, cut: int) -> None:
    good = make_csr(DAMAGE_KEY)
    damaged = good[:at] + junk + good[at + cut :]
    office = DAMAGE_OFFICE
    entry = office.store.entries()[0]

    async def ask() -> bytes | None:
        try:
            issued = await office.authority.enrol(damaged, office.answer(entry.id, DAMAGE_ENROLMENT, damaged))
        except InvalidCsr:
            return None
        return issued.chain_pem

    pem = trio.run(ask)
    if pem is not None:
        X509Svid.parse(pem, DAMAGE_KEY)


DAMAGE_KEY = new_key()
DAMAGE_OFFICE = open_office()
DAMAGE_ENROLMENT = DAMAGE_OFFICE.key(DAMAGE_OFFICE.entry())


# ---- join tokens -------------------------------------------------------------------------------------------------


@in_trio
async def test_a_join_token_buys_one_certificate_and_registers_its_key() -> None:
    office = open_office()
    entry, mine = office.entry(), EnrolmentKey.generate()
    proof = replace(office.token(entry), public_bytes=mine.public_bytes)
    issued = await office.authority.enrol(office.csr, proof)
    assert issued.spiffe_id == entry.spiffe_id
    with pytest.raises(TokenUsed, match="used already"):
        await office.authority.enrol(office.csr, proof)
    await office.authority.enrol(office.csr, office.answer(entry.id, mine))
    assert [line.proof for line in office.store.issuances()] == ["enrolment_key", "join_token"]
    assert office.store.keys(entry.id)[0].origin == "join_token"


@in_trio
async def test_of_many_sidecars_with_one_token_one_wins() -> None:
    office = open_office()
    token = office.token(office.entry())
    outcomes = list[str]()

    async def enrol() -> None:
        proof = replace(token, public_bytes=EnrolmentKey.generate().public_bytes)
        try:
            await office.authority.enrol(office.csr, proof)
            outcomes.append("won")
        except TokenUsed:
            outcomes.append("lost")

    async with trio.open_nursery() as nursery:
        for _ in range(25):
            nursery.start_soon(enrol)
    assert sorted(outcomes) == ["lost"] * 24 + ["won"]
    assert len(office.store.issuances()) == 1
    assert len(office.store.keys(office.store.entries()[0].id)) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [("unknown", "no such"), ("expired", "expired 1 s"), ("removed", "no such"), ("key known", "registered already")],
)
def test_a_token_that_does_not_hold(name: str, says: str) -> None:
    office = open_office()
    entry = office.entry()
    proof = office.token(entry, ttl=60.0)
    match name:
        case "unknown":
            proof = replace(proof, token="x" * 43)
        case "expired":
            office.clock.now += 61
        case "removed":
            office.store.remove_entry(entry.id, NOW)
        case "key known":
            proof = replace(proof, public_bytes=office.key(entry).public_bytes)
    with pytest.raises(ProofRefused, match=says) as refusal:
        trio.run(office.authority.enrol, office.csr, proof)
    assert proof.token not in str(refusal.value)
    assert office.store.issuances() == ()


def test_a_token_is_hashed_at_rest(tmp_path: Path) -> None:
    office = open_office()
    proof = office.token(office.entry())
    dump = "\n".join(office.store._db.iterdump())
    assert proof.token not in dump
    assert hash_token(proof.token) in dump
    assert proof.token not in repr(proof)


@pytest.mark.parametrize("ttl", [0.0, -1.0, 8 * DAY, float("inf"), float("nan")])
def test_a_token_lives_within_bounds(ttl: float) -> None:
    office = open_office()
    with pytest.raises(InvalidEntry):
        office.token(office.entry(), ttl)


# ---- enrolment keys ----------------------------------------------------------------------------------------------


@in_trio
async def test_an_enrolment_key_is_reusable_until_revoked() -> None:
    office = open_office()
    entry = office.entry()
    key = office.key(entry)
    for _ in range(3):
        await office.authority.enrol(office.csr, office.answer(entry.id, key))
    office.store.revoke_key(entry.id, office.store.keys(entry.id)[0].key_id, NOW)
    with pytest.raises(ProofRefused, match="no live enrolment key"):
        await office.authority.enrol(office.csr, office.answer(entry.id, key))


@in_trio
async def test_a_nonce_works_once_even_for_two_at_the_same_time() -> None:
    office = open_office()
    entry = office.entry()
    proof = office.answer(entry.id, office.key(entry))
    outcomes = list[str]()

    async def enrol() -> None:
        try:
            await office.authority.enrol(office.csr, proof)
            outcomes.append("won")
        except ProofRefused as error:
            outcomes.append(str(error))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(enrol)
    used = "the nonce has been used already; ask for another challenge"
    assert sorted(outcomes) == [used] * 9 + ["won"]


def test_a_signed_challenge_that_does_not_hold() -> None:
    office = open_office()
    orders, web = office.entry("orders"), office.entry("web")
    key, other = office.key(orders), office.key(web)
    good = office.answer(orders.id, key)
    elsewhere = open_office()
    table = [
        (office.answer(orders.id, OTHER_KEY), office.csr, "no live enrolment key"),
        (office.answer(orders.id, other), office.csr, "no live enrolment key"),
        (office.answer("nobody-1", key), office.csr, "no live enrolment key"),
        (good, make_csr(new_key()), "no live enrolment key"),
        (replace(good, signature=bytes(64)), office.csr, "no live enrolment key"),
        (replace(office.answer(web.id, key), entry=orders.id), office.csr, "for this entry"),
        (elsewhere.answer(orders.id, key, office.csr), office.csr, "not made by this CA"),
        (replace(good, nonce=""), office.csr, "nonce"),
        (replace(good, nonce="!" * 40), office.csr, "ask for a challenge"),
        (replace(good, nonce=good.nonce + "="), office.csr, "nonce"),
        (replace(good, nonce=good.nonce[:-1] + chr(ord(good.nonce[-1]) ^ 1)), office.csr, "nonce"),
    ]
    for proof, csr, says in table:
        with pytest.raises(ProofRefused, match=says):
            trio.run(office.authority.enrol, csr, proof)
    assert office.store.issuances() == ()
    trio.run(office.authority.enrol, office.csr, good)  # none of those used the good one up


@pytest.mark.parametrize("wait", [60.0, 3600.0, -62.0])
def test_a_challenge_holds_for_sixty_seconds(wait: float) -> None:
    office = open_office()
    entry = office.entry()
    proof = office.answer(entry.id, office.key(entry))
    office.clock.now += wait
    with pytest.raises(ProofRefused, match="older than 60 s"):
        trio.run(office.authority.enrol, office.csr, proof)


def test_open_challenges_take_no_room_and_answered_ones_leave_in_time() -> None:
    challenges = Challenges(b"secret")
    for number in range(1000):
        challenges.issue("orders-1", NOW, number.to_bytes(16, "big"))
    assert challenges._answered == {}
    for number in range(100):
        moment = NOW + number
        challenge = challenges.issue("orders-1", moment, number.to_bytes(16, "big"))
        challenges.answer("orders-1", challenge.nonce, moment)
    assert len(challenges._answered) <= 62


def test_a_removed_entry_enrols_nobody() -> None:
    office = open_office()
    entry = office.entry()
    key = office.key(entry)
    office.store.remove_entry(entry.id, NOW)
    again = office.entry()
    assert again.spiffe_id == entry.spiffe_id
    for name in (entry.id, again.id):
        with pytest.raises(ProofRefused):
            trio.run(office.authority.enrol, office.csr, office.answer(name, key))


# ---- renewal -----------------------------------------------------------------------------------------------------


@in_trio
async def test_renewal_takes_what_the_entry_says_now() -> None:
    office = open_office()
    entry = office.entry()
    first = await office.issue(entry)
    office.clock.now += DAY / 2
    second = await office.authority.renew(office.csr, office.chain(first))
    third = await office.authority.renew(office.csr, office.chain(second))
    assert third.spiffe_id == entry.spiffe_id
    line = office.store.issuances()[0]
    assert (line.proof, line.proof_detail) == ("renewal", f"{second.leaf.serial_number:x}")


def test_renewals_that_are_refused() -> None:
    office, stranger = open_office(), open_office()
    entry = office.entry()
    issued = trio.run(office.issue, entry)
    foreign = trio.run(stranger.issue, stranger.entry())
    unlogged_office = open_office(office.issuer)
    unlogged = trio.run(unlogged_office.issue, unlogged_office.entry())
    with pytest.raises(ClientCertificateNeeded):
        trio.run(office.authority.renew, office.csr, ())
    for chain, says in (
        (stranger.chain(foreign), "does not hold"),
        (unlogged_office.chain(unlogged), "no record"),
        ((office.issuer.certificate, office.issuer.root), "does not hold"),
    ):
        with pytest.raises(RenewalRefused, match=says):
            trio.run(office.authority.renew, office.csr, chain)
    office.clock.now += DAY + 1
    with pytest.raises(RenewalRefused, match="expired"):
        trio.run(office.authority.renew, office.csr, office.chain(issued))
    office.clock.now = NOW - 120
    with pytest.raises(RenewalRefused, match="not valid for another"):
        trio.run(office.authority.renew, office.csr, office.chain(issued))


def test_renewal_ends_with_the_entry_even_if_it_comes_back() -> None:
    office = open_office()
    entry = office.entry()
    issued = trio.run(office.issue, entry)
    office.store.remove_entry(entry.id, NOW)
    office.entry()
    with pytest.raises(RenewalRefused, match="was removed"):
        trio.run(office.authority.renew, office.csr, office.chain(issued))


def test_an_emptied_bundle_trusts_nobody() -> None:
    office = open_office()
    issued = trio.run(office.issue, office.entry())
    bundle = next(iter(office.bundles.current))
    office.bundles.publish(BundleSet((replace(bundle, roots=()),)))
    with pytest.raises(RenewalRefused):
        trio.run(office.authority.renew, office.csr, office.chain(issued))


# ---- limits, records, ends ---------------------------------------------------------------------------------------


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


# ---- proofs as JSON ----------------------------------------------------------------------------------------------

B32, B64 = "A" * 43 + "=", "A" * 86 + "=="
PROOFS: list[object] = [
    None,
    [],
    {},
    {"type": "svid"},
    {"type": ["join_token"]},
    {"type": "join_token"},
    {"type": "join_token", "token": "t"},
    {"type": "join_token", "token": 5, "enrolment_public_key": B32},
    {"type": "join_token", "token": "t" * 2000, "enrolment_public_key": B32},
    {"type": "join_token", "token": "t", "enrolment_public_key": "AAAA"},
    {"type": "join_token", "token": "t", "enrolment_public_key": B32 + "\n"},
    {"type": "enrolment_key", "entry": "e", "nonce": "n"},
    {"type": "enrolment_key", "entry": "e/e", "nonce": "n", "signature": B64},
    {"type": "enrolment_key", "entry": "e", "nonce": None, "signature": B64},
    {"type": "enrolment_key", "entry": "e", "nonce": "n", "signature": B32},
]


@pytest.mark.parametrize("document", PROOFS)
def test_what_is_no_proof(document: object) -> None:
    with pytest.raises(BadRequest):
        parse_proof(document)


def test_proofs_that_are_read() -> None:
    assert parse_proof({"type": "join_token", "token": "t", "enrolment_public_key": B32}) == TokenProof("t", bytes(32))
    document = {"type": "enrolment_key", "entry": "e", "nonce": "n", "signature": B64}
    assert parse_proof(document) == KeyProof("e", "n", bytes(64))
