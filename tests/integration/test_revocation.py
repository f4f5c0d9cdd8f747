"""`mesh certs revoke` with real sidecars: the revoked have no open connection within 5 s and get no new one, also over
a restart; nobody else loses a request (decision D10).
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

from tests.kit.fleet import TRUST_DOMAIN, Fleet, spiffe
from tests.kit.free_ports import Ports
from tests.kit.nonce import NonceLoad
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.socket_app import answer

WITHIN = 5.0  # decision D10


def mesh_yaml(ports: Ports, folder: Path) -> str:
    def caller(name: str, more: str = "") -> str:
        health = getattr(ports, f"{name}_health")
        return f"""
  {name}:
    outbound:
      - {{to: app, port: main, listen: "127.0.0.1:{getattr(ports, name)}"}}{more}
    access_log: {{mode: all, path: {folder}/{name}.access}}
    health: {{listen: "127.0.0.1:{health}"}}"""

    more = f"""
      - {{to: app, port: chat, host: chat, listen: "127.0.0.1:{ports.web_chat}"}}
      - {{to: app, port: raw, host: raw, listen: "127.0.0.1:{ports.web_raw}"}}
    forward_proxy: 127.0.0.1:{ports.web_proxy}"""
    inbound = "\n".join(
        f'      - {{name: {name}, port: {getattr(ports, "app_" + name)}, bind: 127.0.0.1, '
        f'app: "127.0.0.1:{getattr(ports, name)}", protocol: {protocol}}}'
        for name, protocol in (("main", "http"), ("chat", "http"), ("raw", "tcp"))
    )
    return f"""\
trust_domain: {TRUST_DOMAIN}
ca: {{address: "127.0.0.1:{ports.ca}"}}
services:{caller("web", more)}{caller("batch")}
  app:
    inbound:
{inbound}
    allow: [{{name: callers, from: [web, batch]}}]
    access_log: {{mode: all, path: {folder}/app.access}}
    health: {{listen: "127.0.0.1:{ports.app_health}"}}
