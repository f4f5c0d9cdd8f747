"""Whoever a hop is sent on to: the application behind us, or the sidecar of a peer."""

from __future__ import annotations

import random
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.schema import Limits, Timeouts
from sidecar.config.terms import Address, HttpVersion
from sidecar.errors import (
    ConnectFailed,
    Draining,
    HandshakeFailed,
    HopError,
    IdentityRefused,
    NoHealthyUpstream,
    Overflow,
    PeerIdentityMismatch,
)
from sidecar.http.grpc import is_grpc
from sidecar.http.h1 import H1Client
from sidecar.http.headers import first
from sidecar.http.plain_answers import AnswerReader
from sidecar.http.versions import fits_extended_connect
from sidecar.net.pool import Connection, Pool
from sidecar.net.port import NEVER, Expired, Port, Unreachable
from sidecar.proxy.places import Place, Way
from sidecar.proxy.sockets import SocketRoad
from sidecar.proxy.streams import StreamEnd
from sidecar.proxy.trunks import Trunks, h2_limits
from sidecar.telemetry.record import Handshake
from sidecar.traffic.destination import Destination, DestinationRules
from sidecar.traffic.endpoints import Declared
from sidecar.traffic.outcome import Outcome, of_error
from sidecar.traffic.retry import TRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from certs.spiffe import SpiffeId
    from sidecar.http.message import RequestHead
    from sidecar.net.mtls import Gate, Peer
    from sidecar.net.port import Wire
    from sidecar.traffic.endpoints import Endpoint
    from sidecar.traffic.marks import Marks

STATES: Final = ("available", "unhealthy", "ejected", "open", "half-open")
FAILURES: Final = frozenset(range(500, 600))
TELLING: Final = FAILURES | {403, 429}  # that say something of an endpoint, or are of a peer's sidecar
MOST_NAMED: Final = 5  # endpoints in an error's text

