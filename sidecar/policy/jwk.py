"""A key set of an issuer (RFC 7517): those of its public keys that may have signed a token, found by `kid` alone.

A set is read once, when it arrives, and so strictly that a verification has nothing left to doubt: each key knows the
algorithms that it is good for, by its kind (RFC 8725 section 3.1) and by its own `alg`, `use` and `key_ops`. An entry
that is not for this (another use, symmetric, too weak, unreadable) is left out and counted: issuers publish keys for
others too. A set with no key left is refused, and whoever asked keeps the one before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certs.jwk import decode_base64url
from certs.keys import MAX_RSA_BITS, MIN_RSA_BITS
from certs.strict_json import read

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

MAX_SET_BYTES: Final = 1 << 20  # of the largest issuers' sets none has 20 KiB
MAX_KEYS: Final = 100
MAX_MARKS: Final = 80 * MAX_KEYS  # commas and brackets of a set; a key has a dozen, with certificates two
MAX_KID: Final = 256  # characters
MAX_EXPONENT_BITS: Final = 32  # of an RSA key: verifying costs as much as this is long; everybody uses 65537
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, int, str]]] = {  # RFC 7518 section 3.4: curve, bytes, algorithm
    "P-256": (ec.SECP256R1(), 32, "ES256"),
    "P-384": (ec.SECP384R1(), 48, "ES384"),
    "P-521": (ec.SECP521R1(), 66, "ES512"),
}
_MEMBERS: Final = ("kid", "kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops")
_ED25519: Final = ("EdDSA", "Ed25519")  # RFC 8037 section 3.1, and its fully specified name of RFC 9864
ALGORITHMS: Final = ("ES256", "ES384", "ES512", *_RSA, *_ED25519)  # every one that exists here; never HMAC or `none`


class BadKeySet(ValueError):
    """A key set that cannot be used. Its text is for the operator."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key, and the algorithms by which it may have signed."""

    kid: str  # empty where it has none
    algorithms: frozenset[str]
    public: PublicKey


@dataclass(frozen=True)
class KeySet:
    """One generation of an issuer's keys."""

    keys: tuple[Key, ...]
    left_out: int = 0  # entries that cannot verify a token here
    document: bytes = field(default=b"", repr=False)  # those that can, as a JWK Set again: equal for equal sets
    _by_kid: dict[str, tuple[Key, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_kid: dict[str, tuple[Key, ...]] = {}
        for key in self.keys:
            by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
        object.__setattr__(self, "_by_kid", by_kid)

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
        """The keys of this `kid` that are good for this algorithm; all that are where a token names none."""
        candidates = self.keys if kid is None else self._by_kid.get(kid, ())
        return tuple(key for key in candidates if algorithm in key.algorithms)

    def knows(self, kid: str) -> bool:
        """Whether any key goes by this `kid`."""
        return kid in self._by_kid

    @classmethod
    def of_spki(cls, keys: Iterable[tuple[str, bytes]]) -> KeySet:
        """The set of these keys, each with its `kid` and its SubjectPublicKeyInfo in DER. Raises BadKeySet."""
        found = []
        for kid, der in keys:
            public = load_der_public_key(der)
            if able := algorithms_of(public):
                found.append(Key(kid, frozenset(able), public))  # type: ignore[arg-type]  # it is able to verify
        if not found:
            raise BadKeySet("it has no key of JWT-SVIDs")
        return cls(tuple(found))

    @classmethod
    def parse(cls, data: bytes) -> KeySet:
        """Read a JWK Set. Takes up to 20 ms, in pieces of a few: for a thread. Raises BadKeySet."""
        if len(data) > MAX_SET_BYTES:
            raise BadKeySet(f"the key set is larger than {MAX_SET_BYTES} bytes")
        try:
            document = read(data, most_marks=MAX_MARKS)
        except ValueError:
            raise BadKeySet("the key set is not JSON, names a member twice, or has far too many") from None
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise BadKeySet("the key set has no list `keys`")
        if len(entries) > MAX_KEYS:
            raise BadKeySet(f"the key set has {len(entries)} keys; at most {MAX_KEYS} are read")
        found = [(key, entry) for entry in entries if (key := _read(entry)) is not None]
        if not found:
            raise BadKeySet(f"none of its {len(entries)} keys can verify a token here")
        kept = [{name: entry[name] for name in _MEMBERS if name in entry} for _, entry in found]
        document = json.dumps({"keys": kept}, separators=(",", ":")).encode("ascii")
        return cls(tuple(key for key, _ in found), len(entries) - len(found), document)


def algorithms_of(public: object) -> tuple[str, ...]:
    """What a public key may sign by, of its kind; nothing where it is too weak, too large or unknown."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        return tuple(name for curve, _, name in _CURVES.values() if curve.name == public.curve.name)
    if isinstance(public, rsa.RSAPublicKey):
        bits, exponent = public.key_size, public.public_numbers().e
        fits = MIN_RSA_BITS <= bits <= MAX_RSA_BITS and exponent.bit_length() <= MAX_EXPONENT_BITS
        return _RSA if fits else ()
    return _ED25519 if isinstance(public, ed25519.Ed25519PublicKey) else ()


def _read(entry: object) -> Key | None:
    """The key of an entry; None for one that cannot verify a token here."""
    if not isinstance(entry, dict) or "d" in entry or not _is_for_verifying(entry):
        return None  # a private half in a public place: everybody may have signed by it
    kid = entry.get("kid", "")
    if not isinstance(kid, str) or len(kid) > MAX_KID:
        return None
    try:
        public = _public(entry)
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
        return None
    able: tuple[str, ...] = algorithms_of(public)
    if "alg" in entry:
        able = tuple(each for each in able if each == entry["alg"])
    return Key(kid, frozenset(able), public) if able else None


def _is_for_verifying(entry: Mapping[str, Any]) -> bool:
    """RFC 7517 sections 4.2 and 4.3: what the issuer itself says that the key is for."""
    if entry.get("use", "sig") not in ("sig", "jwt-svid"):  # the latter is SPIFFE's, in trust bundles
        return False
    operations = entry.get("key_ops", ["verify"])
    return isinstance(operations, list) and "verify" in operations


def _public(entry: Mapping[str, Any]) -> PublicKey:
    """Raises ValueError for what is no key, or of a kind that is not accepted."""
    kind, curve = entry.get("kty"), entry.get("crv")
    if kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        of, size, _ = _CURVES[curve]
        return ec.EllipticCurvePublicNumbers(_number(entry, "x", size), _number(entry, "y", size), of).public_key()
    if kind == "RSA":
        return rsa.RSAPublicNumbers(_number(entry, "e"), _number(entry, "n")).public_key()
    if kind == "OKP" and curve == "Ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(_bytes(entry, "x"))
    raise ValueError("not a kind of key that verifies tokens here")


def _number(entry: Mapping[str, Any], member: str, size: int = 0) -> int:
    data = _bytes(entry, member)
    if len(data) != size if size else (len(data) > MAX_RSA_BITS // 8 or not data[0]):
        raise ValueError(f"`{member}` is not a number as JWKs have it")
    return int.from_bytes(data, "big")


def _bytes(entry: Mapping[str, Any], member: str) -> bytes:
    value = entry.get(member)
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{member}` is missing")
    return decode_base64url(value)
