"""The application's probes behind the health port, asked as the kubelet would ask."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sidecar.admin.health import serve_health
from sidecar.admin.pod_health import BadPodHealth, PodHealth
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics


def pod(**probes: Any) -> PodHealth:
    said = {f"app/{name}": {"timeout": 2, **probe} for name, probe in probes.items()}
    return PodHealth.parse(json.dumps({"health": {"port": 17090, "probes": said}}))


def ask(found: PodHealth, path: str = "/app-health/app/livez", host: str = "10.1.2.3:17090") -> tuple[int, str]:
    """Status and text of one probe, over a real connection."""

    async def main() -> bytes:
        log = Log(fd=os.open(os.devnull, os.O_WRONLY), human=False)
        with trio.fail_after(20):
            doors = await trio.open_tcp_listeners(0, host="127.0.0.1")
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_health, Metrics("1.0"), list, doors, log, found)
                stream = await trio.open_tcp_stream("127.0.0.1", doors[0].socket.getsockname()[1])
                await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
                answer = b"".join([bytes(piece) async for piece in stream])
                await stream.aclose()
                nursery.cancel_scope.cancel()
        log.close()
        return answer

    head, _, text = trio.run(main).decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), text


class App:
    """An application that answers each path with what it is told, and notes what it was asked."""

    def __init__(self, **answers: tuple[int, dict[str, str]]) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers = {"/" + path: answer for path, answer in answers.items()}


@contextlib.contextmanager
def serving(app: App, context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            app.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            status, headers = app.answers.get(self.path.partition("?")[0], (404, {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with Server((address, 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("status", [200, 204, 302, 399])
def test_any_status_from_200_to_399_is_well(status):
    app = App(ok=(status, {}))
    with serving(app) as port:
        assert ask(pod(livez={"http": {"port": port, "path": "/ok?deep=1"}})) == (200, "ok\n")
    ((path, headers),) = app.asked
    assert path == "/ok?deep=1"
    assert headers["host"] == f"10.1.2.3:{port}"  # what the kubelet would have said
    assert "kube-probe" in headers["user-agent"]


@pytest.mark.parametrize("status", [400, 404, 503])
def test_any_other_status_is_not_and_nothing_else_is_told(status):
    with serving(App(secret=(status, {"x-secret": "1"}))) as port:
        code, text = ask(pod(livez={"http": {"port": port, "path": "/secret?token=abc"}}))
    assert (code, text) == (503, f"the application: it answers {status}\n")


def test_headers_of_the_probe_are_sent_host_included():
    app = App(ok=(200, {}))
    with serving(app) as port:
        headers = [["Host", "shop.example"], ["X-A", "b"], ["User-Agent", "mine"]]
        assert ask(pod(livez={"http": {"port": port, "path": "/ok", "headers": headers}}))[0] == 200
    ((_, said),) = app.asked
    assert (said["host"], said["x-a"], said["user-agent"]) == ("shop.example", "b", "mine")


def test_redirects_to_the_same_host_are_followed_and_to_another_are_an_answer():
    app = App(
        a=(302, {"location": "/b?c=d"}), b=(200, {}), lost=(302, {"location": "/gone"}), gone=(500, {}),
        away=(302, {"location": "https://login.example/x"}), round=(307, {"location": "/round"}),
    )  # fmt: skip
    with serving(app) as port:
        app.answers["/whole"] = (301, {"location": f"http://10.1.2.3:{port}/gone"})
        found = pod(**{
            name: {"http": {"port": port, "path": f"/{name}"}} for name in ("a", "lost", "away", "round", "whole")
        })  # fmt: skip
        assert ask(found, "/app-health/app/a")[0] == 200
        assert [path for path, _ in app.asked] == ["/a", "/b?c=d"]
        assert ask(found, "/app-health/app/lost") == (503, "the application: it answers 500\n")
        assert ask(found, "/app-health/app/whole") == (503, "the application: it answers 500\n")
        assert ask(found, "/app-health/app/away")[0] == 200
        assert ask(found, "/app-health/app/round") == (503, "the application: more than 10 redirects\n")


def test_https_is_asked_whatever_its_certificate(tmp_path: Path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("elsewhere.example").configure_cert(context)
    with serving(App(ok=(200, {})), context) as port:
        assert ask(pod(livez={"http": {"port": port, "path": "/ok", "scheme": "https"}}))[0] == 200
        assert ask(pod(livez={"http": {"port": port, "path": "/ok"}}))[0] == 503  # plain HTTP to a TLS port


def test_an_application_on_ipv6_loopback_alone_is_found():
    with serving(App(ok=(200, {})), address="::1") as port:
        assert ask(pod(livez={"http": {"port": port, "path": "/ok"}}))[0] == 200


def test_tcp_is_well_once_it_connects():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ask(pod(livez={"tcp": {"port": port}}))[0] == 200
    code, text = ask(pod(livez={"tcp": {"port": port}}))
    assert (code, text) == (503, f"the application: nobody listens on loopback, port {port}\n")


def test_who_says_nothing_is_not_well_after_the_probes_own_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for kind in ("http", "grpc"):
            code, text = ask(pod(livez={kind: {"port": port}, "timeout": 0.2}))
            assert (code, text) == (503, "the application: no answer within 0.2 s\n")


def test_who_says_nonsense_is_not_well():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            for _ in range(2):
                connection, _address = server.accept()
                connection.sendall(b"\x00nonsense\r\n\r\n")
                connection.close()

        threading.Thread(target=talk, daemon=True).start()
        for kind in ("http", "grpc"):
            assert ask(pod(livez={kind: {"port": server.getsockname()[1]}}))[0] == 503


def test_grpc_health_of_a_real_server():
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    servicer.set("orders.Orders", health_pb2.HealthCheckResponse.NOT_SERVING)
    server.start()
    try:
        found = pod(
            livez={"grpc": {"port": port}}, readyz={"grpc": {"port": port, "service": "orders.Orders"}},
            startupz={"grpc": {"port": port, "service": "nobody"}},
        )  # fmt: skip
        assert ask(found)[0] == 200
        assert ask(found, "/app-health/app/readyz") == (
            503, "the application: its health service says 2, not SERVING\n"
        )  # fmt: skip
        code, text = ask(found, "/app-health/app/startupz")
        assert code == 503
        assert "NOT_FOUND" in text
    finally:
        server.stop(None).wait()


def test_there_are_no_other_probes():
    assert ask(pod())[0] == 404
    assert ask(pod(livez={"tcp": {"port": 1}}), "/app-health/app/livez/x")[0] == 404
    assert ask(pod(), "/livez") == (200, "ok\n")


@pytest.mark.parametrize("host", ["", "a b", "x\x01", "[::1", "a" * 300])
def test_a_host_that_is_none_is_not_passed_on(host):
    app = App(ok=(200, {}))
    with serving(app) as port:
        code, _ = ask(pod(livez={"http": {"port": port, "path": "/ok"}}), host=host)
    assert code == 400 or app.asked[0][1]["host"] == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"health": 1}', '{"health": {"port": 0}}', '{"health": {"port": true}}',
        '{"health": {"port": 1, "probes": {"a/b": {}}}}',
        '{"health": {"port": 1, "probes": {"a/b": {"tcp": {"port": 1}}}}}',
        '{"health": {"port": 1, "probes": {"a/b": {"tcp": {"port": 1}, "timeout": 0}}}}',
        '{"health": {"port": 1, "probes": {"a/b": {"http": {"port": 1, "path": "/a b"}, "timeout": 1}}}}',
        '{"health": {"port": 1, "probes": {"a/b": {"http": {"port": 1, "headers": [["a:", "b"]]}, "timeout": 1}}}}',
        '{"health": {"port": 1, "probes": {"a/b": {"http": {"port": 1, "headers": [["a", "\\r\\n"]]}, "timeout": 1}}}}',
    ],
)  # fmt: skip
def test_what_the_injector_does_not_write_is_refused(text):
    with pytest.raises(BadPodHealth, match="MESH_POD is not what"):
        PodHealth.parse(text)
