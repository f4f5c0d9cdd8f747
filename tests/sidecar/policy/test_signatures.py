"""Signatures that are nearly right: the families of forgery that Project Wycheproof lists for JSON Web Signatures, made
anew with keys of our own over tokens that are good in every other respect.

Its file itself (C2SP/wycheproof, testvectors_v1/json_web_signature_test.json, 401 cases) signs texts that are no claims
of a token, and those are refused here before any signature is looked at.
"""

from __future__ import annotations

import hmac
from hashlib import sha256, sha384, sha512
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.policy.jwk import ALGORITHMS
from sidecar.policy.jwt import BadToken
from sidecar.policy.tokens import KeysWanted
from tests.kit.tokens import NOW, Shelf, Signer, key_set, listener, rsa_key

HASHES: Final = {"256": sha256, "384": sha384, "512": sha512}
OIDS: Final = {"256": b"\x01", "384": b"\x02", "512": b"\x03"}  # the last byte of 2.16.840.1.101.3.4.2.n
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
RSA: Final = Signer("RS256", key=rsa_key())


def judged(token: bytes, *signers: Signer | dict[str, Any]) -> str:
    """`ok`, or why not."""
    try:
        listener(Shelf(login=key_set(*signers))).judge([(b"authorization", b"Bearer " + token)], "", NOW)
    except BadToken as bad:
        return bad.reason
    except KeysWanted:
        return "keys wanted"
    return "ok"


# ---- RSA: what stands under the signature (RFC 8017 sections 8.2.2 and 9.2) ---------------------------------------


def info(digest: bytes, size: str = "256", *, null: bytes = b"\x05\x00", oid: bytes | None = None) -> bytes:
    """A DigestInfo."""
    name = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02" + (OIDS[size] if oid is None else oid)
    of = b"\x30" + bytes([len(name) + len(null)]) + name + null
    inner = of + b"\x04" + bytes([len(digest)]) + digest
    return b"\x30" + bytes([len(inner)]) + inner


def padded(
    body: bytes, *, kind: bytes = b"\x00\x01", fill: bytes = b"\xff", rest: bytes = b"", zero: bytes = b"\x00"
) -> bytes:
    """A block of 256 bytes."""
    return kind + fill * (256 - len(kind + zero + body + rest)) + zero + body + rest


def by_hand(block: bytes) -> bytes:
    """The RSA signature that opens to this block, by arithmetic."""
    numbers = rsa_key().private_numbers()
    modulus = numbers.public_numbers.n
    return pow(int.from_bytes(block, "big"), numbers.d, modulus).to_bytes(256, "big")


def swap(text: bytes, old: bytes, new: bytes) -> bytes:
    assert text.count(old) >= 1
    return text.replace(old, new, 1)


