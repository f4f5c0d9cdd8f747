"""Sidecars that only have an admin socket: the real admin API in front of what a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from certs.errors import MeshError
from sidecar.admin.api import serve_admin
from sidecar.telemetry.log import Log


class FakeInspect:
    """What a running sidecar would tell, set by the test; remembers what it was asked."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.state = "ready"
        self.identity: dict[str, Any] = {
            "spiffe_id": f"spiffe://demo.mesh/ns/default/sa/{service}", "serial": "0a1b", "not_after": 4e9,
            "next_renewal_at": 3.9e9, "ca_connected": True, "bundle_sequence": 7, "clock_warning": "",
            "consecutive_failures": 0, "last_error": "",
        }  # fmt: skip
        self.rows: list[dict[str, Any]] = []
        self.balanced: dict[str, Any] = {"endpoints": [], "upstreams": []}
        self.decisions: dict[str, dict[str, Any]] = {}
        self.answer: dict[str, Any] | MeshError = {}
        self.rotated: dict[str, Any] | MeshError = {"service": service, "serial": "0c0d", "not_after": 4e9}
        self.certificates: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.posture: dict[str, Any] = {}
        self.tokens: list[dict[str, Any]] = []
        self.audit: dict[str, Any] = {}
        self.plain: dict[str, Any] = {
            "service": service, "now": "", "listeners": [], "connections": [], "forgotten": 0, "upstreams": [],
            "passthrough": [],
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        return {
            "service": self.service, "spiffe_id": self.identity["spiffe_id"], "instance": "1f0c9a3b",
            "state": self.state, "identity": self.identity, "policy": {"rules": 3, "generation": 1},
            "connections": 2, "in_flight": 1,
            "listeners": [
                {"name": "http", "address": "127.0.0.1:17443", "protocol": "http", "direction": "inbound",
                 **self.posture}
            ],
            "tokens": self.tokens, "audit": self.audit, "version": "0", "pid": 1,
        }  # fmt: skip

    def hops(self, since: int | None) -> dict[str, Any]:
        return {"sequence": 1, "interval_seconds": None, "hops": self.rows}

    def endpoints(self) -> dict[str, Any]:
        return {"service": self.service, **self.balanced}

    def plaintext(self) -> dict[str, Any]:
        return self.plain

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        return self.decisions.get(decision_id)

    def explain(self, query: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(query)
        if isinstance(self.answer, MeshError):
            raise self.answer
        return self.answer

    def drain(self) -> dict[str, Any]:
        return {}

    async def rotate(self) -> dict[str, Any]:
        if isinstance(self.rotated, MeshError):
            raise self.rotated
        return self.rotated

    def certs(self) -> dict[str, Any]:
        return self.certificates


Start = Callable[..., FakeInspect]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder of our own."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def start(run_dir: Path) -> Iterator[Start]:
    """`start("web")`: an admin socket of that name, served until the test ends."""
    entered = threading.Event()
    holder: dict[str, Any] = {}

    async def main() -> None:
        holder["token"], holder["stop"] = trio.lowlevel.current_trio_token(), trio.Event()
        async with trio.open_nursery() as nursery:
            holder["nursery"] = nursery
            entered.set()
            await holder["stop"].wait()
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    entered.wait(10)

    def start_one(service: str) -> FakeInspect:
        inspect = FakeInspect(service)

        async def begin() -> None:
            await holder["nursery"].start(serve_admin, inspect, run_dir, service, Log())

        trio.from_thread.run(begin, trio_token=holder["token"])
        return inspect

    yield start_one
    trio.from_thread.run_sync(holder["stop"].set, trio_token=holder["token"])
    thread.join(10)