class Upstream:
    """One destination: its endpoints, the identity it must show, and the connections that we keep to it."""

    def __init__(
        self,
        port: Port,
        *,
        name: str,
        host: str,
        protocol: str,
        endpoints: tuple[Address, ...],
        identity: SpiffeId | None,
        gate: Gate | None,
        timeouts: Timeouts,
        limits: Limits,
        on_handshake: Callable[[Handshake], str],
        on_retry: Callable[[str, str], None],
        on_trunk_end: Callable[[str], None],
        marks: Marks,
        http: HttpVersion = "auto",
        rules: DestinationRules | None = None,
        dice: Callable[[], float] = random.random,  # no secret: who waits how long, and who goes where
    ) -> None:
        self.name = name
        self.host = host
        self.protocol = protocol
        self.http = http
        self.identity = identity
        self._endpoints = endpoints
        self._port = port
        self._gate = gate  # None: plaintext, toward the application or an unmeshed host
        self._timeouts = timeouts
        self._limits = limits
        self._on_handshake = on_handshake
        self._on_trunk_end = on_trunk_end
        self.marks = marks  # of the retries of this sidecar, to all of its upstreams
        self.on_retry = on_retry  # called with our name, and what became of a retry
        self.answers = AnswerReader(limits.head_bytes, limits.head_lines)
        self.heir: Upstream | None = None  # who stands in our place since a reload
        self.ends_at = NEVER  # monotonic: when what is open to it ends, because it is no longer declared
        self.dice = dice
        declared = [Declared(address) for address in endpoints]
        self.destination = Destination(declared, dice, port.now, rules or DestinationRules())
        self._found: dict[Address, tuple[Address, ...]] = {}  # what the declared names stand for
        self._leaving: list[Place] = []  # whose endpoints are gone, while something is open to them
        self.places = {endpoint: self._place(endpoint) for endpoint in self.destination.endpoints}
        self.telling = TELLING if rules is not None else FAILURES  # statuses that are for the general way to pass on
        self._sole = None if rules is not None else next(iter(self.places.values()))
        if gate is not None:
            self.renew(gate.generation)

    # ---- endpoints by name -----------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[Address, ...]:
        """The declared endpoints that are DNS names; none of an application."""
        return tuple(each for each in self._endpoints if self.guarded and each.named)

    def found(self, name: Address, addresses: tuple[str, ...]) -> None:
        """A declared name stands for these addresses from now on. What is open to others may come to its end."""
        self._found[name] = tuple(Address(address, name.port) for address in addresses)
        declared = [
            Declared(address) for endpoint in self._endpoints for address in self._found.get(endpoint, (endpoint,))
        ]
        self.destination.replace(declared, self._port.now)
        stay = set(self.destination.endpoints)
        for endpoint, place in self.places.items():
            if endpoint not in stay:
                place.retire()
                self._leaving.append(place)
        known, now = self.places, self.destination.endpoints
        self.places = {endpoint: known.get(endpoint) or self._place(endpoint) for endpoint in now}
        if self._gate is not None:
            for endpoint, place in self.places.items():
                if endpoint not in known:
                    place.renew(self._gate.generation)

    def _place(self, endpoint: Endpoint) -> Place:
        meshed, limits, timeouts = self.meshed, self._limits, self._timeouts
        idle = timeouts.pool_idle_peer if meshed else timeouts.pool_idle_app
        pool = Pool(
            self._port, partial(self._connect, endpoint.address), idle=idle, limit=limits.pool, pending=limits.pending
        )
        trunks = Trunks(
            self._port,
            partial(self._connect, endpoint.address, h2=True),
            name=self.name,
            limits=h2_limits(limits, timeouts),
            scheme=b"https" if meshed else b"http",
            idle=idle,
            stall=timeouts.idle,
            most=limits.pool,
            pending=limits.pending,
            on_end=self._on_trunk_end,
        )
        sockets = SocketRoad(
            pool,
            self._port,
            partial(self._connect, endpoint.address, h2=True),
            name=self.name,
            limits=h2_limits(limits, timeouts),
            scheme=b"https" if meshed else b"http",
            idle=idle,
            stall=timeouts.idle,
            most=limits.pool,
            pending=limits.pending,
            on_end=self._on_trunk_end,
        )
        return Place(endpoint, pool, trunks, sockets)

    # ---- where to --------------------------------------------------------------------------------------------------

    @property
    def guarded(self) -> bool:
        """Whether its endpoints are watched, and its requests counted; the application behind us is not."""
        return self._sole is None

    def pick(self, now: float, excluded: Sequence[Endpoint] = ()) -> Place | None:
        """Where the next attempt goes, which then must have an `end`; None where it cannot go anywhere at this moment.
        `excluded` are the endpoints on which it has failed already.
        """
        sole = self._sole
        if sole is not None:
            return sole
        destination = self.destination
        requests = destination.ceilings.requests
        if requests.count >= requests.most:
            return None
        endpoint = destination.begin(now, excluded)
        if endpoint is None:
            return None
        requests.count += 1
        if not excluded:
            destination.budget.request(now)
        return self.places[endpoint]

    def begin(self, now: float, excluded: Sequence[Endpoint] = ()) -> Place:
        """The same. Raises NoHealthyUpstream or Overflow."""
        place = self.pick(now, excluded)
        if place is None:
            raise self._nowhere(now)
        return place

    def end(self, place: Place, outcome: Outcome, began: float, now: float, hint: float | None = None) -> None:
        """An attempt that began then has ended; `now` is when its answer began, if there was one."""
        if self._sole is None:
            destination = self.destination
            destination.ceilings.requests.count -= 1
            destination.end(place.endpoint, outcome, began, now, hint)

    def _nowhere(self, now: float) -> HopError:
        requests = self.destination.ceilings.requests
        if requests.count >= requests.most:
            requests.refused += 1
            return Overflow(f"{requests.count} requests to {self.name} are under way (limits.requests)")
        seen = self.destination.seen(now)
        if not seen:
            return NoHealthyUpstream(f"{self.name} has no endpoint")
        wait = max(0.0, self.destination.retry_at(now) - now)
        states = "; ".join(f"{each.name} {each.state}" for each in seen[:MOST_NAMED])
        error = NoHealthyUpstream(f"no endpoint of {self.name} may be asked for the next {wait:.1f} s: {states}")
        error.retry_after = wait
        return error

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self._port.now

    # ---- what it looks like ----------------------------------------------------------------------------------------

    def states(self) -> dict[str, int]:
        """How many of its endpoints are in each state; none of an application, which nobody chooses from."""
        if self._sole is not None:
            return {}
        seen = [each.state for each in self.destination.seen(self._port.now)]
        return {state: seen.count(state) for state in STATES}

    def totals(self) -> dict[str, Any]:
        """All of it in one row, as `mesh top` shows it."""
        now, requests = self._port.now, self.destination.ceilings.requests
        states, seen = self.states(), self.destination.seen(now)
        alone = {state: count for state, count in states.items() if count and state != "available"}
        return {
            "upstream": self.name,
            "identity": self.identity.text if self.identity is not None else "",
            "endpoints": len(seen),
            "available": states["available"],
            "left_alone": ", ".join(f"{count} {state}" for state, count in alone.items()),
            "requests": requests.count,
            "requests_most": requests.most,
            "retries_left": self.destination.budget.left(now),
            "slowest_ms": round(max((each.latency for each in seen), default=0.0) * 1e3, 3),
        }

    def to_json(self) -> list[dict[str, Any]]:
        """A row for each endpoint, as `mesh endpoints` shows them."""
        if self._sole is not None:
            return []
        now, budget = self._port.now, self.destination.budget
        return [
            {
                "upstream": self.name,
                "identity": self.identity.text if self.identity is not None else "",
                "endpoint": each.name,
                "state": each.state,
                "latency_ms": round(each.latency * 1e3, 3),
                "active": each.active,
                "back_in_s": round(each.until - now, 1) if each.until > now else None,
                "connections": place.open,
                "retries_left": budget.left(now),
            }
            for each, place in zip(self.destination.seen(now), self.places.values(), strict=True)
        ]

    def way(self, head: RequestHead) -> Way:
        """By which connections this request goes: of HTTP/2 or HTTP/1.

        Between sidecars it is the version that the request came by. An application is asked by the version that the
        configuration says; where that says nothing, by HTTP/2 for gRPC, which needs it, and else by HTTP/1.1, which
        every server speaks. A WebSocket that would go by HTTP/2 does so where the other side takes it; whatever else is
        an upgrade goes by HTTP/1.1, as only that has upgrades.
        """
        if self.http == "auto":
            h2 = head.version == b"2" and (self.meshed or is_grpc(head.headers))
        else:
            h2 = self.http == "http2"
        if not h2:
            return "pool"
        if not head.protocol and (head.version == b"2" or first(head.headers, b"upgrade") is None):
            return "trunks"
        return "sockets" if fits_extended_connect(head) else "pool"

    @property
    def roads(self) -> list[Pool | Trunks]:
        """All connections that we keep, by endpoint and version of HTTP."""
        return [road for place in (*self.places.values(), *self._leaving) for road in place.roads]

    def renew(self, generation: int) -> None:
        """Connections of earlier generations of the gate end (decision D17)."""
        for place in self.places.values():
            place.renew(generation)

    def sweep(self) -> None:
        """Close what has been idle for too long, and compare the endpoints."""
        for road in self.roads:
            road.sweep()
        self._leaving = [place for place in self._leaving if place.open]
        self.destination.sweep(self._port.now)

    def evict(self) -> int:
        """End connections to peers who were revoked, whatever is on them; returns how many."""
        gate = self._gate
        return sum(road.evict(gate) for road in self.roads) if gate is not None else 0

    @property
    def _server_name(self) -> str:
        """The declared host, for SNI; addresses have no place there (RFC 6066 section 3)."""
        try:
            ip_address(self.host)
        except ValueError:
            return self.host
        return ""

    @property
    def authority(self) -> bytes:
        """What to put into Host where a caller has named none."""
        endpoint = self._endpoints[0] if self._endpoints else None
        if endpoint is not None and endpoint.unix:
            return b"localhost"  # a socket's path is no authority (RFC 9110 section 4.2)
        return str(endpoint or self.host).encode("ascii")

    @property
    def meshed(self) -> bool:
        """Whether the hop to it is mTLS."""
        return self._gate is not None

    def retire(self, heir: Upstream | None, ends_at: float) -> None:
        """Another has taken our place, or nobody has: then what is still open to us may last until `ends_at`."""
        self.heir = heir
        self.ends_at = NEVER if heir is not None else ends_at
        for road in self.roads:
            road.retire()

    @property
    def retired(self) -> bool:
        """Whether nobody declares it any more, nor another in its place."""
        return self.ends_at != NEVER

    def judge_again(self, connection: Connection) -> None:
        """Judge a connection that carries a tunnel. Raises Draining or PeerIdentityMismatch."""
        latest = self
        while latest.heir is not None:
            latest = latest.heir
        if self.heir is not None:
            self.heir = latest
        if self._port.now >= latest.ends_at:
            raise Draining(f"the upstream {self.name} is no longer declared")
        if (latest.identity, latest.meshed) != (self.identity, self.meshed):
            raise PeerIdentityMismatch(
                "other_identity", f"{self.name} is declared as {latest.identity} now, not as {self.identity}"
            )
        if self._gate is None or connection.peer is None or connection.trust == self._gate.trust:
            return
        wire = connection.wire.carrier.wire if isinstance(connection.wire, StreamEnd) else connection.wire
        try:
            self._gate.judge_again(wire, connection.peer, self._port.wall())
        except IdentityRefused as error:
            refused = PeerIdentityMismatch(error.reason, str(error), error.presented)
            refused.midway = error.midway
            raise refused from None
        connection.trust = self._gate.trust

    async def connect_raw(self) -> Connection:
        """A connection for what is no HTTP and must not agree on it by ALPN, to the first endpoint that can be
        reached. Raises as `_connect`, and NoHealthyUpstream.
        """
        port = self._port
        tried: list[Endpoint] = []
        while True:
            began = port.now
            place = self.begin(began, tried)
            try:
                connection = await self._connect(place.endpoint.address, raw=True)
            except HopError as error:
                self.end(place, of_error(error), began, port.now)
                tried.append(place.endpoint)
                if not isinstance(error, ConnectFailed) or len(tried) >= min(TRIES, len(self.places)):
                    raise
            except BaseException:
                self.end(place, Outcome.NEUTRAL, began, port.now)
                raise
            else:
                self.end(place, Outcome.GOOD, began, port.now)
                return connection

    async def _connect(self, address: Address, *, h2: bool = False, raw: bool = False) -> Connection:
        """Connect to an endpoint. Raises ConnectFailed, HandshakeFailed, PeerIdentityMismatch or NoIdentity."""
        generation = self._gate.generation if self._gate is not None else 0
        try:
            wire, peer = await self._connect_to(address, h2=h2, raw=raw)
        except (ConnectFailed, PeerIdentityMismatch) as error:
            error.endpoint = str(address)
            raise
        codec = H1Client(self._limits.head_bytes, self._limits.head_lines)
        return Connection(wire, codec, peer, str(address), generation)

    async def _connect_to(self, endpoint: Address, *, h2: bool, raw: bool) -> tuple[Wire, Peer | None]:
        port = self._port
        if self._gate is not None:
            self._gate.check_ready(port.wall())
        port.deadline(port.now + self._timeouts.connect)
        try:
            wire = await port.dial(endpoint.host, endpoint.port)
        except Unreachable as error:
            raise ConnectFailed(str(error)) from None
        except Expired:
            raise ConnectFailed(f"{endpoint} did not answer within {self._timeouts.connect:g} s") from None
        if self._gate is None:
            return wire, None
        try:
            return await self._secure(wire, self._gate, endpoint, h2=h2, raw=raw)
        except BaseException:
            wire.close()  # a gate that had no identity to show has not taken it over
            raise

    async def _secure(
        self, wire: Wire, gate: Gate, endpoint: Address, *, h2: bool, raw: bool
    ) -> tuple[Wire, Peer]:
        assert self.identity is not None
        port = self._port
        began = port.now
        try:
            secure, peer = await gate.connect(
                port,
                wire,
                http=self.protocol != "tcp" and not raw,
                h2=h2,
                server_name=self._server_name,
                expected=self.identity,
                within=self._timeouts.handshake,
            )
        except (HandshakeFailed, PeerIdentityMismatch) as error:
            self._on_handshake(
                Handshake(
                    "outbound", self.name, ok=False, expected=self.identity, reason=error.reason, error=error,
                    detail=error.detail, seconds=port.now - began, endpoint=str(endpoint),
                    peer=error.presented if isinstance(error, PeerIdentityMismatch) else None,
                )
            )  # fmt: skip
            raise
        self._on_handshake(
            Handshake("outbound", self.name, ok=True, peer=peer.id, tls=peer.tls, seconds=port.now - began)
        )
        return secure, peer