BLOCKS = {
    "short padding and the rest behind": lambda h: padded(b"", zero=b"")[:10] + b"\x00" + info(h) + bytes(194),
    "something behind it": lambda h: padded(info(h), rest=b"\x00"),
    "much behind it": lambda h: b"\x00\x01" + b"\xff" * 8 + b"\x00" + info(h) + b"\xaa" * 194,
    "zeros for padding": lambda h: padded(info(h), fill=b"\x00"),
    "one byte of padding is another": lambda h: swap(padded(info(h)), b"\xff\xff", b"\xff\xfe"),
    "block type 0": lambda h: padded(info(h), kind=b"\x00\x00"),
    "block type 2": lambda h: padded(info(h), kind=b"\x00\x02", fill=b"\xab"),
    "a first byte that is not zero": lambda h: padded(info(h), kind=b"\x01\x01"),
    "no zero in between": lambda h: padded(info(h), zero=b"\xff"),
    "no NULL": lambda h: padded(info(h, null=b"")),
    "a NULL with a byte": lambda h: padded(info(h, null=b"\x05\x01\x00")),
    "a NULL of another tag": lambda h: padded(info(h, null=b"\x04\x00")),
    "two NULLs": lambda h: padded(info(h, null=b"\x05\x00\x05\x00")),
    "the digest alone": lambda h: padded(h),
    "no digest": lambda _: padded(info(b"")),
    "half a digest": lambda h: padded(info(h[:16])),
    "a digest of another text": lambda _: padded(info(sha256(b"other").digest())),
    "the name of SHA-512": lambda h: padded(info(h, oid=b"\x03")),
    "a name without its end": lambda h: padded(info(h, oid=b"")),
    "a longer name": lambda h: padded(info(h, oid=b"\x01\x01")),
    "another tag for the whole": lambda h: padded(b"\x31" + info(h)[1:]),
    "a length in the long form": lambda h: padded(b"\x30\x81" + info(h)[1:]),
    "a length in two bytes": lambda h: padded(b"\x30\x82\x00" + info(h)[1:]),
    "a length without end": lambda h: padded(b"\x30\x80" + info(h)[2:] + b"\x00\x00"),
    "a length that is one too long": lambda h: padded(b"\x30\x32" + info(h)[2:]),
    "a length that is one too short": lambda h: padded(b"\x30\x30" + info(h)[2:]),
    "the digest in a BIT STRING": lambda h: padded(swap(info(h), b"\x04\x20", b"\x03\x20")),
    "the digest in the long form": lambda h: padded(b"\x30\x32" + swap(info(h)[2:], b"\x04\x20", b"\x04\x81\x20")),
    "a sequence around it": lambda h: padded(b"\x30\x33" + info(h)),
    "an element more": lambda h: padded(b"\x30\x33" + info(h)[2:] + b"\x05\x00"),
    "nothing": lambda _: padded(b""),
    "zero": lambda _: bytes(256),
    "one": lambda _: bytes(255) + b"\x01",
}  # fmt: skip


def test_a_block_that_is_right_verifies() -> None:
    token = Signed(lambda data: by_hand(padded(info(sha256(data).digest()))), "RS256")
    assert judged(token.bytes, RSA) == "ok"


@pytest.mark.parametrize("what", BLOCKS)
def test_a_padding_that_was_changed(what: str) -> None:
    token = Signed(lambda data: by_hand(BLOCKS[what](sha256(data).digest())), "RS256")
    assert judged(token.bytes, RSA) == "signature"


class Signed:
    """A good token with this signature."""

    def __init__(self, sign: Any, algorithm: str, kid: str = "a") -> None:
        outer = Signer("RS256", kid, rsa_key())
        outer.algorithm, outer.sign = algorithm, sign  # type: ignore[method-assign]
        self.bytes = outer.token()


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_numbers_that_are_no_signature_of_this_key(algorithm: str) -> None:
    signer = Signer(algorithm, key=rsa_key())
    modulus = rsa_key().private_numbers().public_numbers.n

    def beyond(data: bytes) -> bytes:
        return (int.from_bytes(signer.sign(data), "big") + modulus).to_bytes(257, "big")

    for change in (
        lambda data: b"\x00" + signer.sign(data), lambda data: signer.sign(data) + b"\x00",
        lambda data: signer.sign(data)[:-1], lambda data: signer.sign(data)[1:], beyond,
        lambda data: (modulus - int.from_bytes(signer.sign(data), "big")).to_bytes(256, "big"),
        lambda _: b"\x00", lambda _: bytes(256), lambda _: modulus.to_bytes(256, "big"),
    ):  # fmt: skip
        assert judged(Signed(change, algorithm).bytes, signer) == "signature"


@pytest.mark.parametrize(("salt", "mask", "good"), [(32, "256", True), (0, "256", False), (20, "256", False),
                                                    (48, "256", False), (32, "512", False)])  # fmt: skip
