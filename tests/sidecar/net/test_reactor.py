"""The driver on epoll, where it has promises of its own: accepting, calling into trio, and ending."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

from sidecar.net.clock import SystemClock
from sidecar.net.port import Expired, Unreachable, WireBroken
from sidecar.net.reactor import Reactor
from sidecar.net.wires import SocketWire
from tests.kit.drivers import loopback_pair, on_reactor
from tests.kit.trio_time import in_trio


def listener(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0) if family == socket.AF_INET else ("::1", 0), family=family)
    sock.setblocking(False)
    return sock


def test_what_is_accepted_comes_as_a_wire_and_dialling_reaches_it() -> None:
    async def body(reactor: Reactor) -> None:
        got: list[SocketWire] = []
        sock = listener()
        acceptor = reactor.listen(sock, got.append)
        near = await reactor.dial(*sock.getsockname())
        await near.write(b"hello")
        while not got:
            await reactor.sleep(0.01)
        assert await got[0].read() == b"hello"
        assert got[0].peer_address() == near.sock.getsockname()  # type: ignore[attr-defined]
        near.close()
        assert await got[0].read() == b""
        got[0].close()
        acceptor.close()

    on_reactor(body)


def test_a_burst_of_connections_is_accepted_whole() -> None:
    async def body(reactor: Reactor) -> None:
        got: list[SocketWire] = []
        sock = listener()
        acceptor = reactor.listen(sock, got.append)
        callers = [socket.create_connection(sock.getsockname()) for _ in range(100)]
        while len(got) < 100:
            await reactor.sleep(0.01)
        for end in (*callers, *got):
            end.close()
        acceptor.close()

    on_reactor(body)


def test_names_are_resolved_off_the_hot_path() -> None:
    async def body(reactor: Reactor) -> None:
        sock = listener()
        acceptor = reactor.listen(sock, lambda wire: wire.close())
        (await reactor.dial("localhost", sock.getsockname()[1])).close()
        with pytest.raises(Unreachable, match="resolved"):
            await reactor.dial("no-such-host.invalid", 80)
        acceptor.close()

    on_reactor(body)


def test_calling_into_trio_brings_back_results_and_errors() -> None:
    async def double(number: int) -> int:
        await trio.sleep(0)
        return 2 * number

    async def fail() -> None:
        await trio.sleep(0)
        raise ZeroDivisionError

    async def body(reactor: Reactor) -> None:
        assert await reactor.call(double, 21) == 42
        with pytest.raises(ZeroDivisionError):
            await reactor.call(fail)

    on_reactor(body)


def test_a_time_out_is_never_early_and_at_most_a_sweep_late() -> None:
    async def body(reactor: Reactor) -> None:
        left, right = loopback_pair()
        wire = SocketWire(reactor, left)
        began = reactor.clock.monotonic()
        reactor.deadline(began + 0.2)
        with pytest.raises(Expired):
            await wire.read()
        took = reactor.clock.monotonic() - began
        assert 0.2 <= took < 1.0  # 0.3 on a machine with nothing else to do
        wire.close()
        right.close()

    on_reactor(body)


def test_one_busy_connection_does_not_starve_trio() -> None:
    async def body(reactor: Reactor) -> int:
        left, right = loopback_pair()
        a, b = SocketWire(reactor, left), SocketWire(reactor, right)
        running = True

        async def bounce(wire: SocketWire) -> None:
            while running:
                await wire.write(await wire.read())

        tasks = [reactor.spawn(bounce(wire)) for wire in (a, b)]
        await a.write(b"x")
        turns = 0

        async def turn() -> None:
            await trio.lowlevel.checkpoint()

        for _ in range(50):
            await reactor.call(turn)
            turns += 1
        running = False
        for task in tasks:
            task.cancel()
        a.close()
        b.close()
        return turns

    assert on_reactor(body) == 50


@in_trio
async def test_the_end_of_the_reactor_ends_every_connection() -> None:
    reactor = Reactor(SystemClock())
    left, right = loopback_pair()
    ended: list[str] = []

    async def serve(wire: SocketWire) -> None:
        try:
            await wire.read()
        finally:
            ended.append("cleaned up")

    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        reactor.launch(serve(SocketWire(reactor, left)))
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert ended == ["cleaned up"]
    assert left.fileno() == -1
    right.close()


def test_a_fault_in_one_connection_is_told_and_harms_no_other() -> None:
    async def body(reactor: Reactor) -> list[Any]:
        told: list[Any] = []
        reactor.on_crash = told.append

        async def faulty() -> None:
            raise ZeroDivisionError

        reactor.start(faulty())
        left, right = loopback_pair()
        a, b = SocketWire(reactor, left), SocketWire(reactor, right)
        await a.write(b"still here")
        assert await b.read() == b"still here"
        a.abort()
        with pytest.raises(WireBroken):
            await b.read()
        b.close()
        return told

    assert [type(error) for error in on_reactor(body)] == [ZeroDivisionError]


class Polls:
    """An epoll that has nothing to tell and notes how long it was asked to wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def poll(self, seconds: float, most: int) -> list[tuple[int, int]]:
        self.waits.append(seconds)
        return []


def test_a_turn_lingers_unless_trio_works_for_us_or_somebody_has_given_way() -> None:
    async def nothing() -> None:
        pass

    async def body(reactor: Reactor) -> None:
        real, polls = reactor._epoll, Polls()
        reactor._epoll = polls  # type: ignore[assignment]
        try:
            reactor._turn(5.0)
            reactor._calls = 1
            reactor._turn(5.0)
            reactor._calls = 0
            reactor.patient.append(reactor.spawn(nothing()))
            reactor._turn(5.0)
        finally:
            reactor._epoll = real
        assert polls.waits == [5.0, 0.0, 0.0, 5.0]

    on_reactor(body)


def test_trio_has_its_turn_however_busy_we_are() -> None:
    """Two wires play ping-pong without a pause, and a task of trio's counts how often it comes to the front."""

    async def body(reactor: Reactor) -> None:
        left, right = (SocketWire(reactor, sock) for sock in loopback_pair())

        async def echo(wire: SocketWire) -> None:
            while data := await wire.read():
                await wire.write(data)

        await left.write(b"x")
        players = [reactor.spawn(echo(left)), reactor.spawn(echo(right))]

        async def count() -> int:
            for _ in range(20):
                await trio.sleep(0)
            return 20

        assert await reactor.call(count) == 20
        for player in players:
            player.cancel()

    on_reactor(body)
