"""Unix sockets on the reactor: reaching one, and where they differ from TCP."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from sidecar.net.port import Expired, Unreachable
from sidecar.net.reactor import Reactor, open_files
from sidecar.net.wires import SocketWire
from tests.kit.drivers import on_reactor


def listener(path: Path, backlog: int = 16) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(backlog)
    sock.setblocking(False)
    return sock


def test_bytes_go_both_ways_and_each_end_is_seen(tmp_path: Path) -> None:
    async def body(reactor: Reactor) -> None:
        got: list[SocketWire] = []
        sock = listener(tmp_path / "app.sock")
        acceptor = reactor.listen(sock, got.append)
        near = await reactor.dial(f"unix:{tmp_path}/app.sock", 0)
        await near.write(b"hello")
        await near.finish()
        while not got:
            await reactor.sleep(0.01)
        far = got[0]
        assert await far.read() == b"hello"
        assert await far.read() == b""
        await far.write(b"world")
        far.close()
        assert await near.read() == b"world"
        assert await near.read() == b""
        assert near.peer_address() == ("", 0)  # type: ignore[attr-defined]
        near.close()
        acceptor.close()

    on_reactor(body)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, errno.ENOENT),
        (lambda path: path.touch(), errno.ECONNREFUSED),
        (lambda path: listener(path).close(), errno.ECONNREFUSED),  # nobody listens any more
    ],
)
def test_who_is_not_there_is_said_with_its_path(tmp_path: Path, make, code: int) -> None:
    path = tmp_path / "app.sock"
    make(path)

    async def body(reactor: Reactor) -> None:
        before = open_files()
        with pytest.raises(Unreachable) as caught:
            await reactor.dial(f"unix:{path}", 0)
        assert str(caught.value) == f"unix:{path}: {os.strerror(code)}"
        assert open_files() == before

    on_reactor(body)


def test_a_full_queue_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    async def body(reactor: Reactor) -> None:
        path = tmp_path / "app.sock"
        sock = listener(path, backlog=0)
        first = await reactor.dial(f"unix:{path}", 0)
        before = open_files()
        reactor.deadline(reactor.now + 0.15)
        with pytest.raises(Expired):
            await reactor.dial(f"unix:{path}", 0)
        assert open_files() == before
        reactor.deadline(float("inf"))

        async def accept_later() -> None:
            await reactor.sleep(0.1)
            sock.accept()[0].close()

        reactor.spawn(accept_later())
        second = await reactor.dial(f"unix:{path}", 0)
        for each in (first, second, sock):
            each.close()

    on_reactor(body)
