"""What the driver of HTTP connections asks of the side it works for: inbound or outbound."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.config.schema import Limits, Timeouts
    from sidecar.errors import HopError
    from sidecar.hop import Direction, Headers, Hop
    from sidecar.http.message import RequestHead, ResponseHead
    from sidecar.net.mtls import Peer
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.upstream import Upstream
    from sidecar.telemetry.record import Recorder


@dataclass(slots=True)
class Caller:
    """The other end of a downstream connection: a verified peer inbound, our own application outbound."""

    peer: Peer | None
    source: IPv4Address | IPv6Address | None
    source_port: int


@dataclass(slots=True)
class Plan:
    """What was decided about a request: whom to ask, with which head, and how much it may send."""

    upstream: Upstream
    target: bytes
    headers: Headers
    max_body: int | None = None
    connect: Callable[[Port, Wire, Caller, Hop, bytes], Awaitable[None]] | None = None  # takes the connection over


class HttpSide(Protocol):
    """One HTTP listener of a sidecar."""

    name: str
    direction: Direction
    timeouts: Timeouts
    limits: Limits
    recorder: Recorder
    draining: bool

    def open_hop(self, caller: Caller, head: RequestHead | None, now: float) -> Hop:
        """A hop for this request, with nothing read yet but what cannot fail."""
        ...

    def admit(self, hop: Hop, caller: Caller, head: RequestHead, wall: float) -> Plan:
        """Read the request canonically, judge it, and say where it goes. Raises HopError."""
        ...

    def response_headers(self, hop: Hop, head: ResponseHead, upstream: Upstream) -> Headers:
        """The header fields of an answer, as the downstream may see them."""
        ...

    def explain_refusal(self, hop: Hop, error: HopError) -> tuple[bool, bool]:
        """(show the decision id, show the reason) to this caller."""
        ...
