"""A soak: connections and requests without end, a reload and a rotation every ten seconds, and what must not grow.

Two callers share the work: one in five connections is an mTLS connection of its own to app's sidecar, the others come
through web's. First a warm-up, so that pools, caches and the allocator have what they keep; then, with everything idle,
the *start*: coroutines, sockets, descriptors, TLS contexts, metric series. After the load, idle again, all of them must
be what they were. Memory is sampled all the time; its slope is that of a straight line through the later samples.

Each reload renames the rule that lets the callers in, and the live table keeps a row of some 10 KiB for each rule for
ten minutes after its last hop. A soak of less than that would take the filling of the table for a leak, so short ones
change between `NAMES` names; one that lasts gives every reload a name of its own, and the rows must go again.

The load comes in rounds, between which a caller of `go` may do something: print how far it is, or let others have the
processor. Nothing is waited for there, so connections stay pooled and the disturbances go on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.admin.client import NoSidecar
from tests.kit.fleet import Fleet, Sidecar
from tests.kit.free_ports import Ports
from tests.kit.memory_use import MIB, rss
from tests.kit.processes import eventually
from tests.kit.programs import REPOSITORY
from tests.kit.siege import identity_of, siege_yaml

EVERY_SECONDS = 10.0
NAMES = 2  # of the rule, in a soak of less than ten minutes
ROUND = 5_000  # connections
CONTEXTS = 3  # one to accept with, one to call with, and one more while a rotation is under way
MTLS_SHARE = 5  # one connection in so many
CONFIG = """{
  timeouts: {pool_idle_app: 1s, pool_idle_peer: 2s, drain: 3s},
  limits: {handshakes_per_second: 5000, connections_per_peer: 4000},
}"""
MEMORY = "memory_bytes"
Figures = dict[str, int]


@dataclass
class Report:
    """What a soak came to."""

    start: dict[str, Figures] = field(default_factory=dict)
    end: dict[str, Figures] = field(default_factory=dict)
    sums: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # (requests so far, bytes)
    seconds: float = 0.0
    rotations: int = 0
    late: int = 0  # rotations
    reloads: int = 0

    def slope(self, name: str) -> float:
        """Bytes a request, by least squares over the second half of the requests: in the first, what has a bound fills.

        A leak does not end with the first half, so it is seen: 1 KiB a connection makes 205 bytes here, 8 bytes a
        request 8. What is not seen is what grows by less and less.
        """
        samples = self.samples[name]
        middle = (samples[0][0] + samples[-1][0]) / 2
        points = [point for point in samples if point[0] >= middle]
        middle_x = sum(x for x, _ in points) / len(points)
        middle_y = sum(y for _, y in points) / len(points)
        spread = sum((x - middle_x) ** 2 for x, _ in points)
        return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0

    def so_far(self) -> str:
        """One line, between two rounds."""
        memory = ", ".join(f"{name} {points[-1][1] / MIB:.2f} MiB" for name, points in self.samples.items())
        done = f"{self.sums['connections']} connections"
        return f"{time.strftime('%H:%M:%S')}  {done}  {memory}  failed {dict(self.failed)}"

    def summary(self) -> str:
        """For a report."""
        memory = "; ".join(
            f"{name} {self.start[name][MEMORY] / MIB:.1f} → {self.end[name][MEMORY] / MIB:.1f} MiB, "
            f"{self.slope(name) * 1e6 / MIB:+.2f} MiB a million requests in the second half"
            for name in self.end
        )
        done = f"{self.rotations} rotations (and {self.late} late), {self.reloads} reloads"
        return (
            f"{dict(self.sums)} in {self.seconds:.0f} s, {done}, "
            f"failed {dict(self.failed)}\n  memory: {memory}\n  start {self.start}\n  end   {self.end}"
        )

    def assert_clean(self) -> None:
        """Every request was answered rightly, and everything has returned to its start."""
        assert not self.failed, self.summary()
        assert self.sums["ok"] == self.sums["requests"] > 0, self.summary()
        assert self.rotations >= self.late, self.summary()
        for name, figures in self.start.items():
            for key in figures.keys() - {MEMORY}:
                most = figures[key] + (key == "tls_contexts")  # that of the generation before may be held a while
                assert self.end[name][key] <= most, f"{name}: {key} {figures[key]} → {self.end[name][key]}"
            assert self.end[name]["tls_contexts"] <= CONTEXTS, self.summary()


class Soak(Fleet):
    """A mesh to be soaked: web and app run; batch lends its identity to the mTLS caller."""

    def __init__(self, folder: Path, *, names: int | None = NAMES) -> None:
        self._names = names
        self.ports = Ports()
        text = siege_yaml(self.ports, folder, defaults=CONFIG).replace("mode: all", "mode: errors")
        super().__init__(folder, text)
        self.report = Report()
        self._number = 0

    def go(self, *, warm_up: int, connections: int, between: Callable[[Report], object] = lambda _: None) -> Report:
        """Warm up, note the start, load, note the end. `between` is called after each round."""
        identity = identity_of(self, "batch")
        for _ in range(self._names or 1):  # each new name adds a metric series, and so belongs to the warm-up
            self._rename_rule()
            time.sleep(2)  # so that none is skipped
        self._load(warm_up, identity, between)
        report = self.report = Report()
        report.start = self._idle()
        began = time.monotonic()
        self._load(connections, identity, between)
        report.seconds = time.monotonic() - began
        report.end = self._idle(report.start)
        return report

    # ---- load, and what happens meanwhile --------------------------------------------------------------------------

    def _load(self, connections: int, identity: Path, between: Callable[[Report], object]) -> None:
        over = threading.Event()
        threads = [threading.Thread(target=work, args=(over,)) for work in (self._sample, self._disturb)]
        for thread in threads:
            thread.start()
        try:
            for done in range(0, connections, ROUND):
                self._round(min(ROUND, connections - done), identity)
                between(self.report)
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _round(self, connections: int, identity: Path) -> None:
        direct = connections // MTLS_SHARE
        loads = [
            _start(self.ports.door, connections - direct),
            _start(self.ports.app_in, direct, "--identity", str(identity)),
        ]
        for load in loads:
            out, err = load.communicate()
            assert load.returncode == 0, err
            sums = json.loads(out)
            self.report.failed.update(sums.pop("failed"))
            sums.pop("seconds")
            self.report.sums.update(sums)

    def _sample(self, over: threading.Event) -> None:
        while not over.wait(1.0):
            try:
                so_far = self["app"].metrics().total("mesh_requests_total")
            except OSError:  # no answer within ten seconds, on a machine with far too much to do: a sample less
                continue
            for name in ("web", "app"):
                self.report.samples.setdefault(name, []).append((so_far, rss(self[name].process.pid)))

    def _disturb(self, over: threading.Event) -> None:
        while not over.wait(EVERY_SECONDS):
            for name in ("web", "app"):
                self._rotate(self[name])
            self._rename_rule()

    def _rotate(self, sidecar: Sidecar) -> None:
        """A new certificate. On a machine with too much to do it may come later, after a time-out here or there."""
        try:
            code, answer = sidecar.admin("POST", "/certs/rotate")
        except NoSidecar as error:
            code, answer = 0, {"error": str(error)}
        if code == 200:
            self.report.rotations += 1
        else:
            assert code == 0 or answer["error"] == "rotation_failed", answer
            self.report.late += 1

    def _rename_rule(self) -> None:
        """A change of the file, which both sidecars see within a second."""
        self._number = self._number % self._names + 1 if self._names is not None else self._number + 1
        text = re.sub(r"name: callers[-0-9]*", f"name: callers-{self._number}", self.file.read_text())
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.file)
        self.report.reloads += 1

    # ---- figures ---------------------------------------------------------------------------------------------------

    def _idle(self, start: dict[str, Figures] | None = None) -> dict[str, Figures]:
        """The figures of both, once nothing is open; and where there is a start, once they have returned to it."""
        sidecars = [self["web"], self["app"]]
        for sidecar in sidecars:
            eventually("no connection is open", lambda: sidecar.status()["connections"] == 0, 30)  # noqa: B023
        time.sleep(3.5)  # pooled connections have had their time (CONFIG)
        found = {sidecar.name: figures(sidecar) for sidecar in sidecars}
        deadline = time.monotonic() + 15
        while start is not None and time.monotonic() < deadline:  # a rotation may still be under way
            if all(found[name][key] <= start[name][key] for name in start for key in start[name].keys() - {MEMORY}):
                break
            time.sleep(1)
            found = {sidecar.name: figures(sidecar) for sidecar in sidecars}
        return found


def figures(sidecar: Sidecar) -> Figures:
    """What must return to its start, and the memory."""
    with urllib.request.urlopen(f"http://{sidecar.config.health.listen}/metrics", timeout=10) as answer:
        series = sum(not line.startswith(b"#") for line in answer.read().splitlines())
    engine: dict[str, int] = sidecar.status()["engine"]
    return {**engine, "series": series}


def _start(port: int, connections: int, *options: str) -> subprocess.Popen[Any]:
    module = [sys.executable, "-P", "-m", "tests.kit.soak_load"]
    command = [*module, str(port), "--connections", str(connections), *options]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd="/")
