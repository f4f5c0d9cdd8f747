"""Probes and scrapes over TCP: read-only, honest about readiness."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from sidecar.admin import health
from sidecar.admin.health import serve_health
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from tests.kit.hops import a_hop


class Stage:
    def __init__(self) -> None:
        self.metrics = Metrics("1.0")
        self.reasons: list[str] = []
        self.port = 0

    def play(self, scene: Callable[[], Awaitable[None]]) -> None:
        sink = os.open(os.devnull, os.O_WRONLY)
        log = Log(fd=sink, human=False)

        async def main() -> None:
            with trio.fail_after(20):
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                self.port = listeners[0].socket.getsockname()[1]
                async with trio.open_nursery() as nursery:
                    await nursery.start(serve_health, self.metrics, lambda: self.reasons, listeners, log)
                    await scene()
                    nursery.cancel_scope.cancel()

        trio.run(main)
        log.close()
        os.close(sink)

    async def ask(self, request_line: str, headers: str = "", body: bytes = b"") -> tuple[int, str, str]:
        """Status, head and body of one request."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        length = f"content-length: {len(body)}\r\n" if body else ""
        await stream.send_all(
            f"{request_line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}{headers}\r\n".encode() + body
        )
        answer = b"".join([bytes(piece) async for piece in stream])
        await stream.aclose()
        head, _, rest = answer.decode().partition("\r\n\r\n")
        return int(head.split(" ")[1]), head.lower(), rest


@pytest.fixture
def stage():
    return Stage()


def test_alive_whatever_the_state(stage):
    async def scene() -> None:
        assert (await stage.ask("GET /livez"))[::2] == (200, "ok\n")
        stage.reasons = ["no identity yet"]
        assert (await stage.ask("GET /livez"))[0] == 200

    stage.play(scene)


def test_ready_only_without_reasons(stage):
    async def scene() -> None:
        stage.reasons = ["no identity yet", "listener http is not open"]
        assert (await stage.ask("GET /readyz"))[::2] == (
            503,
            "not ready: no identity yet\nnot ready: listener http is not open\n",
        )
        assert "mesh_ready 0\n" in (await stage.ask("GET /metrics"))[2]
        stage.reasons = []
        assert (await stage.ask("GET /readyz"))[::2] == (200, "ready\n")
        assert "mesh_ready 1\n" in (await stage.ask("GET /metrics"))[2]

    stage.play(scene)


def test_metrics(stage):
    stage.metrics.observe(a_hop())

    async def scene() -> None:
        status, head, body = await stage.ask("GET /metrics", "accept: application/openmetrics-text;version=1.0.0\r\n")
        assert status == 200
        assert "content-type: text/plain; version=0.0.4; charset=utf-8" in head
        assert 'mesh_requests_total{direction="inbound",source="spiffe://demo.mesh/ns/default/sa/web"' in body
        assert "process_cpu_seconds_total" in body

    stage.play(scene)


def test_head_has_no_body(stage):
    async def scene() -> None:
        for path in ("/livez", "/readyz", "/metrics"):
            status, head, body = await stage.ask(f"HEAD {path}")
            assert (status, body) == (200, "")
            assert "content-length: " in head

    stage.play(scene)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY", "get"])
@pytest.mark.parametrize("path", ["/livez", "/metrics", "/drain"])
def test_nothing_but_reading(stage, method, path):
    async def scene() -> None:
        status, head, _ = await stage.ask(f"{method} {path}")
        assert status == 405
        assert "allow: get, head" in head

    stage.play(scene)


@pytest.mark.parametrize(
    "path", ["/", "/status", "/hops", "/decisions/0a1b2c3d-1", "/certs", "/livez/", "/Livez", "/metrics/x"]
)
def test_nothing_of_the_admin_api_is_here(stage, path):
    async def scene() -> None:
        assert (await stage.ask(f"GET {path}"))[0] == 404

    stage.play(scene)


def test_a_query_is_ignored_and_a_body_refused(stage):
    async def scene() -> None:
        assert (await stage.ask("GET /readyz?verbose=1"))[0] == 200
        assert (await stage.ask("GET /livez", body=b"x" * 100))[0] == 413

    stage.play(scene)


def test_connections_are_bounded(stage, monkeypatch):
    monkeypatch.setattr(health, "MAX_CONNECTIONS", 3)

    async def scene() -> None:
        idle = [await trio.open_tcp_stream("127.0.0.1", stage.port) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        late = await trio.open_tcp_stream("127.0.0.1", stage.port)
        with suppress(trio.BrokenResourceError):  # a reset is as good an end
            assert await late.receive_some() == b""
        for stream in (*idle, late):
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await stage.ask("GET /livez"))[0] == 200

    stage.play(scene)
