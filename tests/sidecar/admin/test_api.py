"""The admin API over its real socket: every endpoint, every refusal, and who may connect."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from certs.errors import MeshError
from sidecar.admin import client
from sidecar.admin.api import serve_admin, socket_path
from sidecar.admin.client import NoSidecar
from sidecar.admin.unix import SocketTaken, listen_unix
from sidecar.telemetry.log import Log


class FakeSidecar:
    """An Inspect with fixed answers that remembers what it was asked to do."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def status(self) -> dict[str, Any]:
        return {"service": "web", "state": "ready"}

    def hops(self, since: int | None) -> dict[str, Any]:
        self.asked.append(since)
        return {"sequence": 2, "interval_seconds": None, "hops": []}

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        return {"id": decision_id, "error": "policy_denied"} if decision_id == "0a1b2c3d-1" else None

    def explain(self, query: dict[str, Any]) -> dict[str, Any]:
        if "from" not in query:
            raise MeshError("`from` is missing")
        return {"verdict": "deny", "query": query}

    def drain(self) -> dict[str, Any]:
        self.asked.append("drain")
        return {"in_flight": 3}

    async def rotate(self) -> dict[str, Any]:
        await trio.sleep(0)
        self.asked.append("rotate")
        if self.asked.count("rotate") > 1:
            raise MeshError("the CA is away")
        return {"serial": "0a"}

    def certs(self) -> dict[str, Any]:
        raise RuntimeError("a fault of ours")


class Stage:
    def __init__(self, tmp_path: Path) -> None:
        self.sidecar = FakeSidecar()
        self.folder = tmp_path / "run"
        self.path = self.folder / "web.sock"
        self.stderr = tmp_path / "stderr"
        self.acted: list[tuple[str, int, int]] = []  # what the audit is told

    def act(self, path: str, status: int, uid: int, pid: int) -> None:
        assert pid > 0
        self.acted.append((path, status, uid))

    def play(self, scene: Callable[[], Awaitable[None]]) -> None:
        fd = os.open(self.stderr, os.O_CREAT | os.O_WRONLY, 0o600)
        log = Log(fd=fd, human=False)

        async def main() -> None:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    serve = partial(serve_admin, self.sidecar, self.folder, "web", log, acted=self.act)
                    assert await nursery.start(serve) == self.path
                    await scene()
                    nursery.cancel_scope.cancel()

        trio.run(main)
        log.close()
        os.close(fd)

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        return await trio.to_thread.run_sync(lambda: client.call(self.path, method, path, body))


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def test_every_endpoint(stage):
    async def scene() -> None:
        assert await stage.call("GET", "/status") == (200, {"service": "web", "state": "ready"})
        assert (await stage.call("GET", "/hops"))[0] == 200
        assert (await stage.call("GET", "/hops?since=7"))[0] == 200
        assert await stage.call("GET", "/decisions/0a1b2c3d-1") == (200, {"id": "0a1b2c3d-1", "error": "policy_denied"})
        status, explained = await stage.call("POST", "/explain", {"from": "web", "method": "GET"})
        assert (status, explained["verdict"], explained["query"]) == (200, "deny", {"from": "web", "method": "GET"})
        assert await stage.call("POST", "/drain") == (202, {"in_flight": 3})
        assert await stage.call("POST", "/certs/rotate") == (200, {"serial": "0a"})

    stage.play(scene)
    assert stage.sidecar.asked == [None, 7, "drain", "rotate"]
    us = os.geteuid()
    assert stage.acted == [("/drain", 202, us), ("/certs/rotate", 200, us)], "who only looks is no news"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/", None, 404, "not_found"),
        ("GET", "/status/", None, 404, "not_found"),
        ("GET", "//status", None, 404, "not_found"),
        ("GET", "/%73tatus", None, 404, "not_found"),
        ("POST", "/status", None, 405, "method_not_allowed"),
        ("GET", "/drain", None, 405, "method_not_allowed"),
        ("GET", "/certs/rotate", None, 405, "method_not_allowed"),
        ("DELETE", "/hops", None, 405, "method_not_allowed"),
        ("GET", "/hops?since=-1", None, 400, "bad_query"),
        ("GET", "/hops?since=99999999999999999999", None, 400, "bad_query"),
        ("GET", "/decisions/0a1b2c3d-2", None, 404, "unknown_decision"),
        ("GET", "/decisions/..", None, 400, "bad_decision_id"),
        ("POST", "/explain", [1], 400, "bad_json"),
        ("POST", "/explain", {}, 400, "error"),
        ("GET", "/certs", None, 500, "internal"),
    ],
)
def test_refusals(stage, method, path, body, status, error):
    async def scene() -> None:
        got, answer = await stage.call(method, path, body)
        assert (got, answer["error"]) == (status, error)

    stage.play(scene)
    assert stage.sidecar.asked == []


