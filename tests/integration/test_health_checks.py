"""Real applications that say that they are ill, that hang, or serve gRPC's health: who is left, and who comes back."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.fleet import MESH, Fleet
from tests.kit.free_ports import free_port
from tests.kit.processes import Process, eventually, listens

ROOT = Path(__file__).resolve().parents[2]
TEXT = """\
trust_domain: demo.mesh
ca: {{address: "127.0.0.1:{ca}"}}
services:
  web:
    zone: here
    outbound:
      - to: shop
        unmeshed: passthrough
        listen: "127.0.0.1:{door}"
        endpoints: [{endpoints}]
        health: {{http: /healthz, every: 1s, within: 500ms}}
        {more}
      - to: rpc
        listen: "127.0.0.1:{rpc_door}"
        health: {{grpc: kit.Echo, every: 1s}}
    access_log: {{path: {folder}/access.log}}
    health: {{listen: "127.0.0.1:{health}"}}
  rpc:
    inbound: [{{port: {rpc_in}, bind: 127.0.0.1, app: "127.0.0.1:{rpc_app}"}}]
    allow: [{{from: web, path: [{rpc_may}]}}]
    health: {{listen: "127.0.0.1:{rpc_health}"}}
"""
COPIES = ("a", "b", "c")
CHECK = "/grpc.health.v1.Health/Check"


class Shop:
    """Two sidecars, three copies of an application, and a server of gRPC."""

    def __init__(self, folder: Path) -> None:
        names = ("ca", "door", "health", "rpc_door", "rpc_in", "rpc_app", "rpc_health", *COPIES)
        self.ports = {name: free_port() for name in names}
        self.folder = folder
        self.mesh = Fleet(folder, self.text())
        self.processes: dict[str, Process] = {}

    def text(self, extra: dict[str, str] | None = None, more: str = "", rpc_may: str = CHECK,
             copies: tuple[str, ...] = COPIES) -> str:  # fmt: skip
        """The configuration; `extra` is said of a copy beside its address."""
        said = [f'{{address: "127.0.0.1:{self.ports[name]}"{(extra or {}).get(name, "")}}}' for name in copies]
        return TEXT.format(folder=self.folder, endpoints=", ".join(said), more=more, rpc_may=rpc_may, **self.ports)

    def reload(self, text: str) -> None:
        """Put another configuration in force everywhere."""
        before = {name: self.mesh[name].metrics().total("mesh_config_reloads_total") for name in ("web", "rpc")}
        (self.folder / "mesh.yaml").write_text(text)
        for name, count in before.items():
            eventually("it is in force", lambda name=name, count=count: (  # type: ignore[misc]
                self.mesh[name].metrics().total("mesh_config_reloads_total") > count))  # fmt: skip

    def open(self, name: str) -> None:
        """Start a copy, or the server."""
        port = self.ports["rpc_app" if name == "rpc" else name]
        command = [sys.executable, "-m", "tests.kit.grpc_server", str(port)]
        if name != "rpc":
            command = [sys.executable, "-m", "tests.kit.health_app", str(port), name, str(self.folder)]
        self.processes[name] = Process(name, command, self.folder / f"{name}.log", env={"PYTHONPATH": str(ROOT)})
        eventually(f"{name} listens", lambda: listens(port))

    def ask(self, count: int, **headers: str) -> Counter[str]:
        """Who has answered so many requests; `503` and the like where nobody did."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["door"], timeout=30)
        found: Counter[str] = Counter()
        for _ in range(count):
            connection.request("GET", "/", headers={"Host": "shop", **headers})
            answer = connection.getresponse()
            body = answer.read().decode()
            found[body if answer.status == 200 else str(answer.status)] += 1
        connection.close()
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `mesh endpoints` says, by copy."""
        command = [*MESH, "endpoints", "--run-dir", str(self.mesh.run_dir), "-o", "json"]
        shown = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
        names = {f"127.0.0.1:{self.ports[name]}": name for name in COPIES}
        names[f"127.0.0.1:{self.ports['rpc_in']}"] = "rpc"
        return {names[row["endpoint"]]: row for row in shown["endpoints"]}

    def state(self, name: str) -> str:
        return str(self.rows()[name]["state"])

    def table(self) -> str:
        command = [*MESH, "endpoints", "--run-dir", str(self.mesh.run_dir)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """All of it, running."""
    it = Shop(tmp_path)
    with it.mesh:
        for name in (*COPIES, "rpc"):
            it.open(name)
        it.mesh.start_all()
        try:
            yield it
        finally:
            for process in it.processes.values():
                process.signal(signal.SIGCONT)
                process.stop()


def test_an_application_that_says_it_is_ill_is_left_and_comes_back(shop: Shop) -> None:
    eventually("all are checked", lambda: all(row["health"]["result"] == "passed" for row in shop.rows().values()))
    assert set(shop.ask(60)) == set(COPIES)

    (shop.folder / "a.ill").touch()
    eventually("it is left", lambda: shop.state("a") == "unhealthy", seconds=30.0)
    assert set(shop.ask(60)) == {"b", "c"}
    assert shop.rows()["a"]["health"]["reason"] == "answers 500 to /healthz, not 200-399"
    assert "unhealthy for" in shop.table()
    assert "answers 500 to /healthz" in shop.table()

    shop.processes["b"].signal(signal.SIGSTOP)  # the kernel goes on to accept for it
    eventually("it is left too", lambda: shop.state("b") == "unhealthy", seconds=30.0)
    assert shop.rows()["b"]["health"]["result"] == "timed_out"
    assert shop.ask(60) == {"c": 60}

    (shop.folder / "a.ill").unlink()
    shop.processes["b"].signal(signal.SIGCONT)
    eventually("both are back", lambda: {shop.state(name) for name in COPIES} == {"available"}, seconds=30.0)
    assert set(shop.ask(300)) == set(COPIES)
    metrics = shop.mesh["web"].metrics()
    assert metrics.total("mesh_health_checks_total", listener="shop", result="failed") >= 3
    assert metrics.total("mesh_health_checks_total", listener="shop", result="timed_out") >= 3
    shop.mesh.assert_well()


def test_grpc_says_whether_it_serves_and_a_refused_check_says_nothing(shop: Shop) -> None:
    eventually("it is checked", lambda: shop.rows()["rpc"]["health"]["result"] == "passed")
    shop.processes["rpc"].signal(signal.SIGUSR1)
    eventually("it is left", lambda: shop.state("rpc") == "unhealthy", seconds=30.0)
    assert shop.rows()["rpc"]["health"]["reason"] == "says NOT_SERVING"
    shop.processes["rpc"].signal(signal.SIGUSR2)
    eventually("it is back", lambda: shop.state("rpc") == "available", seconds=30.0)

    shop.reload(shop.text(rpc_may="/kit.Echo/Echo"))
    eventually("it is refused", lambda: shop.rows()["rpc"]["health"]["result"] == "refused")
    assert shop.state("rpc") == "available"
    reason = f"the check is refused by rpc's allowlist, so it says nothing: allow POST {CHECK}"
    assert shop.rows()["rpc"]["health"]["reason"] == reason
    assert reason in shop.mesh["web"].process.text()

    shop.reload(shop.text().replace("grpc: kit.Echo", "grpc: kit.Other"))
    eventually("it is unknown", lambda: shop.state("rpc") == "unhealthy", seconds=30.0)
    assert shop.rows()["rpc"]["health"]["reason"] == 'its health service knows no "kit.Other"'
    shop.mesh.assert_well()


def test_weights_zones_and_what_sticks_over_reloads(shop: Shop) -> None:
    shop.reload(shop.text({"a": ", weight: 3"}, "balance: weighted", copies=("a", "b")))
    found = shop.ask(400)
    assert 290 <= found["a"] <= 310, found  # 3 to 1
    assert found["a"] + found["b"] == 400

    shop.reload(shop.text({"c": ", zone: here", "a": ", zone: there"}))
    assert shop.ask(60) == {"c": 60}
    (shop.folder / "c.ill").touch()
    eventually("it spills over", lambda: set(shop.ask(30)) == {"a", "b"}, seconds=30.0)
    (shop.folder / "c.ill").unlink()

    shop.reload(shop.text(more="affinity: cookie session"))
    eventually("all are well", lambda: {shop.state(name) for name in COPIES} == {"available"}, seconds=30.0)
    cookies = [f"a=b; session={number}" for number in range(24)]
    homes = {cookie: set(shop.ask(3, Cookie=cookie)) for cookie in cookies}
    assert {len(home) for home in homes.values()} == {1}
    assert set.union(*homes.values()) == set(COPIES)
    shop.reload(shop.text(more="affinity: cookie session\n        retries: {resends: 1}"))
    assert {cookie: set(shop.ask(3, Cookie=cookie)) for cookie in cookies} == homes
    shop.reload(shop.text(more="affinity: cookie session", copies=("a", "b")))
    after = {cookie: set(shop.ask(3, Cookie=cookie)) for cookie in cookies}
    moved = [cookie for cookie in cookies if after[cookie] != homes[cookie]]
    assert {cookie for cookie in cookies if homes[cookie] == {"c"}} <= set(moved)
    assert len([cookie for cookie in moved if homes[cookie] != {"c"}]) <= 4
    assert "maglev by cookie session" in shop.table()
    shop.mesh.assert_well()
