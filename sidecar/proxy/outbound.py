"""Outbound: the application speaks plaintext on loopback, and the hop to the peer is mTLS.

There are two doors (decision D5): a listener per upstream, and a forward proxy that tells upstreams apart by host.
Both are an allowlist: what no upstream declares is refused, with the YAML that would allow it. In the order the bytes
travel:

1. A browser's cross-site request is refused, and so is a host that is neither the upstream's nor the listener's own:
   a page that the developer has open must not reach the mesh.
2. The target is held to framing hygiene only; the receiving sidecar judges it.
3. Hygiene: hop-by-hop fields go, `mesh-*` and x-forwarded-client-cert go, Host becomes the upstream's declared host.
4. In the answer, `mesh-decision-id` of the peer's sidecar is kept for the application, and what else begins with
   `mesh-` goes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from sidecar.errors import (
    CrossSite,
    Draining,
    HopError,
    LoopDetected,
    Overflow,
    ProtocolViolation,
    UndeclaredUpstream,
    UnsupportedFeature,
)
from sidecar.hop import Headers, Hop, Permit
from sidecar.http.canonical import Target, opaque_target, request_host
from sidecar.http.headers import end_to_end, first, without_reserved
from sidecar.http.message import RequestHead, ResponseHead
from sidecar.http.plain import OpaqueReader
from sidecar.http.plain_stencil import StencilReader
from sidecar.policy.declare import declaration
from sidecar.proxy.detection import spoken_on
from sidecar.proxy.forwarding import MAX_VIA, VIA, outgoing_headers, via_of
from sidecar.proxy.http import HttpConnection
from sidecar.proxy.lane import ENABLED, Lane
from sidecar.proxy.lease import lease_of
from sidecar.proxy.respond import peer_refused
from sidecar.proxy.side import Caller, Door, Plan, with_head
from sidecar.proxy.tcp import Tunnels, carrying, tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from certs.spiffe import SpiffeId
    from sidecar.config.schema import Limits, Timeouts
    from sidecar.config.terms import Address
    from sidecar.hop import Direction
    from sidecar.http.plain import PlainRequest
    from sidecar.net.pool import Connection
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.side import Judged
    from sidecar.proxy.steering import Steering
    from sidecar.proxy.upstream import Upstream
    from sidecar.telemetry.record import Recorder
    from sidecar.traffic.limits import Dues

DECISION = b"mesh-decision-id"
_DECISION_ID = re.compile(rb"[0-9a-z]{1,16}-[0-9a-z]{1,16}\Z")
_PLAIN = Target("origin", b"", ())
_ANY = Permit("", "/**")  # outbound rules are none: what is declared may be asked
_LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


class Many(Protocol):
    """The upstreams of one entry whose host is `*.` and a host."""

    def upstream(self, host: str) -> Upstream:
        """That of this host. Raises Overflow."""
        ...


class OutboundSide:
    """What one local listener does to hops: a listener of one upstream, or the forward proxy for all of them."""

    direction: Direction = "outbound"

    def __init__(
        self,
        *,
        name: str,
        listen: Address,
        identity: SpiffeId,
        instance: str,
        upstreams: Mapping[str, Upstream],
        only: Upstream | None,
        routes: Mapping[str, Steering],
        timeouts: Timeouts,
        limits: Limits,
        recorder: Recorder,
        tunnels: Tunnels,
        edge: bool = False,
        many: Mapping[str, Many] | None = None,
    ) -> None:
        self.name = name
        self.edge = edge  # strangers are in front of it, not our own application
        self.door = Door(self)
        self.timeouts = timeouts
        self.limits = limits
        self.recorder = recorder
        self.tunnels = tunnels
        self.listen = listen
        self._identity = identity
        self._instance = instance.encode()
        self._by_host = upstreams
        self._many = many  # upstreams with a host `*.`, by what follows that; None for none
        self._routes = routes  # by name of the upstream that was asked for
        self.only = only
        self._inner: dict[str, OutboundSide] = {}
        self._lane: Lane | None = None

    @property
    def draining(self) -> bool:
        """Whether the listener has gone from the configuration; the sidecar's own drain leaves outbound open (S27)."""
        return self.door.draining

    def take_over(self, before: OutboundSide) -> None:
        """Stand behind the same door from now on, also for what runs inside its CONNECTs."""
        self.door = before.door
        self.door.side = self
        upstreams = {upstream.name: upstream for upstream in self._by_host.values()}
        for name, inner in before._inner.items():
            upstream = upstreams.get(name)
            if upstream is None or upstream.protocol != inner.protocol:
                inner.door.draining = True
            else:
                self.inner(upstream).take_over(inner)

    @property
    def protocol(self) -> str:
        """What is spoken here: HTTP at the forward proxy, otherwise the upstream's own."""
        return self.only.protocol if self.only is not None else "http"

    def check_peer(self, caller: Caller, wire: Wire, wall: float) -> None:
        """Our own application has no certificate that could end."""

    def judge_again(
        self, port: Port, hop: Hop, caller: Caller, wire: Wire, upstream: Upstream, connection: Connection
    ) -> None:
        """Judge a tunnel under way: is it still declared, and is its other end still who it was. Raises HopError."""
        if port.now >= self.door.ends_at:
            raise Draining(f"the listener {self.name} has gone from the configuration")
        upstream.judge_again(connection)

    def open_hop(self, caller: Caller, head: RequestHead | None, now: float) -> Hop:
        """A hop for this request, with nothing read yet but what cannot fail."""
        return with_head(self._hop(caller, "http", now), head)

    def _hop(self, caller: Caller, protocol: str, now: float) -> Hop:
        return Hop(
            "outbound",
            self.name,
            self.listen.port,
            "http" if protocol == "http" else "tcp",
            peer=self._identity,
            destination=self.only.identity if self.only is not None else None,
            source=caller.source,
            source_port=caller.source_port,
            route="/**",
            started=now,
        )

    # ---- plain requests ---------------------------------------------------------------------------------------------

    def lane(self, caller: Caller) -> Lane | None:
        """Where plain requests run: one lane for all, because who asks is always our own application."""
        if not ENABLED:
            return None
        if self._lane is None:
            reader = StencilReader(OpaqueReader(self.limits.head_bytes, self.limits.head_lines))
            steered = [each for name, each in self._routes.items() if self.only is None or name == self.only.name]
            looks = any(steering.looks_at_headers for steering in steered)
            self._lane = Lane(
                self, caller, reader.read, self._judge_steered if steered else self.judge_plain,
                memo=not looks and not any(steering.throws(self._identity) for steering in steered),
                wants_headers=looks or self.recorder.wants_headers, limits_bodies=False,
            )  # fmt: skip
        return self._lane

    def plain_hop(self, caller: Caller, now: float) -> Hop:
        """A hop for plain requests, one after the other."""
        return Hop(
            "outbound", self.name, self.listen.port, "http", peer=self._identity, source=caller.source,
            source_port=caller.source_port, version="1.1", started=now, attempts=1,
        )  # fmt: skip

    def may_go_on(self, caller: Caller, upstream: Upstream, wall: float) -> bool:
        """Whether the upstream is still declared."""
        return not upstream.retired

    def judge_plain(self, hop: Hop, request: PlainRequest) -> tuple[Upstream, Permit, None] | None:
        """Say which upstream a plain request is for."""
        try:
            upstream = self._choose(request.host, request.port, _PLAIN)
        except (UndeclaredUpstream, Overflow):
            return None
        if not upstream.express:
            return None
        return upstream, _ANY, None

    def _judge_steered(self, hop: Hop, request: PlainRequest) -> Judged | None:
        """The same, where there are routes."""
        judged = self.judge_plain(hop, request)
        steering = self._routes.get(judged[0].name) if judged is not None else None
        if judged is None or steering is None:
            return judged
        led = steering.judge_plain(judged, hop)
        if led is None or led[0].express:
            return led
        hop.drawn = led[0]  # nobody throws again for it
        return None

    async def let_in(self, port: Port, wire: Wire, dues: Dues, keys: Sequence[str]) -> bool:
        """Our own application has no limits."""
        return True

    def plain_lines(self, upstream: Upstream) -> bytes:
        """The declared host."""
        return b"host: %b\r\n" % upstream.host.encode("ascii")

    def plain_tail(self, caller: Caller, upstream: Upstream, via: Sequence[bytes]) -> bytes | None:
        """Ourselves in mesh-via, and how long it may take, toward peers."""
        if self._instance in via or len(via) >= MAX_VIA:
            return None
        if not upstream.meshed:
            return b"\r\n"
        return b"%b%b: %b\r\n\r\n" % (upstream.told, VIA, b",".join((*via, self._instance)))

    # ---- every other ------------------------------------------------------------------------------------------------

    def before(self, hop: Hop, caller: Caller, head: RequestHead) -> None:
        """Nothing: our own application is known."""

    def admit(self, hop: Hop, caller: Caller, head: RequestHead, wall: float) -> Plan:
        """Say which upstream the request is for. Raises HopError."""
        if (first(head.headers, b"sec-fetch-site") or b"").lower() == b"cross-site":
            raise CrossSite("a browser marked this request as cross-site (sec-fetch-site)")
        target = opaque_target(head.target, hop.method)
        if self.only is not None and self.only.retired:
            raise UndeclaredUpstream(f"{self.name} has gone from the configuration")
        hop.host, port = request_host(target, [v for n, v in head.headers if n == b"host"], hop.version)
        upstream = self._choose(hop.host, port, target)
        hop.listener = upstream.name
        hop.destination = upstream.identity
        if target.form == "authority":
            if head.body:
                raise ProtocolViolation("a CONNECT with a body: what follows it is the tunnel (RFC 9110 section 9.3.6)")
            return Plan(upstream, b"", [], connect=self._tunnel_to(upstream))
        if upstream.protocol == "tcp":
            raise UnsupportedFeature(f"{upstream.name} is raw TCP; reach it by CONNECT or by its own listener")
        via = via_of(head.headers)
        if self._instance in via:
            raise LoopDetected(f"the request has been through this sidecar before: {b' '.join(via).decode('latin-1')}")
        steering, plan = self._routes.get(upstream.name), Plan(upstream, target.origin_form, [])
        if steering is not None:
            self._follow(steering, hop, head, plan)
            upstream = plan.upstream
        headers = [field for field in outgoing_headers(head) if field[0] != b"host"]
        if plan.route is not None:
            headers = plan.route.request.apply(headers)
        plan.headers = [(b"host", upstream.host.encode("ascii")), *headers]
        if upstream.outsider is not None:
            upstream.outsider.admit(hop, plan)
        if upstream.meshed:
            plan.headers.append((VIA, b",".join((*via, self._instance))))
        return plan

    def _follow(self, steering: Steering, hop: Hop, head: RequestHead, plan: Plan) -> None:
        """Write into the plan what the route says that the request is on, if it is on any. Raises AmbiguousPath."""
        course, target = steering.find(hop, head.target)
        if course is None:
            return
        plan.route, plan.course = course.route, course.route.name
        plan.upstream = upstream = course.choose(hop)
        plan.injected = course.strike(hop)
        if target is not None:
            plan.target = course.target(target)
        hop.route, hop.listener, hop.destination = course.route.name, upstream.name, upstream.identity

    def _choose(self, host: str, port: int | None, target: Target) -> Upstream:
        if target.scheme == "https":
            raise UnsupportedFeature("https:// through the proxy: speak plain HTTP to it, the sidecar adds the TLS")
        if self.only is not None:
            own = host in _LOOPBACK_NAMES or host == self.listen.host
            if host in ("", self.only.host) or (own and (self.listen.unix or port == self.listen.port)):
                return self.only
            if self.edge:
                return self.only  # by whatever name the door is known outside
            raise UndeclaredUpstream(
                f"this listener is for {self.only.host}, not for {host}",
                f"ask for http://{self.only.host}/ or http://{'localhost' if self.listen.unix else self.listen}/ here",
            )
        upstream = self._by_host.get(host)
        if upstream is None and self._many is not None:
            label, _, rest = host.partition(".")
            many = self._many.get(rest) if label else None
            upstream = many.upstream(host) if many is not None else None
        if upstream is None:
            hint = f"outbound: [{declaration(host, port)}]"
            raise UndeclaredUpstream(f"no upstream declares the host {host!r}", hint)
        return upstream

    def response_headers(self, hop: Hop, head: ResponseHead, upstream: Upstream) -> Headers:
        """The header fields of a peer's answer, with a note where the peer's sidecar made it."""
        return self._with_decision(hop, end_to_end(head.headers), head.status, upstream)

    def response_trailers(self, hop: Hop, trailers: Headers, upstream: Upstream) -> Headers:
        """What follows the messages of a gRPC call, with the same note: a peer's sidecar may have ended it."""
        return self._with_decision(hop, trailers, hop.status, upstream)

    def _with_decision(self, hop: Hop, headers: Headers, status: int, upstream: Upstream) -> Headers:
        decision = first(headers, DECISION) if upstream.meshed else None
        headers = without_reserved(headers)
        if decision is not None and _DECISION_ID.match(decision):
            hop.decision_id = decision.decode()
            if self.edge:
                return headers  # for our own records, not for strangers
            headers.append((DECISION, decision))
            headers.append((b"proxy-status", peer_refused(hop.decision_id, status)))
        return headers

    def explain_refusal(self, hop: Hop, error: HopError) -> tuple[bool, bool]:
        """Our own application may know everything, but not a page that a browser brought here, nor who is at a door."""
        return not self.edge, not self.edge and not isinstance(error, CrossSite)

    # ---- CONNECT and raw TCP ---------------------------------------------------------------------------------------

    def _tunnel_to(self, upstream: Upstream) -> _Tunnel:
        return _Tunnel(self, upstream)

    def inner(self, upstream: Upstream) -> OutboundSide:
        """This side, narrowed to one upstream: what runs inside a CONNECT."""
        if upstream.host not in self._by_host:
            return self._narrowed(upstream)  # one of many: they come and go
        found = self._inner.get(upstream.name)
        if found is None:
            found = self._inner[upstream.name] = self._narrowed(upstream)
        return found

    def _narrowed(self, upstream: Upstream) -> OutboundSide:
        return OutboundSide(
            name=upstream.name, listen=self.listen, identity=self._identity,
            instance=self._instance.decode(), upstreams=self._by_host, only=upstream, routes=self._routes,
            timeouts=self.timeouts, limits=self.limits, recorder=self.recorder,
            tunnels=self.tunnels,
        )  # fmt: skip

    async def serve_tcp(self, port: Port, wire: Wire, caller: Caller, early: bytes = b"") -> None:
        """Move the bytes of a raw connection to the upstream."""
        assert self.only is not None
        hop = self._hop(caller, "tcp", port.now)
        with carrying(hop, port, wire, self.recorder) as far:
            hop.attempts = 1
            far.connection = connection = await self.only.connect_raw()
            hop.endpoint = connection.endpoint
            if connection.peer is not None:
                hop.tls = connection.peer.tls
            with self.tunnels.open(port.current, self._judge(port, hop, caller, wire, self.only, connection)):
                lease = lease_of(hop, port)
                await tunnel(port, wire, connection.wire, hop, idle=self.timeouts.tcp_idle, lease=lease, early=early)

    def _judge(
        self, port: Port, hop: Hop, caller: Caller, wire: Wire, upstream: Upstream, connection: Connection
    ) -> Callable[[], None]:
        return lambda: self.door.side.judge_again(port, hop, caller, wire, upstream, connection)


class _Tunnel:
    """What follows a CONNECT: the bytes of that upstream's own protocol, judged as such."""

    def __init__(self, side: OutboundSide, upstream: Upstream) -> None:
        self._side = side.inner(upstream)
        self._protocol = upstream.protocol

    async def __call__(self, port: Port, wire: Wire, caller: Caller, hop: Hop, early: bytes) -> None:
        side = self._side
        found = await spoken_on(port, wire, caller, protocol=self._protocol, side=side, early=early)
        if found is None:
            return
        spoken, early = found
        if spoken == "opaque":
            await side.serve_tcp(port, wire, caller, early)
            return
        with side.tunnels.carry():
            heir = await HttpConnection(port, wire, side, caller, early).serve()
            if heir is not None:
                await heir.serve()
