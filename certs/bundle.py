"""Trust bundles: the roots that may vouch for one trust domain, as values and as SPIFFE's JWK Set.

A root change is plain union: a bundle holds the old and the new root for a while, and `sequence` grows at every change.
An empty bundle is a statement, not a mistake: trust nothing. The document is the one of
SPIFFE_Trust_Domain_and_Bundle.md section 4 and X509-SVID.md section 6.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.errors import InvalidBundle, InvalidSvid
from certs.spiffe import TrustDomain
from certs.svid import check_signer, parse_certificate

MAX_BUNDLE_BYTES = 1 << 20  # a root is about 1 KiB as JWK; nobody has a thousand of them
DEFAULT_REFRESH_SECONDS = 300  # SPIFFE_Trust_Domain_and_Bundle.md 4.1.2: without a hint, about five minutes

_KNOWN_KTY = ("EC", "RSA", "OKP")
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384"}


@dataclass(frozen=True)
class TrustBundle:
    """The roots of one trust domain. `sequence` grows at each change; `refresh_hint` is in seconds, None if unsaid."""

    trust_domain: TrustDomain
    roots: tuple[x509.Certificate, ...]
    sequence: int = 0
    refresh_hint: int | None = None

    @classmethod
    def parse_jwks(cls, trust_domain: TrustDomain, data: bytes) -> TrustBundle:
        """Read SPIFFE's JWK Set, skipping entries of unknown `kty` or `use`, else strictly. Raises InvalidBundle."""
        document = _parse_object(data)
        entries = document.get("keys")
        if not isinstance(entries, list):
            raise InvalidBundle("the bundle has no list `keys`")
        roots = [_parse_root(entry) for entry in entries if _is_x509_svid(entry)]
        sequence = _parse_count(document, "spiffe_sequence") or 0
        return cls(trust_domain, tuple(dict.fromkeys(roots)), sequence, _parse_count(document, "spiffe_refresh_hint"))

    def to_jwks(self) -> bytes:
        """The bundle as SPIFFE's JWK Set: compact JSON, the same bytes for the same bundle. Raises InvalidBundle."""
        document: dict[str, Any] = {"keys": [_jwk(root) for root in self.roots], "spiffe_sequence": self.sequence}
        if self.refresh_hint is not None:
            document["spiffe_refresh_hint"] = self.refresh_hint
        return json.dumps(document, separators=(",", ":")).encode()

    def to_pem(self) -> bytes:
        """The roots as concatenated PEM."""
        return b"".join(root.public_bytes(Encoding.PEM) for root in self.roots)

    def root_hashes(self) -> tuple[str, ...]:
        """SHA-256 of each root's DER, in lower-case hex: what an enrolment file pins (decision D15)."""
        return tuple(root_hash(root) for root in self.roots)


@dataclass(frozen=True)
class BundleSet:
    """The bundles of the trust domains that we know, at most one each."""

    bundles: tuple[TrustBundle, ...] = ()
    _by_domain: dict[TrustDomain, TrustBundle] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        by_domain = {bundle.trust_domain: bundle for bundle in self.bundles}
        if len(by_domain) != len(self.bundles):
            raise InvalidBundle("a trust domain has more than one bundle")
        object.__setattr__(self, "_by_domain", by_domain)

    @classmethod
    def of_all(cls, bundles: Iterable[TrustBundle]) -> BundleSet:
        """All of these. Raises InvalidBundle where two are of the same trust domain."""
        return cls(tuple(bundles))

    def of(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """The bundle of this trust domain, None where we have none."""
        return self._by_domain.get(trust_domain)

    def with_bundle(self, bundle: TrustBundle) -> BundleSet:
        """This set with the bundle in place of an older one of the same trust domain."""
        others = (known for known in self.bundles if known.trust_domain != bundle.trust_domain)
        return BundleSet((*others, bundle))

    def roots(self) -> tuple[x509.Certificate, ...]:
        """Every root of every bundle: for a TLS store, never for a verdict."""
        return tuple(dict.fromkeys(root for bundle in self.bundles for root in bundle.roots))

    def __iter__(self) -> Iterator[TrustBundle]:
        return iter(self.bundles)

    def __len__(self) -> int:
        return len(self.bundles)


def root_hash(root: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER in lower-case hex."""
    return hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()


def _parse_object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BUNDLE_BYTES:
        raise InvalidBundle(f"the bundle is {len(data)} bytes long; at most {MAX_BUNDLE_BYTES} are accepted")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidBundle(f"the bundle is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidBundle("the bundle is not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names the same member twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _parse_count(document: dict[str, Any], member: str) -> int | None:
    value = document.get(member)
    if value is None and member not in document:
        return None
    if type(value) is not int or value < 0:
        raise InvalidBundle(f"`{member}` is not a whole number")
    return value


def _is_x509_svid(entry: object) -> bool:
    if not isinstance(entry, dict):
        raise InvalidBundle("an entry of `keys` is not an object")
    return entry.get("use") == "x509-svid" and entry.get("kty") in _KNOWN_KTY


def _parse_root(entry: dict[str, Any]) -> x509.Certificate:
    if "kid" in entry:
        raise InvalidBundle("an x509-svid entry has a `kid`")
    chain = entry.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise InvalidBundle("an x509-svid entry has not exactly one certificate in `x5c`")
    try:
        root = parse_certificate(base64.b64decode(chain[0], validate=True))
        check_signer(root)
    except ValueError as error:
        raise InvalidBundle("the `x5c` of an entry is not base64") from error
    except InvalidSvid as error:
        raise InvalidBundle(f"a root cannot sign SVIDs: {error}") from error
    if any(entry.get(member) != value for member, value in _key_members(root).items()):
        raise InvalidBundle("an entry describes another key than its certificate holds")
    return root


def _jwk(root: x509.Certificate) -> dict[str, Any]:
    der = root.public_bytes(Encoding.DER)
    return {"use": "x509-svid", **_key_members(root), "x5c": [base64.b64encode(der).decode("ascii")]}


def _key_members(root: x509.Certificate) -> dict[str, str]:
    """RFC 7518 section 6 and RFC 8037 section 2: the public key as JWK members."""
    try:
        key = root.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidBundle("a root has a key of unknown type") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        numbers, size = key.public_numbers(), (key.key_size + 7) // 8
        members = {"x": _b64(numbers.x, size), "y": _b64(numbers.y, size)}
        return {"kty": "EC", "crv": _CURVES[key.curve.name], **members}
    if isinstance(key, rsa.RSAPublicKey):
        modulus, exponent = key.public_numbers().n, key.public_numbers().e
        return {"kty": "RSA", "n": _b64(modulus), "e": _b64(exponent)}
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": _b64(int.from_bytes(raw, "big"), 32)}
    raise InvalidBundle("a root has a key that a bundle cannot express")


def _b64(number: int, size: int | None = None) -> str:
    raw = number.to_bytes(size or (number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
