"""A bearer token, read strictly and judged: JSON Web Tokens in their compact signed form (RFC 7515, 7519), kept to
RFC 8725 rule by rule.

Libraries accept much that a strict reader must not (padding, two members of one name, keys that are for something
else), so this is ours, over `cryptography`. What it goes by:

- The key decides by which algorithm a token may be signed, and the issuer's list narrows that (RFC 8725 sections 3.1
  and 3.2); HMAC and `none` have no name here. Nothing in a token's head leads to a key: `kid` is looked up in a
  dictionary, and `jku`, `x5u`, `jwk` and `x5c` are refused unseen (sections 3.5 and 3.10).
- Which issuer is meant is the token's word and no more: it chooses the key set, and only that set's signature makes it
  true (section 3.8). Nothing else of a token is looked at before its signature has held.
- `exp` and `aud` are mandatory (section 3.9), `crit` and `b64` are refused, tokens in tokens and encrypted ones too.
- `typ` may be absent or say `JWT` or `at+jwt` (RFC 9068), or only the last where the issuer's entry asks for it: other
  kinds of tokens have another `typ`, so they are not taken for one another (sections 3.11 and 3.12).

All is bounded: 8 KiB of token, eight levels of JSON, numbers below 2⁵³. A reason never quotes the token.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from certs.errors import InvalidSpiffeId
from certs.spiffe import SpiffeId
from certs.strict_json import read
from sidecar.policy.jwk import ALGORITHMS, MAX_KID

if TYPE_CHECKING:
    from sidecar.policy.jwk import Key, KeySet

MAX_TOKEN_BYTES: Final = 8192
MAX_DEPTH: Final = 8  # levels of objects and lists
LEEWAY: Final = 60.0  # seconds, semantics S22
MAX_LEEWAY: Final = 300.0
ID_DIGITS: Final = 16
TokenType = Literal["any", "at+jwt"]

_FOREIGN: Final = ("crit", "b64", "jku", "x5u", "jwk", "x5c", "cty", "enc", "zip", "epk")
_TYPES: Final = {"any": frozenset({"jwt", "at+jwt"}), "at+jwt": frozenset({"at+jwt"})}
_SVID_TYPES: Final = frozenset({"jwt", "jose"})  # JWT-SVID.md section 2.3
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512(),
}  # fmt: skip


class BadToken(Exception):
    """A token cannot be believed. `reason` is short and stable, the text is for the operator; neither quotes it."""

    issuer = ""  # what mesh.yaml calls who has issued it, where that is known

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason


class UnknownKey(BadToken):
    """No key of the set goes by the token's `kid`. A newer set may have one."""

    def __init__(self) -> None:
        super().__init__("unknown_key", "no key of its issuer goes by the token's `kid`")


