"""Detached signatures: who signed is believed by the key that one brings, and a changed document is found out."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.detached import BadSignature, canonical, key_id, parse_public, sign, verify
from certs.jwk import decode_base64url, encode_base64url
from certs.keys import make_key

DOCUMENT = {"b": [1, "ü", None, True], "a": {"z": 1, "y": "\u2028"}}


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa3072"])
def test_each_kind_of_key_signs_and_verifies(kind: str) -> None:
    key = make_key(kind)
    jws = sign(DOCUMENT, key)
    again = json.loads(json.dumps(DOCUMENT))
    verify(again, jws, key.public_key())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert key_id(parse_public(pem)) == json.loads(decode_base64url(jws.split(".")[0]))["kid"]
    with pytest.raises(BadSignature):
        verify(again | {"c": 1}, jws, key.public_key())
    with pytest.raises(BadSignature):
        verify(again, jws, make_key(kind).public_key())


def _other_header(jws: str, **changes: object) -> str:
    header = json.loads(decode_base64url(jws.split(".")[0])) | changes
    return f"{encode_base64url(canonical(header))}..{jws.split('.')[2]}"


def test_a_signature_of_another_kind_is_none() -> None:
    key = make_key("p256")
    jws = sign(DOCUMENT, key)
    head, _, signature = jws.split(".")
    for bad in (
        "", "..", "a..b", jws + ".x", f"{head}.e30.{signature}", f"{head}..{signature[:-4]}", "é..é",
        _other_header(jws, alg="none"), _other_header(jws, alg="HS256"), _other_header(jws, crit=["exp"]),
        f"{encode_base64url(b'[]')}..{signature}", "x" * 5000,
    ):  # fmt: skip
        with pytest.raises(BadSignature):
            verify(DOCUMENT, bad, key.public_key())


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", b"key"])
def test_what_is_no_key_is_refused(pem: bytes) -> None:
    with pytest.raises(BadSignature):
        parse_public(pem)
