"""A running proxy gets another configuration: on real sockets, with connections open, all of it or nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trio

from certs.bundle import BundleSet
from certs.source import Source
from sidecar.config.load import load_text
from sidecar.hop import Hop
from sidecar.net.clock import SystemClock
from sidecar.net.mtls import MtlsGate
from sidecar.net.reactor import Reactor
from sidecar.runtime.build import CannotListen, Proxy
from sidecar.telemetry.record import Recorder
from sidecar.telemetry.tally import Tally
from tests.kit.free_ports import Ports
from tests.kit.identities import Authority, a_bundle, a_root, an_issuer, an_svid

ROOT = a_root()
ISSUER = an_issuer(ROOT)


class Books(Recorder):
    """A recorder that keeps hops."""

    def __init__(self, instance: str) -> None:
        super().__init__(instance=instance)
        self.hops: list[Hop] = []

    def observe(self, hop: Hop) -> None:
        self.hops.append(hop)
        super().observe(hop)

    def observe_plain(self, hop: Hop, tally: Tally | None) -> Tally | None:
        self.hops.append(replace(hop))  # the express will use this one again
        return super().observe_plain(hop, tally)

    @property
    def flags(self) -> list[str]:
        return [hop.flag for hop in self.hops]


class Line:
    """A connection of a test."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def get(self, path: str = "/", host: str = "orders") -> bytes:
        await self.stream.send_all(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        return await self.hear()

    async def hear(self) -> bytes:
        with trio.fail_after(5):
            return await self.stream.receive_some()

    async def echo(self, word: bytes) -> None:
        await self.stream.send_all(word)
        assert await self.hear() == word

    async def broke(self) -> bool:
        try:
            return await self.hear() == b""
        except trio.BrokenResourceError:
            return True


class Mesh:
    """web's and orders' sidecars on one reactor, two HTTP applications that say who they are, and one that echoes."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.ports = Ports()
        self.proxies: dict[str, Proxy] = {}
        self.gates: dict[str, MtlsGate] = {}
        self.bundles: dict[str, Source[BundleSet]] = {}
        self.books: dict[str, Books] = {}
        self.streams: list[trio.SocketStream] = []

    def text(
        self, *, allow: str = "[{name: all, from: web}]", app: str = "first", http: str = "http_in", door: str = "door",
        web: str = "", orders: str = "", raw: bool = True,
    ) -> str:  # fmt: skip
        p = self.ports
        raws = (
            (f'{{to: orders, port: raw, listen: "127.0.0.1:{p.raw_door}", host: orders-db}},' if raw else ""),
            (f'{{name: raw, port: {p.raw_in}, app: "127.0.0.1:{p.echo}", protocol: tcp}},' if raw else ""),
        )
        return f"""
trust_domain: demo.mesh
services:
  web:
    outbound: [{raws[0]} {{to: orders, port: http, listen: "127.0.0.1:{getattr(p, door)}"}}]
    forward_proxy: "127.0.0.1:{p.proxy}"
    health: {{listen: off}}
    {web}
  orders:
    inbound: [{raws[1]} {{name: http, port: {getattr(p, http)}, app: "127.0.0.1:{getattr(p, app)}"}}]
    allow: {allow}
    health: {{listen: off}}
    {orders}
"""

    def add(self, name: str, text: str) -> None:
        svids, bundles = Source("SVID"), Source("bundle")  # type: ignore[var-annotated]
        svids.publish(an_svid(ISSUER, name))
        bundles.publish(BundleSet((a_bundle(ROOT),)))
        self.bundles[name] = bundles
        gate = self.gates[name] = MtlsGate(svids, bundles)
        self.books[name] = Books(f"0000000{len(self.proxies)}")
        service = load_text(text, now=time.time()).services[name]
        proxy = self.proxies[name] = Proxy(
            service, reactor=self.reactor, gate=gate, recorder=self.books[name], instance=self.books[name].instance
        )
        gate.on_change.append(proxy.renew)
        proxy.listen()

    def reload(self, name: str, text: str) -> None:
        self.proxies[name].reload(load_text(text, now=time.time()).services[name])

    def trust(self, name: str, *roots: Authority) -> None:
        first, *others = roots
        bundle = a_bundle(first, *others)
        self.bundles[name].publish(BundleSet((bundle,)))

    async def call(self, port: str = "door") -> Line:
        stream = await trio.open_tcp_stream("127.0.0.1", getattr(self.ports, port))
        self.streams.append(stream)
        return Line(stream)


@asynccontextmanager
async def a_mesh() -> AsyncIterator[Mesh]:
    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    await stream.send_all(data)

    def named(name: str) -> Callable[[trio.SocketStream], object]:
        async def answer(stream: trio.SocketStream) -> None:
            async with stream:
                while data := await stream.receive_some():
                    if b"pgrade:" in data:
                        await stream.send_all(
                            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n"
                        )
                        await echo(stream)
                        return
                    await stream.send_all(f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode())

        return answer

    async with trio.open_nursery() as nursery:
        reactor = Reactor(SystemClock())
        crashes: list[BaseException] = []
        reactor.on_crash = crashes.append
        await nursery.start(reactor.run)
        mesh = Mesh(reactor)
        for name in ("first", "second"):
            await nursery.start(trio.serve_tcp, named(name), getattr(mesh.ports, name))
        await nursery.start(trio.serve_tcp, echo, mesh.ports.echo)
        for name in ("web", "orders"):
            mesh.add(name, mesh.text())
        try:
            yield mesh
        finally:
            for stream in mesh.streams:
                stream.socket.close()
        nursery.cancel_scope.cancel()
    assert not crashes


def story(play: Callable[[Mesh], object]) -> Callable[[], None]:
    def test() -> None:
        async def run() -> None:
            with trio.fail_after(30):
                async with a_mesh() as mesh:
                    await play(mesh)  # type: ignore[misc]

        trio.run(run)

    test.__name__ = play.__name__
    return test


@story
async def test_a_policy_is_in_force_for_the_next_request_on_open_connections(mesh: Mesh) -> None:
    line = await mesh.call()
    assert (await line.get("/a")).startswith(b"HTTP/1.1 200 ")
    mesh.reload("orders", mesh.text(allow="[{name: b-only, from: web, path: /b}]"))
    assert (await line.get("/a")).startswith(b"HTTP/1.1 403 ")
    assert (await line.get("/b")).startswith(b"HTTP/1.1 200 ")
    mesh.reload("orders", mesh.text(allow="[]"))
    assert (await line.get("/b")).startswith(b"HTTP/1.1 403 ")
    mesh.reload("orders", mesh.text())
    assert (await line.get("/a")).startswith(b"HTTP/1.1 200 ")
    assert [hop.rule for hop in mesh.books["orders"].hops] == ["all", "", "b-only", "", "all"]
    opened = 'mesh_connections_opened_total{direction="inbound",listener="http"} 1'
    assert opened in mesh.books["orders"].metrics.render().decode()  # all of it on one


@story
async def test_routes_and_limits_are_those_of_the_next_request(mesh: Mesh) -> None:
    line = await mesh.call()
    body = b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 5\r\n\r\n12345"
    await line.stream.send_all(body)
    assert (await line.hear()).startswith(b"HTTP/1.1 200 ")
    app = f'app: "127.0.0.1:{mesh.ports.first}"'
    text = mesh.text().replace(app, f"{app}, routes: [{{path: /, max_body: 4B}}]")
    mesh.reload("orders", text)
    await line.stream.send_all(body)
    assert (await line.hear()).startswith(b"HTTP/1.1 413 ")


@story
async def test_another_application_and_another_endpoint_take_over_without_a_failure(mesh: Mesh) -> None:
    line = await mesh.call()
    assert (await line.get()).endswith(b"first")
    mesh.reload("orders", mesh.text(app="second"))
    assert (await line.get()).endswith(b"second")
    mesh.reload("orders", mesh.text(app="second", http="http_in_2"))
    mesh.reload("web", mesh.text(app="second", http="http_in_2"))
    assert (await line.get()).endswith(b"second")
    assert mesh.books["web"].flags == ["-"] * 3


@story
async def test_listeners_move_new_ones_first_and_old_ones_drain(mesh: Mesh) -> None:
    line = await mesh.call()
    await line.get()
    mesh.reload("web", mesh.text(door="door_2"))
    answer = await line.get()  # the old connection has a moment, and is told
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
    with pytest.raises(OSError, match="failed"):
        await mesh.call("door")
    assert (await (await mesh.call("door_2")).get()).endswith(b"first")


@story
async def test_a_listener_that_goes_keeps_its_routes_while_it_drains(mesh: Mesh) -> None:
    first = f'app: "127.0.0.1:{mesh.ports.first}"'
    routed = mesh.text().replace(first, f'{first}, routes: [{{path: /b, app: "127.0.0.1:{mesh.ports.second}"}}]')
    mesh.reload("orders", routed)
    line = await mesh.call()
    assert (await line.get("/b")).endswith(b"second")
    assert (await line.get("/a")).endswith(b"first")
    mesh.reload("orders", routed.replace(f"port: {mesh.ports.http_in},", f"port: {mesh.ports.http_in_2},"))
    assert (await line.get("/b")).endswith(b"second")


@story
async def test_a_port_that_is_taken_changes_nothing_at_all(mesh: Mesh) -> None:
    line = await mesh.call()
    with socket.create_server(("127.0.0.1", mesh.ports.door_2)):
        before = mesh.proxies["web"].show.listeners()
        text = mesh.text(door="door_2", web='limits: {connections: 1}\n    deny: [{from: "**"}]').replace(
            f"127.0.0.1:{mesh.ports.proxy}", f"127.0.0.1:{mesh.ports.proxy_2}"
        )
        with pytest.raises(CannotListen, match=f"127.0.0.1:{mesh.ports.door_2}: Address already in use"):
            mesh.reload("web", text)
    assert mesh.proxies["web"].show.listeners() == before
    assert mesh.proxies["web"].service.deny == ()
    with socket.create_server(("127.0.0.1", mesh.ports.proxy_2)):  # what could be opened was closed again
        pass
    assert (await line.get()).endswith(b"first")
    assert (await (await mesh.call()).get()).endswith(b"first")


@story
async def test_a_port_moved_to_another_address_of_ours_says_restart(mesh: Mesh) -> None:
    text = mesh.text().replace(f"port: {mesh.ports.http_in},", f"port: {mesh.ports.http_in}, bind: 0.0.0.0,")
    with pytest.raises(CannotListen, match=r"by this very sidecar on 127\.0\.0\.1:.*restart it"):
        mesh.reload("orders", text)


@story
async def test_one_port_may_change_hands(mesh: Mesh) -> None:
    """The address of the raw listener becomes the HTTP listener's."""
    raw, line = await mesh.call("raw_door"), await mesh.call()
    await raw.echo(b"ping")
    assert (await line.get()).endswith(b"first")
    text = mesh.text(door="raw_door", raw=False)
    mesh.reload("web", text)
    assert (await (await mesh.call("raw_door")).get()).endswith(b"first")
    await raw.echo(b"still drains")


@pytest.mark.parametrize("kind", ["raw", "upgrade"])
def test_a_tunnel_that_is_no_longer_allowed_is_reset_at_once(kind: str) -> None:
    @story
    async def play(mesh: Mesh) -> None:
        kept, line = await a_tunnel(mesh, kind), await a_tunnel(mesh, kind)
        mesh.reload("orders", mesh.text(allow="[{name: others, from: web}]"))
        await kept.echo(b"allowed by another name")
        await line.echo(b"too")
        mesh.reload("orders", mesh.text(allow="[{name: b-only, from: web, path: /b}]"))
        assert await line.broke()
        assert await kept.broke()
        hops = [hop for hop in mesh.books["orders"].hops if hop.error is not None]
        assert [(hop.flag, hop.error and hop.error.midway) for hop in hops] == [("PD", "policy")] * 2
        assert all(hop.decision_id for hop in hops)
        text = mesh.books["orders"].metrics.render().decode()
        assert 'mesh_connections_ended_early_total{direction="inbound",reason="policy"} 2' in text

    play()


async def a_tunnel(mesh: Mesh, kind: str) -> Line:
    line = await mesh.call("raw_door" if kind == "raw" else "door")
    if kind == "upgrade":
        ask = b"GET /a HTTP/1.1\r\nhost: orders\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n"
        await line.stream.send_all(ask)
        assert (await line.hear()).startswith(b"HTTP/1.1 101 ")
    await line.echo(b"ping")
    return line


@pytest.mark.parametrize("kind", ["raw", "upgrade"])
@pytest.mark.parametrize("who", ["web", "orders"])
def test_a_tunnel_whose_root_leaves_the_bundle_is_reset_at_once(kind: str, who: str) -> None:
    @story
    async def play(mesh: Mesh) -> None:
        line = await a_tunnel(mesh, kind)
        mesh.trust(who, ROOT, OTHER)  # one more root: nothing happens to anybody
        await line.echo(b"still here")
        mesh.trust(who, OTHER)
        assert await line.broke()
        (hop,) = mesh.books[who].hops
        assert (hop.flag, hop.error and hop.error.midway) == ("ID", "identity")

    play()


OTHER = a_root()


@story
async def test_a_peer_whose_root_left_is_refused_at_its_next_request(mesh: Mesh) -> None:
    line = await mesh.call()
    assert (await line.get()).endswith(b"first")
    mesh.trust("orders", OTHER)
    answer = await line.get()  # web's sidecar still takes its pooled connection
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert mesh.books["orders"].flags == ["-", "ID"]
    assert "unknown_root" in str(vars(mesh.books["orders"].hops[-1].error))
    mesh.trust("orders", ROOT)
    assert (await line.get()).endswith(b"first")


@story
async def test_what_is_no_longer_declared_is_refused_at_once_and_its_tunnels_end_in_time(mesh: Mesh) -> None:
    raw = await mesh.call("raw_door")
    await raw.echo(b"ping")
    text = mesh.text(raw=False, web="timeouts: {drain: 1s}")
    mesh.reload("web", text)
    await raw.echo(b"not yet")
    await trio.sleep(1.1)
    mesh.proxies["web"]._reactor.read_clock()  # on a busy machine its own sweep may be late
    mesh.proxies["web"].sweep()
    assert await raw.broke()
    assert mesh.books["web"].hops[-1].error.midway == "removed"  # type: ignore[union-attr]


@story
async def test_an_upstream_that_must_be_somebody_else_now_is_left_at_once(mesh: Mesh) -> None:
    mesh.reload("web", mesh.text(raw=False))
    tunnel, line = await a_tunnel(mesh, "upgrade"), await mesh.call()
    assert (await line.get()).endswith(b"first")
    # As for a service outside of this file, whose identity the file itself must say:
    mesh.reload("web", f"""
trust_domain: demo.mesh
services:
  web:
    outbound:
      - to: orders
        listen: "127.0.0.1:{mesh.ports.door}"
        identity: spiffe://demo.mesh/ns/default/sa/somebody
        endpoints: ["127.0.0.1:{mesh.ports.http_in}"]
    health: {{listen: off}}
""")
    assert await tunnel.broke()
    answer = await line.get()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"ID peer_identity" in answer


@story
async def test_the_forward_proxy_knows_the_upstreams_of_now(mesh: Mesh) -> None:
    line = await mesh.call("proxy")
    assert (await line.get("http://orders/", "orders")).endswith(b"first")
    text = mesh.text().replace("to: orders, port: http,", "to: orders, port: http, host: shop,")
    mesh.reload("web", text)
    assert (await line.get("http://shop/", "shop")).endswith(b"first")
    assert (await line.get("http://orders/", "orders")).startswith(b"HTTP/1.1 403 ")
    inner = await mesh.call("proxy")
    await inner.stream.send_all(b"CONNECT shop:80 HTTP/1.1\r\nhost: shop:80\r\n\r\n")
    assert (await inner.hear()).startswith(b"HTTP/1.1 200 ")
    assert (await inner.get("/", "shop")).endswith(b"first")
    mesh.reload("web", mesh.text(app="second"))
    assert (await inner.get("/", "orders")).endswith(b"first")  # the inside of a CONNECT is of the same generation


@story
async def test_a_hundred_reloads_leave_nothing_behind(mesh: Mesh) -> None:
    line = await mesh.call()
    texts = [mesh.text(), mesh.text(door="door_2"), mesh.text(raw=False), mesh.text(app="second")]
    for count in range(100):
        mesh.reload("web", texts[count % 4])
        mesh.reload("orders", texts[count % 4])
    mesh.reload("web", mesh.text(web="timeouts: {drain: 0s}"))
    await trio.sleep(0.05)
    for proxy in mesh.proxies.values():
        proxy._ends = [0.0]
        for door in proxy._retired:
            door.ends_at = 0.0
        proxy.sweep()
        assert (proxy._retired, proxy._ends, len(proxy._tunnels)) == ([], [], 0)
    assert len(mesh.proxies["web"]._ears) == 3
    assert (await (await mesh.call()).get()).startswith(b"HTTP/1.1 200 ")
    assert await line.broke()  # its listener has come and gone


@story
async def test_a_caller_with_another_replica_to_go_to_loses_nothing_to_a_drain(mesh: Mesh) -> None:
    """POSTs, which nobody may send twice, on one kept connection, while the replica that they go to drains."""
    text = f"""
trust_domain: demo.mesh
services:
  web:
    outbound:
      - to: orders
        listen: "127.0.0.1:{mesh.ports.door}"
        identity: spiffe://demo.mesh/ns/default/sa/orders
        endpoints: ["127.0.0.1:{mesh.ports.http_in}", "127.0.0.1:{mesh.ports.replica_in}"]
    health: {{listen: off}}
"""
    mesh.reload("web", text)
    first = mesh.proxies["orders"]
    mesh.add("orders", mesh.text(http="replica_in", raw=False))
    line, other = await mesh.call(), await mesh.call()
    post = b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 2\r\n\r\nhi"
    for count in range(60):
        if count == 20:
            first.drain()
        for each in (line, other):
            await each.stream.send_all(post)
            assert (await each.hear()).startswith(b"HTTP/1.1 200 ")
        await trio.sleep(0.01)
    while first.inbound_connections:
        await trio.sleep(0.05)
    assert mesh.books["web"].flags == ["-"] * 120
