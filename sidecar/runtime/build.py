"""The listeners of one sidecar and what is open on them: opened, reloaded, drained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sidecar.config.schema import Service
from sidecar.config.schema_inbound import Inbound
from sidecar.config.terms import Address
from sidecar.net.admission import SHARE, Admission, memory_limit, memory_used
from sidecar.net.contexts import contexts_alive
from sidecar.net.reactor import Acceptor, Reactor, open_files, open_files_limit
from sidecar.net.wires import SocketWire
from sidecar.proxy.charging import PromptDesk
from sidecar.proxy.holding import NOBODY_TO_ASK, Asker
from sidecar.proxy.http import HttpConnection
from sidecar.proxy.http2 import Http2Connection
from sidecar.proxy.inbound import InboundSide
from sidecar.proxy.outbound import OutboundSide
from sidecar.proxy.side import Door
from sidecar.proxy.tcp import Tunnels
from sidecar.runtime.generation import Generation, Maker
from sidecar.runtime.heap import Heap
from sidecar.runtime.listening import CannotListen, bind_all
from sidecar.runtime.mirror import Mirror
from sidecar.runtime.postures import PostureWatch
from sidecar.runtime.reception import Handler, Reception
from sidecar.runtime.show import Show

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from sidecar.answer.quota_desk import QuotaDesk
    from sidecar.config.terms import SocketMode
    from sidecar.discovery.follow import Named
    from sidecar.hop import Direction
    from sidecar.net.mtls import Gate
    from sidecar.net.port import Task
    from sidecar.policy.authz import RuleSet
    from sidecar.proxy.bearer import Desk as KeyDesk
    from sidecar.proxy.upstream import Upstream
    from sidecar.runtime.capture import Capture
    from sidecar.runtime.outside import Outside
    from sidecar.telemetry.metrics import Metrics
    from sidecar.telemetry.record import Recorder
    from sidecar.traffic.detectors import Detectors

    Doors = list[tuple[Direction, socket.socket]]  # capture ports that are new
    Bound = dict["Spot", socket.socket]

__all__ = ["CannotListen", "Proxy"]


# Where a listener stands: its address, or the name of the upstream for which captured connections are served.
Spot = Address | str


class _Plan(NamedTuple):
    """A listener as a generation wants it."""

    direction: Direction
    name: str
    protocol: str
    side: InboundSide | OutboundSide
    captured: bool = False  # it has no socket: connections are brought by the capture ports


@dataclass(slots=True, eq=False)
class _Ear:
    """One listening socket, or the place of a listener that is found by what a captured connection was made to, and
    the door behind it.
    """

    direction: Direction
    name: str
    protocol: str
    acceptor: Acceptor | Capture
    door: Door
    handler: Handler

    @property
    def has_socket(self) -> bool:
        """Whether it listens itself."""
        return isinstance(self.acceptor, Acceptor)


class Proxy:
    """All listeners of one sidecar, and what is open on them.

    What stands behind the listeners is a `Generation`, replaced whole by `reload`. Sockets outlive generations: a
    listener whose address stays is never closed, new ones are opened before anything else changes, and those that are
    gone drain.
    """

    def __init__(
        self, service: Service, *, reactor: Reactor, gate: Gate, recorder: Recorder, instance: str,
        desk: QuotaDesk | PromptDesk | None = None, asker: Asker = NOBODY_TO_ASK,
        keys: Callable[[], KeyDesk] | None = None,
        outside: Outside | None = None,
    ) -> None:  # fmt: skip
        self.draining = False
        self._reactor = reactor
        self._gate = gate
        self._recorder = recorder
        self._tunnels = Tunnels()
        self.mirror = Mirror()
        self._desk = desk or PromptDesk()
        self._desk.nudge = reactor.nudge
        self._maker = Maker(
            reactor, gate, recorder, instance, self._tunnels, asker, self._desk, keys, outside
        )
        self._ears: dict[Spot, _Ear] = {}
        self._tasks: dict[Task, Direction] = {}
        self._retired: list[Door] = []  # of listeners that are gone, while something may be open behind them
        self._left: list[tuple[float, Upstream]] = []  # retired, and until when they may begin something at least
        self._ends: list[float] = []  # monotonic: when time is up for something that a reload has taken away
        self._generation = self._maker.generation(service, None)
        self._capture = self._captures()
        self._put_in_force()
        self._postures = PostureWatch(recorder)
        self._minute = 0  # of the last sweep, since the epoch
        self._postures.declare(service.inbound)
        self.show = Show(lambda: self._generation, reactor, self._postures)
        self._memory_limit = memory_limit()
        self._heap = Heap()
        self.admission = Admission(
            service.limits, descriptors=open_files_limit(), on_refused=recorder.connection_refused
        )
        self._reception = Reception(
            reactor, gate, recorder, self.admission, reached=self._reached,
            handshake=lambda: self.service.timeouts.handshake,
        )  # fmt: skip
        recorder.metrics.before_scrape(self._show_waiting)
        self._tunnels.limit(self.admission.most_streams)

    def _show_waiting(self, metrics: Metrics) -> None:
        metrics.counter("mesh_tls_handshakes_waiting").set(self.admission.waiting)
        watched = self._generation.detectors
        held = watched.holds.in_force(self._reactor.now) if watched is not None else ()
        metrics.counter("mesh_callers_held").set(len(held))

    # ---- the generation in force -----------------------------------------------------------------------------------

    @property
    def service(self) -> Service:
        """The configuration in force."""
        return self._generation.service

    @property
    def detectors(self) -> Detectors | None:
        """The detectors in force; None where none is declared."""
        return self._generation.detectors

    @property
    def rules(self) -> RuleSet:
        """The policy in force."""
        return self._generation.rules

    @property
    def _inbound(self) -> list[tuple[Inbound, InboundSide]]:
        return self._generation.inbound

    @property
    def _outbound(self) -> list[tuple[str, str, Address, OutboundSide]]:
        return self._generation.outbound

    @property
    def upstreams(self) -> list[Upstream]:
        """Everybody who is asked, the applications behind us included."""
        return self._generation.all_upstreams()

    @property
    def followed(self) -> list[Named]:
        """Whoever discovery has something to tell: upstreams, and where else the application connects to."""
        captured = self._generation.captured
        return [*self.upstreams, *(captured.called if captured is not None else ())]

    def reload(self, service: Service) -> None:
        """Put another configuration in force, whole, or raise CannotListen and change nothing.

        Requests whose head has not been read yet are the first of the new generation, on open connections too. Tunnels
        are judged again at once.
        """
        before, after = self._generation, self._maker.generation(service, self._generation)
        wanted = self._wanted(after)
        doors, bound = self._bind(wanted, _modes(service))
        self._generation = after
        self._put_in_force()
        self.admission.adopt(service.limits, open_files_limit())
        self._tunnels.limit(self.admission.most_streams)
        gone = [ear for address, ear in self._ears.items() if address not in wanted]
        self._ears = {address: self._ears[address] for address in self._ears if address in wanted}
        ends_at = self._reactor.now + service.timeouts.drain
        for address, plan in wanted.items():
            self._settle(address, plan, bound.get(address), ends_at)
        for ear in gone:
            ear.acceptor.retire()
            self._retire(ear.door, ends_at)
        self._bring_captured(doors)
        for door in self._retired:
            self._maker.bring_up_to_date(door, after)
        self._leave_behind(before, after, ends_at)
        self._ends.append(ends_at)
        self._postures.declare(service.inbound)
        self.judge_again()

    def _put_in_force(self) -> None:
        """From now on what outlives a generation goes by this one."""
        self._maker.in_force(self._generation)
        self._generation.put_in_force()
        self._desk.adopt(self._generation.quotas)

    def _leave_behind(self, before: Generation, after: Generation, ends_at: float) -> None:
        """Let upstreams that have no place any more end with what is open to them; somebody must look at that."""
        for old, heir in before.left_for(after):
            old.retire(heir, ends_at)
            self._left.append((ends_at, old))

    def judge_again(self) -> None:
        """Policy or roots have become others: every tunnel is judged by those of now (decision D17)."""
        self._tunnels.judge()
        self._reactor.nudge()

    def _settle(self, address: Spot, wanted: _Plan, sock: socket.socket | None, ends_at: float) -> None:
        """Let a listener of the new generation stand at its address: on a new socket, or in the old one's place."""
        ear = self._ears.get(address)
        if ear is None:
            self._listen_on(address, wanted, sock)
        elif (ear.direction, ear.protocol) == (wanted.direction, wanted.protocol):
            before = ear.door.side
            if isinstance(wanted.side, InboundSide):
                assert isinstance(before, InboundSide)
                wanted.side.take_over(before)
            else:
                assert isinstance(before, OutboundSide)
                wanted.side.take_over(before)
            ear.name = wanted.name
        else:
            self._retire(ear.door, ends_at)
            ear.direction, ear.name, ear.protocol = wanted.direction, wanted.name, wanted.protocol
            ear.door, ear.handler = wanted.side.door, self._handler(wanted)

    def _retire(self, door: Door, ends_at: float) -> None:
        """Let what came in by this door come to its end; nobody else does."""
        door.draining = True
        door.ends_at = ends_at
        self._retired.append(door)
        for connection in list(self._reception.http):
            if connection.door is door:
                connection.drain()

    # ---- listening -------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Open every listener, or none. Raises CannotListen."""
        wanted = self._wanted(self._generation)
        doors, bound = self._bind(wanted, _modes(self.service))
        for address, plan in wanted.items():
            self._listen_on(address, plan, bound.get(address))
        self._bring_captured(doors)

    def _bind(self, wanted: dict[Spot, _Plan], modes: dict[Address, SocketMode]) -> tuple[Doors, Bound]:
        """Sockets for the capture ports and for each listener that is new, or for none. Raises CannotListen."""
        doors = self._capture.bind() if self._capture is not None else []
        new = [spot for spot in wanted if not isinstance(spot, str) and spot not in self._ears]
        try:
            taken = [spot for spot, ear in self._ears.items() if isinstance(spot, Address) and ear.has_socket]
            bound = bind_all([spot for spot in new if not wanted[spot].captured], taken, modes)
            return doors, dict(bound.items())
        except BaseException:
            for _, sock in doors:
                sock.close()
            raise

    def _wanted(self, generation: Generation) -> dict[Spot, _Plan]:
        plans: dict[Spot, _Plan] = {}
        captured = generation.captured
        for spec, inbound in generation.inbound:
            plan = _Plan("inbound", spec.name, spec.protocol, inbound, captured is not None)
            plans[Address(spec.bind, spec.port)] = plan
        for name, protocol, address, outbound in generation.outbound:
            plans[address] = _Plan("outbound", name, protocol, outbound)
        for name, side in captured.sides.items() if captured is not None else ():
            plans[name] = _Plan("outbound", name, side.protocol, side, captured=True)
        return plans

    def _listen_on(self, address: Spot, plan: _Plan, sock: socket.socket | None) -> None:
        def on_wire(wire: SocketWire) -> None:
            self._on_wire(ear, wire)

        acceptor = self._reactor.listen(sock, on_wire) if sock is not None else self._capture
        assert acceptor is not None
        ear = self._ears[address] = _Ear(
            plan.direction, plan.name, plan.protocol, acceptor, plan.side.door, self._handler(plan)
        )

    def _captures(self) -> Capture | None:
        """Where captured connections come in; None where nobody is redirected."""
        captured = self._generation.captured
        if captured is None:
            return None
        from sidecar.runtime.capture import Capture, Hands

        hands = Hands(self._reactor, self._gate, self.mirror, self._on_wire, self._enter)
        return Capture(
            self._generation.service, captured, recorder=self._recorder, tunnels=self._tunnels, hands=hands
        )

    def _bring_captured(self, doors: Doors) -> None:
        """Let captured connections find what is in force now."""
        captured = self._generation.captured
        if self._capture is None or captured is None:
            return
        inbound = {spec.port: self._ears[Address(spec.bind, spec.port)] for spec, _ in self._inbound}
        self._capture.adopt(self.service, captured, inbound, {name: self._ears[name] for name in captured.sides})
        self._capture.open(doors)

    def _enter(self, direction: Direction, name: str, handler: Handler, wire: SocketWire) -> None:
        """Serve a connection, if there is room."""
        if self.admission.enter(direction, name):
            self._reactor.start(self._served(direction, name, handler, wire))
        else:
            wire.abort()

    def _handler(self, plan: _Plan) -> Handler:
        if isinstance(plan.side, InboundSide):
            return self._reception.for_peers(plan.side)
        return self._reception.for_application(plan.side, plan.protocol)

    def _on_wire(self, ear: _Ear, wire: SocketWire) -> None:
        if self.mirror.looking and self.mirror.is_ours(wire.peer_address()):
            side = ear.door.side
            assert isinstance(side, InboundSide)
            self._reactor.start(self.mirror.serve(self._reactor, self._gate, wire, side.spec))
            return
        if not self.admission.enter(ear.direction, ear.name):
            wire.abort()
            return
        self._reactor.start(self._served(ear.direction, ear.name, ear.handler, wire))
        if ear.direction == "inbound" and self.admission.crowded:
            ear.acceptor.pause()

    async def _served(
        self,
        direction: Direction,
        name: str,
        handler: Handler,
        wire: SocketWire,
    ) -> None:
        task = self._reactor.current
        assert task is not None
        self._tasks[task] = direction
        self._recorder.connection_opened(direction, name)
        try:
            await handler(wire)
        finally:
            del self._tasks[task]
            self.admission.leave(direction)
            self._recorder.connection_closed(direction, name)
            wire.close()

    def _reached(self, wire: SocketWire) -> tuple[str, int]:
        """The address that a caller meant, whatever rules made of it."""
        return self._capture.reached(wire) if self._capture is not None else wire.own_address()

    # ---- life ----------------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Open downstream connections."""
        return sum(self.admission.open.values())

    @property
    def inbound_connections(self) -> int:
        """Open connections of peers."""
        return self.admission.open["inbound"]

    @property
    def outbound_connections(self) -> int:
        """Open connections of our application."""
        return self.admission.open["outbound"]

    def cut_inbound(self) -> None:
        """End what peers still have open."""
        for task in [task for task, direction in self._tasks.items() if direction == "inbound"]:
            task.cancel()

    @property
    def in_flight(self) -> int:
        """Requests that have begun and not ended, but for those that count as streams."""
        now = self._reactor.now
        return sum(connection.is_in_flight(now) for connection in self._busy())

    @property
    def streams(self) -> int:
        """Upgrades, tunnels, raw TCP connections and requests older than 30 s (decision D25)."""
        now = self._reactor.now
        self._tunnels.requests_grown_old(sum(connection.is_old(now) for connection in self._busy()))
        return len(self._tunnels)

    def _busy(self) -> list[HttpConnection | Http2Connection]:
        return [connection for connection in self._reception.http if not connection.idle]

    def engine(self) -> dict[str, int]:
        """What must return to its start when all connections have gone; for soaks, and for whoever suspects a leak."""
        return {
            "tasks": len(self._reactor.tasks),
            "sockets": self._reactor.sockets,
            "descriptors": open_files(),
            "tls_contexts": contexts_alive(),
            "memory_bytes": memory_used(),
        }

    def sweep(self) -> None:
        """Close what has been idle or left over for too long; look whether there is memory for newcomers."""
        self._heap.look(self.connections, self.in_flight)
        self._look_at_requests()
        if self._memory_limit is not None:
            self.admission.short_of_memory = memory_used() > self._memory_limit * SHARE
        now = self._reactor.now
        self._left = [(at, old) for at, old in self._left if at > now or any(road.open for road in old.roads)]
        for _, old in self._left:
            old.sweep()
        gauge = self._recorder.metrics.counter("mesh_endpoints")
        for upstream in self.upstreams:
            upstream.sweep()  # which starts health checks
            for state, count in upstream.states().items():
                gauge.set(count, (upstream.name, state))
        if self._ends and self._ends[0] <= self._reactor.now:
            self._end_retired()
        minute = int(self._reactor.wall() // 60)
        if self._postures.look() or minute != self._minute:  # conditions of rules may look at the time of day
            self._minute = minute
            self.judge_again()
        self._reactor.nudge()

    def _look_at_requests(self) -> None:
        """End those whose peers are too slow, and count those that last (decision D25)."""
        now = self._reactor.now
        for connection in self._busy():
            connection.look(now)
        self._reactor.nudge()
        metrics = self._recorder.metrics
        metrics.counter("mesh_streams_open").set(self.streams)
        metrics.counter("mesh_requests_in_flight").set(self.in_flight)

    def _end_retired(self) -> None:
        """Time is up for what is still open behind listeners, or to upstreams, that are gone."""
        now = self._reactor.now
        self._ends = [at for at in self._ends if at > now]
        over = [door for door in self._retired if door.ends_at <= now]
        self._retired = [door for door in self._retired if door.ends_at > now]
        for connection in list(self._reception.http):
            if connection.door in over:
                connection.end()
        self.judge_again()

    def renew(self) -> None:
        """Our identity or our bundle has changed: connections to peers are replaced (decision D17)."""
        for upstream in self.upstreams:
            if upstream.meshed:
                upstream.renew(self._gate.generation)
        self.judge_again()

    def evict(self) -> None:
        """The denylist denies more than before: whoever is on it is cut off now (decision D10)."""
        self._tunnels.judge()
        gone = self._reception.guests.evict(self._gate, self._reception.http)
        called = sum(upstream.evict() for upstream in self._maker.upstreams())
        self._recorder.evicted(gone, called)
        self._reactor.nudge()

    def drain(self) -> None:
        """Take no new work from peers; what is in flight may end. Outbound stays open (semantics S27)."""
        self.draining = True
        self._come_to_an_end("inbound", [side.door for _, side in self._inbound])

    def drain_outbound(self) -> None:
        """Take no new connection of our application, and end those that are open with their next answer."""
        captured = self._generation.captured
        sides = [side for *_, side in self._outbound] + (list(captured.sides.values()) if captured is not None else [])
        self._come_to_an_end("outbound", [side.door for side in sides])

    def _come_to_an_end(self, direction: Direction, doors: list[Door]) -> None:
        for door in doors:
            door.draining = True
        for ear in self._ears.values():
            if ear.direction == direction:
                ear.acceptor.retire()
        if self._capture is not None:
            self._capture.end(direction)
        for connection in list(self._reception.http):
            if connection.direction == direction:
                connection.drain()


def _modes(service: Service) -> dict[Address, SocketMode]:
    """Who may use our Unix sockets."""
    return {spec.listen: spec.listen_mode for spec in service.outbound if spec.listen is not None and spec.listen.unix}
