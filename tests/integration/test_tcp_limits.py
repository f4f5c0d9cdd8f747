"""TCP limits between real processes: the pace of one caller over its connections, while another runs free."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import Ports

MIB = 1024 * 1024
TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound: [{{to: app, listen: "127.0.0.1:{p.web}"}}]
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  cart:
    outbound: [{{to: app, listen: "127.0.0.1:{p.cart}"}}]
    health: {{listen: "127.0.0.1:{p.cart_health}"}}
  app:
    inbound:
      - name: raw
        protocol: tcp
        port: {p.app_in}
        bind: 127.0.0.1
        app: "127.0.0.1:{p.app}"
        tcp_limits: [{{name: slow, from: web, bandwidth: 10MiB/s, connections: 4}}]
    allow: [{{name: both-may, from: [web, cart]}}]
    health: {{listen: "127.0.0.1:{p.app_health}"}}
"""


class Counting(socketserver.BaseRequestHandler):
    """Takes all there is, and answers with how many bytes that was and the sum of them."""

    def handle(self) -> None:
        size = total = 0
        while data := self.request.recv(1 << 16):
            size += len(data)
            total += sum(data[::1021])
        self.request.sendall(b"%d" % size)


@contextmanager
def counting(port: int) -> Iterator[None]:
    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port), Counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


class Trio(Fleet):
    """`web` and `cart`, which both send to `app`."""

    def __init__(self, folder: Path) -> None:
        self.ports = Ports()
        super().__init__(folder, TEXT.format(domain=TRUST_DOMAIN, p=self.ports))

    def send(self, caller: str, size: int) -> float:
        """Send so many bytes and hear that they have come; returns the seconds it took."""
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", getattr(self.ports, caller)), timeout=30) as line:
            block = bytes(range(256)) * 256
            for _ in range(size // len(block)):
                line.sendall(block)
            line.shutdown(socket.SHUT_WR)
            assert int(line.recv(64)) == size
        return time.monotonic() - began


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Trio]:
    mesh = Trio(tmp_path)
    with counting(mesh.ports.app), mesh:
        mesh.start_all()
        yield mesh


@pytest.mark.parametrize("connections", [1, 4])
def test_ten_mebibytes_a_second_are_ten_however_many_connections_and_another_runs_free(
    mesh: Trio, connections: int
) -> None:
    size = 32 * MIB // connections
    took: list[float] = []
    began = time.monotonic()
    threads = [threading.Thread(target=lambda: took.append(mesh.send("web", size))) for _ in range(connections)]
    for thread in threads:
        thread.start()
    free = mesh.send("cart", 32 * MIB)
    for thread in threads:
        thread.join()
    rate = 32 * MIB / (time.monotonic() - began) / MIB
    print(f"{connections} connection(s): {rate:.2f} MiB/s; another caller meanwhile {32 / free:.0f} MiB/s")
    assert 8.5 <= rate <= 11.0  # the machine may be busy; the limit is kept in any case
    assert free < 2.0
    assert len(took) == connections
    assert min(took) > 0.7 * max(took)


def test_one_connection_too_many_is_closed_and_counted(mesh: Trio) -> None:
    lines = [socket.create_connection(("127.0.0.1", mesh.ports.web), timeout=10) for _ in range(4)]
    for line in lines:
        line.sendall(b"x")
    deadline = time.monotonic() + 10
    while sum(row["open"] for row in mesh["app"].admin("GET", "/quotas")[1]["tcp_limits"]) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with socket.create_connection(("127.0.0.1", mesh.ports.web), timeout=10) as fifth:
        fifth.sendall(b"x")
        try:
            assert fifth.recv(1) == b""
        except ConnectionResetError:
            pass
    assert mesh["app"].metrics().total("mesh_rate_limited_total", limit="slow", per="caller") == 1
    assert mesh["app"].metrics().total("mesh_refusals_total", error="tcp_limited", flag="RL") == 1
    for line in lines:
        line.close()
