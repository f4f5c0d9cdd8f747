"""Deadlines over two real hops: who says how long it waits has that kept everywhere, and work for it ends."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.kit.grpc_calls import Calls, failure, grpc_pair
from tests.kit.memory_use import MIB, MemoryWatch
from tests.kit.meshes import Pair
from tests.kit.processes import eventually
from tests.kit.programs import curl

SWEEP = 0.1  # seconds by which a timer of a sidecar may be late
SLACK = 0.5  # and those that a busy machine takes
TIME = ("-o", "/dev/null", "-w", "%{http_code} %{time_total}")


class SlowApp:
    """An application that reads requests and never answers, but that it says `200` on `/now` and drips on `/drip`.

    `left` has when each connection was closed on it, in seconds after its request.
    """

    def __init__(self, port: int) -> None:
        self.left: list[float] = []
        self.heads: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", port), backlog=1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while head := sock.recv(65536):
                began = time.monotonic()
                self.heads.append(head)
                if b" /now" in head:
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    continue
                if b" /drip" in head:
                    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    self._drip(sock)
                with suppress(OSError):
                    sock.recv(65536)
                self.left.append(time.monotonic() - began)
                return

    def _drip(self, sock: socket.socket) -> None:
        with suppress(OSError):
            for _ in range(100):
                sock.sendall(b"1\r\n.\r\n")
                time.sleep(0.1)

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, SlowApp]]:
    """web → app."""
    with Pair(tmp_path_factory.mktemp("pair")) as pair:
        app = SlowApp(pair.ports.app)
        pair.start_all()
        yield pair, app
        app.close()
        pair.assert_well()


def last(pair: Pair, service: str, path: str) -> dict[str, Any]:
    """The last line of an access log about a path, once it is there."""
    def lines() -> list[dict[str, Any]]:
        return [line for line in pair[service].access_log() if line.get("uri", "").startswith(path)]

    eventually(f"{service} has logged {path}", lines)
    return lines()[-1]


def test_a_chain_ends_everywhere_when_its_time_is_over(mesh: tuple[Pair, SlowApp]) -> None:
    pair, app = mesh
    app.left.clear()
    status, took = curl(*TIME, "-H", "mesh-timeout: 300m", pair.url + "/chain").text.split()
    assert status == "504"
    assert 0.3 <= float(took) <= 0.3 + SWEEP + SLACK
    eventually("the application sees its connection closed", lambda: app.left)
    assert app.left[0] <= 0.3 + SWEEP + SLACK
    head = next(head for head in app.heads if b" /chain" in head)
    assert b"mesh-timeout" not in head.lower()
    assert b"mesh-deadline" not in head.lower()
    for service, timer in (("web", "mesh-timeout"), ("app", "mesh-deadline")):
        line = last(pair, service, "/chain")
        if service == "app" and line["flags"] == "DC":  # web was quicker, and hung up
            continue
        assert line["status"] == 504
        assert 0.29 <= line["total_ns"] / 1e9 <= 0.3 + SWEEP + SLACK
        if service == "web" and line["flags"] == "-":  # the other one was quicker by a moment, and web has passed it on
            continue
        explained = pair.explain(line["decision_id"])
        assert (line["flags"], timer in explained, "deadline_past" in explained) == ("UT", True, True)


@pytest.mark.parametrize("value", ["soon", "-1S", "123456789S", "1.5S", ""])
def test_what_cannot_be_read_is_refused(mesh: tuple[Pair, SlowApp], value: str) -> None:
    pair, _ = mesh
    header = f"mesh-timeout: {value}" if value else "mesh-timeout;"  # curl's way to send an empty one
    done = curl("-i", "-H", header, pair.url + "/now")
    assert " 400 " in done.text.splitlines()[0]
    found = re.search(r"decision=([0-9a-z-]+)", done.text)
    assert found is not None
    assert "mesh-timeout" in pair.explain(found[1])


def test_twice_is_refused_and_what_is_not_for_us_is_dropped(mesh: tuple[Pair, SlowApp]) -> None:
    pair, app = mesh
    twice = ("-H", "mesh-timeout: 5S", "-H", "mesh-timeout: 6S")
    assert curl(*TIME, *twice, pair.url + "/now").text.startswith("400")
    assert curl(*TIME, "-H", "mesh-deadline: 1m", pair.url + "/now/hop").text.startswith("200")
    assert curl(*TIME, "-H", "mesh-timeout: 9S", "--http2-prior-knowledge", pair.url + "/now/h2").text.startswith("200")
    assert b"mesh-deadline" not in app.heads[-1].lower()


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_who_leaves_takes_the_work_for_it_along(mesh: tuple[Pair, SlowApp], version: str) -> None:
    pair, app = mesh
    app.left.clear()
    curl(version, "--max-time", "0.5", pair.url + "/leaves")
    eventually("the application sees its connection closed", lambda: app.left)
    assert app.left[0] <= 0.5 + 2 * 1.0 + SLACK  # a FIN may be half of a close: each hop waits a second


# ---- of the operator -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def totals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The same, where web gives a request to app 500 ms."""
    with Pair(tmp_path_factory.mktemp("totals"), upstream=", timeouts: {total: 500ms}, breaker: off") as pair:
        app = SlowApp(pair.ports.app)
        pair.start_all()
        yield pair
        app.close()
        pair.assert_well()