"""


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[tuple[Fleet, Ports]]:
    ports = Ports()
    raw = socket.create_server(("127.0.0.1", ports.raw))
    with (
        raw, serve(answer, "127.0.0.1", ports.chat) as chat, echo_app(tmp_path, ports.main),
        Fleet(tmp_path, mesh_yaml(ports, tmp_path)) as fleet,
    ):  # fmt: skip
        threads = [threading.Thread(target=chat.serve_forever), threading.Thread(target=echo, args=(raw,), daemon=True)]
        for thread in threads:
            thread.start()
        fleet.start_all()
        yield fleet, ports
        chat.shutdown()
        threads[0].join()


def echo(listener: socket.socket) -> None:
    def one(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                pass

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=one, args=(connection,), daemon=True).start()


class Open:
    """One connection of everything that web can have open to app, and how each of them ended."""

    def __init__(self, ports: Ports) -> None:
        self.ended: dict[str, float] = {}
        self._threads: list[threading.Thread] = []
        self._stack = ExitStack()
        get = b"GET /drip/600 HTTP/1.1\r\nHost: app\r\n\r\n"
        self._socket("http1 in flight", ports.web, get, b"drip")
        tunnel = self._dial(ports.web_proxy, b"CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n", b"200 OK\r\n\r\n")
        self._watch("http1 in a CONNECT", tunnel, get, b"drip")
        self._socket("raw", ports.web_raw, b"ping", b"ping")
        tunnel = self._dial(ports.web_proxy, b"CONNECT raw:80 HTTP/1.1\r\nHost: raw:80\r\n\r\n", b"200 OK\r\n\r\n")
        self._watch("raw in a CONNECT", tunnel, b"ping", b"ping")
        self._websocket(ports.web_chat)
        self._http2(ports.web)
        assert curl("-o", "/dev/null", f"http://127.0.0.1:{ports.web}/idle").code == 0  # leaves one in web's pool

    def _dial(self, port: int, say: bytes, hear: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.settimeout(60)
        connection.sendall(say)
        heard = b""
        while hear not in heard:
            heard += connection.recv(4096)
        return connection

    def _socket(self, name: str, port: int, say: bytes, hear: bytes) -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.settimeout(60)
        self._watch(name, connection, say, hear)

    def _watch(self, name: str, connection: socket.socket, say: bytes, hear: bytes) -> None:
        connection.sendall(say)
        heard = b""
        while hear not in heard:
            heard += connection.recv(4096)

        def until_the_end() -> None:
            with connection:
                try:
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass
            self.ended[name] = time.time()

        self._start(until_the_end)

    def _websocket(self, port: int) -> None:
        opened = self._stack.enter_context(connect(f"ws://127.0.0.1:{port}/chat", proxy=None, open_timeout=10))
        opened.send("hello")
        assert opened.recv(10) == "hello"

        def until_the_end() -> None:
            try:
                while True:
                    opened.recv()
            except ConnectionClosed:
                self.ended["websocket"] = time.time()

        self._start(until_the_end)

    def _http2(self, port: int) -> None:
        command = ["curl", "-sN", "--http2-prior-knowledge", f"http://127.0.0.1:{port}/drip/600"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.read(4) == b"drip"

        def until_the_end() -> None:
            process.communicate()
            self.ended["http2 in flight"] = time.time()

        self._start(until_the_end)

    def _start(self, work: Any) -> None:
        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def all_ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)


def revoke(mesh: Fleet, *arguments: str) -> dict[str, Any]:
    done = mesh.mesh("certs", *arguments, "--ca-dir", str(mesh.folder / "ca"), "-o", "json")
    assert done.returncode == 0, done
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def connections_to(port: int) -> int:
    """Established connections of this machine to a port of loopback, as the kernel counts them."""
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, state, *_ = line.split()
        found += state == "01" and int(remote.rpartition(":")[2], 16) == port
    return found


def test_a_revoked_caller_is_gone_in_seconds_and_nobody_else_notices(mesh: tuple[Fleet, Ports]) -> None:
    fleet, ports = mesh
    web, batch, app = fleet["web"], fleet["batch"], fleet["app"]
    with NonceLoad(ports.batch, rate=100) as load:
        opened = Open(ports)
        others = connections_to(ports.app_main)
        assert not opened.ended
        began = time.time()
        told = revoke(fleet, "revoke", "web", "--reason", "key-compromise", "--watch")
        eventually("everything has ended", opened.all_ended, WITHIN)
        for name, at in sorted(opened.ended.items(), key=lambda pair: pair[1]):
            print(f"{name} ended {at - began:.2f} s after the command began")
        assert len(opened.ended) == 6
        assert max(opened.ended.values()) - began < WITHIN
        assert connections_to(ports.app_raw) == connections_to(ports.app_chat) == 0
        assert connections_to(ports.app_main) < others
        rows = {row["spiffe_id"]: row for row in told["sidecars"] if row["connected"]}
        assert {spiffe("app"), spiffe("batch")} <= set(rows)
        assert all(row["seconds"] < WITHIN for row in rows.values()), rows
        for _ in range(3):
            refused = curl("-i", f"http://127.0.0.1:{ports.web}/new")
            assert " 503 " in refused.text
            assert "ID" in refused.text
        status = web.status()
        assert status["identity"]["revoked"] == "spiffe_id"
        assert "revoked" in " ".join(status["not_ready"])
        assert "revoked" in " ".join(fleet.mesh("status").stdout.split())
        metrics = app.metrics()
        assert metrics.total("mesh_revoked_connections_total", direction="inbound") >= 6
        assert metrics.total("mesh_denylist_sequence") == told["sequence"]
        assert "a revoked caller was cut off" in app.process.text()
        eventually("the load has gone on", lambda: load.tally.sent > 500)
    print(load.tally.summary())
    load.tally.assert_flawless()
    app.stop()
    app.start()
    refused = curl("-i", f"http://127.0.0.1:{ports.web}/after")
    assert " 503 " in refused.text
    assert app.identity()["denylist_sequence"] == told["sequence"]
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{ports.batch}/after").text == "200"

    revoke(fleet, "unrevoke", "web")
    eventually("app lets it in again", lambda: app.identity()["denylist_sequence"] == told["sequence"] + 1)
    web.stop()
    web.start()
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{ports.web}/again").text == "200"
    fleet.assert_well()
    assert batch.status()["state"] == "ready"


def test_a_revoked_upstream_is_called_no_more(mesh: tuple[Fleet, Ports]) -> None:
    fleet, ports = mesh
    opened = Open(ports)
    began = time.time()
    revoke(fleet, "revoke", "app")
    eventually("everything has ended", opened.all_ended, WITHIN)
    assert max(opened.ended.values()) - began < WITHIN
    eventually("no connection is left", lambda: connections_to(ports.app_main) == 0, 1)
    refused = curl("-i", f"http://127.0.0.1:{ports.web}/new")
    assert " 503 " in refused.text
    fleet["web"].assert_well()


def test_a_revoked_certificate_is_replaced_and_its_old_self_is_worth_nothing(mesh: tuple[Fleet, Ports]) -> None:
    fleet, ports = mesh
    web = fleet["web"]
    serial = web.identity()["serial"]
    time.sleep(max(0.0, 10.5 - (time.time() - (fleet.folder / "logs" / "web.log").stat().st_ctime)))
    revoke(fleet, "revoke", serial)
    eventually("it has another", lambda: web.identity()["serial"] != serial, 15)
    eventually(
        "and is served with it",
        lambda: curl("-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{ports.web}/x").text == "200",
    )
    assert web.identity()["revoked"] == ""
    log = fleet.mesh("ca", "log", "--dir", str(fleet.folder / "ca"), "--entry", "web")
    assert log.stdout.count("enrolment_key") == 2, "by its proof, not by the certificate that was revoked"
    fleet.assert_well()
