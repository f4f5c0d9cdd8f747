"""PKCS #8 encryption (RFC 5958, PBES2 of RFC 8018) with as many rounds as we say, in the standard's own format.

`cryptography` writes encrypted PKCS #8 with OpenSSL's default of 2,048 rounds, which a graphics card tries by the
million; it reads any number. So the container is written here, a dozen lines of DER around `cryptography`'s own PBKDF2
and AES: whatever reads PKCS #8 (openssl, another library) reads these files, and files from before stay readable.
"""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

SALT_BYTES = 16  # NIST SP 800-132 section 5.1: at least 128 bits
_BLOCK = 16

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("06082a864886f70d0209")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_NULL = b"\x05\x00"


def encrypt_pkcs8(der: bytes, passphrase: bytes, rounds: int) -> bytes:
    """PEM of an encrypted PKCS #8 key: PBKDF2-HMAC-SHA-256 with so many rounds, AES-256-CBC."""
    salt, iv = os.urandom(SALT_BYTES), os.urandom(_BLOCK)
    secret = PBKDF2HMAC(hashes.SHA256(), 32, salt, rounds).derive(passphrase)
    padder, encryptor = padding.PKCS7(8 * _BLOCK).padder(), Cipher(algorithms.AES(secret), modes.CBC(iv)).encryptor()
    body = encryptor.update(padder.update(der) + padder.finalize()) + encryptor.finalize()
    stretching = _sequence(_PBKDF2, _sequence(_octets(salt), _integer(rounds), _sequence(_HMAC_SHA256, _NULL)))
    scheme = _sequence(_PBES2, _sequence(stretching, _sequence(_AES_256_CBC, _octets(iv))))
    text = base64.encodebytes(_sequence(scheme, _octets(body))).replace(b"\n", b"")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join((b"-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, b"-----END ENCRYPTED PRIVATE KEY-----", b""))


def _sequence(*parts: bytes) -> bytes:
    return _wrap(0x30, b"".join(parts))


def _octets(data: bytes) -> bytes:
    return _wrap(0x04, data)


def _integer(number: int) -> bytes:
    return _wrap(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _wrap(tag: int, content: bytes) -> bytes:
    """X.690 section 8.1: tag, definite length, content."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
