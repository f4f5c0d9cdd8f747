"""Join tokens, enrolment keys, and proofs as JSON: what holds, how often, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from ca.attest.enrolment_key import Challenges
from ca.attest.join_token import hash_token
from ca.attest.proof import KeyProof, TokenProof, parse_proof
from ca.errors import (
    BadRequest,
    InvalidEntry,
    ProofRefused,
    TokenUsed,
)
from certs.csr import make_csr
from certs.enrolment import EnrolmentKey
from certs.keys import new_key
from tests.ca.office import DAY, NOW, open_office
from tests.kit.trio_time import in_trio

OTHER_KEY = EnrolmentKey.generate()


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
