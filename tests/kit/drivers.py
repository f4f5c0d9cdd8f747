"""Both drivers of the port behind one face, so that one contract holds them to the same promises."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import trio

from sidecar.net.clock import SystemClock
from sidecar.net.contexts import make_context
from sidecar.net.memory import MemoryPort
from sidecar.net.port import Driver, Wire
from sidecar.net.reactor import Reactor
from sidecar.net.tls import TlsWire
from sidecar.net.wires import SocketWire
from tests.kit.identities import a_root, an_issuer, an_svid

T = TypeVar("T")
Pair = Callable[[], Awaitable[tuple[Wire, Wire]]]  # a new connection: both of its ends
Scenario = Callable[[Any, Pair], Coroutine[Any, Any, T]]

ROOT = a_root()
ISSUER = an_issuer(ROOT)
WEB, ORDERS = an_svid(ISSUER, "web"), an_svid(ISSUER, "orders")


def in_memory(scenario: Scenario[T]) -> T:
    """Run it on the memory driver."""
    port = MemoryPort()

    async def pair() -> tuple[Wire, Wire]:
        return port.pair()

    return port.run(scenario(port, pair))


def on_sockets(scenario: Scenario[T]) -> T:
    """Run it on the reactor, over TCP on loopback."""

    async def body(reactor: Reactor) -> T:
        async def pair() -> tuple[Wire, Wire]:
            left, right = loopback_pair()
            wires.extend((SocketWire(reactor, left), SocketWire(reactor, right)))
            return wires[-2], wires[-1]

        wires: list[Wire] = []
        try:
            return await scenario(reactor, pair)
        finally:
            for wire in wires:
                wire.close()

    return on_reactor(body)


def on_tls(scenario: Scenario[T]) -> T:
    """Run it on the reactor, over TLS on loopback."""

    async def body(reactor: Reactor) -> T:
        async def pair() -> tuple[Wire, Wire]:
            left, right = loopback_pair()
            client_context = make_context(WEB, [ROOT.certificate], server=False, verify="require")
            server_context = make_context(ORDERS, [ROOT.certificate], server=True, verify="require")
            client = TlsWire(SocketWire(reactor, left), client_context, server=False)
            server = TlsWire(SocketWire(reactor, right), server_context, server=True)
            other = reactor.spawn(server.handshake())
            wires.extend((client, server))
            await client.handshake()
            await reactor.wait(other)
            return client, server

        wires: list[Wire] = []
        try:
            return await scenario(reactor, pair)
        finally:
            for wire in wires:
                wire.close()

    return on_reactor(body)


def on_reactor(body: Callable[[Reactor], Coroutine[Any, Any, T]]) -> T:
    """Run a connection coroutine on a reactor, and fail after 10 s."""

    async def whole() -> T:
        reactor = Reactor(SystemClock())
        crashes: list[BaseException] = []
        reactor.on_crash = crashes.append
        ended = trio.Event()
        outcome: list[T] = []

        async def connection() -> None:
            try:
                outcome.append(await body(reactor))
            finally:
                ended.set()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(reactor.run)
                reactor.launch(connection())
                await ended.wait()
                nursery.cancel_scope.cancel()
        for crash in crashes:
            raise crash
        return outcome[0]

    return trio.run(whole)


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection on loopback, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    for sock in (left, right):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return left, right


async def read_all(wire: Wire) -> bytes:
    """Everything until the other side has finished."""
    found = b""
    while data := await wire.read():
        found += data
    return found


async def read_exactly(wire: Wire, size: int) -> bytes:
    """So many bytes."""
    found = b""
    while len(found) < size:
        data = await wire.read()
        assert data, f"the other side finished after {len(found)} of {size} bytes"
        found += data
    return found


def runs(driver: Driver) -> int:
    """How many tasks have not ended."""
    return len(driver.tasks)


DRIVERS = {"memory": in_memory, "sockets": on_sockets, "tls": on_tls}