@dataclass(frozen=True, slots=True)
class Demands:
    """What a listener asks of the tokens of one issuer."""

    name: str  # what mesh.yaml calls the issuer
    audience: frozenset[str]  # one of which must be in `aud`
    issuer: str = ""  # the exact `iss`; empty for JWT-SVIDs, which need none
    trust_domain: str = ""  # of JWT-SVIDs: `sub` must be a SPIFFE ID of it
    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    type: TokenType = "any"
    leeway: float = LEEWAY


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token taken apart, of which nothing is believed yet."""

    head: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def algorithm(self) -> str:
        """By which it says that it was signed."""
        return str(self.head["alg"])

    @property
    def kid(self) -> str | None:
        """Which key it says has signed it; None where it does not say."""
        return self.head.get("kid")


def parse(token: bytes) -> Unverified:
    """Take a compact token apart. Raises BadToken: `size`, `malformed`, `header`, `algorithm`."""
    if len(token) > MAX_TOKEN_BYTES:
        raise BadToken("size", f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(b".")
    if len(parts) != 3:
        what = "an encrypted token" if len(parts) == 5 else "not of three parts, joined by dots"
        raise BadToken("malformed", f"the token is {what}")
    head, claims = _object(parts[0]), _object(parts[1])
    if found := [name for name in _FOREIGN if name in head]:
        raise BadToken("header", f"the token's head has `{found[0]}`, which is not accepted")
    algorithm, kid = head.get("alg"), head.get("kid", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadToken("algorithm", "the token is signed by no algorithm that is accepted")
    if not isinstance(kid, str) or len(kid) > MAX_KID or not isinstance(head.get("typ", ""), str):
        raise BadToken("header", "the token's `kid` or `typ` is not a short text")
    return Unverified(head, claims, token[: len(parts[0]) + 1 + len(parts[1])], _decode(parts[2]))


def key_for(token: Unverified, keys: KeySet, demands: Demands) -> Key:
    """The one key that can have signed it. Raises UnknownKey, BadToken: `algorithm`, `ambiguous_key`."""
    if token.algorithm not in demands.algorithms:
        raise BadToken("algorithm", f"the token is signed by {token.algorithm}, which {demands.name} may not use")
    if token.kid is None and demands.trust_domain:
        raise BadToken("unknown_key", "a JWT-SVID says which key signed it, and this one does not (`kid`)")
    found = keys.find(token.kid, token.algorithm)
    if len(found) == 1:
        return found[0]
    if found:
        raise BadToken("ambiguous_key", "several keys of its issuer could have signed the token, and none is tried")
    if token.kid is not None and keys.knows(token.kid):
        raise BadToken("algorithm", f"the key of the token's `kid` is not for {token.algorithm}")
    raise UnknownKey


def check_signature(token: Unverified, key: Key) -> None:
    """Hold the signature against this key. Some 100 µs. Raises BadToken: `signature`."""
    public, digest = key.public, _HASHES.get(token.algorithm[2:])
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(token.signature, token.signed)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            assert digest is not None
            public.verify(_der(token.signature, (public.key_size + 7) // 8), token.signed, ec.ECDSA(digest))
        else:
            assert isinstance(public, rsa.RSAPublicKey)
            assert digest is not None
            pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
            scheme = pss if token.algorithm[0] == "P" else padding.PKCS1v15()
            public.verify(token.signature, token.signed, scheme, digest)
    except (InvalidSignature, ValueError):
        raise BadToken("signature", "the token was changed, or another key has signed it") from None


def check_claims(token: Unverified, demands: Demands, now: float) -> float:
    """Judge what a token says that its issuer has signed, at this moment (seconds since the epoch); returns its `exp`.

    Raises BadToken: `type`, `issuer`, `subject`, `expiry`, `expired`, `not_yet_valid`, `audience`, `malformed`.
    """
    claims = token.claims
    _check_type(token.head, demands)
    if demands.issuer and claims.get("iss") != demands.issuer:
        raise BadToken("issuer", f"the token's `iss` is not that of {demands.name}")
    subject = claims.get("sub", "")
    if not isinstance(subject, str):
        raise BadToken("subject", "the token's `sub` is not text")
    if demands.trust_domain and not _is_of(subject, demands.trust_domain):
        raise BadToken("subject", f"the token's `sub` is no SPIFFE ID of {demands.trust_domain}")
    expires = _check_times(claims, now, demands.leeway)
    if demands.audience.isdisjoint(_audience(claims)):
        raise BadToken("audience", f"the token is for somebody else, not for {' or '.join(sorted(demands.audience))}")
    return expires


def scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """What a token allows: `scope`, words in one text (RFC 9068 section 2.2.3), or `scp`, a list or the same.

    Raises BadToken: `malformed`.
    """
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name, "")
        words = value.split(" ") if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise BadToken("malformed", f"the token's `{name}` is neither text nor a list of it")
        found.update(words)
    return frozenset(found - {""})


def check_bound(claims: Mapping[str, Any], fingerprint: str, *, required: bool) -> bool:
    """Hold a token that is bound to a certificate against the caller's (RFC 8705 section 3.1), whose SHA-256 is
    `fingerprint` in hex, empty where it has shown none; with `required` it has to be bound. One that is bound to
    anything else is no bearer token (RFC 7800, RFC 9449). Returns whether it is bound. Raises BadToken: `bound`.
    """
    if "cnf" not in claims:
        if required:
            raise BadToken("bound", "the token is not bound to a certificate, and the listener wants it to be")
        return False
    bound = claims["cnf"]
    if not isinstance(bound, dict) or set(bound) != {"x5t#S256"}:
        raise BadToken("bound", "the token is bound to something other than a certificate")
    ours = base64.urlsafe_b64encode(bytes.fromhex(fingerprint)).rstrip(b"=").decode("ascii")
    if not ours or bound["x5t#S256"] != ours:
        raise BadToken("bound", "the token is bound to another certificate than the caller's")
    return True


def token_id(token: bytes) -> str:
    """What records call a token by: it can be compared, and not turned back."""
    return sha256(token).hexdigest()[:ID_DIGITS]


# ---- pieces ------------------------------------------------------------------------------------------------------


def _is_of(subject: str, trust_domain: str) -> bool:
    """Whether this is a workload of that trust domain (JWT-SVID.md section 3.1)."""
    try:
        spiffe_id = SpiffeId.parse(subject)
    except InvalidSpiffeId:
        return False
    return spiffe_id.trust_domain.name == trust_domain and bool(spiffe_id.path)


def _check_type(head: Mapping[str, Any], demands: Demands) -> None:
    """RFC 8725 section 3.11; `application/` may be left out, and letters have no case (RFC 7515 section 4.1.9)."""
    allowed = _SVID_TYPES if demands.trust_domain else _TYPES[demands.type]
    said = head.get("typ", "" if demands.type == "at+jwt" else "jwt").lower().removeprefix("application/")
    if said not in allowed:
        wanted = "at+jwt" if demands.type == "at+jwt" else "JWT or at+jwt"
        raise BadToken("type", f"the token is of another kind: its `typ` is not {wanted}")


def _check_times(claims: Mapping[str, Any], now: float, leeway: float) -> float:
    expires = _time(claims, "exp")
    if expires is None:
        raise BadToken("expiry", "the token has no `exp`, so it would be good for ever")
    if now >= expires + leeway:
        raise BadToken("expired", f"the token expired {now - expires:.0f} s ago")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and begins > now + leeway:
            raise BadToken("not_yet_valid", f"the token is from {begins - now:.0f} s ahead (`{name}`): a clock")
        if begins is not None and begins > expires:
            raise BadToken("malformed", f"the token's `{name}` is after its `exp`")
    return expires


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadToken("malformed", f"the token's `{name}` is not a time")
    return float(value)


def _audience(claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = claims.get("aud")
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if not found or not all(isinstance(each, str) and each for each in found):
        raise BadToken("audience", "the token names no audience")
    return found


def _object(part: bytes) -> dict[str, Any]:
    """The JSON object of a part. Raises BadToken."""
    data = _decode(part)
    try:
        value = read(data, exact=True)
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text (RFC 8259, 8.2)
    except ValueError:
        raise BadToken("malformed", "a part of the token is not JSON, or names a member twice") from None
    if not isinstance(value, dict):
        raise BadToken("malformed", "a part of the token is no JSON object")
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise BadToken("malformed", f"a part of the token is nested deeper than {MAX_DEPTH} levels")
    return value


def _depth(value: object) -> int:
    """Levels of objects and lists, at most MAX_DEPTH + 1."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inner = [each for each in level if isinstance(each, dict | list)]
        depth += bool(inner)
        level = [one for each in inner for one in (each.values() if isinstance(each, dict) else each)]
    return depth


def _decode(part: bytes) -> bytes:
    """Base64url in its one form: no padding, no spare bits, no line breaks (RFC 7515 section 2). Raises BadToken."""
    try:
        data = binascii.a2b_base64(part.translate(_TO_STANDARD) + b"=" * (-len(part) % 4), strict_mode=True)
    except binascii.Error:
        data = b""
    if not data or base64.urlsafe_b64encode(data).rstrip(b"=") != part:
        raise BadToken("malformed", "a part of the token is not base64url in its one form")
    return data


def _der(signature: bytes, size: int) -> bytes:
    """RFC 7518 section 3.4: r and s, each as long as the curve's numbers; nothing else is one."""
    if len(signature) != 2 * size:
        raise InvalidSignature
    return encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))


_TO_STANDARD: Final = bytes.maketrans(b"-_+/", b"+/!!")
