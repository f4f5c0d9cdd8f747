"""Signing requests: a public key whose private half the sender holds, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from certs.csr import MAX_CSR_BYTES, Csr, make_csr, parse_csr
from certs.errors import InvalidCsr
from certs.keys import new_key, public_bytes, why_not_issued

FIT: list[Any] = [
    new_key(),
    ec.generate_private_key(ec.SECP384R1()),
    ed25519.Ed25519PrivateKey.generate(),
    rsa.generate_private_key(65537, 2048),
]


@pytest.mark.parametrize("key", FIT)
def test_a_request_proves_a_key_and_carries_nothing_else(key: Any) -> None:
    der = make_csr(key)
    assert public_bytes(parse_csr(der).public_key) == public_bytes(key.public_key())
    raw = x509.load_der_x509_csr(der)
    assert (list(raw.subject), list(raw.extensions), list(raw.attributes)) == ([], [], [])


def test_what_a_request_asks_for_is_not_even_kept() -> None:
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    wish = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://demo.mesh/mesh/ca")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(wish, critical=True)
    request = request.add_extension(x509.BasicConstraints(True, None), critical=True)
    parsed = parse_csr(request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    assert Csr.__slots__ == ("public_key",)
    assert public_bytes(parsed.public_key) == public_bytes(key.public_key())


def test_rsa_keys_are_certified_up_to_4096_bits() -> None:
    """`openssl req -new -newkey rsa:8192`, kept: such a key takes half a minute to make. Verifiers still read them."""
    with pytest.raises(InvalidCsr, match="an RSA key of 8192 bits; 2048 to 4096 are certified"):
        parse_csr((Path(__file__).parent / "rsa8192.csr.der").read_bytes())
    assert why_not_issued(rsa.RSAPublicNumbers(65537, (1 << 4095) | 1).public_key()) is None
    assert "4097 bits" in str(why_not_issued(rsa.RSAPublicNumbers(65537, (1 << 4096) | 1).public_key()))
    assert "2047 bits" in str(why_not_issued(rsa.RSAPublicNumbers(65537, (1 << 2046) | 1).public_key()))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (rsa.generate_private_key(65537, 1024), "1024 bits"),
        (ec.generate_private_key(ec.SECP521R1()), "secp521r1"),
        (ec.generate_private_key(ec.SECP256K1()), "secp256k1"),
        (dsa.generate_private_key(2048), "DSAPublicKey"),
    ],
)
def test_a_key_that_may_not_carry_an_identity_is_refused(key: Any, words: str) -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    with pytest.raises(InvalidCsr, match=words):
        parse_csr(request.public_bytes(Encoding.DER))


def test_ed448_is_refused() -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    with pytest.raises(InvalidCsr, match="Ed448"):
        parse_csr(request.sign(ed448.Ed448PrivateKey.generate(), None).public_bytes(Encoding.DER))


@pytest.mark.parametrize("key", FIT)
def test_a_request_not_signed_by_its_own_key_is_refused(key: Any) -> None:
    der = bytearray(make_csr(key))
    der[-1] ^= 1
    with pytest.raises(InvalidCsr):
        parse_csr(bytes(der))


def test_a_request_with_somebody_elses_public_key_is_refused() -> None:
    thief, owner = new_key(), new_key()
    theirs, ours = public_bytes(thief.public_key()), public_bytes(owner.public_key())
    der = make_csr(thief)
    assert der.count(theirs) == 1
    with pytest.raises(InvalidCsr, match="not signed by its own key"):
        parse_csr(der.replace(theirs, ours))


def test_a_request_signed_in_a_way_that_nobody_knows_is_refused() -> None:
    der = make_csr(new_key())
    ecdsa_sha256, unknown = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d04037f")
    with pytest.raises(InvalidCsr, match="not signed by its own key"):
        parse_csr(der.replace(ecdsa_sha256, unknown))


def test_a_request_for_a_curve_that_nobody_knows_is_refused() -> None:
    p256, unknown = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f")
    with pytest.raises(InvalidCsr, match="not a PKCS #10"):
        parse_csr(make_csr(new_key()).replace(p256, unknown))


@pytest.mark.parametrize("der", [b"", b"\x30", b"x" * 100, make_csr(new_key()) + b"\0", make_csr(new_key())[:-1]])
def test_what_is_no_request_is_refused(der: bytes) -> None:
    with pytest.raises(InvalidCsr, match="not a PKCS #10"):
        parse_csr(der)


def test_pem_is_refused() -> None:
    pem = x509.load_der_x509_csr(make_csr(new_key())).public_bytes(Encoding.PEM)
    with pytest.raises(InvalidCsr):
        parse_csr(pem)


def test_a_request_too_large_is_refused_unread() -> None:
    with pytest.raises(InvalidCsr, match=f"at most {MAX_CSR_BYTES}"):
        parse_csr(b"\x30" * (MAX_CSR_BYTES + 1))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_our_own_error(data: bytes) -> None:
    with pytest.raises(InvalidCsr):
        parse_csr(data)


@pytest.mark.parametrize("key", FIT)
@pytest.mark.parametrize("flip", [0x01, 0x04, 0x80])
def test_no_byte_of_a_request_can_be_changed_to_get_another_key(key: Any, flip: int) -> None:
    der = make_csr(key)
    for place in range(len(der)):
        changed = bytearray(der)
        changed[place] ^= flip
        try:
            parsed = parse_csr(bytes(changed))
        except InvalidCsr:
            continue
        assert public_bytes(parsed.public_key) == public_bytes(key.public_key())