def test_a_fault_of_ours_is_in_the_log_and_not_in_the_answer(stage):
    async def scene() -> None:
        _, answer = await stage.call("GET", "/certs")
        assert "fault of ours" not in json.dumps(answer)

    stage.play(scene)
    assert "RuntimeError: a fault of ours" in stage.stderr.read_text()


def test_a_rotation_that_fails_says_why(stage):
    async def scene() -> None:
        await stage.call("POST", "/certs/rotate")
        status, answer = await stage.call("POST", "/certs/rotate")
        assert (status, answer["detail"]) == (503, "the CA is away")

    stage.play(scene)


@pytest.mark.parametrize(
    "head", ["Host: mesh\r\nOrigin: https://evil.example", "Host: evil.example", "Host: 127.0.0.1"]
)
def test_a_browser_behind_a_forwarder_is_refused(stage, head):
    async def scene() -> None:
        stream = await trio.open_unix_socket(stage.path)
        await stream.send_all(f"POST /drain HTTP/1.1\r\n{head}\r\nConnection: close\r\n\r\n".encode())
        assert b" 403 " in bytes(await stream.receive_some()).split(b"\r\n")[0]
        await stream.aclose()

    stage.play(scene)
    assert stage.sidecar.asked == []
    assert stage.acted == [("/drain", 403, os.geteuid())]


def test_the_socket_is_ours_alone_and_goes_with_us(stage):
    async def scene() -> None:
        assert stage.path.stat().st_mode & 0o777 == 0o600
        assert stage.folder.stat().st_mode & 0o777 == 0o700
        assert await trio.to_thread.run_sync(client.sockets, stage.folder) == [stage.path]

    stage.play(scene)
    assert not stage.path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
def test_another_user_is_refused_even_where_files_let_it(stage, tmp_path):
    """A child that is nobody connects; folder and socket were opened wide, so only the kernel's word remains."""
    code = (
        "import os, socket, sys\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "os.chdir(sys.argv[1])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "connection.connect('web.sock')\n"
        "connection.settimeout(10)\n"
        "try:\n"
        "    connection.sendall(b'GET /status HTTP/1.1\\r\\nHost: mesh\\r\\n\\r\\n')\n"
        "    got = connection.recv(100)\n"
        "except ConnectionError:\n"
        "    got = b''\n"
        "print(got)\n"
    )

    async def scene() -> None:
        stage.folder.chmod(0o755)
        stage.path.chmod(0o666)
        result = await trio.run_process([sys.executable, "-c", code, str(stage.folder)], capture_stdout=True)
        assert result.stdout.strip() == b"b''"
        assert (await stage.call("GET", "/status"))[0] == 200

    stage.play(scene)
    (line,) = [json.loads(line) for line in stage.stderr.read_text().splitlines()]
    assert (line["message"], line["uid"]) == ("the admin socket refused a user", 65534)
    assert stage.acted == [("connect", 403, 65534)]


# ---- the place of the socket -------------------------------------------------------------------------------------


def a_stale_socket(path: Path) -> None:
    """What a process leaves that was killed."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.is_socket()


def test_a_stale_socket_is_replaced(stage):
    a_stale_socket(stage.path)

    async def scene() -> None:
        assert (await stage.call("GET", "/status"))[0] == 200

    stage.play(scene)


def test_a_living_one_is_not(stage):
    async def scene() -> None:
        with pytest.raises(SocketTaken, match="another sidecar answers"):
            await listen_unix(stage.path)
        assert (await stage.call("GET", "/status"))[0] == 200

    stage.play(scene)


def test_one_whose_owner_is_busy_is_not(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    path, waiting = tmp_path / "run" / "web.sock", []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        for _ in range(4):
            each = socket.socket(socket.AF_UNIX)
            each.setblocking(False)
            waiting.append(each)
            with suppress(BlockingIOError):
                each.connect(str(path))
        with pytest.raises(SocketTaken):
            trio.run(listen_unix, path)
        for each in waiting:
            each.close()
    assert path.exists()


def test_what_is_no_socket_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "web.sock").write_text("precious")
    with pytest.raises(SocketTaken, match="no socket"):
        trio.run(listen_unix, tmp_path / "run" / "web.sock")
    assert (tmp_path / "run" / "web.sock").read_text() == "precious"


def test_a_path_that_is_too_long_is_said_so(tmp_path):
    with pytest.raises(SocketTaken, match="too long"):
        trio.run(listen_unix, tmp_path / ("x" * 120))


def test_an_unsafe_folder_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(client.UnsafeRunFolder):
        trio.run(listen_unix, tmp_path / "run" / "web.sock")


def test_a_successor_keeps_its_socket_when_we_end(stage):
    async def scene() -> None:
        stage.path.unlink()
        a_stale_socket(stage.path)

    stage.play(scene)
    assert stage.path.exists()
    with pytest.raises(NoSidecar):
        client.call(stage.path, "GET", "/status")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 64, "a\n"])
def test_a_service_that_is_no_file_name(tmp_path, name):
    with pytest.raises(MeshError):
        socket_path(tmp_path, name)
