"""The application down, slow, or not speaking HTTP: what the caller sees, what flag is set, and what explain says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.fleet import Sidecar
from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app

ALLOW = "[{name: web-may, from: web, path: [/slow/**, /orders/**, /after]}]"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    defaults = "{timeouts: {response_head: 1s, connect: 1s, idle: 2s}}"
    folder = tmp_path_factory.mktemp("failures")
    pair = Pair(folder, defaults=defaults, allow=ALLOW, upstream=", breaker: off")  # one failure after the other
    with pair:
        pair.start_all()
        yield pair


@pytest.fixture
def pair(served: Pair, tmp_path: Path) -> Iterator[Pair]:
    """No application listens, unless the test starts one; afterwards a good one must be found at once."""
    yield served
    with echo_app(tmp_path, served.ports.app):
        assert curl("-w", "%{http_code}", "-o", "/dev/null", served.url + "/after").text == "200"
    served.assert_well()


class Refused:
    """An error's answer, as our own application sees it."""

    def __init__(self, pair: Pair, path: str, *arguments: str) -> None:
        done = curl("-i", *arguments, pair.url + path)
        assert done.code == 0, done
        head, _, body = done.text.rpartition("\r\n\r\n")
        status, *lines = head.split("\r\n\r\n")[-1].split("\r\n")
        self.status = int(status.split(" ")[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.problem: dict[str, Any] = json.loads(body)
        self.explained = pair.explain(self.problem["decision"])
        self.decision = self.problem["decision"]


@contextmanager
def bad_app(pair: Pair, behave: Callable[[socket.socket], None]) -> Iterator[None]:
    """An application that does this on each connection."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                try:
                    behave(connection)
                except OSError:
                    pass

    with socket.create_server(("127.0.0.1", pair.ports.app)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_application_is_down(pair: Pair) -> None:
    refused = Refused(pair, "/orders/1")
    assert refused.status == 503
    assert refused.problem == {"title": "Service Unavailable", "status": 503, "decision": refused.decision}
    assert f"127.0.0.1:{pair.ports.app}" not in str(refused.fields) + str(refused.problem)  # reasons never leave
    assert "UF" in refused.explained
    assert f"127.0.0.1:{pair.ports.app}" in refused.explained
    assert "Connection refused" in refused.explained
    failed = pair["app"].metrics().total("mesh_requests_total", direction="inbound", flag="UF", status_class="5xx")
    assert failed >= 1


def test_the_peers_sidecar_is_down(pair: Pair) -> None:
    """Nobody listens at the endpoint: now our own sidecar decides, and its application may know all about it."""
    pair["app"].stop()
    try:
        refused = Refused(pair, "/orders/1")
        assert refused.status == 503
        assert "UF connect_failed" in refused.fields["proxy-status"]
        assert refused.decision in refused.fields["proxy-status"]
        assert f"127.0.0.1:{pair.ports.app_in}" in refused.explained
    finally:
        pair["app"].start()


def test_the_application_is_slow(pair: Pair, tmp_path: Path) -> None:
    with echo_app(tmp_path, pair.ports.app):
        refused = Refused(pair, "/slow/5")
    assert refused.status == 504
    assert "UT" in refused.explained
    assert "timeouts.response_head" in refused.explained
    app = pair["app"].metrics()  # where the caller's sidecar lost patience a moment earlier, ours saw it leave
    assert sum(app.total("mesh_requests_total", flag=flag, direction="inbound") for flag in ("UT", "DC")) >= 1


def test_an_application_that_just_makes_it_is_left_alone(pair: Pair, tmp_path: Path) -> None:
    with echo_app(tmp_path, pair.ports.app):
        assert " 200 " in curl("-i", pair.url + "/slow/0.7").text


def test_an_application_that_does_not_speak_http(pair: Pair) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"220 mail.example ESMTP ready\r\n")

    with bad_app(pair, behave):
        refused = Refused(pair, "/orders/1")
    assert refused.status == 502
    assert "UPE" in refused.explained
    assert "protocol: tcp" in refused.explained


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_application_that_closes_without_an_answer(pair: Pair, method: str) -> None:
    asked: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        asked.append(connection.recv(1000))

    with bad_app(pair, behave):
        refused = Refused(pair, "/orders/1", "-X", method)
    assert refused.status == 503
    assert "flag UC" in refused.explained
    assert len(asked) == 1  # it was a new connection, so it was no stale one, and nobody sent it again


def test_an_answer_that_breaks_off_is_seen_as_broken(pair: Pair) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this")

    with bad_app(pair, behave):
        done = curl(pair.url + "/orders/broken-off")
    assert done.code in (18, 56)  # partial file, or reset; never 0
    for sidecar in (pair["web"], pair["app"]):
        eventually("it is in the log", lambda: errors_of(sidecar, "/orders/broken-off"))  # noqa: B023
        assert errors_of(sidecar, "/orders/broken-off") <= {"upstream_reset", "upstream_closed", "upstream_protocol"}


def errors_of(sidecar: Sidecar, path: str) -> set[str]:
    """The errors that its access log has for this path."""
    return {line["error"] for line in sidecar.access_log() if line["uri"] == path}


def test_an_answer_that_stops_moving_ends_after_the_idle_time(pair: Pair) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this")
        connection.recv(1000)

    with bad_app(pair, behave):
        done = curl(pair.url + "/orders/stuck")
    assert done.code in (18, 56)
    lines = (pair["web"].access_log, pair["app"].access_log)  # both wait equally long, so either may be the first
    eventually("flag SI", lambda: "SI" in {line["flags"] for log in lines for line in log() if "stuck" in line["uri"]})


def test_a_caller_whom_no_rule_allows_is_told_nothing_but_the_decision(pair: Pair, tmp_path: Path) -> None:
    with echo_app(tmp_path, pair.ports.app):
        refused = Refused(pair, "/admin/users")
    assert refused.status == 403
    assert "web-may" not in str(refused.fields) + str(refused.problem)
    assert "web-may" in refused.explained
    assert "/admin/users" in refused.explained
    assert pair["app"].metrics().total("mesh_refusals_total", flag="PD", error="policy_denied") >= 1
