"""Detection, Unix listeners and PROXY headers with programs that nobody here wrote: curl, redis-cli, nginx, HAProxy."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import free_port
from tests.kit.processes import Process, eventually, listens
from tests.kit.programs import curl, nginx, redis, run
from tests.kit.tools import need

MESH = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{ca}"}}
services:
  web:
    outbound:
      - {{to: app, port: main, listen: "unix:{folder}/main.sock", listen_mode: group}}
      - {{to: app, port: store, listen: "unix:{folder}/store.sock", host: app-store}}
      - {{to: app, port: greets, listen: "127.0.0.1:{greets_door}", host: app-greets}}
      - to: app
        port: behind
        listen: "127.0.0.1:{behind_door}"
        host: app-behind
        endpoints: ["127.0.0.1:{haproxy_v1}", "127.0.0.1:{haproxy_v2}"]
    timeouts: {{detect: 500ms}}
    health: {{listen: "127.0.0.1:{web_health}"}}
  app:
    inbound:
      - {{name: main, port: {main}, protocol: auto, app: "unix:{folder}/app.sock", app_http: http2}}
      - {{name: store, port: {store}, protocol: auto, app: "127.0.0.1:{redis}"}}
      - {{name: greets, port: {greets}, protocol: auto, app: "127.0.0.1:{greeter}"}}
      - name: behind
        port: {behind}
        protocol: tcp
        app: "127.0.0.1:{nginx_proxy}"
        app_proxy_protocol: v2
        proxy_protocol: {{from: 127.0.0.1/32}}
    allow:
      - {{name: web-may, from: web}}
    access_log: {{mode: all, path: {folder}/app.access}}
    timeouts: {{detect: 500ms}}
    health: {{listen: "127.0.0.1:{app_health}"}}
"""
NAMES = (
    "ca", "greets_door", "behind_door", "haproxy_v1", "haproxy_v2", "web_health", "main", "store", "redis", "greets",
    "greeter", "behind", "nginx", "nginx_proxy", "app_health",
)  # fmt: skip


class Mesh(Fleet):
    """The mesh above, with its ports."""

    def __init__(self, folder: Path) -> None:
        self.ports = {name: free_port() for name in NAMES}
        super().__init__(folder, MESH.format(domain=TRUST_DOMAIN, folder=folder, **self.ports))


@contextmanager
def haproxy(mesh: Mesh) -> Iterator[None]:
    """HAProxy in TCP mode before the listener `behind`: one port that sends version 1, one that sends version 2."""
    ports, file = mesh.ports, mesh.folder / "haproxy.cfg"
    text = "global\n  maxconn 100\ndefaults\n  mode tcp\n"
    text += "".join(f"  timeout {what} 60s\n" for what in ("connect", "client", "server"))
    for port, how in ((ports["haproxy_v1"], "send-proxy"), (ports["haproxy_v2"], "send-proxy-v2")):
        text += f"listen on{port}\n  bind 127.0.0.1:{port}\n  server app 127.0.0.1:{ports['behind']} {how}\n"
    file.write_text(text)
    process = Process("haproxy", [need("haproxy"), "-db", "-f", str(file)], mesh.folder / "logs" / "haproxy.log")
    try:
        process.until("listening", lambda: listens(ports["haproxy_v2"]))
        yield
    finally:
        process.stop()


