"""JWT-SVIDs: a SPIFFE ID in a signed token, for whoever cannot do mTLS (JWT-SVID.md).

A token can be shown again by whoever saw it, so it names its audience and lives for minutes. Only a key of the token's
own trust domain, published as `use: jwt-svid`, can have signed it; a key is found by its `kid` alone, never tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certs.bundle import BundleSet
from certs.errors import InvalidSpiffeId
from certs.jwt import InvalidJwt, Jwt, sign_jwt
from certs.spiffe import SpiffeId

LIFETIME = 300.0  # seconds; SPIRE's default too
MIN_LIFETIME, MAX_LIFETIME = 10.0, 3600.0
LEEWAY = 60.0  # seconds that a signer's clock may be ahead of ours: as much as certificates are back-dated (S5)
MAX_AUDIENCE = 16
MAX_AUDIENCE_LENGTH = 512


@dataclass(frozen=True)
class JwtSvid:
    """A token with what it says. Times are seconds since the epoch; `issued_at` is 0 where it does not say."""

    token: str = field(repr=False)
    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    issued_at: float
    expires_at: float
    claims: Mapping[str, Any] = field(repr=False, hash=False)
    kid: str = ""  # of the key that signed it

    @cached_property
    def renew_at(self) -> float:
        """Half of its life: whoever asks later gets a new one."""
        return self.expires_at - (self.expires_at - self.issued_at) / 2


def make_jwt_svid(
    spiffe_id: SpiffeId, audience: Iterable[str], kid: str, key: ec.EllipticCurvePrivateKey, now: float, lifetime: float
) -> str:
    """A token for this identity, signed by this key, which its bundle has under this `kid`."""
    wanted = list(audience)
    claims = {"sub": spiffe_id.text, "aud": wanted, "iat": int(now), "exp": int(now + lifetime)}
    return sign_jwt({"kid": kid, "typ": "JWT"}, claims, key)


def validate_jwt_svid(token: str, audience: str, bundles: BundleSet, now: float) -> JwtSvid:
    """Judge a token that was shown to us, who go by the name `audience`. Raises InvalidJwt.

    The rules are those of JWT-SVID.md sections 2 to 4. Reasons: `malformed`, `header`, `algorithm`, `subject`,
    `no_bundle`, `unknown_key`, `signature`, `expiry`, `expired`, `not_yet_valid`, `audience`.
    """
    jwt = Jwt.parse(token)
    spiffe_id = _subject(jwt)
    bundle = bundles.of(spiffe_id.trust_domain)
    if bundle is None:
        raise InvalidJwt("no_bundle", f"we know no trust domain {spiffe_id.trust_domain}")
    if not jwt.kid:
        raise InvalidJwt("unknown_key", "the token does not say which key signed it (`kid`)")
    found = next((each for each in bundle.jwt_keys if each.kid == jwt.kid), None)
    if found is None:
        raise InvalidJwt("unknown_key", f"no key of {spiffe_id.trust_domain} goes by the token's `kid`")
    jwt.check_signature(load_der_public_key(found.der))  # type: ignore[arg-type]  # the bundle has judged it
    jwt.check_times(now, LEEWAY)
    if audience not in jwt.audience():
        raise InvalidJwt("audience", f"the token is for {', '.join(jwt.audience())[:200]}, not for {audience[:200]}")
    return _svid(token, jwt, spiffe_id)


def read_jwt_svid(token: str) -> JwtSvid:
    """What a token says that came from somebody we trust for it; its signature is not judged. Raises InvalidJwt."""
    jwt = Jwt.parse(token)
    if jwt.time("exp") is None:
        raise InvalidJwt("expiry", "the token has no `exp`")
    return _svid(token, jwt, _subject(jwt))


def check_audience(audience: object) -> tuple[str, ...]:
    """The audience that somebody asks a token for, sorted, each once. Raises InvalidJwt: `audience`."""
    if not isinstance(audience, list | tuple) or not all(isinstance(each, str) and each for each in audience):
        raise InvalidJwt("audience", "the audience is a list of names, none of them empty")
    if not audience or len(audience) > MAX_AUDIENCE:
        raise InvalidJwt("audience", f"a token is for 1 to {MAX_AUDIENCE} audiences; say whom it will be shown to")
    if any(len(each) > MAX_AUDIENCE_LENGTH or not each.isprintable() for each in audience):
        raise InvalidJwt("audience", f"an audience is printable text of at most {MAX_AUDIENCE_LENGTH} characters")
    return tuple(sorted(set(audience)))


def _subject(jwt: Jwt) -> SpiffeId:
    try:
        spiffe_id = SpiffeId.parse(jwt.text("sub"))
    except InvalidSpiffeId as error:
        raise InvalidJwt("subject", f"the token's `sub` is no SPIFFE ID: {error}") from None
    if not spiffe_id.path:
        raise InvalidJwt("subject", f"{spiffe_id} names a trust domain, not a workload")
    return spiffe_id


def _svid(token: str, jwt: Jwt, spiffe_id: SpiffeId) -> JwtSvid:
    ends = jwt.time("exp") or 0.0
    return JwtSvid(token, spiffe_id, jwt.audience(), jwt.time("iat") or 0.0, ends, jwt.claims, jwt.kid)