def test_a_total_ends_what_takes_longer_and_is_named(totals: Pair) -> None:
    """With a connection at hand, and without; before an answer, and in the middle of one."""
    for number in range(3):
        assert curl(*TIME, totals.url + "/now").text.startswith("200")
        status, took = curl(*TIME, totals.url + f"/slow{number}").text.split()
        assert (status, 0.5 <= float(took) <= 0.5 + SWEEP + SLACK) == ("504", True)
        line = last(totals, "web", f"/slow{number}")
        if line["flags"] == "-":  # the peer's sidecar, which was told, was quicker by a moment
            assert "mesh-deadline" in totals.explain(line["decision_id"])
            continue
        assert line["flags"] == "UT"
        assert "services.web.outbound.app.timeouts.total" in totals.explain(line["decision_id"])
    dripped = curl("-o", "/dev/null", "-w", "%{time_total} %{exitcode}", totals.url + "/drip")
    took, code = dripped.text.split()
    assert 0.5 <= float(took) <= 0.5 + SWEEP + SLACK
    assert code in ("18", "56")  # cut, and nobody takes it for the whole
    assert last(totals, "web", "/drip")["flags"] in ("UT", "UR")  # UR where the peer's sidecar was quicker


# ---- gRPC ------------------------------------------------------------------------------------------------------------


def test_a_call_is_told_what_is_left_by_whoever_gives_it_least(tmp_path: Path) -> None:
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    with grpc_pair(tmp_path) as pair, Calls(pair.ports.door) as calls:
        began = time.monotonic()
        assert failure(lambda: calls.wait(b"own", timeout=1.0)).code() is code
        metadata = (("mesh-timeout", "600m"),)
        assert failure(lambda: calls.wait(b"ours", timeout=30, metadata=metadata)).code() is code
        assert time.monotonic() - began <= 1.6 + 2 * (SWEEP + SLACK)
        own, ours = calls.wait_for("own", "ended"), calls.wait_for("ours", "ended")
        assert own["left"] <= 1.05  # grpcio rounds up
        assert ours["left"] <= 0.65
        assert ours["ended"] - ours["began"] <= 0.6 + SWEEP + SLACK
        assert not [key for key, _ in ours["metadata"] if key.startswith("mesh-timeout")]
        error = failure(lambda: calls.wait(b"bad", timeout=30, metadata=(("mesh-timeout", "soon"),)))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert calls.seen("bad") == {}


# ---- a stampede ------------------------------------------------------------------------------------------------------

STAMPEDE, UNDER_WAY = 5000, 512  # requests, and limits.requests
BAR = 200 * MIB  # that the caller's sidecar may grow: its five thousand connections, and half a thousand requests


def test_a_stampede_at_an_upstream_that_hangs_is_turned_away_at_once(mesh: tuple[Pair, SlowApp]) -> None:
    """All but those that may be under way get 503, flag UO; what they cost is bounded, and goes with them."""
    pair, _ = mesh
    statuses: list[tuple[int, float]] = []

    async def one(gate: asyncio.Semaphore) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", pair.ports.door)
            began = time.monotonic()
            writer.write(b"GET /stampede HTTP/1.1\r\nHost: app\r\nmesh-timeout: 20S\r\n\r\n")
        try:
            line = await reader.readline()
            statuses.append((int(line.split()[1]), time.monotonic() - began))
        finally:
            writer.close()

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(50)  # of those that connect at one moment
        await asyncio.gather(*(one(gate) for _ in range(STAMPEDE)))

    with MemoryWatch({"web": pair["web"].process.pid, "app": pair["app"].process.pid}) as watch:
        asyncio.run(all_of_them())
    refused = [took for status, took in statuses if status == 503]
    assert len(statuses) == STAMPEDE
    assert len(refused) >= STAMPEDE - 2 * UNDER_WAY  # few came late enough to find a place again
    assert sorted(refused)[len(refused) // 2] <= 2.0
    assert {status for status, _ in statuses} == {503, 504}
    growth = watch.growth["web"]
    print(f"{len(refused)} refused, half of them within {sorted(refused)[len(refused) // 2]:.3f} s; web {growth}")
    assert growth.grown <= BAR
    metrics = pair["web"].metrics()
    flags = {flag: metrics.total("mesh_requests_total", flag=flag) for flag in ("UO", "UH", "UC", "UF", "UT", "UR")}
    print(flags)  # UH: where the handshakes of hundreds come to their own limit, the breaker opens
    assert flags["UO"] + flags["UH"] >= STAMPEDE - 2 * UNDER_WAY
    # those that came to their time opened the breaker, which asks again after a second or so
    eventually("it is asked again", lambda: curl(*TIME, pair.url + "/now").text.startswith("200"))
