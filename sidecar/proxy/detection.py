"""The first bytes of a connection to a listener with `protocol: auto`: read here once, and passed on once.

On a peer's connection ALPN comes first: who has agreed on a version of HTTP speaks it. A caller that says nothing until
the time is up (`timeouts.detect`) waits for the server to speak first, and is served as raw TCP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.http.detect import Spoken, conclude, detect
from sidecar.net.port import NEVER, Expired, WireBroken

if TYPE_CHECKING:
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.side import Caller, HttpSide

ALPN: Final[dict[str, Spoken]] = {"h2": "http2", "http/1.1": "http1"}


async def spoken_on(
    port: Port, wire: Wire, caller: Caller, *, protocol: str, side: HttpSide, early: bytes = b""
) -> tuple[Spoken, bytes] | None:
    """What is spoken on a new connection to a listener of this protocol, and what has been read of it by now.

    None where it broke before that was known; then nothing has come of it.
    """
    alpn = ALPN.get(caller.peer.tls.alpn) if caller.peer is not None else None
    if protocol == "http":
        return alpn or "http1", early  # without TLS, the driver of HTTP/1 finds HTTP/2 by itself
    if protocol == "tcp":
        return "opaque", early
    if alpn is not None:
        spoken, by, seconds = alpn, "alpn", 0.0
    else:
        began = port.now
        try:
            spoken, early, by = await _read(port, wire, early, side.timeouts.detect)
        except WireBroken:
            return None
        seconds = port.now - began
    side.recorder.metrics.observe_detection(side.direction, side.name, spoken, by, seconds)
    return spoken, early


async def _read(port: Port, wire: Wire, early: bytes, within: float) -> tuple[Spoken, bytes, str]:
    """Read until it is known, or time is up, or no more will come. Raises WireBroken."""
    port.deadline(port.now + within)
    try:
        while (spoken := detect(early)) is None:
            data = await wire.read()
            if not data:
                return conclude(early), early, "end"
            early += data
    except Expired:
        return conclude(early), early, "timeout"
    finally:
        port.deadline(NEVER)
    return spoken, early, "bytes"
