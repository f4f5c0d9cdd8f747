"""Key sets: what verifies tokens is taken, what is for something else is left out, what cannot be a set is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from certs.keys import public_bytes
from sidecar.policy.jwk import MAX_KEYS, MAX_SET_BYTES, BadKeySet, KeySet, algorithms_of
from tests.kit.tokens import Signer, key_set, rsa_key

GOOD = Signer()
EC, RSA, ED = GOOD.jwk(), Signer("RS256", kid="r").jwk(), Signer("EdDSA", kid="e").jwk()


def taken(entry: Any) -> bool:
    """Whether this entry, beside a good one, is taken."""
    return len(KeySet.parse(json.dumps({"keys": [entry, Signer(kid="z").jwk()]}).encode()).keys) == 2


@pytest.mark.parametrize(
    ("entry", "good"),
    [
        (EC, True), (RSA, True), (ED, True), (Signer("ES384").jwk(), True), (Signer("ES512").jwk(), True),
        ({**EC, "use": "enc"}, False), ({**EC, "use": 1}, False), ({**EC, "key_ops": ["sign"]}, False),
        ({**EC, "key_ops": ["verify", "sign"]}, True), ({**EC, "key_ops": "verify"}, False),
        ({**EC, "alg": "ES384"}, False), ({**EC, "alg": "none"}, False), ({**EC, "alg": ["ES256"]}, False),
        ({**RSA, "alg": "HS256"}, False), ({**RSA, "alg": "PS512"}, True),
        ({**EC, "d": "AAAA"}, False), ({**RSA, "d": ""}, False),
        ({**EC, "kid": 7}, False), ({**EC, "kid": "k" * 257}, False),
        ({**EC, "x": EC["y"]}, False), ({**EC, "x": EC["x"] + "="}, False), ({**EC, "x": EC["x"][:-2]}, False),
        ({**EC, "x": None}, False), ({**EC, "x": 5}, False), ({**EC, "crv": "P-521"}, False),
        ({**EC, "crv": "secp256k1"}, False), ({**EC, "crv": ["P-256"]}, False), ({**EC, "kty": "RSA"}, False),
        ({**RSA, "e": "AQ"}, False), ({**RSA, "e": RSA["n"]}, False), ({**RSA, "e": "Ag"}, False),
        ({**RSA, "n": "AQAB"}, False), ({**RSA, "n": "AA" + RSA["n"]}, False), ({**RSA, "n": "_" * 20000}, False),
        ({**ED, "x": "AAAA"}, False), ({**ED, "crv": "X25519"}, False), ({**ED, "crv": "Ed448"}, False),
        ({"kty": "oct", "k": "AAAA", "kid": "o", "alg": "HS256"}, False), ({}, False), ([], False), (None, False),
        ("key", False), (Signer("RS256", key=rsa_key(1024)).jwk(), False),
    ],
)  # fmt: skip
def test_which_entries_can_verify_a_token(entry: Any, good: bool) -> None:
    assert taken(entry) is good


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b'{"keys":{}}', b'{"keys":null}', b'{"keys":[]}', b'{"keys":[{}]}', b"\xff",
        b"<html>",
        b'{"keys":[],"keys":[]}', b'{"keys":NaN}', b"[" * 100_000, b'{"keys":[' + b"9" * 10_000 + b"]}",
        key_set(*[EC] * (MAX_KEYS + 1)), b" " * (MAX_SET_BYTES + 1), key_set({**EC, "use": "enc"}),
    ],
)  # fmt: skip
def test_what_is_no_set_or_has_no_key_for_us_is_refused(data: bytes) -> None:
    with pytest.raises(BadKeySet):
        KeySet.parse(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_set_or_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(BadKeySet):
        KeySet.parse(data)


MEMBERS = st.sampled_from([*EC, *RSA, "d", "alg", "key_ops"])
PLAIN = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(PLAIN, lambda each: st.lists(each, max_size=4) | st.dictionaries(MEMBERS, each, max_size=8)))
def test_an_entry_of_any_shape_is_left_out(entry: Any) -> None:
    assert not taken(entry)


def test_what_is_kept_is_equal_for_equal_sets_and_reads_the_same_again() -> None:
    first = KeySet.parse(key_set({**EC, "x5c": ["A" * 4000], "more": 1}, {"kty": "oct"}))
    again = KeySet.parse(first.document)
    assert (first.left_out, again.left_out) == (1, 0)
    assert first.document == again.document == KeySet.parse(key_set(EC)).document
    assert again.find("a", "ES256")
    assert b"x5c" not in first.document


def test_of_spki_takes_what_a_bundle_has() -> None:
    keys = KeySet.of_spki([("a", public_bytes(GOOD.key.public_key()))])
    assert [key.kid for key in keys.find("a", "ES256")] == ["a"]
    with pytest.raises(BadKeySet):
        KeySet.of_spki([])


def test_what_no_algorithm_is_for() -> None:
    assert algorithms_of(ec.generate_private_key(ec.SECP256K1()).public_key()) == ()
    assert algorithms_of("a text") == ()
    assert algorithms_of(rsa.generate_private_key(65537, 1024).public_key()) == ()
