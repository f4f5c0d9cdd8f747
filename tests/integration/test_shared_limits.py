"""Two sidecars of one service that hold its callers to one limit, by a real Redis that comes and goes."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from ca.bootstrap import enrolment_file
from tests.kit.fleet import MESH, TRUST_DOMAIN, Fleet, Sidecar
from tests.kit.free_ports import Ports
from tests.kit.processes import eventually
from tests.kit.programs import curl, echo_app
from tests.kit.redis_server import RedisServer

TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound:
      - {{to: app, listen: "127.0.0.1:{p.web}"}}
      - {{to: twin, identity: app, endpoints: ["127.0.0.1:{p.twin_in}"], listen: "127.0.0.1:{p.twin}"}}
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  app:
    inbound: [{{name: main, port: {port}, bind: 127.0.0.1, app: "127.0.0.1:{p.app}"}}]
    allow: [{{name: web-may, from: [web]}}]
    redis: {{url: "redis://127.0.0.1:{redis}", within: 250ms}}
    rates:
      - {{name: together, limit: {limit}, burst: {burst}, per: caller, shared: redis}}
    access_log: {{mode: all, path: {folder}/{log}.access}}
    health: {{listen: "127.0.0.1:{health}"}}
"""


class Twin(Sidecar):
    """Another sidecar of the same service, on ports of its own."""

    def __init__(self, fleet: Pair, text: str) -> None:
        super().__init__(fleet, "app")
        self.name = "twin"
        self._file = fleet.folder / "twin.yaml"
        self._file.write_text(text)
        self._run_dir = fleet.run_dir / "twin"
        self._run_dir.mkdir(mode=0o700)
        self.state = fleet.folder / "state" / "twin"
        self.socket = self._run_dir / "app.sock"

    def command(self, *app: str) -> list[str]:
        """With files of its own."""
        proof = enrolment_file(self._fleet.folder / "ca", self.config.identity)
        return [
            *MESH, "run", "--file", str(self._file), "--service", "app", "--enrolment", str(proof), "--state",
            str(self.state), "--run-dir", str(self._run_dir),
        ]  # fmt: skip


class Pair(Fleet):
    """`web`, which calls both sidecars of `app`."""

    def __init__(self, folder: Path, redis: int, limit: str, burst: int) -> None:
        self.ports = p = Ports()
        more = {"domain": TRUST_DOMAIN, "p": p, "folder": folder, "redis": redis, "limit": limit, "burst": burst}
        super().__init__(folder, TEXT.format(**more, port=p.app_in, health=p.app_health, log="app"))
        self.sidecars["twin"] = Twin(self, TEXT.format(**more, port=p.twin_in, health=p.twin_health, log="twin"))

    def limits(self, name: str) -> dict[str, object]:
        return self.sidecars[name].admin("GET", "/limits")[1]

    def counted_together(self) -> bool:
        found = [self.limits(name)["redis"] for name in ("app", "twin")]
        return all(isinstance(each, dict) and each["up"] for each in found)

    def status(self, door: str) -> int:
        return int(curl("-i", f"http://127.0.0.1:{getattr(self.ports, door)}/").text.split()[1])


@contextmanager
def pair_of(folder: Path, redis: RedisServer, limit: str, burst: int) -> Iterator[Pair]:
    pair = Pair(folder, redis.port, limit, burst)
    with echo_app(folder, pair.ports.app), pair:
        pair.start_all()
        eventually("both count together", pair.counted_together)
        yield pair
        pair.assert_well()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


class Load:
    """Requests one after the other on one connection, until told to stop."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.statuses: list[tuple[float, int]] = []
        self.broken: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self._over.wait(0.002):
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                self.statuses.append((time.monotonic(), answer.status))
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(repr(error))
                connection.close()
        connection.close()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(15)

    def passed(self, begin: float, end: float) -> int:
        return sum(begin <= at < end and status == 200 for at, status in self.statuses)


def test_one_allowance_for_both(tmp_path: Path, redis: RedisServer) -> None:
    with pair_of(tmp_path, redis, "10/h", 10) as pair:
        doors = ["web", "twin"] * 10
        assert Counter(pair.status(door) for door in doors) == {200: 10, 429: 10}
        found = pair.limits("app")
        assert found["redis"] == {
            "url": f"redis://127.0.0.1:{redis.port}", "up": True, "problem": "", "when_away": "local"
        }  # fmt: skip
        (row,) = found["limits"]  # type: ignore[misc]
        assert row["hottest"][0]["remaining"] == 0
        assert row["hottest"][0]["key"].endswith("/sa/web")
        done = pair.mesh("limits")
        assert "together" in done.stdout, done.stderr
        assert "answers" in done.stdout
        asked = pair.mesh("explain", "--from", "web", "--to", "app", "--path", "/")
        assert "together (" in asked.stdout, asked.stdout + asked.stderr
        assert "10/h per caller, 10 at once, counted by all sidecars together, 0 left for it" in asked.stdout
        assert all(b"web" not in str(key).encode() for key in redis.do("KEYS", "*"))  # type: ignore[attr-defined]


def test_redis_is_killed_and_comes_back_under_load_and_no_request_fails_and_no_limit_opens(
    tmp_path: Path, redis: RedisServer
) -> None:
    rate, burst, seconds = 40, 20, 2.5
    with pair_of(tmp_path, redis, f"{rate}/s", burst) as pair:
        loads = [Load(port) for port in (pair.ports.web, pair.ports.twin) * 2]
        time.sleep(1.0)
        marks = [time.monotonic()]
        time.sleep(seconds)
        marks.append(time.monotonic())
        redis.kill()
        eventually("both know", lambda: not pair.counted_together())
        time.sleep(seconds)
        marks.append(time.monotonic())
        redis.start()
        eventually("both count together again", pair.counted_together)
        marks.append(time.monotonic())
        time.sleep(seconds)
        marks.append(time.monotonic())
        for load in loads:
            load.stop()
        passed = [sum(load.passed(*between) for load in loads) for between in pairwise(marks)]
        spans = [end - begin for begin, end in pairwise(marks)]
        assert not [each for load in loads for each in load.broken]
        assert {status for load in loads for _, status in load.statuses} == {200, 429}
        together, alone, _, again = passed
        assert 0.7 * rate * spans[0] <= together <= rate * spans[0] + burst
        assert alone <= 2 * (rate * spans[1] + burst)  # each by itself, and never more than that
        assert 0.7 * rate * spans[3] <= again <= rate * spans[3] + 3 * burst  # what each let in alone, it knew alone
        metrics = pair["app"].metrics()
        assert metrics.total("mesh_ratelimit_redis_fallbacks_total") > 0
        assert metrics.total("mesh_ratelimit_redis_up") == 1
        lines = [line for line in pair["app"].access_log() if line.get("limited_alone")]
        assert lines
        assert "Redis does not answer" in lines[0]["limited_alone"]
        log = [json.loads(line) for line in pair["app"].process.text().splitlines() if line.startswith("{")]
        told = [line for line in log if "limits are" in str(line.get("message", line.get("msg", "")))]
        assert 3 <= len(told) <= 6, told  # once for each change
