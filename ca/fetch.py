"""One fetch of a bundle from a SPIFFE bundle endpoint of the profile https_web (SPIFFE_Federation.md section 5.2)."""

from __future__ import annotations

from ca.errors import FederationUnreachable
from ca.https import ACCEPT, HttpsUrl, OutsideUnavailable, exchange
from certs.bundle import MAX_BUNDLE_BYTES


async def fetch_bundle(url: str, web_roots: bytes = b"") -> bytes:
    """The document at this endpoint, at most a mebibyte. Raises FederationUnreachable, saying why."""
    try:
        place = HttpsUrl.parse(url, query=True)
        answer = await exchange("GET", place, b"", (ACCEPT,), web_roots.decode("ascii", "replace"))
    except (ValueError, OutsideUnavailable) as error:
        raise FederationUnreachable(str(error)) from error
    if answer.status != 200:
        hint = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        raise FederationUnreachable(f"{place.host} answers {answer.status}{hint}")
    if len(answer.body) > MAX_BUNDLE_BYTES:
        size = len(answer.body)
        raise FederationUnreachable(f"{place.host} serves {size} bytes; at most {MAX_BUNDLE_BYTES} are read")
    return answer.body
