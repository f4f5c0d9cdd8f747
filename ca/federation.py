"""Other trust domains: what their bundles must keep before we pass them on to every sidecar. Pure.

The CA fetches and tells; sidecars need no way out, and all of them hold the same. A bundle comes from a file that the
operator hands over, or from a SPIFFE bundle endpoint of the profile https_web (SPIFFE_Federation.md section 5.2): plain
HTTPS, whose server is known by the web's PKI and its DNS name. What it serves speaks for its own trust domain alone:

* the sequence is never lower than that of the bundle we hold, and the same number never names other keys;
* a root that names a trust domain names this one, and none of its roots is ours or a third domain's;
* an empty bundle is an answer: trust nothing of theirs from now on;
* while the endpoint is away, or says nonsense, the last bundle stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from ca.errors import FederationRefused
from certs.bundle import DEFAULT_REFRESH_SECONDS, TrustBundle
from certs.errors import IdentityError, InvalidSvid
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import check_signer

MIN_REFRESH = 30.0  # seconds; a hint of less is read as this: their endpoint is not our heart-beat
MAX_REFRESH = 24 * 3600.0  # a root that was withdrawn is believed no longer than this
JITTER = 0.1
MAX_URL = 2048


@dataclass(frozen=True, slots=True)
class Partner:
    """Another trust domain. `url` is its bundle endpoint, empty where its bundle comes from a file.

    `web_roots` (PEM) are the roots for the endpoint's own certificate, empty for the system's; `bundle` is the last one
    that was accepted, None before the first; times are seconds since the epoch.
    """

    trust_domain: TrustDomain
    url: str = ""
    web_roots: bytes = b""
    added_at: float = 0.0
    bundle: TrustBundle | None = None
    accepted_at: float = 0.0

    def next_fetch(self, dice: float) -> float:
        """Seconds between two fetches: by the bundle's own hint, ±10 %."""
        hint = None if self.bundle is None else self.bundle.refresh_hint
        wanted = min(MAX_REFRESH, max(MIN_REFRESH, hint or DEFAULT_REFRESH_SECONDS))
        return wanted * (1 + JITTER * (2 * dice - 1))


def accept(partner: Partner, data: bytes, others: Iterable[TrustBundle]) -> TrustBundle:
    """The bundle in this document, if it may take the place of the one we hold. Raises FederationRefused.

    `others` are our own bundle, and those of third domains.
    """
    try:
        offered = TrustBundle.parse_jwks(partner.trust_domain, data)
    except IdentityError as error:
        raise FederationRefused(f"what {partner.trust_domain} serves is no bundle: {error}") from error
    _check_sequence(partner, offered)
    for root in offered.roots:
        try:
            check_signer(root, SpiffeId(partner.trust_domain, ""))
        except InvalidSvid as error:
            raise FederationRefused(f"a root of {partner.trust_domain}: {error}") from error
    taken = {root: other.trust_domain for other in others for root in other.roots}
    for root in offered.roots:
        if root in taken:
            raise FederationRefused(f"{partner.trust_domain} shows a root of {taken[root]} as its own")
    return offered


def _check_sequence(partner: Partner, offered: TrustBundle) -> None:
    held = partner.bundle
    if held is None:
        return
    if offered.sequence < held.sequence:
        raise FederationRefused(
            f"{partner.trust_domain} serves bundle {offered.sequence}, and we hold {held.sequence}: somebody replays an"
            " old one, or it was set up anew (then: mesh ca federation remove, and add)"
        )
    if offered.sequence == held.sequence != 0 and set(offered.roots) != set(held.roots):
        raise FederationRefused(f"{partner.trust_domain} serves other roots under the same number {held.sequence}")


def check_partner(trust_domain: TrustDomain, url: str, own: TrustDomain) -> None:
    """Raise FederationRefused for what cannot be federated with, or fetched from (SPIFFE_Federation.md 5.2.1)."""
    if trust_domain == own:
        raise FederationRefused(f"{trust_domain} is this CA's own trust domain")
    if not url:
        return
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FederationRefused(f"{url[:80]!r} is no URL: {error}") from None
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise FederationRefused("the bundle endpoint has to be https://HOST[:PORT]/PATH")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise FederationRefused("the bundle endpoint's URL holds a user, a query or a fragment")
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise FederationRefused("the bundle endpoint's URL is too long, or holds odd characters")
