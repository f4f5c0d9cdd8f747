"""Private keys: made, encrypted, loaded, and judged for strength.

A workload's key is ECDSA on P-256 unless its configuration says otherwise, made where it is used and kept in memory.
Keys that rest on disk (a CA's) are PKCS #8 PEM, encrypted with a passphrase, in files that nobody else may read.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from certs.errors import KeyUnavailable, PrivateFileUnavailable
from certs.keywrap import encrypt_pkcs8
from certs.store import read_private, write_private

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

KEY_KINDS = ("p256", "p384", "ed25519", "rsa3072")  # the first is the default: small, quick, and read by everybody
KDF_ROUNDS = 600_000  # OWASP's figure for PBKDF2-HMAC-SHA-256; a quarter of a second for each key that is opened
RANDOM_KDF_ROUNDS = 2048  # enough for a passphrase of 256 random bits, which nobody can guess however cheap a try is
MIN_RSA_BITS = 2048  # NIST SP 800-57 part 1: 112 bits of strength; also the floor of the CA/Browser Forum
MAX_RSA_BITS = 8192  # a larger modulus is no stronger in practice, and lets a stranger make us work
MAX_ISSUED_RSA_BITS = 4096  # the largest that the CA certifies: 8192 bits cost each peer's handshake 20 times as much
_CURVES = ("secp256r1", "secp384r1")


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh ECDSA key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def make_key(kind: str = KEY_KINDS[0]) -> PrivateKey:
    """A fresh key of one of KEY_KINDS. Raises KeyUnavailable for any other."""
    match kind:
        case "p256":
            return new_key()
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "rsa3072":
            return rsa.generate_private_key(65537, 3072)
    raise KeyUnavailable(f"no keys of kind {kind!r} are made here; there are {', '.join(KEY_KINDS)}")


def why_unfit(key: object) -> str | None:
    """Why this public key may not carry an identity or sign one; None where it may (P-256, P-384, Ed25519, RSA)."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return None if key.curve.name in _CURVES else f"curve {key.curve.name}; only P-256 and P-384 are accepted"
    if isinstance(key, rsa.RSAPublicKey):
        if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            return None
        return f"an RSA key of {key.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted"
    return f"a key of type {type(key).__name__.removeprefix('_')}; only ECDSA, Ed25519 and RSA are accepted"


def why_not_issued(key: object) -> str | None:
    """Why the CA certifies no such public key; None where it does. Narrower than what may come from elsewhere."""
    if isinstance(key, rsa.RSAPublicKey) and MAX_ISSUED_RSA_BITS < key.key_size <= MAX_RSA_BITS:
        return f"an RSA key of {key.key_size} bits; {MIN_RSA_BITS} to {MAX_ISSUED_RSA_BITS} are certified"
    return why_unfit(key)


def public_bytes(key: PublicKey) -> bytes:
    """The DER SubjectPublicKeyInfo: equal for equal keys."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_to_pem(key: PrivateKey, passphrase: bytes | None, rounds: int | None = None) -> bytes:
    """PKCS #8 PEM, encrypted with the passphrase, in the clear only where None says so. Raises KeyUnavailable.

    The passphrase is stretched with so many rounds of PBKDF2-HMAC-SHA-256, KDF_ROUNDS where it is not said.
    """
    if passphrase is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not passphrase:
        raise KeyUnavailable("the passphrase is empty")
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encrypt_pkcs8(der, passphrase, KDF_ROUNDS if rounds is None else rounds)


def parse_key(pem: bytes, passphrase: bytes | None, what: str = "the key") -> PrivateKey:
    """Read a PEM private key fit to carry an identity. `what` names it in messages. Raises KeyUnavailable.

    A passphrase for a key that is not encrypted is refused too: whoever gave it believes that the key is protected.
    """
    if passphrase is not None and not passphrase:
        raise KeyUnavailable(f"the passphrase for {what} is empty")
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError:
        why = "is encrypted and no passphrase was given" if passphrase is None else "is not encrypted, yet should be"
        raise KeyUnavailable(f"{what} {why}") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyUnavailable(f"{what} cannot be read: wrong passphrase, or not a PEM private key") from error
    if not isinstance(key, PrivateKey):
        raise KeyUnavailable(f"{what} is {why_unfit(key.public_key())}")
    unfit = why_unfit(key.public_key())
    if unfit is not None:
        raise KeyUnavailable(f"{what} is {unfit}")
    return key


def load_key(path: Path, passphrase: bytes | None) -> PrivateKey:
    """Read a private key from a file that nobody else may read (blocks on disk). Raises KeyUnavailable."""
    try:
        pem = read_private(path)
    except PrivateFileUnavailable as error:
        raise KeyUnavailable(str(error)) from error
    return parse_key(pem, passphrase, str(path))


def save_key(path: Path, key: PrivateKey, passphrase: bytes | None, rounds: int | None = None) -> None:
    """Write a private key atomically, 0600, encrypted unless the passphrase is None. Raises KeyUnavailable, OSError."""
    write_private(path, key_to_pem(key, passphrase, rounds))
