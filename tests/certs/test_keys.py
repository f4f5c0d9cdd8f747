"""Keys: made, kept encrypted, and refused when others could have read them or the passphrase is wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from certs.errors import KeyUnavailable, PrivateFileUnavailable
from certs.keys import PrivateKey, key_to_pem, load_key, new_key, parse_key, public_bytes, save_key, why_unfit
from tests.kit.tools import need

RSA = rsa.generate_private_key(65537, 2048)
FIT: list[Any] = [new_key(), ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), RSA]
UNFIT: list[tuple[Any, str]] = [
    (rsa.generate_private_key(65537, 1024), "RSA key of 1024 bits"),
    (ec.generate_private_key(ec.SECP521R1()), "secp521r1"),
    (ec.generate_private_key(ec.SECP256K1()), "secp256k1"),
    (ed448.Ed448PrivateKey.generate(), "Ed448PublicKey"),
    (dsa.generate_private_key(1024), "DSAPublicKey"),
]


def clear_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_a_new_key_is_on_p256_and_never_the_same() -> None:
    first, second = new_key(), new_key()
    assert first.curve.name == "secp256r1"
    assert public_bytes(first.public_key()) != public_bytes(second.public_key())


@pytest.mark.parametrize("key", FIT)
@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_that_was_saved_is_loaded_again(tmp_path: Path, key: Any, passphrase: bytes | None) -> None:
    assert why_unfit(key.public_key()) is None
    path = tmp_path / "ca.key"
    save_key(path, key, passphrase)
    assert public_bytes(load_key(path, passphrase).public_key()) == public_bytes(key.public_key())
    assert path.stat().st_mode & 0o7777 == 0o600


def test_an_encrypted_key_says_so_and_holds_nothing_in_the_clear() -> None:
    key = new_key()
    pem = key_to_pem(key, b"correct horse")
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert clear_pem(key).splitlines()[1] not in pem


@pytest.mark.parametrize(
    ("stored", "given", "words"),
    [
        (b"correct horse", b"wrong horse", "wrong passphrase"),
        (b"correct horse", b"", "is empty"),
        (None, b"", "is empty"),
        (b"correct horse", b"correct horse\n", "wrong passphrase"),
        (b"correct horse", None, "no passphrase was given"),
        (None, b"correct horse", "is not encrypted"),
    ],
)
def test_a_wrong_or_missing_passphrase_is_refused(
    tmp_path: Path, stored: bytes | None, given: bytes | None, words: str
) -> None:
    path = tmp_path / "ca.key"
    save_key(path, new_key(), stored)
    with pytest.raises(KeyUnavailable, match=words) as refusal:
        load_key(path, given)
    assert str(path) in str(refusal.value)
    assert "horse" not in str(refusal.value)


def test_an_empty_passphrase_encrypts_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="empty"):
        save_key(tmp_path / "ca.key", new_key(), b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622, 0o644, 0o666, 0o777, 0o610])
def test_a_key_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ca.key"
    save_key(path, new_key(), None)
    path.chmod(mode)
    with pytest.raises(KeyUnavailable, match=f"open to others .mode {mode:04o}.*chmod 600"):
        load_key(path, None)


def test_a_key_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="No such file"):
        load_key(tmp_path / "ca.key", None)
    assert issubclass(KeyUnavailable, PrivateFileUnavailable)


@pytest.mark.parametrize("pem", [b"", b"nothing", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(pem: bytes) -> None:
    with pytest.raises(KeyUnavailable, match="the key cannot be read"):
        parse_key(pem, None)


@pytest.mark.parametrize(("key", "words"), UNFIT)
def test_a_key_too_weak_or_too_strange_is_refused(key: Any, words: str) -> None:
    assert words in (why_unfit(key.public_key()) or "")
    with pytest.raises(KeyUnavailable, match=f"the test key is .*{words}"):
        parse_key(clear_pem(key), None, "the test key")


@pytest.mark.parametrize(("bits", "fit"), [(2047, False), (2048, True), (8192, True), (8193, False)])
def test_the_bounds_of_rsa(bits: int, fit: bool) -> None:
    key = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 1).public_key()
    assert (why_unfit(key) is None) is fit


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa"])
def test_keys_at_rest_are_standard_pkcs8_stretched_600_000_times(tmp_path: Path, kind: str) -> None:
    key: PrivateKey = {
        "p256": new_key,
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 3072),
    }[kind]()
    save_key(tmp_path / "ca.key", key, b"correct horse")
    assert public_bytes(load_key(tmp_path / "ca.key", b"correct horse").public_key()) == public_bytes(key.public_key())
    with pytest.raises(KeyUnavailable, match="wrong passphrase"):
        load_key(tmp_path / "ca.key", b"wrong horse")
    (tmp_path / "pass").write_bytes(b"correct horse")
    read = [need("openssl"), "pkey", "-in", "ca.key", "-passin", "file:pass", "-pubout", "-outform", "DER"]
    assert subprocess.run(read, cwd=tmp_path, check=True, capture_output=True).stdout == public_bytes(key.public_key())
    look = [need("openssl"), "asn1parse", "-in", "ca.key"]
    said = subprocess.run(look, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    for words in ("PBES2", "PBKDF2", f":{600_000:06X}", "hmacWithSHA256", "aes-256-cbc"):
        assert words in said


def test_files_from_before_stay_readable() -> None:
    key = new_key()
    old = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse"))
    assert public_bytes(parse_key(old, b"correct horse").public_key()) == public_bytes(key.public_key())


def test_equal_keys_do_not_look_equal_and_lengths_cross_every_der_boundary() -> None:
    key = new_key()
    assert key_to_pem(key, b"x", 1) != key_to_pem(key, b"x", 1)
    for rounds in (1, 127, 128, 255, 256, 32767, 32768, 65536):
        assert parse_key(key_to_pem(key, b"x", rounds), b"x") is not None
