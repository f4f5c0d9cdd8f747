"""Scenes for the whole proxy in memory: a caller, two sidecars and an application, in virtual time.

    @scene()
    async def test_it_is_kept_alive(stage: Stage) -> None:
        stage.app(apps.always(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"))
        web = await stage.call()                         # the application "web", at its listener for "orders"
        await web.say(b"GET / HTTP/1.1\\r\\nHost: orders\\r\\n\\r\\n")
        assert (await web.answer()).status == 200

The two sidecars are built by `sidecar.runtime.build.Proxy` from a mesh.yaml, as in production; only listening, wires,
time and TLS are the memory driver's. When a scene ends, the books are balanced: every hop that was opened has been
recorded once, no task and no wire is left, and the pools count right.

What comes over a wire is read by a small reader of the tests' own (`h1_line`), which shares no code with the proxy's.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, cast

from certs.spiffe import SpiffeId
from sidecar.config.load import load_text
from sidecar.config.schema import MeshConfig, Service
from sidecar.config.terms import Address
from sidecar.hop import Hop
from sidecar.net.memory import MemoryPort, MemoryWire, where
from sidecar.net.memory_gate import DAY, MemoryGate
from sidecar.net.port import Task, WireBroken
from sidecar.net.reactor import Reactor
from sidecar.proxy.upstream import Upstream
from sidecar.runtime.build import Proxy
from sidecar.runtime.worker import SWEEP_SECONDS
from sidecar.telemetry.record import Handshake, Recorder
from sidecar.telemetry.tally import Tally
from tests.kit.h1_line import Answer, HungUp, Line, Request
from tests.kit.hops import MALLORY, ORDERS, WEB
from tests.kit.outsiders import MemoryOutside
from tests.kit.tokens import Shelf

Serve = Callable[["Line"], Coroutine[Any, Any, object]]

APP = "127.0.0.1:8080"
MESH = """
trust_domain: demo.mesh
%(issuers)s
services:
  orders:
    address: 10.0.0.2
    inbound:
      - {name: http, port: 17443, app: "%(app)s", protocol: %(protocol)s%(http)s}
      - {name: raw, port: 17444, app: "127.0.0.1:5432", protocol: tcp%(raw)s}
    allow:
      - {name: web-may, from: %(may)s}
    limits: {pool: 4%(orders_limits)s}
%(orders)s
  web:
    address: 10.0.0.1
    outbound:
      - {to: orders, port: http, listen: "%(local)s"%(upstream)s}
      - {to: orders, port: raw, listen: "127.0.0.1:9002", host: orders-db}
    forward_proxy: "127.0.0.1:9000"
    limits: {pool: 4%(web_limits)s}
%(web)s
"""


class Books(Recorder):
    """A recorder that keeps the hops themselves. The real one runs too, on the scene's clock."""

    def __init__(self, instance: str, clock: Any) -> None:
        super().__init__(instance=instance, clock=clock)
        self.hops: list[Hop] = []
        self.handshakes: list[Handshake] = []
        self.opened = 0  # hops that were begun; CONNECTs that became tunnels are taken off again
        self.by_express = 0  # of those that have ended
        self.begun: list[Hop] = []  # the general way's; the express uses one again and again

    def observe(self, hop: Hop) -> None:
        """Keep the hop."""
        assert not any(hop is other for other in self.hops), "a hop was recorded twice"
        assert hop.ended >= hop.started
        assert hop.error is None or hop.decision_id
        if not any(hop is other for other in self.begun):
            self.opened += 1
        self.hops.append(hop)
        super().observe(hop)

    def observe_plain(self, hop: Hop, tally: Tally | None) -> Tally | None:
        """Keep a copy: the express will use this hop again."""
        assert hop.ended >= hop.first_byte >= hop.started
        assert hop.error is None
        assert not hop.decision_id
        assert not hop.shadow
        self.opened += 1
        self.by_express += 1
        self.hops.append(replace(hop))
        return super().observe_plain(hop, tally)

    def handshake(self, handshake: Handshake) -> str:
        """Keep the handshake."""
        self.handshakes.append(handshake)
        return super().handshake(handshake)

    @property
    def hop(self) -> Hop:
        """The only hop."""
        assert len(self.hops) == 1, self.hops
        return self.hops[0]

    @property
    def flags(self) -> list[str]:
        """The flags of all hops, in the order they ended."""
        return [hop.flag for hop in self.hops]


