"""The denylist as a receiver reads it: whose signature counts, what must never replace what, and whom it denies."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.bundle import BundleSet
from certs.denylist import KIND, MAX_PAYLOAD_BYTES, STALE_SECONDS, Denylist
from certs.signed import InvalidStatement, Statement, is_signed
from certs.spiffe import TrustDomain
from tests.kit.identities import NOW, Authority, a_bundle_set, a_root, an_issuer, an_svid

DEMO = TrustDomain.parse("demo.mesh")
ORDERS, WEB = DEMO.id("ns", "default", "sa", "orders"), DEMO.id("ns", "default", "sa", "web")
ROOT = a_root()
ISSUER = an_issuer(ROOT)
BUNDLES = a_bundle_set(ROOT)
LIST = Denylist(DEMO, 7, NOW, frozenset({"a1", "b2"}), frozenset({ORDERS}), frozenset({"c3"}))


def document(listed: Denylist = LIST, signer: Authority = ISSUER) -> dict[str, Any]:
    return listed.sign(signer.key, (signer.certificate,)).to_json()


def opened(
    found: object, now: float | None = NOW, last: Denylist | None = None, bundles: BundleSet = BUNDLES
) -> Denylist:
    return Denylist.open(json.loads(json.dumps(found)), DEMO, bundles, now, last)


def refused(found: object, reason: str, **options: Any) -> None:
    with pytest.raises(InvalidStatement) as caught:
        opened(found, **options)
    assert caught.value.reason == reason, caught.value


def test_there_and_back() -> None:
    assert opened(document()) == LIST
    assert opened(document(Denylist(DEMO, 1, NOW))) == Denylist(DEMO, 1, NOW)
    assert LIST.payload() == LIST.payload()
    assert (len(LIST), bool(Denylist(DEMO, 1, NOW))) == (4, True)


def test_whom_it_denies() -> None:
    table = [
        (ORDERS, "ff", (), "spiffe_id"),
        (WEB, "a1", (), "serial"),
        (WEB, "ff", ("c3",), "issuer"),
        (WEB, "ff", ("a1",), None),  # a leaf's serial says nothing of an issuer's
        (WEB, "c3", (), None),
        (WEB, "ff", (), None),
        (TrustDomain.parse("other.mesh").id("ns", "default", "sa", "orders"), "a1", ("c3",), None),
    ]
    for spiffe_id, serial, issuers, why in table:
        assert LIST.denies(spiffe_id, serial, issuers) == why
    svid = an_svid(ISSUER, "web")
    assert LIST.denies_chain(svid.spiffe_id, svid.chain) is None
    denied = replace(LIST, serials=frozenset({svid.serial}))
    assert denied.denies_chain(svid.spiffe_id, svid.chain) == "serial"
    above = replace(LIST, issuers=frozenset({f"{svid.chain[1].serial_number:x}"}))
    assert above.denies_chain(svid.spiffe_id, svid.chain) == "issuer"


def test_the_sequence_never_falls_and_an_older_copy_changes_nothing() -> None:
    assert opened(document(), last=LIST) == LIST
    newer = replace(LIST, sequence=8, at=NOW - 50)
    assert opened(document(newer), last=LIST) == newer
    again = replace(LIST, at=NOW + 60)
    assert opened(document(again), last=LIST) == again
    refused(document(replace(LIST, sequence=6, at=NOW + 60)), "lower_sequence", last=LIST)
    refused(document(replace(LIST, at=NOW - 1)), "older", last=LIST)


def test_only_a_ca_of_the_own_trust_domain_signs() -> None:
    other_root = a_root(trust_domain="other.mesh")
    other = an_issuer(other_root)
    stranger = an_issuer(a_root())
    refused(document(signer=stranger), "unknown_root")
    refused(document(signer=other), "unknown_root")
    refused(document(signer=other), "unknown_root", bundles=a_bundle_set(ROOT, other_root))
    refused(document(), "no_bundle", bundles=BundleSet(()))
    refused(document(replace(LIST, trust_domain=other.trust_domain, spiffe_ids=frozenset())), "wrong_trust_domain")
    svid = an_svid(ISSUER, "web")
    leaf = LIST.sign(svid.key, svid.chain).to_json()
    refused(leaf, "signer_is_ca")
    no_crl = an_issuer(ROOT, key_usage=("key_cert_sign",))
    refused(document(signer=no_crl), "signer_crl_sign")


def test_a_signer_is_judged_at_the_time_that_is_told() -> None:
    late = ISSUER.certificate.not_valid_after_utc.timestamp() + 1
    refused(document(), "expired", now=late)
    assert opened(document(), now=None) == LIST  # our own copy on disk: when it was signed
    refused(document(replace(LIST, at=late)), "expired", now=None)


def test_a_revoked_issuing_ca_signs_nothing_more() -> None:
    serial = f"{ISSUER.certificate.serial_number:x}"
    denying = replace(LIST, issuers=frozenset({serial}))
    refused(document(denying), "signer_denied")
    refused(document(replace(LIST, sequence=9)), "signer_denied", last=denying)
    successor = an_issuer(ROOT)
    assert opened(document(denying, successor)) == denying


def test_every_byte_of_the_payload_is_under_the_signature() -> None:
    statement = LIST.sign(ISSUER.key, (ISSUER.certificate,))
    for payload in (statement.payload.replace(b"a1", b"a2"), statement.payload + b" ", LIST.payload()[:-1] + b" }"):
        assert not is_signed(KIND, payload, statement.signature, ISSUER.key.public_key())
        refused(replace(statement, payload=payload).to_json(), "bad_signature")
    refused(Statement.sign("log-head", LIST.payload(), ISSUER.key, (ISSUER.certificate,)).to_json(), "bad_signature")


PAYLOADS = [
    ("sequence", -1), ("sequence", "7"), ("sequence", True), ("sequence", 1.5), ("sequence", None),
    ("at", "now"), ("at", True), ("at", -1), ("at", 1e13), ("at", None),
    ("serials", None), ("serials", "a1"), ("serials", [1]), ("serials", ["A1"]), ("serials", ["0a1"]),
    ("serials", [""]), ("serials", ["a1", "a1"]), ("serials", ["f" * 41]), ("serials", ["a1\n"]), ("issuers", ["x"]),
    ("issuers", {}),
    ("spiffe_ids", ["orders"]), ("spiffe_ids", ["spiffe://demo.mesh"]), ("spiffe_ids", ["spiffe://other.mesh/x"]),
    ("spiffe_ids", [None]), ("trust_domain", 1), ("trust_domain", None), ("trust_domain", "Demo mesh"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), PAYLOADS, ids=[f"{name}={value}" for name, value in PAYLOADS])
def test_a_signed_payload_of_another_shape_is_refused(name: str, value: object) -> None:
    payload = json.dumps({**json.loads(LIST.payload()), name: value}).encode()
    refused(Statement.sign(KIND, payload, ISSUER.key, (ISSUER.certificate,)).to_json(), "malformed")


def test_other_payloads_that_are_no_list() -> None:
    deep, long = b"[" * 100_000, b" " * (1 + MAX_PAYLOAD_BYTES)
    for payload in (b"", b"[]", b"{", b"\xff", b'{"sequence":1,"sequence":2}', deep, long):
        refused(Statement.sign(KIND, payload, ISSUER.key, (ISSUER.certificate,)).to_json(), "malformed")


ENVELOPES: list[object] = [
    None, [], "x", {}, {"payload": "", "signature": ""}, {**document(), "signer": []}, {**document(), "signer": ["!"]},
    {**document(), "signer": [1]}, {**document(), "signer": document()["signer"] * 10}, {**document(), "payload": 1},
    {**document(), "payload": "%"}, {**document(), "signature": None}, {**document(), "signer": "x"},
    {**document(), "signer": [base64.b64encode(b"no certificate").decode()]}, {**document(), "payload": "ü"},
]  # fmt: skip


@pytest.mark.parametrize("found", ENVELOPES, ids=range(len(ENVELOPES)))
def test_an_envelope_that_cannot_be_read_is_refused(found: object) -> None:
    refused(found, "malformed")


@given(place=st.integers(0, 4000), bit=st.integers(0, 7))
def test_damage_to_any_byte_is_our_own_error_or_changes_nothing(place: int, bit: int) -> None:
    raw = bytearray(json.dumps(document()).encode())
    raw[place % len(raw)] ^= 1 << bit
    try:
        found = json.loads(raw)
    except ValueError:
        return
    try:
        assert Denylist.open(found, DEMO, BUNDLES, NOW, None) == LIST
    except InvalidStatement:
        pass


def test_a_list_that_grew_too_long_is_not_sent() -> None:
    with pytest.raises(ValueError, match="has grown"):
        Denylist(DEMO, 1, NOW, frozenset(f"f{number:038x}" for number in range(30_000))).payload()


def test_its_age() -> None:
    assert not LIST.is_stale(NOW + STALE_SECONDS)
    assert LIST.is_stale(NOW + STALE_SECONDS + 1)
