"""Three real copies of an application behind one upstream, of which some die, hang and come back."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kit.fleet import MESH, Fleet
from tests.kit.free_ports import free_port
from tests.kit.processes import Process, eventually, listens

TEXT = """\
trust_domain: demo.mesh
ca: {{address: "127.0.0.1:{ca}"}}
services:
  web:
    outbound:
      - to: shop
        unmeshed: passthrough
        listen: "127.0.0.1:{door}"
        endpoints: ["127.0.0.1:{a}", "127.0.0.1:{b}", "127.0.0.1:{c}"]
    timeouts: {{response_head: 1s}}
    access_log: {{path: {folder}/access.log}}
    health: {{listen: "127.0.0.1:{health}"}}
"""
COPIES = ("a", "b", "c")


class Shop:
    """A sidecar and the three copies."""

    def __init__(self, folder: Path) -> None:
        self.ports = {name: free_port() for name in ("ca", "door", "health", *COPIES)}
        self.mesh = Fleet(folder, TEXT.format(folder=folder, **self.ports))
        self.folder = folder
        self.copies: dict[str, Process] = {}

    def open(self, name: str) -> None:
        """Start a copy, again where it has ended."""
        port = self.ports[name]
        if name in self.copies:
            self.copies[name].stop()
        command = (sys.executable, "-m", "tests.kit.echo_app", str(port))
        self.copies[name] = Process(name, command, self.folder / f"{name}.log", env={"PYTHONPATH": str(ROOT)})
        eventually(f"{name} listens", lambda: listens(port))

    def ask(self, count: int, *, at_once: int = 8) -> Counter[int]:
        """So many requests; how often each status came."""

        def some(share: int) -> list[int]:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports["door"], timeout=30)
            statuses = []
            for number in range(share):
                connection.request("GET", f"/echo/{number}", headers={"Host": "shop"})
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            connection.close()
            return statuses

        with ThreadPoolExecutor(at_once) as pool:
            return Counter(status for found in pool.map(some, [count // at_once] * at_once) for status in found)

    def states(self) -> dict[str, str]:
        """What `mesh endpoints` says of each copy."""
        command = [*MESH, "endpoints", "--run-dir", str(self.mesh.run_dir), "-o", "json"]
        shown = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
        by_port = {f"127.0.0.1:{self.ports[name]}": name for name in COPIES}
        return {by_port[row["endpoint"]]: row["state"] for row in shown["endpoints"]}


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """All of it, running."""
    it = Shop(tmp_path)
    with it.mesh:
        it.mesh.start_all()
        for name in COPIES:
            it.open(name)
        try:
            yield it
        finally:
            for copy in it.copies.values():
                copy.signal(signal.SIGCONT)
                copy.stop()


def test_copies_that_die_hang_and_come_back(shop: Shop) -> None:
    assert shop.ask(160) == {200: 160}
    assert shop.states() == dict.fromkeys(COPIES, "available")

    shop.copies["a"].signal(signal.SIGKILL)  # with requests on their way, and connections in the pool
    found = shop.ask(400)
    assert found[200] >= 392, found  # but for what had been sent on a connection of its own, and may have been done
    assert set(found) <= {200, 503}
    assert shop.states()["a"] in ("open", "half-open")
    assert shop.mesh["web"].metrics().total("mesh_retries_total") > 0

    shop.copies["b"].signal(signal.SIGSTOP)  # the kernel goes on to accept for it
    found = shop.ask(400)
    assert found[200] >= 380, found  # a second of silence is a second of latency: hardly anybody goes there again
    assert set(found) <= {200, 504}

    shop.open("a")
    shop.copies["b"].signal(signal.SIGCONT)

    def all_back() -> bool:
        shop.ask(16)
        return shop.states() == dict.fromkeys(COPIES, "available")

    eventually("all are back", all_back)
    assert shop.ask(160) == {200: 160}
    shop.mesh["web"].assert_well()


def test_all_of_them_gone_is_said_at_once_and_explained(shop: Shop) -> None:
    for name in COPIES:
        shop.copies[name].signal(signal.SIGKILL)
    shop.ask(160)
    began = time.monotonic()
    found = shop.ask(80)
    assert time.monotonic() - began < 5.0
    assert set(found) == {503}
    eventually("it is logged", lambda: any(line["flags"] == "UH" for line in shop.mesh["web"].access_log()))
    line = next(line for line in shop.mesh["web"].access_log() if line["flags"] == "UH")
    command = [*MESH, "explain", line["decision_id"], "--run-dir", str(shop.mesh.run_dir)]
    explained = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30).stdout
    assert "open" in explained
    assert f"127.0.0.1:{shop.ports['a']}" in explained
    shop.mesh["web"].assert_well()
