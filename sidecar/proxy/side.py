"""What the driver of HTTP connections asks of the side it works for: inbound or outbound.

A side is one generation of a listener: its limits, routes and rules. It never changes; a reload puts another one behind
the listener's *door*. A connection keeps the door, and each of its requests takes the side that stands there when the
request's head has been read.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Protocol

from sidecar.http.headers import first
from sidecar.net.port import NEVER
from sidecar.proxy.rooms import Rooms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sidecar.config.schema import Limits, Timeouts
    from sidecar.errors import HopError
    from sidecar.hop import Direction, Headers, Hop, Permit
    from sidecar.http.message import RequestHead, ResponseHead
    from sidecar.http.plain import PlainRequest
    from sidecar.net.mtls import Peer
    from sidecar.net.pool import Connection
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.contracted import Checked
    from sidecar.proxy.lane import Lane
    from sidecar.proxy.tcp import Tunnels
    from sidecar.proxy.upstream import Upstream
    from sidecar.telemetry.record import Recorder
    from sidecar.traffic.faults import Injected
    from sidecar.traffic.limits import Dues
    from sidecar.traffic.routes import Route

Judged = tuple["Upstream", "Permit", "Dues | None"]  # what a plain request comes to

# Of an idle connection, once its listener drains. Who cannot send a request twice takes no connection that has been
# idle for more than 500 ms (sidecar.net.pool), so after this nobody loses one.
DRAIN_GRACE = 1.0


@dataclass(slots=True)
class Caller:
    """The other end of a downstream connection: a verified peer inbound, our own application outbound."""

    peer: Peer | None  # inbound, None is a caller without TLS whom the listener's posture lets in
    source: IPv4Address | IPv6Address | None
    source_port: int
    trust: int = 0  # the gate's `trust` when the peer was judged last
    reached: tuple[IPv4Address | IPv6Address | None, int] = (None, 0)  # the address it connected to, where that is told


class Door:
    """One listener through all its generations."""

    __slots__ = ("draining", "ends_at", "rooms", "side")

    def __init__(self, side: HttpSide) -> None:
        self.rooms = Rooms(side.direction)
        self.side = side  # of the current generation
        self.draining = False  # no connection is taken any more, those that are open come to their end
        self.ends_at = NEVER  # monotonic: when those that have not yet are ended


@dataclass(slots=True)
class Plan:
    """What was decided about a request: whom to ask, with which head, and how much it may send."""

    upstream: Upstream
    target: bytes
    headers: Headers
    max_body: int | None = None
    route: Route | None = None  # the outbound route that it is on
    injected: Injected | None = None  # the fault that it meets first
    course: str = ""  # what the route of that fault is called
    connect: Callable[[Port, Wire, Caller, Hop, bytes], Awaitable[None]] | None = None  # takes the connection over
    checked: Checked | None = None  # the contract that it is under, first of all
    ask: Callable[[Port], Awaitable[None]] | None = None  # may say no first of all, before limits are taken
    hold: Callable[[Port, Wire, float], Awaitable[None]] | None = None  # waited for next, up to its deadline
    renew: Callable[[Port], Awaitable[None]] | None = None  # after a 401: may put another token into the headers, once
    charge: Callable[[Port], Awaitable[None]] | None = None  # what may have to be waited for then

    @property
    def lasts(self) -> bool:
        """Whether the request is one for an upgrade or a tunnel."""
        return self.connect is not None or first(self.headers, b"upgrade") is not None


class HttpSide(Protocol):
    """One HTTP listener of a sidecar."""

    name: str
    door: Door
    direction: Direction
    timeouts: Timeouts
    limits: Limits
    recorder: Recorder
    tunnels: Tunnels

    @property
    def draining(self) -> bool:
        """Whether the listener takes no new work."""
        ...

    def check_peer(self, caller: Caller, wire: Wire, wall: float) -> None:
        """Judge a verified peer at its next request: by its certificate's end, and by the roots of today.

        Raises IdentityRefused.
        """
        ...

    def judge_again(
        self, port: Port, hop: Hop, caller: Caller, wire: Wire, upstream: Upstream, connection: Connection
    ) -> None:
        """Judge a tunnel under way by the rules and the roots of today (decision D17). Raises HopError."""
        ...

    def open_hop(self, caller: Caller, head: RequestHead | None, now: float) -> Hop:
        """A hop for this request, with nothing read yet but what cannot fail."""
        ...

    def lane(self, caller: Caller) -> Lane | None:
        """Where this caller's plain requests run; None where it has none."""
        ...

    def plain_hop(self, caller: Caller, now: float) -> Hop:
        """A hop for plain requests, one after the other."""
        ...

    def may_go_on(self, caller: Caller, upstream: Upstream, wall: float) -> bool:
        """Whether what a ticket rests on still stands: the caller's certificate and roots, the road, the record."""
        ...

    def judge_plain(self, hop: Hop, request: PlainRequest) -> Judged | None:
        """Judge a plain request: whom to ask, by which permit, and which rate limits it comes under. None where it is
        refused, or anything at all is special about it.
        """
        ...

    async def let_in(self, port: Port, wire: Wire, dues: Dues, keys: Sequence[str]) -> bool:
        """Whether all sidecars together let a plain request in, that this one has. Where not, it has taken nothing, and
        the general way says why. Raises DownstreamGone.
        """
        ...

    def plain_lines(self, upstream: Upstream) -> bytes:
        """The lines of ours at the front of a plain request's header."""
        ...

    def plain_tail(self, caller: Caller, upstream: Upstream, via: Sequence[bytes]) -> bytes | None:
        """The lines of ours that end the head of a plain request, with its empty line; `via` names the sidecars that
        it has come by. None where it may not go on.
        """
        ...

    def before(self, hop: Hop, caller: Caller, head: RequestHead) -> Callable[[Port], Awaitable[None]] | None:
        """What has to be fetched before the request can be judged; None for nothing. Raises HopError, and so does what
        it returns.
        """
        ...

    def admit(self, hop: Hop, caller: Caller, head: RequestHead, wall: float) -> Plan:
        """Read the request canonically, judge it, and say where it goes. Raises HopError."""
        ...

    def response_headers(self, hop: Hop, head: ResponseHead, upstream: Upstream) -> Headers:
        """The header fields of an answer, as the downstream may see them."""
        ...

    def response_trailers(self, hop: Hop, trailers: Headers, upstream: Upstream) -> Headers:
        """What follows the messages of a gRPC call, as the downstream may see it."""
        ...

    def explain_refusal(self, hop: Hop, error: HopError) -> tuple[bool, bool]:
        """(show the decision id, show the reason) to this caller."""
        ...


def with_head(hop: Hop, head: RequestHead | None) -> Hop:
    """The hop, with what its request head says as received; None where no head could be read."""
    if head is not None:
        hop.method = head.method.decode("ascii")
        hop.target = head.target.decode("ascii")
        hop.headers = head.headers
        hop.version = head.version.decode("ascii")
    return hop