@contextmanager
def greeter(port: int) -> Iterator[None]:
    """A server that speaks first, and then says back what it hears."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(20)
                connection.sendall(b"220 hello\r\n")
                while data := connection.recv(1000):
                    connection.sendall(data)

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("l")
    whole = Mesh(folder)
    ports = whole.ports
    where = 'location /who { return 200 "$proxy_protocol_addr $proxy_protocol_server_port\\n"; }\n'
    where += 'location /version { return 200 "$server_protocol\\n"; }'
    beside = f"listen unix:{folder}/app.sock http2; listen 127.0.0.1:{ports['nginx_proxy']} proxy_protocol;"
    with (
        whole, nginx(folder, ports["nginx"], where, beside=beside), redis(folder, ports["redis"]), haproxy(whole),
        greeter(ports["greeter"]),
    ):  # fmt: skip
        whole.start_all()
        yield whole
        whole.assert_well()


def asked(mesh: Mesh, *arguments: str) -> str:
    return curl("--unix-socket", f"{mesh.folder}/main.sock", *arguments, "http://localhost/version").text


def test_http_1_and_http_2_over_a_unix_listener_and_http_2_to_an_application_on_one(mesh: Mesh) -> None:
    assert asked(mesh) == "HTTP/2.0\n"
    assert asked(mesh, "--http2-prior-knowledge", "-w", "%{http_version}") == "HTTP/2.0\n2"
    assert asked(mesh, "-H", "Host: elsewhere", "-w", "%{http_code}").endswith("403")
    found = mesh["app"].metrics()
    assert found.total("mesh_protocol_detections_total", listener="main", protocol="http2", by="alpn") >= 1


def test_redis_over_a_unix_listener_is_found_to_be_no_http(mesh: Mesh) -> None:
    command = (need("redis-cli"), "-s", f"{mesh.folder}/store.sock")
    assert run(*command, "PING").text == "PONG\n"
    big = b"SET big " + b"x" * 100_000 + b"\nSTRLEN big\n"
    assert run(*command, stdin=big).text == "OK\n100000\n"
    found = mesh["app"].metrics()
    name = "mesh_protocol_detections_total"
    assert found.total(name, listener="store", protocol="opaque", by="bytes") >= 2
    assert found.total(name, listener="store", protocol="http1") == 0


def test_a_server_that_speaks_first_is_heard_after_both_have_waited(mesh: Mesh) -> None:
    with socket.create_connection(("127.0.0.1", mesh.ports["greets_door"]), timeout=20) as client:
        lines = client.makefile("rb")
        assert lines.readline() == b"220 hello\r\n"
        client.sendall(b"HELO me\r\n")
        assert lines.readline() == b"HELO me\r\n"
    assert mesh["app"].metrics().total("mesh_protocol_detections_total", listener="greets", by="timeout") >= 1


def test_haproxy_tells_us_and_we_tell_nginx(mesh: Mesh) -> None:
    """nginx reads our header; the port in it is the one that was connected to, HAProxy's, which only it could know."""
    url = f"http://127.0.0.1:{mesh.ports['behind_door']}/who"
    answers = {curl(url).text for _ in range(4)}
    assert answers == {f"127.0.0.1 {mesh.ports[name]}\n" for name in ("haproxy_v1", "haproxy_v2")}


def test_who_is_on_the_list_and_sends_no_header_is_refused(mesh: Mesh) -> None:
    failed = "mesh_tls_handshake_failures_total"
    before = mesh["app"].metrics().total(failed, listener="behind", reason="proxy_header")
    with socket.create_connection(("127.0.0.1", mesh.ports["behind"]), timeout=20) as client:
        client.sendall(b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 1\r\n")
        try:
            assert client.recv(100) == b""
        except ConnectionResetError:
            pass  # our header was not read, so that is what closing is
    assert mesh["app"].metrics().total(failed, listener="behind", reason="proxy_header") == before + 1


def test_a_reload_moves_a_socket_and_changes_a_mode_and_who_is_connected_stays(mesh: Mesh) -> None:
    main, store, shop = (mesh.folder / f"{name}.sock" for name in ("main", "store", "shop"))
    text = mesh.file.read_text()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(main))
        request = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.sendall(request)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        mesh.file.write_text(text.replace("listen_mode: group", "listen_mode: owner").replace(str(store), str(shop)))
        eventually("the socket has moved", lambda: shop.is_socket() and not store.exists())
        assert stat.S_IMODE(main.stat().st_mode) == 0o600
        client.sendall(request)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        assert run(need("redis-cli"), "-s", str(shop), "PING").text == "PONG\n"
    mesh.file.write_text(text)
    eventually("it is back", lambda: store.is_socket() and not shop.exists())
    assert stat.S_IMODE(main.stat().st_mode) == 0o660


def test_the_files_of_the_sockets(mesh: Mesh) -> None:
    """Their modes; they go with the sidecar; one that was killed leaves them behind, and the next replaces them."""
    main, store = mesh.folder / "main.sock", mesh.folder / "store.sock"
    web = mesh["web"]

    def modes() -> list[int]:
        return [stat.S_IMODE(path.stat().st_mode) for path in (main, store)]

    assert modes() == [0o660, 0o600]
    os.kill(web.process.pid, signal.SIGKILL)
    eventually("web has gone", lambda: web.process.code is not None)
    assert main.is_socket()
    web.start()
    assert modes() == [0o660, 0o600]
    assert asked(mesh) == "HTTP/2.0\n"
    web.stop()
    assert not main.exists()
    assert not store.exists()
    web.start()
    assert asked(mesh) == "HTTP/2.0\n"
