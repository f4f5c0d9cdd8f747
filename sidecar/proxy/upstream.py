"""Whoever a hop is sent on to: the application behind us, or the sidecar of a peer."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.schema import Limits, Timeouts
from sidecar.config.terms import Address, HttpVersion
from sidecar.errors import ConnectFailed, Draining, HopError, IdentityRefused, PeerIdentityMismatch
from sidecar.http.grpc import is_grpc, timeout
from sidecar.http.headers import first
from sidecar.http.plain_answers import AnswerReader
from sidecar.http.versions import fits_extended_connect
from sidecar.net.pool import Connection, Pool
from sidecar.net.port import NEVER, Port
from sidecar.proxy.affinity import key_of
from sidecar.proxy.dialing import Dialer
from sidecar.proxy.places import Place, Way
from sidecar.proxy.seen import counts, nowhere, rows, totals
from sidecar.proxy.sockets import SocketRoad
from sidecar.proxy.streams import StreamEnd
from sidecar.proxy.trunks import Trunks, h2_limits
from sidecar.traffic.deadline import HOP_FIELD, DeadlineRules
from sidecar.traffic.destination import Destination, DestinationRules
from sidecar.traffic.outcome import Outcome, of_error
from sidecar.traffic.retry import TRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Hashable, Mapping, Sequence

    from certs.spiffe import SpiffeId
    from sidecar.config.schema_outbound import HealthCheck
    from sidecar.config.terms import Affinity
    from sidecar.http.message import RequestHead
    from sidecar.net.mtls import Gate
    from sidecar.proxy.health import Checks
    from sidecar.proxy.outsiders import Outsider
    from sidecar.telemetry.record import Checked, Handshake
    from sidecar.traffic.endpoints import Declared, Endpoint
    from sidecar.traffic.marks import Marks

FAILURES: Final = frozenset(range(500, 600))
TELLING: Final = FAILURES | {403, 429}  # that say something of an endpoint, or are of a peer's sidecar
LEARNED_SECONDS: Final = 600.0  # that a host outside is believed to speak no other version of HTTP
SPARE_BYTES: Final = 16 * 1024 * 1024  # for bodies over 64 KiB that may have to be sent again, of all its requests


class Upstream:
    """One destination: its endpoints, the identity it must show, and the connections that we keep to it."""

    def __init__(
        self,
        port: Port,
        *,
        name: str,
        host: str,
        protocol: str,
        endpoints: tuple[Declared, ...],
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
        affinity: Affinity | None = None,
        health: HealthCheck | None = None,
        sources: tuple[Hashable, ...] = (),
        ours: Container[Address] = (),
        on_check: Callable[[Checked], None] = lambda _: None,
        times: DeadlineRules | None = None,
        outsider: Outsider | None = None,
        dice: Callable[[], float] = random.random,  # no secret: who waits how long, and who goes where
    ) -> None:
        self.name = name
        self.host = host
        self.protocol = protocol
        self.http = self._declared_http = http
        self._learned_until = NEVER  # monotonic: for so long `http` is what a host outside has told by ALPN
        self.identity = identity
        self._endpoints = endpoints
        self.sources = sources  # who else will say `listed`: what they have said outlives a reload while they stay
        self.why_none = ""  # what discovery says, where there is no endpoint
        self._port = port
        self._gate = gate  # None: plaintext, toward the application or an unmeshed host
        self._timeouts = timeouts
        self._limits = limits
        self.dialer = Dialer(
            port, name=name, host=host, protocol=protocol, identity=identity, gate=gate, timeouts=timeouts,
            limits=limits, on_handshake=on_handshake, outside=outsider.way if outsider is not None else None,
        )  # fmt: skip
        self.dialer.on_other_http = self._learn
        self.outsider = outsider  # what is special of it, where it is outside the mesh or not everything may be asked
        # whether plain requests may go by the express: not where each is to be looked at, or gets a token
        self.express = protocol != "tcp" and (outsider is None or outsider.express)
        self.scheme = b"https" if gate is not None or (outsider is not None and outsider.secure) else b"http"
        self._on_trunk_end = on_trunk_end
        self.marks = marks  # of the retries of this sidecar, to all of its upstreams
        self.on_retry = on_retry  # called with our name, and what became of a retry
        self.answers = AnswerReader(limits.head_bytes, limits.head_lines)
        self.heir: Upstream | None = None  # who stands in our place since a reload
        self.ends_at = NEVER  # monotonic: when what is open to it ends, because it is no longer declared
        self.dice = dice
        self._ours = ours  # where our own application reaches us: who is sent there comes back
        self.loops: tuple[Address, ...] = ()  # what was listed, and is that
        self.times = times or DeadlineRules(response_head=timeouts.response_head)
        self.patience = self.times.patience  # seconds until somebody must look at a request without an answer
        self.total = self.times.total  # seconds of a whole request, from the operator
        self.hurried = self.times.per_try is not None and rules is not None  # tries have a time of their own
        self.destination = Destination(endpoints, dice, port.now, rules or DestinationRules())
        self._requests = self.destination.ceilings.requests  # that are under way
        self._lists: dict[Hashable, tuple[Declared, ...]] = {}  # what each source of endpoints has said last
        self._leaving: list[Place] = []  # whose endpoints are gone, while something is open to them
        self.places = {endpoint: self._place(endpoint) for endpoint in self.destination.endpoints}
        # statuses that are for the general way to pass on
        self.telling = TELLING | rules.retries.statuses if rules is not None else FAILURES
        self.affinity = affinity  # for who looks on
        self.key_of = key_of(affinity)
        self.checks: Checks | None = None
        if health is not None:
            from sidecar.proxy.health import Checks  # most have none, and it is memory

            self.checks = Checks(self, port, health, on_check)
        self._sole = None if rules is not None else next(iter(self.places.values()))
        # whether its endpoints are watched, and its requests counted; the application behind us is not
        self.spare = SPARE_BYTES  # room for what is kept of long bodies (sidecar.proxy.upload)
        self.guarded = rules is not None
        if gate is not None:
            self.renew(gate.generation)

    @property
    def told(self) -> bytes:
        """The line that tells a peer's sidecar how long a plain request may take, where the operator has said so."""
        total = self.total
        return b"" if total is None or not self.meshed else b"%b: %b\r\n" % (HOP_FIELD, timeout(total))

    # ---- endpoints by name -----------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[Address, ...]:
        """The declared endpoints that are DNS names; none of an application."""
        return tuple(each.address for each in self._endpoints if self.guarded and each.address.named)

    def found(self, name: Address, addresses: tuple[str, ...]) -> None:
        """A declared name stands for these addresses from now on, each with its weight and zone."""
        entry = next(each for each in self._endpoints if each.address == name)
        self.listed(name, [entry._replace(address=Address(address, name.port)) for address in addresses])

    def listed(self, source: Hashable, declared: Sequence[Declared]) -> None:
        """What a source says of our endpoints, whole: it takes the place of what that source has said before.

        A declared name (its `Address`) stands where it was declared; what other sources list (a file, SRV records, a
        cluster) comes behind all that is declared, in the order in which they spoke first. What is open to endpoints
        that nobody lists any more may come to its end. Raises ValueError, with nothing changed, for a weight below 1.
        """
        lists = {**self._lists, source: tuple(declared)}
        self.destination.replace(self._together(lists), self._port.now)
        self._lists = lists
        self._settle()

    def _together(self, lists: Mapping[Hashable, tuple[Declared, ...]]) -> list[Declared]:
        own = {each.address for each in self._endpoints}
        found = [each for entry in self._endpoints for each in lists.get(entry.address, (entry,))]
        found += [each for source, listed in lists.items() if source not in own for each in listed]
        self.loops = tuple(each.address for each in found if each.address in self._ours)
        return [each for each in found if each.address not in self._ours] if self.loops else found

    def _inherit(self, before: Upstream) -> None:
        """Go on with what another knows of its endpoints, where it is the same destination. A breaker that opened for
        an identity that was wrong says nothing of the right one.
        """
        same = (before.identity, before._gate, before.protocol) == (self.identity, self._gate, self.protocol)
        if not (self.guarded and before.guarded and same):
            return
        kept = {*(each.address for each in self._endpoints), *self.sources}
        self._lists = {source: listed for source, listed in before._lists.items() if source in kept}
        self.destination.inherit(before.destination, self._together(self._lists), self._port.now)
        self._settle()
        if self.checks is None:
            self.destination.forget_health(self._port.now)
        elif before.checks is None or before.checks.spec != self.checks.spec:
            for endpoint in self.places:
                endpoint.health = None  # asked otherwise now, and at once

    def _settle(self) -> None:
        """A place for each endpoint of now, and no more work for those of endpoints that are gone."""
        known, now = self.places, self.destination.endpoints
        self.places = {endpoint: known.get(endpoint) or self._place(endpoint) for endpoint in now}
        for endpoint, place in known.items():
            if endpoint not in self.places:
                place.retire()
                self._leaving.append(place)
        if self._gate is not None:
            for endpoint, place in self.places.items():
                if endpoint not in known:
                    place.renew(self._gate.generation)

    def _place(self, endpoint: Endpoint) -> Place:
        limits, timeouts, connect = self._limits, self._timeouts, self.dialer.connect
        idle = timeouts.pool_idle_peer if self.meshed else timeouts.pool_idle_app
        pool = Pool(
            self._port, partial(connect, endpoint.address), idle=idle, limit=limits.pool, pending=limits.pending
        )
        dial_h2 = partial(connect, endpoint.address, h2=True)
        alike: dict[str, Any] = {
            "name": self.name, "limits": h2_limits(limits, timeouts), "scheme": self.scheme, "idle": idle,
            "stall": timeouts.idle, "most": limits.pool, "pending": limits.pending, "on_end": self._on_trunk_end,
        }  # fmt: skip
        trunks = Trunks(self._port, dial_h2, **alike)
        sockets = SocketRoad(pool, self._port, dial_h2, **alike)
        return Place(endpoint, pool, trunks, sockets)

    # ---- where to --------------------------------------------------------------------------------------------------

    def pick(self, now: float, excluded: Sequence[Endpoint] = (), key: bytes = b"") -> Place | None:
        """Where the next attempt goes, which then must have an `end`; None where it cannot go anywhere at this moment.
        `excluded` are the endpoints on which it has failed already, `key` is what it sticks to one by (`key_of`).
        """
        sole = self._sole
        if sole is not None:
            return sole
        requests = self._requests
        if requests.count >= requests.most:
            return None
        destination = self.destination
        endpoint = destination.begin(now, excluded, key)
        if endpoint is None:
            return None
        requests.count += 1
        if not excluded:
            destination.budget.request(now)
        return self.places[endpoint]

    def begin(self, now: float, excluded: Sequence[Endpoint] = (), key: bytes = b"") -> Place:
        """The same. Raises NoHealthyUpstream or Overflow."""
        place = self.pick(now, excluded, key)
        if place is None:
            raise nowhere(self, now)
        return place

    def end(self, place: Place, outcome: Outcome, began: float, now: float, hint: float | None = None) -> None:
        """An attempt that began then has ended; `now` is when its answer began, if there was one."""
        if self._sole is None:
            self._requests.count -= 1
            self.destination.end(place.endpoint, outcome, began, now, hint)

    def undo(self, place: Place, now: float) -> None:
        """An attempt that was picked at this moment has not begun: another way will begin it, and has the same turn.
        Otherwise who takes turns would always pass over an endpoint to which there is no connection yet.
        """
        if self._sole is None:
            self.end(place, Outcome.NEUTRAL, now, now)
            self.destination.undo(place.endpoint)

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self._port.now

    # ---- what it looks like ----------------------------------------------------------------------------------------

    def states(self) -> dict[str, int]:
        """How many of its endpoints are in each state; none of an application, which nobody chooses from."""
        return counts(self) if self.guarded else {}

    def totals(self) -> dict[str, Any]:
        """All of it in one row, as `mesh top` shows it."""
        return totals(self)

    def to_json(self) -> list[dict[str, Any]]:
        """A row for each endpoint, as `mesh endpoints` shows them."""
        return rows(self) if self.guarded else []

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

    def _learn(self, h2: bool) -> None:
        """A host outside does not speak this version of HTTP: for a while it is asked by the other one, where that
        serves the request as well.
        """
        self.http = "auto" if h2 else "http2"
        self._learned_until = self._port.now + LEARNED_SECONDS

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
        if self._port.now >= self._learned_until:
            self.http, self._learned_until = self._declared_http, NEVER
        if self.checks is not None:
            self.checks.look()

    def evict(self) -> int:
        """End connections to peers who were revoked, whatever is on them; returns how many."""
        gate = self._gate
        return sum(road.evict(gate) for road in self.roads) if gate is not None else 0

    @property
    def authority(self) -> bytes:
        """What to put into Host where a caller has named none."""
        endpoint = self._endpoints[0].address if self._endpoints else None
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
        if self.checks is not None:
            self.checks.stop()
        if heir is not None:
            heir._inherit(self)
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
        reached. Raises as `Dialer.connect`, and NoHealthyUpstream.
        """
        port = self._port
        tried: list[Endpoint] = []
        while True:
            began = port.now
            place = self.begin(began, tried)
            try:
                connection = await self.dialer.connect(place.endpoint.address, raw=True)
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
