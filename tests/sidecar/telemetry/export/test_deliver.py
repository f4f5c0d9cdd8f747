"""Events on their way to real receivers, that are restarted, killed in mid-line, away, or of somebody else."""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from sidecar.config.schema_audit import AuditExport
from sidecar.config.terms import Address
from sidecar.config.urls import WebUrl
from sidecar.net.http_server import Request, Response, serve_http
from sidecar.telemetry.export import deliver
from sidecar.telemetry.export.deliver import Exporter
from sidecar.telemetry.export.feed import ALARM, Feed
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from tests.kit.free_ports import free_port
from tests.sidecar.telemetry.export.test_feed import Stage

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(deliver, "CONFIRM_SECONDS", 0.1)
    monkeypatch.setattr(deliver, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(deliver, "LONGEST_WAIT", 0.1)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "receiver.pem"))
    return authority


def on_trio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run this test on trio."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        trio.run(functools.partial(test, *arguments, **named))

    return run


class Room(Stage):
    """An audit with an exporter."""

    def __init__(self, folder: Path, spec: AuditExport) -> None:
        super().__init__(folder)
        self.folder, self.spec, self.log = folder, spec, Log()
        self.metrics = Metrics()

    @asynccontextmanager
    async def exporting(self) -> AsyncIterator[Exporter]:
        feed = Feed(self.path, self.cursor, self.spec.backlog)
        exporter = Exporter(
            self.spec, feed, version="1", log=self.log, metrics=self.metrics, dice=lambda: 0.0
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exporter.run)
            yield exporter
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.01)


