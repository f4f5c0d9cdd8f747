"""The least rate of bodies on real sockets and real TLS, where the kernel holds some of what is said to be sent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.kit.identities import an_svid
from tests.kit.processes import eventually
from tests.kit.sidecars import LocalSidecar, World
from tests.kit.tls_peers import context_of

MIB = 1 << 20
LONG = 64 * MIB
EARLY = "mesh_connections_ended_early_total"
GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
SLOW_SECONDS = 4.0  # four times what a peer may be behind here


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A mesh in which nobody may be more than a second behind 1 MiB/s."""
    made = World(tmp_path, timeouts=", slow: 1s", limits=", limits: {body_rate: 1MiB}")
    yield made
    made.close()


@contextmanager
def application(port: int, pause: float = 0.0) -> Iterator[None]:
    """Reads a head, pauses, reads the body that it announces, and answers with 64 MiB, or `ok` where there was one."""
    server = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        with suppress(OSError):
            while True:
                sock, _ = server.accept()
                with sock, suppress(OSError):
                    answer(sock)

    def answer(sock: socket.socket) -> None:
        head, _, rest = read_until(sock, b"\r\n\r\n").partition(b"\r\n\r\n")
        left = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        time.sleep(pause)
        body, left = bool(left), left - len(rest)
        while left > 0:
            left -= len(sock.recv(65536))
        if body:
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        else:
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LONG)
            for _ in range(LONG // MIB):
                sock.sendall(bytes(MIB))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        data += sock.recv(65536)
    return data


@contextmanager
def peer(world: World, room: int = 65536) -> Iterator[SSL.Connection]:
    """web without a sidecar, straight to app's; its kernel takes about so many bytes that it has not read."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.connect(("127.0.0.1", world.ports.app_in))
        tls = SSL.Connection(context_of(an_svid(world.issuer, "web")), sock)
        tls.set_connect_state()
        tls.do_handshake()
        yield tls


def sip(tls: SSL.Connection, size: int, every: float, most: float) -> float:
    """Take so much every so often; returns for how many seconds that went well."""
    began = time.monotonic()
    while time.monotonic() - began < most:
        try:
            left = size
            while left > 0:
                left -= len(tls.recv(left))
        except SSL.Error:
            break
        time.sleep(every)
    return time.monotonic() - began


def cut(sidecar: LocalSidecar, reason: str) -> float:
    return sidecar.total(EARLY, direction="inbound", reason=reason)


def test_a_reader_below_the_rate_is_cut(world: World) -> None:
    with application(world.ports.app), world.sidecar("app") as app, peer(world) as tls:
        tls.sendall(GET)
        assert sip(tls, 16384, 0.1, 10.0) < 6.0  # 160 KiB/s
        eventually("it is counted", lambda: cut(app, "slow_reader") == 1)
        eventually("it is in the log", app.access_log)
        (line,) = app.access_log()
        assert (line["status"], line["flags"]) == (200, "DT")
        app.assert_well()


def test_a_reader_above_the_rate_is_not(world: World) -> None:
    with application(world.ports.app), world.sidecar("app") as app, peer(world) as tls:
        tls.sendall(GET)
        assert sip(tls, 524288, 0.1, SLOW_SECONDS) >= SLOW_SECONDS  # up to 5 MiB/s
        assert cut(app, "slow_reader") == 0


def test_a_reader_that_stops_and_goes_on_is_not(world: World) -> None:
    with application(world.ports.app), world.sidecar("app") as app, peer(world) as tls:
        tls.sendall(GET)
        tls.recv(16384)
        time.sleep(SLOW_SECONDS)
        assert sip(tls, 524288, 0.1, 1.0) >= 1.0
        assert cut(app, "slow_reader") == 0


def test_an_application_that_does_not_read_is_not_its_callers_fault(world: World) -> None:
    with application(world.ports.app, SLOW_SECONDS), world.sidecar("app") as app, peer(world) as tls:
        tls.sendall(b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: %d\r\n\r\n" % (16 * MIB))
        tls.sendall(bytes(16 * MIB))
        assert tls.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert cut(app, "slow_body") == 0


def test_a_body_below_the_rate_is_answered_408(world: World) -> None:
    with application(world.ports.app), world.sidecar("app") as app, peer(world) as tls:
        tls.sendall(b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: %d\r\n\r\n" % LONG)
        began = time.monotonic()
        with suppress(SSL.Error):
            while time.monotonic() - began < 10 and not cut(app, "slow_body"):
                tls.sendall(bytes(16384))
                time.sleep(0.1)
        assert 1.0 < time.monotonic() - began < 6.0
        assert tls.recv(65536).startswith(b"HTTP/1.1 408 ")
