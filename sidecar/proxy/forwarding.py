"""What of a request's header travels on to whoever is asked: hygiene, our own framing, and the sidecars it came by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sidecar.errors import LoopDetected
from sidecar.http.headers import end_to_end, tokens, without_reserved
from sidecar.http.versions import KEY_BYTES, h1_request

if TYPE_CHECKING:
    from sidecar.hop import Headers
    from sidecar.http.message import RequestHead

VIA = b"mesh-via"  # instance ids of the sidecars that a request has passed, oldest first (decision D21)
MAX_VIA = 32
# Upgrades that are never passed: inside them more requests would travel, which nobody could judge.
UNJUDGED = (b"h2c", b"http", b"tls")


def outgoing_headers(head: RequestHead) -> Headers:
    """What travels on of a request's header: hygiene first, then our own framing and, where asked for, the upgrade."""
    if head.version == b"2":
        return without_reserved(h1_request(head, os.urandom(KEY_BYTES) if head.protocol else b"").headers)
    headers = without_reserved(end_to_end(head.headers))
    if head.body and head.length is None:
        headers.append((b"transfer-encoding", b"chunked"))
    upgrades = [token for token in tokens(head.headers, b"upgrade") if not token.startswith(UNJUDGED)]
    if upgrades and b"upgrade" in tokens(head.headers, b"connection") and head.version != b"1.0":
        headers += [(b"connection", b"upgrade"), (b"upgrade", b", ".join(upgrades))]
    return headers


def via_of(headers: Headers) -> list[bytes]:
    """The sidecars that a request has come by. Raises LoopDetected where they are too many."""
    via = tokens(headers, VIA)
    if len(via) >= MAX_VIA:
        raise LoopDetected(f"the request has been through {len(via)} sidecars")
    return via
