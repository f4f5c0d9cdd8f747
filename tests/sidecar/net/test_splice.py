"""Tunnels between plain sockets: the same bytes, counts and ends whether a pipe is between or not."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.errors import CertificateEnded, DownstreamGone, DownstreamIdle, PolicyDenied, UpstreamReset
from sidecar.hop import Hop
from sidecar.net import splice
from sidecar.net.memory import MemoryPort
from sidecar.net.port import WireBroken
from sidecar.net.reactor import Reactor, open_files
from sidecar.net.splice import Splice
from sidecar.net.wires import SocketWire
from sidecar.proxy.lease import Lease
from sidecar.proxy.tcp import tunnel
from tests.kit.drivers import loopback_pair, on_reactor, on_tls

MIB = 1024 * 1024
FOR_EVER = Lease()
Ends = tuple[socket.socket, socket.socket]


def unix_pair() -> Ends:
    ends = socket.socketpair()
    for each in ends:
        each.setblocking(False)
    return ends


class Scene:
    """client ═ (downstream, tunnel, upstream) ═ server, all on one reactor."""

    def __init__(self, reactor: Reactor, pair: Callable[[], Ends], idle: float = 60.0, lease: Lease = FOR_EVER) -> None:
        self.reactor = reactor
        client, downstream = (SocketWire(reactor, each) for each in pair())
        upstream, server = (SocketWire(reactor, each) for each in pair())
        self.client, self.server, self.downstream, self.upstream = client, server, downstream, upstream
        self.hop = Hop("outbound", "db", 1, "tcp")
        self.error: BaseException | None = None
        self.task = reactor.spawn(self._run(idle, lease))

    async def _run(self, idle: float, lease: Lease) -> None:
        try:
            await tunnel(self.reactor, self.downstream, self.upstream, self.hop, idle=idle, lease=lease)
        except Exception as error:
            self.error = error

    def close(self) -> None:
        for each in (self.client, self.server, self.downstream, self.upstream):
            each.close()


async def send(wire: SocketWire, data: bytes, *, end: bool = True) -> None:
    await wire.write(data)
    if end:
        await wire.finish()


async def hear(wire: SocketWire) -> bytes:
    parts = []
    while data := await wire.read():
        parts.append(data)
    return b"".join(parts)


@contextmanager
def counted_splices(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    real, moved = os.splice, []

    def splice_and_count(*args: Any, **more: Any) -> int:
        moved.append(count := real(*args, **more))
        return count

    with monkeypatch.context() as patch:
        patch.setattr(splice.os, "splice", splice_and_count)
        yield moved


@pytest.mark.parametrize("pair", [loopback_pair, unix_pair])
def test_both_directions_at_once_arrive_whole_and_are_counted(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    up, down = os.urandom(9 * MIB + 17), os.urandom(5 * MIB + 3)

    async def body(reactor: Reactor) -> None:
        before = open_files()
        scene = Scene(reactor, pair)
        heard: list[bytes] = []

        async def serve() -> None:
            reactor.spawn(send(scene.server, down))
            heard.append(await hear(scene.server))

        serving = reactor.spawn(serve())
        reactor.spawn(send(scene.client, up))
        answer = await hear(scene.client)
        await reactor.wait(serving)
        await reactor.wait(scene.task)
        assert hashlib.sha256(heard[0]).digest() == hashlib.sha256(up).digest()
        assert hashlib.sha256(answer).digest() == hashlib.sha256(down).digest()
        assert scene.error is None
        assert (scene.hop.received_bytes, scene.hop.sent_bytes) == (len(up), len(down))
        assert (scene.downstream.received, scene.upstream.sent) == (len(up), len(up))
        assert scene.hop.first_byte
        scene.close()
        await reactor.sleep(0.35)  # two sweeps
        assert (reactor.pipes.open, open_files()) == (0, before)

    with counted_splices(monkeypatch) as moved:
        on_reactor(body)
    assert sum(moved) > 0, "large pieces go through a pipe, though not all of them are large"


def test_small_pieces_take_no_pipe_and_half_closing_leaves_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(reactor: Reactor) -> None:
        scene = Scene(reactor, loopback_pair)
        for number in range(20):
            await send(scene.client, b"ping %d" % number, end=False)
            assert await scene.server.read() == b"ping %d" % number
        await scene.client.finish()
        assert await scene.server.read() == b""
        await send(scene.server, b"the answer to a finished question")
        assert await hear(scene.client) == b"the answer to a finished question"
        await reactor.wait(scene.task)
        assert (scene.error, reactor.pipes.open) == (None, 0)
        scene.close()

    with counted_splices(monkeypatch) as moved:
        on_reactor(body)
    assert moved == []


async def _stuck(scene: Scene) -> None:
    """The client sends on and on, the server reads nothing, until bytes stand in a pipe."""
    reactor = scene.reactor
    flood = reactor.spawn(_flood(scene.client))
    while not reactor.pipes.open - len(reactor.pipes._idle):
        await reactor.sleep(0.02)
        assert not flood.happened


async def _flood(wire: SocketWire) -> None:
    try:
        while True:
            await wire.write(bytes(MIB))
    except WireBroken:
        pass


def test_a_reader_that_takes_nothing_ends_the_tunnel_and_its_pipe() -> None:
    async def body(reactor: Reactor) -> None:
        scene = Scene(reactor, loopback_pair, idle=0.3)
        await _stuck(scene)
        await reactor.wait(scene.task)
        assert isinstance(scene.error, DownstreamIdle)
        assert reactor.pipes.open == len(reactor.pipes._idle)
        scene.close()

    on_reactor(body)


def test_the_end_of_the_lease_and_a_new_verdict_end_it_with_bytes_in_the_pipe() -> None:
    async def body(reactor: Reactor) -> None:
        leased = Scene(reactor, loopback_pair, lease=Lease(reactor.now + 1.0))
        await _stuck(leased)
        await reactor.wait(leased.task)
        assert isinstance(leased.error, CertificateEnded)
        leased.close()
        judged = Scene(reactor, loopback_pair)
        await _stuck(judged)
        judged.task.throw(PolicyDenied("a reload"))
        await reactor.wait(judged.task)
        assert isinstance(judged.error, PolicyDenied)
        assert reactor.pipes.open == len(reactor.pipes._idle)
        judged.close()

    on_reactor(body)


@pytest.mark.parametrize(("who", "error"), [("server", UpstreamReset), ("client", DownstreamGone)])
def test_a_reset_in_the_middle_is_told_apart(who: str, error: type[Exception]) -> None:
    async def body(reactor: Reactor) -> None:
        scene = Scene(reactor, loopback_pair)
        if who == "server":
            await _stuck(scene)
        else:
            reactor.spawn(hear(scene.server))
            await scene.client.write(bytes(3 * MIB))
        getattr(scene, who).abort()
        await reactor.wait(scene.task)
        assert isinstance(scene.error, error)
        assert reactor.pipes.open == len(reactor.pipes._idle)
        scene.close()

    on_reactor(body)


def test_there_are_few_pipes_and_who_gets_none_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "MOST_PIPES", 1)
    data = os.urandom(6 * MIB)

    async def body(reactor: Reactor) -> None:
        holder, other = Scene(reactor, loopback_pair), Scene(reactor, loopback_pair)
        await _stuck(holder)
        reactor.spawn(send(other.client, data))
        assert await hear(other.server) == data
        assert reactor.pipes.open == 1
        for each in (holder, other):
            each.task.cancel()
            each.close()
        assert reactor.pipes.open == 0

    on_reactor(body)


def test_a_kernel_that_cannot_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, data = [], os.urandom(4 * MIB)

    def cannot(*_: Any, **__: Any) -> int:
        asked.append(1)
        raise OSError(errno.EINVAL, "Invalid argument")

    async def body(reactor: Reactor) -> None:
        scene = Scene(reactor, loopback_pair)
        reactor.spawn(send(scene.client, data))
        assert await hear(scene.server) == data
        scene.close()

    monkeypatch.setattr(splice.os, "splice", cannot)
    on_reactor(body)
    assert len(asked) == 1


def test_no_descriptors_left_means_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_: Any) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    data = os.urandom(4 * MIB)

    async def body(reactor: Reactor) -> None:
        scene = Scene(reactor, loopback_pair)
        reactor.spawn(send(scene.client, data))
        assert await hear(scene.server) == data
        assert reactor.pipes.open == 0
        scene.close()

    monkeypatch.setattr(splice.os, "pipe2", no_more)
    on_reactor(body)


def test_tls_and_memory_are_copied() -> None:
    async def with_tls(reactor: Reactor, pair: Any) -> None:
        secure, _ = await pair()
        left, right = loopback_pair()
        plain, other = SocketWire(reactor, left), SocketWire(reactor, right)
        assert Splice.between(secure, plain) is None
        assert Splice.between(plain, secure) is None
        assert Splice.between(plain, other) is not None
        plain.close()
        other.close()

    on_tls(with_tls)
    assert Splice.between(*MemoryPort().pair()) is None