class MemoryProxy(Proxy):
    """A sidecar on the memory driver."""

    def __init__(
        self, port: MemoryPort, config: MeshConfig, name: str, gate: MemoryGate, keys: Shelf | None = None
    ) -> None:
        self.port = port
        self.books = Books(name.encode().hex()[:8].zfill(8), port.clock)
        self.tasks: list[Task] = []  # of downstream connections, in the order they came
        self.left: list[Upstream] = []  # that a reload has taken the place of
        service = config.services[name]
        self.outside = MemoryOutside()
        super().__init__(
            service, reactor=cast(Reactor, port), gate=gate, recorder=self.books, instance=self.books.instance,
            outside=cast(Any, self.outside),
            keys=(lambda: keys) if keys is not None else None,
        )  # fmt: skip

    def listen(self) -> None:
        """Listen in memory."""
        for spec, side in self._inbound:
            self._count_hops(side)
            handler = self._reception.for_peers(side)
            self.port.listen(self.service.address, spec.port, self._serving("inbound", spec.name, handler))
        for name, protocol, address, outbound in self._outbound:
            self._count_hops(outbound)
            handler = self._reception.for_application(outbound, protocol)
            self.port.listen(address.host, address.port, self._serving("outbound", name, handler))

    def _serving(self, direction: Any, name: str, handler: Any) -> Callable[[MemoryWire], Coroutine[Any, Any, None]]:
        async def serve(wire: MemoryWire) -> None:
            assert self.port.current is not None
            self.tasks.append(self.port.current)
            assert self.admission.enter(direction, name)
            await self._served(direction, name, handler, cast(Any, wire))

        return serve

    def _count_hops(self, side: Any) -> None:
        """Count every hop that this side opens."""
        make, inner = side._hop, getattr(side, "inner", None)

        def counted(*args: Any) -> Hop:
            self.books.opened += 1
            hop: Hop = make(*args)
            self.books.begun.append(hop)
            return hop

        def counted_inner(upstream: Any) -> Any:
            assert inner is not None
            known = upstream.name in side._inner
            narrowed = inner(upstream)
            self.books.opened -= 1  # a tunnel now, whose contents are the hops
            if not known:
                self._count_hops(narrowed)
            return narrowed

        side._hop = counted
        if inner is not None:
            side.inner = counted_inner

    def reload(self, service: Service) -> None:
        """Put another configuration with the same listeners in force."""
        before, after = self._generation, self._maker.generation(service, self._generation)
        self._generation = after
        after.put_in_force()
        self._desk.adopt(after.quotas)
        for (_, inbound), (_, old_inbound) in zip(after.inbound, before.inbound, strict=True):
            inbound.take_over(old_inbound)
            self._count_hops(inbound)
        for (*_, outbound), (*_, old_outbound) in zip(after.outbound, before.outbound, strict=True):
            outbound.take_over(old_outbound)
            self._count_hops(outbound)
        self.left += [left for left, _ in before.left_for(after)]
        self._leave_behind(before, after, self.port.now + service.timeouts.drain)
        self.judge_again()

    def check_books(self) -> None:
        """Every hop was recorded once, nothing is open, and the pools count right."""
        books = self.books
        assert books.opened == len(books.hops), f"{books.opened} hops were opened, {len(books.hops)} recorded"
        assert self.connections == 0, f"{self.connections} connections are still open"
        for upstream in [*self.upstreams, *self.left]:
            for endpoint, place in upstream.places.items():
                pool = place.pool
                assert pool.open == len(pool._idle), f"{upstream.name}: {pool.open} open, {len(pool._idle)} idle"
                assert not pool._waiting
                for trunks in (place.trunks, place.sockets.trunks):
                    left = (trunks.open, trunks._connecting, len(trunks._calls), len(trunks._waiting))
                    assert left == (0, 0, 0, 0), f"{upstream.name}: {left}"
                assert endpoint.active == 0, f"{upstream.name}: {endpoint.active} attempts under way"
            ceilings = upstream.destination.ceilings
            assert (ceilings.requests.count, ceilings.retries.count) == (0, 0)
        for door in {side.door for _, side in self._inbound} | {side.door for *_, side in self._outbound}:
            assert not door.rooms._taken, door.rooms._taken