@contextmanager
def receiver(port: int, folder: Path, limit: int = 0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ROOT / "tests/kit/syslog_receiver.py"), str(port), str(folder / "receiver.pem")]
    with subprocess.Popen(
        [*command, str(folder / "received"), str(limit)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def received(folder: Path) -> list[int]:
    path = folder / "received"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [json.loads(line.partition(b"\xef\xbb\xbf")[2])["number"] for line in lines if line.endswith(b"}")]


def by_syslog(port: int, folder: Path) -> AuditExport:
    return AuditExport("syslog", address=Address("127.0.0.1", port), roots=str(folder / "roots.pem"))


@on_trio
async def test_each_event_arrives_and_is_taken_once_the_connection_has_ended_in_order(tmp_path, authority):
    port = free_port()
    room = Room(tmp_path, by_syslog(port, tmp_path))
    room.write(700)
    with receiver(port, tmp_path):
        async with room.exporting() as exporter:
            await until(lambda: exporter.feed.at.number == 700)
    assert received(tmp_path) == list(range(1, 701))
    assert (exporter.sent, exporter.resent, exporter.problem) == (700, 0, "")


@on_trio
async def test_no_event_is_missing_where_receivers_are_restarted_and_killed_in_mid_line(tmp_path, authority):
    port = free_port()
    room = Room(tmp_path, by_syslog(port, tmp_path))
    room.write(300)
    async with room.exporting() as exporter:
        for limit in (5_000, 41_001, 90_003):
            with receiver(port, tmp_path, limit) as process:
                room.write(200)
                await until(lambda: process.poll() is not None)
                assert process.returncode == -signal.SIGKILL
            await until(lambda: exporter.problem != "")
        for _ in range(2):
            with receiver(port, tmp_path):
                room.write(100)
                before = len(received(tmp_path))
                await until(lambda before=before: len(received(tmp_path)) > before)
        with receiver(port, tmp_path):
            room.write(10)
            await until(lambda: exporter.feed.at.number == room.count)
    assert set(received(tmp_path)) == set(range(1, room.count + 1))
    assert exporter.resent > 0
    assert exporter.feed.dropped == 0


@on_trio
async def test_a_sidecar_that_is_restarted_sends_what_was_not_taken(tmp_path, authority):
    port = free_port()
    room = Room(tmp_path, by_syslog(port, tmp_path))
    room.write(50)
    async with room.exporting() as exporter:
        await until(lambda: "refused" in exporter.problem or "connect" in exporter.problem)
    room.rotate()
    room.write(50)
    with receiver(port, tmp_path):
        async with room.exporting() as exporter:
            await until(lambda: exporter.feed.at.number == 100)
    assert received(tmp_path) == list(range(1, 101))


@on_trio
async def test_a_receiver_of_another_authority_gets_nothing(tmp_path, authority):
    port = free_port()
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    room = Room(tmp_path, by_syslog(port, tmp_path))
    room.write(5)
    with receiver(port, tmp_path):
        async with room.exporting() as exporter:
            await until(lambda: "certificate" in exporter.problem)
    assert received(tmp_path) == []
    assert exporter.feed.at.number == 0


@on_trio
async def test_a_receiver_that_is_away_too_long_is_told_of_before_anything_is_left_out(tmp_path, authority):
    port = free_port()
    spec = replace(by_syslog(port, tmp_path), backlog=20_000)
    with (tmp_path / "log").open("wb") as file:
        room = Room(tmp_path, spec)
        room.log = Log(fd=file.fileno(), human=False)
        room.write(1)
        async with room.exporting() as exporter:
            while exporter.feed.full < ALARM:
                assert exporter.feed.dropped == 0
                room.write(5)
                await trio.sleep(0.02)
            await until(lambda: "nearly full" in (tmp_path / "log").read_text())
            assert exporter.feed.dropped == 0
            room.write(300)
            await until(lambda: exporter.feed.dropped > 0)
            await until(lambda: "are not sent" in (tmp_path / "log").read_text())
            with receiver(port, tmp_path):
                room.write(1)
                await until(lambda: exporter.feed.at.number == room.count)
            dropped = exporter.feed.dropped
    assert received(tmp_path) == list(range(dropped + 1, room.count + 1)), "the oldest were left out, and counted"
    text = (tmp_path / "log").read_text()
    assert text.index("nearly full") < text.index("are not sent")
    exporter.show()
    target = f'{{export="syslog:127.0.0.1:{port}"}} {dropped}'
    assert f"mesh_audit_export_dropped_total{target}" in room.metrics.render().decode()


class Collector:
    """An OTLP collector that answers as it is told."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked: list[Any] = []

    async def __call__(self, request: Request) -> Response:
        status = self.statuses.pop(0) if self.statuses else 200
        assert request.path == "/v1/logs"
        records = request.json()["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
        self.asked.append((status, [json.loads(one["body"]["stringValue"])["number"] for one in records]))
        return Response.of_json(status, {})


@on_trio
async def test_a_collector_that_says_no_gets_the_same_again(tmp_path):
    collector = Collector(503, 429, 200, 400)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        serve = lambda stream: serve_http(stream, collector)  # noqa: E731 - short
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        room = Room(tmp_path, AuditExport("otlp", url=WebUrl(Address("127.0.0.1", port), path="/v1/logs")))
        room.write(3)
        async with room.exporting() as exporter:
            await until(lambda: exporter.feed.at.number == 3)
            room.write(2)
            await until(lambda: exporter.feed.at.number == 5)
        nursery.cancel_scope.cancel()
    assert collector.asked == [
        (503, [1, 2, 3]), (429, [1, 2, 3]), (200, [1, 2, 3]), (400, [4, 5]), (200, [4, 5]),
    ]  # fmt: skip
    assert exporter.to_json()["resent"] == 8


@contextmanager
def rotel(port: int, folder: Path) -> Iterator[None]:
    """A collector of OpenTelemetry as it is installed, that says what it takes; killed at the end."""
    (agent,) = [file for file in files("rotel") or () if file.name == "rotel-agent"]
    command = [str(agent.locate()), "start", "--log-file", str(folder / "rotel.log"), "--exporter", "blackhole",
               "--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}",
               "--debug-log", "logs", "--debug-log-verbosity", "detailed"]  # fmt: skip
    with (folder / "taken").open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield
        finally:
            process.kill()


@on_trio
async def test_a_collector_that_nobody_here_wrote_takes_every_record_and_is_found_again(tmp_path):
    port = free_port()
    room = Room(tmp_path, AuditExport("otlp", url=WebUrl(Address("127.0.0.1", port), path="/v1/logs")))

    def taken() -> set[str]:
        return set(re.findall(r"log\.record\.uid: Str\((\S+)\)", (tmp_path / "taken").read_text()))

    async with room.exporting() as exporter:
        for _ in range(2):
            with rotel(port, tmp_path):
                room.write(700)
                await until(lambda: exporter.feed.at.number == room.count)
                await until(lambda: len(taken()) == room.count)
            room.write(50)  # nobody is there
            await until(lambda: exporter.problem != "")
        with rotel(port, tmp_path):
            await until(lambda: len(taken()) == room.count)
    assert taken() == {f"{exporter.feed.at.chain}-{number}" for number in range(1, 1501)}
    assert exporter.to_json()["rejected"] == 0
    assert "event.name: Str(mesh.)" in (tmp_path / "taken").read_text()


@on_trio
async def test_a_file_of_ocsf_events_goes_on_after_half_a_line(tmp_path):
    room = Room(tmp_path, AuditExport("ocsf", path=str(tmp_path / "ocsf.jsonl")))
    (tmp_path / "ocsf.jsonl").write_bytes(b'{"half')
    room.write(600)
    async with room.exporting() as exporter:
        await until(lambda: exporter.feed.at.number == 600)
    half, *lines = (tmp_path / "ocsf.jsonl").read_bytes().splitlines()
    assert half == b'{"half'
    assert [json.loads(line)["unmapped"]["number"] for line in lines] == list(range(1, 601))


def test_the_figures_are_shown(tmp_path):
    room = Room(tmp_path, AuditExport("ocsf", path=str(tmp_path / "ocsf.jsonl")))
    exporter = Exporter(room.spec, room.feed, version="1", log=room.log, metrics=room.metrics, dice=lambda: 0.0)
    exporter.show()
    text = room.metrics.render()
    assert f'mesh_audit_export_sent_total{{export="ocsf:{tmp_path}/ocsf.jsonl"}} 0' in str(text)