def test_pss_has_the_salt_and_the_mask_of_rfc_7518(salt: int, mask: str, good: bool) -> None:
    """RFC 7518 section 3.5: as long as the hash, and MGF1 with the same hash."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    of = {"256": hashes.SHA256(), "512": hashes.SHA512()}[mask]
    scheme = padding.PSS(padding.MGF1(of), salt)
    token = Signed(lambda data: rsa_key().sign(data, scheme, hashes.SHA256()), "PS256")
    assert judged(token.bytes, Signer("PS256", key=rsa_key())) == ("ok" if good else "signature")


# ---- ECDSA -------------------------------------------------------------------------------------------------------


def pair(r: int, s: int, size: int = 32) -> bytes:
    return (r % 256**size).to_bytes(size, "big") + (s % 256**size).to_bytes(size, "big")


def test_numbers_out_of_the_range_of_the_curve() -> None:
    signer = Signer()
    edges = (0, 1, ORDER - 1, ORDER, ORDER + 1, 2**256 - 1)
    for r in edges:
        for s in edges:
            assert judged(Signed(lambda _, r=r, s=s: pair(r, s), "ES256").bytes, signer) == "signature"


def test_the_same_numbers_in_another_form() -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    signer = Signer()

    def parts(data: bytes) -> tuple[int, int]:
        made = signer.sign(data)
        return int.from_bytes(made[:32], "big"), int.from_bytes(made[32:], "big")

    changes = (
        lambda data: encode_dss_signature(*parts(data)), lambda data: pair(*parts(data)[::-1]),
        lambda data: pair(*parts(data), 33), lambda data: pair(*parts(data), 48), lambda data: signer.sign(data)[:63],
        lambda data: signer.sign(data) + b"\x00", lambda data: signer.sign(data) * 2,
        lambda data: pair(parts(data)[0], parts(data)[1] + ORDER, 33), lambda data: signer.sign(sha256(data).digest()),
    )  # fmt: skip
    for change in changes:
        assert judged(Signed(change, "ES256").bytes, signer) == "signature"


def test_a_signature_with_leading_zeros_verifies() -> None:
    """One in 128 has a number that begins with a zero: readers that drop it refuse those."""
    signer = Signer()
    found = set()
    for number in range(600):
        token = signer.token(jti=str(number))
        assert judged(token, signer) == "ok"
        found.add(signer.sign(token)[0] == 0 or signer.sign(token)[32] == 0)
    assert True in found


def test_the_key_itself_is_no_secret_in_any_form() -> None:
    """RFC 8725 section 2.1: whoever knows the public key could sign by HMAC, if anybody took that."""
    for signer in (Signer(), RSA):
        public = signer.key.public_key()
        spki = PublicFormat.SubjectPublicKeyInfo
        forms = [public.public_bytes(encoding, spki) for encoding in (Encoding.PEM, Encoding.DER)]
        forms += [key_set(signer), signer.jwk().get("x", signer.jwk().get("n", "")).encode(), b""]
        for secret in forms:
            for size, hashed in HASHES.items():
                mac = Signed(lambda data, s=secret, h=hashed: hmac.digest(s, data, h), f"HS{size}")
                assert judged(mac.bytes, signer) == "algorithm"
                disguised = Signed(lambda data, s=secret, h=hashed: hmac.digest(s, data, h), signer.algorithm)
                assert judged(disguised.bytes, signer) == "signature"


@pytest.mark.parametrize("said", ALGORITHMS)
@pytest.mark.parametrize("signed", ALGORITHMS)
def test_each_algorithm_is_taken_for_itself_alone(said: str, signed: str) -> None:
    """Wycheproof's WrongPrimitive: every pair but the two names of Ed25519."""
    signer = Signer(signed, key=rsa_key() if signed[1] == "S" and signed[0] in "RP" else None)
    token = Signed(signer.sign, said).bytes
    same = said == signed or {said, signed} == {"EdDSA", "Ed25519"}
    assert (judged(token, signer.jwk(kid="a")) == "ok") is same


@pytest.mark.parametrize("member", [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": ["sign"]}, {"key_ops": []},
                                    {"alg": "RS384"}, {"alg": "RSA-OAEP"}, {"alg": None, "use": "tls"}])  # fmt: skip
def test_a_key_for_something_else(member: dict[str, Any]) -> None:
    other = Signer(kid="b")
    assert judged(RSA.token(), RSA.jwk(**member), other) in ("keys wanted", "algorithm")