class Stage:
    """Who plays: the application web, its sidecar, the sidecar of orders, and the application orders."""

    def __init__(
        self, *, orders: str = "", web: str = "", http: str = "", raw: str = "", orders_limits: str = "",
        web_limits: str = "", app: str = APP, protocol: str = "http", local: str = "127.0.0.1:9001",
        upstream: str = "", may: str = "[web]", issuers: str = "", contract: str = "",
    ) -> None:  # fmt: skip
        random.seed(0)  # whom a balancer picks, and how long a retry waits
        self.port = MemoryPort()
        wall = self.port.wall()
        more = {"orders": orders, "web": web, "http": http, "raw": raw}
        more |= {"app": app, "protocol": protocol, "local": local, "upstream": upstream, "may": may}
        more |= {"orders_limits": orders_limits, "web_limits": web_limits, "issuers": issuers}
        more |= {"contract": contract}
        self._words = more
        self.config = load_text(MESH % more, others=_files(more), now=wall)
        self.gates = {who: MemoryGate(who, not_after=wall + DAY) for who in (WEB, ORDERS, MALLORY)}
        self.keys = Shelf()
        self.web = MemoryProxy(self.port, self.config, "web", self.gates[WEB])
        self.orders = MemoryProxy(self.port, self.config, "orders", self.gates[ORDERS], self.keys)
        self.web.listen()
        self.orders.listen()
        self.apps: list[Line] = []  # connections to the application, in the order they came
        self._callers: list[Line] = []

    def reload(self, **changes: str) -> None:
        """Put a configuration in force, in both sidecars, that differs from the first one in these additions."""
        words = self._words | changes
        self.config = load_text(MESH % words, others=_files(words), now=self.port.wall())
        for proxy, name in ((self.web, "web"), (self.orders, "orders")):
            proxy.reload(self.config.services[name])

    @property
    def now(self) -> float:
        """Virtual seconds since the scene began."""
        return self.port.now

    def app(self, serve: Serve, address: str = APP) -> None:
        """Let this be the application: `serve(line)` runs for each connection."""
        host, number = (address, "0") if address.startswith("unix:") else address.rsplit(":", 1)

        async def accept(wire: MemoryWire) -> None:
            line = Line(wire)
            self.apps.append(line)
            try:
                await serve(line)
            except (WireBroken, HungUp):
                pass
            finally:
                wire.close()

        self.port.listen(host, int(number), accept)

    async def call(self, port: int = 9001, host: str = "127.0.0.1") -> Line:
        """Connect as the application web to a listener of its sidecar; 9000 is the forward proxy, 9002 the raw one."""
        return self._known(await self.port.dial(host, port))

    async def peer(self, who: SpiffeId = WEB, port: int = 17443, *, h2: bool = False) -> Line:
        """Connect as a peer without a sidecar of its own, straight to the sidecar of orders."""
        wire = await self.port.dial("10.0.0.2", port)
        secure, _ = await self.gates[who].connect(
            self.port, wire, http=True, server_name="orders", expected=ORDERS, within=5.0, h2=h2
        )
        self.port.deadline(float("inf"))
        return self._known(secure)

    async def stranger(self, port: int = 17443) -> Line:
        """Connect to the sidecar of orders without TLS."""
        return self._known(await self.port.dial("10.0.0.2", port))

    def _known(self, wire: Any) -> Line:
        line = Line(wire)
        self._callers.append(line)
        return line

    async def ask(self, request: bytes, method: str = "GET", port: int = 9001) -> Answer:
        """One request on a connection of its own."""
        line = await self.call(port)
        await line.say(request)
        answer = await line.answer(method)
        line.close()
        return answer

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await self.port.sleep(seconds)

    async def quiet(self) -> None:
        """Wait until nobody has anything to do, without time passing."""
        await self.port.settled()

    def run(self, script: Coroutine[Any, Any, None]) -> None:
        """Play, then see to it that the books balance."""
        try:
            self.port.run(script)
            self.end()
        finally:
            self.port.close()

    def end(self) -> None:
        """Let everybody leave, and see to it that the books balance."""
        for line in self._callers:
            line.close()
        self.port.run(self._clear())
        self.web.check_books()
        self.orders.check_books()
        assert not [wire for wire in self.port.wires if not wire.closed], "wires are left open"
        assert not self.port.tasks, f"tasks are left: {[where(task) for task in self.port.tasks]}"

    async def _clear(self) -> None:
        """Let everybody come to an end; lingering closes and pools take their time."""
        for checks in [upstream.checks for proxy in (self.web, self.orders) for upstream in proxy.upstreams]:
            if checks is not None:
                checks.stop()  # they would go on for ever
        for _ in range(14):
            await self.port.sleep(5.0)
            self.sweep()
        for task in list(self.port.tasks):
            if task is not self.port.current and task not in (*self.web.tasks, *self.orders.tasks):
                task.cancel()  # a part of the scene that goes on: an application that sleeps, a caller that sends
        await self.port.settled()

    def attend(self) -> None:
        """Sweep from now on as a worker does, again and again. Nothing can deadlock any more: time always passes."""

        async def attending() -> None:
            while True:
                await self.port.sleep(SWEEP_SECONDS)
                self.sweep()

        self.port.start(attending())

    def sweep(self) -> None:
        """What a worker does twice a second: close pooled connections that have been idle for too long."""
        for proxy in (self.web, self.orders):
            proxy.sweep()


def _files(words: dict[str, str]) -> dict[str, str]:
    """The files beside the mesh.yaml of a scene."""
    return {"contract.yaml": words["contract"]} if words["contract"] else {}


def scene(**config: str) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """The test is a script for a stage that is set up with these additions to mesh.yaml."""

    def made(script: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        @functools.wraps(script)
        def play(*args: Any, **kwargs: Any) -> None:
            stage = Stage(**config)
            stage.run(script(stage, *args, **kwargs))

        del play.__wrapped__  # or pytest would look for a fixture called "stage"
        play.__signature__ = _without_first(script)  # type: ignore[attr-defined]
        return play

    return made


def _without_first(function: Callable[..., Any]) -> Any:
    import inspect

    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:], return_annotation=None)


__all__ = ["Address", "Answer", "Line", "Request", "Stage", "scene"]
