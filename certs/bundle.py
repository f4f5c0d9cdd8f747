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
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from certs.errors import InvalidBundle, InvalidSvid
from certs.jwk import parse_public_jwk, public_jwk
from certs.jwt import algorithms_of
from certs.keys import public_bytes
from certs.spiffe import TrustDomain
from certs.strict_json import read
from certs.svid import check_signer, parse_certificate

MAX_KID = 256
MAX_BUNDLE_BYTES = 1 << 20  # a root is about 1 KiB as JWK; nobody has a thousand of them
DEFAULT_REFRESH_SECONDS = 300  # SPIFFE_Trust_Domain_and_Bundle.md 4.1.2: without a hint, about five minutes

_KNOWN_KTY = ("EC", "RSA", "OKP")


@dataclass(frozen=True, slots=True)
class JwtKey:
    """A key that may have signed JWT-SVIDs of its trust domain. `der` is its SubjectPublicKeyInfo."""

    kid: str
    der: bytes


@dataclass(frozen=True)
class TrustBundle:
    """The roots of one trust domain, and the keys of its JWT-SVIDs.

    `sequence` grows at each change; `refresh_hint` is in seconds, None if unsaid.
    """

    trust_domain: TrustDomain
    roots: tuple[x509.Certificate, ...]
    sequence: int = 0
    refresh_hint: int | None = None
    jwt_keys: tuple[JwtKey, ...] = ()

    @classmethod
    def parse_jwks(cls, trust_domain: TrustDomain, data: bytes) -> TrustBundle:
        """Read SPIFFE's JWK Set, skipping entries of unknown `kty` or `use`, else strictly. Raises InvalidBundle."""
        document = _parse_object(data)
        entries = document.get("keys")
        if not isinstance(entries, list):
            raise InvalidBundle("the bundle has no list `keys`")
        roots = [_parse_root(entry) for entry in entries if _is_x509_svid(entry)]
        jwt_keys = tuple(_parse_jwt_key(entry) for entry in entries if _is_jwt_svid(entry))
        if len({key.kid for key in jwt_keys}) != len(jwt_keys):
            raise InvalidBundle("two jwt-svid entries have the same `kid`")
        sequence, hint = _parse_count(document, "spiffe_sequence") or 0, _parse_count(document, "spiffe_refresh_hint")
        return cls(trust_domain, tuple(dict.fromkeys(roots)), sequence, hint, jwt_keys)

    def to_jwks(self) -> bytes:
        """The bundle as SPIFFE's JWK Set: compact JSON, the same bytes for the same bundle. Raises InvalidBundle."""
        keys = [*map(_jwk, self.roots), *map(_jwt_jwk, self.jwt_keys)]
        document: dict[str, Any] = {"keys": keys, "spiffe_sequence": self.sequence}
        if self.refresh_hint is not None:
            document["spiffe_refresh_hint"] = self.refresh_hint
        return json.dumps(document, separators=(",", ":")).encode()

    def to_jwt_jwks(self) -> bytes:
        """The keys of JWT-SVIDs alone, as a JWK Set: what the Workload API calls a JWT bundle."""
        return json.dumps({"keys": list(map(_jwt_jwk, self.jwt_keys))}, separators=(",", ":")).encode()

    def to_der(self) -> bytes:
        """The roots as concatenated DER: what the Workload API calls an X.509 bundle."""
        return b"".join(root.public_bytes(Encoding.DER) for root in self.roots)

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
        document = read(data)
    except ValueError as error:
        raise InvalidBundle(f"the bundle is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidBundle("the bundle is not a JSON object")
    return document


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


def _is_jwt_svid(entry: dict[str, Any]) -> bool:
    return entry.get("use") == "jwt-svid" and entry.get("kty") in _KNOWN_KTY


def _parse_jwt_key(entry: dict[str, Any]) -> JwtKey:
    """JWT-SVID.md section 6: a key with a `kid`, which alone says that it is meant."""
    kid = entry.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise InvalidBundle("a jwt-svid entry has no `kid`")
    try:
        key = parse_public_jwk(entry)
    except ValueError as error:
        raise InvalidBundle(f"a jwt-svid entry cannot be read: {error}") from None
    if not algorithms_of(key):
        raise InvalidBundle("a jwt-svid entry has a key that signs no tokens")
    return JwtKey(kid, public_bytes(key))


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


def _jwt_jwk(key: JwtKey) -> dict[str, Any]:
    return {"use": "jwt-svid", "kid": key.kid, **public_jwk(load_der_public_key(key.der))}


def _key_members(root: x509.Certificate) -> dict[str, str]:
    try:
        key = root.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidBundle("a root has a key of unknown type") from error
    try:
        return public_jwk(key)
    except ValueError as error:
        raise InvalidBundle("a root has a key that a bundle cannot express") from error
