"""Reading what the CA says. It has proved to be our CA, and still nothing is taken on faith (pure: bytes to values)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from certs.bundle import BundleSet, TrustBundle
from certs.errors import IdentityError, InvalidSvid, UntrustedSvid
from certs.jwt import InvalidJwt
from certs.jwt_svid import JwtSvid, read_jwt_svid
from certs.keys import PrivateKey
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.identity.errors import BadAnswer, CaBusy, CaRefused
from sidecar.net.http_message import Answer, BadJson

LONGEST_RETRY_AFTER = 3600.0  # seconds; an answer that asks for more is cut to this
LONGEST_WAIT = 3600.0  # seconds
LATEST_TIME = 253402300800.0  # the year 10000, where certificates end too (RFC 5280 section 4.1.2.5)


@dataclass(frozen=True, slots=True)
class Issued:
    """What a successful enrolment or renewal brings. `ca_now` is the CA's clock as it answered."""

    svid: X509Svid
    bundle: TrustBundle
    ca_now: float


def parse_issued(document: dict[str, Any], key: PrivateKey, expected: SpiffeId) -> Issued:
    """A certificate that is ours, for our key, and holds under the bundle beside it. Raises BadAnswer."""
    pem, jwks = document.get("svid"), document.get("bundle")
    if not isinstance(pem, str) or not isinstance(jwks, dict):
        raise BadAnswer("the CA's answer lacks `svid` or `bundle`")
    now = parse_time(document.get("now"))
    bundle = parse_bundle(expected.trust_domain, json.dumps(jwks).encode())
    try:
        svid = X509Svid.parse(pem.encode(), key)
        if svid.spiffe_id != expected:
            raise BadAnswer(f"the CA issued {svid.spiffe_id}; we are {expected}")
        verify_chain(svid.chain, BundleSet((bundle,)), now)
    except (InvalidSvid, UntrustedSvid) as error:
        raise BadAnswer(f"the CA issued a certificate that does not hold: {error}") from error
    return Issued(svid, bundle, now)


def parse_jwt_svid(document: dict[str, Any], audience: tuple[str, ...], expected: SpiffeId) -> JwtSvid:
    """A JWT-SVID that is ours and for this audience. Raises BadAnswer."""
    token = document.get("token")
    if not isinstance(token, str):
        raise BadAnswer("the CA's answer lacks `token`")
    try:
        svid = read_jwt_svid(token)
    except InvalidJwt as error:
        raise BadAnswer(f"the CA issued a JWT-SVID that cannot be read: {error}") from None
    if svid.spiffe_id != expected or set(svid.audience) != set(audience):
        raise BadAnswer(f"the CA issued a JWT-SVID of {svid.spiffe_id} for another identity or audience than we asked")
    return svid


def parse_bundle(trust_domain: TrustDomain, data: bytes) -> TrustBundle:
    """A trust bundle document. Raises BadAnswer."""
    try:
        return TrustBundle.parse_jwks(trust_domain, data)
    except IdentityError as error:
        raise BadAnswer(f"the CA's trust bundle cannot be read: {error}") from error


def parse_federation(own: TrustDomain, document: object) -> BundleSet:
    """The bundles of all other trust domains, by name. Raises BadAnswer, also for one that claims to be ours."""
    if not isinstance(document, dict):
        raise BadAnswer("the CA names no bundles of other trust domains")
    named = ((name, json.dumps(bundle).encode()) for name, bundle in document.items())
    try:
        bundles = [TrustBundle.parse_jwks(TrustDomain.parse(name), jwks) for name, jwks in named]
    except IdentityError as error:
        raise BadAnswer(f"the bundle of another trust domain cannot be read: {error}") from error
    if any(bundle.trust_domain == own for bundle in bundles):
        raise BadAnswer("our own trust domain is among the others")
    return BundleSet.of_all(bundles)


def parse_time(value: object) -> float:
    """Seconds since the epoch. Raises BadAnswer for what is no number, or no time."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LATEST_TIME:
        raise BadAnswer("the CA's answer names no time")
    return float(value)


def parse_wait(value: object) -> float:
    """Seconds that the CA leaves us for something, an hour at most. Raises BadAnswer for what is no such number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_WAIT:
        raise BadAnswer("the CA names no time in which to renew")
    return float(value)


def parse_refusal(answer: Answer) -> CaBusy | CaRefused:
    """Why the answer is not a 200."""
    if answer.status == 429:
        return CaBusy(_retry_after(answer.header(b"retry-after")))
    try:
        document = answer.json()
    except BadJson:
        document = {}
    return CaRefused(answer.status, str(document.get("error", "error")), str(document.get("detail", "no reason given")))


def _retry_after(value: bytes | None) -> float:
    """Seconds from a Retry-After of the form `delay-seconds` (RFC 9110 section 10.2.3); 1 where it is unusable."""
    if value is None or not value.isdigit():
        return 1.0
    return min(max(float(value), 1.0), LONGEST_RETRY_AFTER)
