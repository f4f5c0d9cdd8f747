"""gRPC through two sidecars by another hand: @grpc/grpc-js as client and as server, with itself and with grpcio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.kit.grpc_calls import Calls, failure
from tests.kit.meshes import Pair
from tests.kit.programs import echo_app, node_app, node_folder, run
from tests.kit.tools import need

SCRIPTS = Path(__file__).parents[1] / "kit" / "grpc_js"
EXPECTED = {
    "unary": "hello",
    "metadata": ["a, b=c", "00ff0a0d", "a, b=c", "00ff0a0d"],
    "fail": [9, "grüße, 100% €", "00ff2064657461696c73", "told"],
    "collect": sum(range(100)),
    "spread": [0, 300, True],
    "behind": [10, 3, "enough"],
    "talk": [0, 100],
    "cancel": [1, True],
    "deadline": [4, True],
    "big": True,
    "many": True,
}


@contextmanager
def mesh_before(folder: Path, server: str, scripts: Path) -> Iterator[Pair]:
    pair = Pair(folder)
    app = (
        node_app(folder, pair.ports.app, scripts / "server.js")
        if server == "grpc-js"
        else echo_app(folder, pair.ports.app, "grpc_server.py")
    )
    with pair, app:
        pair.start_all()
        yield pair
        pair.assert_well()


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return node_folder(SCRIPTS)


@pytest.mark.parametrize("server", ["grpcio", "grpc-js"])
def test_grpc_js_calls(tmp_path: Path, scripts: Path, server: str) -> None:
    with mesh_before(tmp_path, server, scripts) as pair:
        done = run(need("node"), str(scripts / "client.js"), str(pair.ports.door), timeout=120)
        assert done.code == 0, done.err
        assert json.loads(done.text) == EXPECTED


def test_grpc_js_serves_grpcio(tmp_path: Path, scripts: Path) -> None:
    with mesh_before(tmp_path, "grpc-js", scripts) as pair, Calls(pair.ports.door) as calls:
        assert calls.echo(b"hello", timeout=30) == b"hello"
        assert list(calls.talk(iter([b"a", b"b"]), timeout=30)) == [b"a", b"b"]
        assert len(list(calls.spread(count=100, size=100_000))) == 100
        assert '"count": 100' in calls.collect(iter([bytes(10_000)] * 100), timeout=30).decode()
        error = calls.fail(9, "grüße")
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "grüße")
        assert failure(lambda: calls.wait(b"late", timeout=0.5)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert calls.wait_for("late", "ended")
        body = bytes(64 << 20)
        assert calls.echo(body, timeout=60) == body
