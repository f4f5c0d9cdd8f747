"""Sidecars that live on an agent which is not ours: `tests.kit.spiffe_agent`, whose certificates look as SPIRE's do."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.admin import client
from tests.kit.fleet import MESH, spiffe
from tests.kit.free_ports import free_port
from tests.kit.processes import Process, eventually
from tests.kit.workloads import ROOT, ask, need_spiffe

pytestmark = pytest.mark.integration


class Agent:
    """The agent's process."""

    def __init__(self, folder: Path, *names: str) -> None:
        need_spiffe()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.kit.spiffe_agent", str(folder), *names], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._heard()

    def tell(self, *words: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


class Pair:
    """web calls app, each with the identity that the agent gives it."""

    def __init__(self, place: Path) -> None:
        self.place, self.run_dir = place, place / "run"
        self.port, inbound, app = free_port(), free_port(), free_port()
        config = place / "mesh.yaml"
        config.write_text(
            "trust_domain: demo.mesh\n"
            "services:\n"
            "  web:\n"
            f"    identity_source: {{workload_api: 'unix:{place}/agent/web.sock'}}\n"
            f"    outbound: [{{to: app, listen: '127.0.0.1:{self.port}'}}]\n"
            f"    workload_api: {{listen: 'unix:{place}/w/w.sock'}}\n"
            "    health: {listen: off}\n"
            "  app:\n"
            f"    identity_source: {{workload_api: 'unix:{place}/agent/app.sock'}}\n"
            f"    inbound: [{{name: http, port: {inbound}, bind: 127.0.0.1, app: '127.0.0.1:{app}'}}]\n"
            "    allow: [{from: web, method: GET}]\n"
            "    health: {listen: off}\n"
        )
        www = place / "www"
        www.mkdir()
        (www / "hello").write_text("hello")
        serve = [sys.executable, "-m", "http.server", str(app), "--bind", "127.0.0.1", "--directory", str(www)]
        self.processes = {"files": Process("files", serve, place / "files.log")}
        for name in ("web", "app"):
            words = [*MESH, "run", "-f", str(config), "--service", name, "--state", str(place / "state" / name)]
            self.processes[name] = Process(name, [*words, "--run-dir", str(self.run_dir)], place / f"{name}.log")

    def identity(self, name: str) -> dict[str, Any]:
        with suppress(client.NoSidecar):
            return dict(client.call(self.run_dir / f"{name}.sock", "GET", "/status")[1]["identity"])
        return {"last_error": "", "serial": ""}

    def get(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/hello")
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def stop(self) -> None:
        for process in self.processes.values():
            process.stop()


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mesh-ag-") as name:
        (Path(name) / "agent").mkdir()
        yield Path(name)


@pytest.fixture
def agent(place: Path) -> Iterator[Agent]:
    running = Agent(place / "agent", "web", "app")
    yield running
    running.stop()


def test_two_sidecars_live_on_another_agent(place: Path, agent: Agent) -> None:
    pair = Pair(place)
    try:
        eventually("web is told no", lambda: "PERMISSION_DENIED" in pair.identity("web")["last_error"])
        first = {name: agent.tell("register", name)["serial"] for name in ("web", "app")}
        eventually("both have theirs", lambda: {name: pair.identity(name)["serial"] for name in first} == first)
        eventually("a call through both", lambda: pair.get() == 200)

        serial = agent.tell("rotate", "web")["serial"]
        eventually("web has the next", lambda: pair.identity("web")["serial"] == serial)
        assert pair.get() == 200
        agent.tell("root")
        for name in first:
            first[name] = agent.tell("rotate", name)["serial"]
        eventually("both are under the new root", lambda: {n: pair.identity(n)["serial"] for n in first} == first)
        eventually("and believe each other", lambda: pair.get() == 200)

        agent.tell("federate", "partner.example")
        ours = f"unix:{place}/w/w.sock"
        eventually("a partner", lambda: ask(ours, "bundles") == {"demo.mesh": 2, "partner.example": 1})
        token = ask(ours, "jwt", "reports")
        assert (token["spiffe_id"], token["audience"]) == (spiffe("web"), ["reports"])
        assert ask(ours, "validate", "reports", token["token"])["spiffe_id"] == spiffe("web")

        agent.tell("revoke", "web")
        eventually("web hears of it", lambda: "PERMISSION_DENIED" in pair.identity("web")["last_error"])
        assert pair.identity("web")["serial"] == first["web"], "what it holds stays, to its end"
        assert pair.get() == 200
    finally:
        pair.stop()
