"""The listeners of one sidecar on real sockets: all or none, limits, drain; its own words on the admin socket."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from certs.bundle import BundleSet
from certs.source import Source
from certs.svid import X509Svid
from sidecar.config.load import load_text
from sidecar.config.schema import MeshConfig
from sidecar.net.clock import SystemClock
from sidecar.net.mtls import MtlsGate
from sidecar.net.reactor import Reactor
from sidecar.runtime.build import CannotListen, Proxy
from sidecar.telemetry.record import Recorder
from tests.kit.free_ports import free_port
from tests.kit.identities import a_bundle, a_root, an_issuer, an_svid

ROOT = a_root()
ISSUER = an_issuer(ROOT)
CONFIG = """
trust_domain: demo.mesh
services:
  web:
    outbound: [{{to: orders, listen: "127.0.0.1:{local}"}}]
    health: {{listen: off}}
  orders:
    inbound: [{{name: http, port: {port}, app: "127.0.0.1:{app}"}}]
    allow: [{{name: web-reads, from: web, path: "/orders/{{id}}"}}]
    health: {{listen: off}}
"""


class Pair:
    """Two sidecars on one reactor, and an application that answers with what the test says."""

    def __init__(self, config: MeshConfig, reactor: Reactor) -> None:
        self.config = config
        self.reactor = reactor
        self.svids: dict[str, Source[X509Svid]] = {}
        self.proxies: dict[str, Proxy] = {}
        self.recorders: dict[str, Recorder] = {}
        self.streams: list[trio.SocketStream] = []

    async def get(
        self, path: str = "/orders/7", stream: trio.SocketStream | None = None
    ) -> tuple[bytes, trio.SocketStream]:
        """One request of the application, on a connection of its own or a given one; the answer, which is one piece."""
        if stream is None:
            listen = self.config.services["web"].outbound[0].listen
            assert listen is not None
            stream = await trio.open_tcp_stream(listen.host, listen.port)
            self.streams.append(stream)
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: orders\r\n\r\n".encode())
        with trio.fail_after(5):
            return await stream.receive_some(), stream

    def add(self, name: str) -> Proxy:
        self.svids[name] = Source("SVID")
        bundles: Source[BundleSet] = Source("bundle")
        self.svids[name].publish(an_svid(ISSUER, name))
        bundles.publish(BundleSet((a_bundle(ROOT),)))
        gate = MtlsGate(self.svids[name], bundles)
        self.recorders[name] = Recorder(instance="0000000" + str(len(self.proxies)))
        proxy = Proxy(
            self.config.services[name],
            reactor=self.reactor,
            gate=gate,
            recorder=self.recorders[name],
            instance="0000000" + str(len(self.proxies)),
        )
        gate.on_change.append(proxy.renew)
        self.proxies[name] = proxy
        return proxy


@asynccontextmanager
async def a_pair(hold: trio.Event | None = None, **limits: float) -> AsyncIterator[Pair]:
    local, port, app = free_port(), free_port(), free_port()
    config = load_text(CONFIG.format(local=local, port=port, app=app))
    orders = config.services["orders"]
    config.services["orders"] = replace(orders, limits=replace(orders.limits, **limits))  # type: ignore[index,arg-type]

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while data := await stream.receive_some():
                head += data
                if not head.endswith(b"\r\n\r\n"):
                    continue
                if hold is not None:
                    await hold.wait()
                await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                head = b""

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, app)
        assert listeners
        reactor = Reactor(SystemClock())
        crashes: list[BaseException] = []
        reactor.on_crash = crashes.append
        await nursery.start(reactor.run)
        pair = Pair(config, reactor)
        for name in ("web", "orders"):
            pair.add(name).listen()
        yield pair
        for stream in pair.streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert not crashes


def test_a_request_goes_through_two_sidecars():
    async def story() -> None:
        async with a_pair() as pair:
            answer, stream = await pair.get()
            assert answer.startswith(b"HTTP/1.1 200 ")
            answer, _ = await pair.get("/other", stream)
            assert answer.startswith(b"HTTP/1.1 403 ")
            rows = pair.recorders["orders"].table.read(0.0)["hops"]
            assert sorted((row["verdict"], row["requests"]) for row in rows) == [("deny", 1), ("permit", 1)]
            assert {row["tls_group"] for row in rows} == {"X25519MLKEM768"}

    trio.run(story)


def test_listeners_open_all_or_none():
    async def story() -> None:
        reactor = Reactor(SystemClock())
        local, port, app, taken = free_port(), free_port(), free_port(), free_port()
        text = CONFIG.format(local=local, port=port, app=app)
        config = load_text(text.replace("    allow:", f'    forward_proxy: "127.0.0.1:{taken}"\n    allow:'))
        pair = Pair(config, reactor)
        orders = pair.add("orders")
        why = f"127.0.0.1:{taken}: Address already in use"
        with socket.create_server(("127.0.0.1", taken)), pytest.raises(CannotListen, match=why):
            orders.listen()
        with socket.create_server(("127.0.0.1", port)):  # it did not stay open
            pass

    trio.run(story)


def test_connections_over_the_limit_are_closed_and_counted():
    async def story() -> None:
        async with a_pair(connections=1) as pair:
            orders = pair.proxies["orders"]
            port = pair.config.services["orders"].inbound[0].port
            async with await trio.open_tcp_stream("127.0.0.1", port):  # the only place, taken by somebody silent
                while not orders.connections:
                    await trio.sleep(0.01)
                with trio.fail_after(5), pytest.raises((OSError, trio.BrokenResourceError)):  # reset, early or late
                    async with await trio.open_tcp_stream("127.0.0.1", port) as second:
                        await second.receive_some()
                assert orders.admission.refused == 1
            text = pair.recorders["orders"].metrics.render().decode()
            assert 'mesh_connections_refused_total{direction="inbound",listener="http",reason="connections"} 1' in text
            while orders.connections:
                await trio.sleep(0.01)
            answer, _ = await pair.get()
            assert answer.startswith(b"HTTP/1.1 200 ")

    trio.run(story)


def test_a_drain_lets_what_is_in_flight_end_and_takes_nothing_new():
    async def story() -> None:
        hold = trio.Event()
        async with a_pair(hold) as pair, trio.open_nursery() as nursery:
            orders = pair.proxies["orders"]
            answers: list[bytes] = []

            async def one() -> None:
                answers.append((await pair.get())[0])

            nursery.start_soon(one)
            while not orders.in_flight:
                await trio.sleep(0.01)
            orders.drain()
            with pytest.raises(OSError, match=r"failed"):
                await trio.open_tcp_stream("127.0.0.1", pair.config.services["orders"].inbound[0].port)
            assert orders.in_flight == 1
            hold.set()
            while orders.connections:
                await trio.sleep(0.01)
            while not answers:
                await trio.sleep(0.01)
            assert answers[0].startswith(b"HTTP/1.1 200 ")
            answer, _ = await pair.get()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"UF connect_failed" in answer

    trio.run(story)


def test_a_new_identity_is_shown_at_once_and_costs_no_request():
    async def story() -> None:
        async with a_pair() as pair:
            _, stream = await pair.get()
            for _ in range(3):
                svid = an_svid(ISSUER, "web")
                pair.svids["web"].publish(svid)
                answer, _ = await pair.get(stream=stream)
                assert answer.startswith(b"HTTP/1.1 200 ")
            text = pair.recorders["orders"].metrics.render().decode()
            assert re.search(r'^mesh_tls_handshakes_total\{direction="inbound",.*result="ok".*\} 4(\.0)?$', text, re.M)

    trio.run(story)


def test_an_expired_identity_of_our_own_is_a_503_that_says_so():
    async def story() -> None:
        async with a_pair() as pair:
            long_ago = an_svid(ISSUER, "web", not_before=1_000_000_000.0, not_after=1_000_086_400.0)
            pair.svids["web"].publish(long_ago)
            answer, stream = await pair.get()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"ID no_identity" in answer
            pair.svids["web"].publish(an_svid(ISSUER, "web"))
            answer, _ = await pair.get(stream=stream)
            assert answer.startswith(b"HTTP/1.1 200 ")

    trio.run(story)
