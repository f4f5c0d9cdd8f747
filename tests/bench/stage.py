"""A row on stage: the back end, a CA, and every contestant as a process on its core; and one measurement of one."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import mesh
from tests.bench.backend import backend
from tests.bench.load import Load, NoLoad, http2, request
from tests.bench.machine import LOAD_CORE, PROXY_CORE, Sample, on_core, proportional_kib
from tests.bench.peers import PEERS
from tests.bench.rows import Row
from tests.bench.scene import Scene
from tests.kit.free_ports import Ports
from tests.kit.processes import Process, listens

SETTLE_SECONDS = 3.0  # before memory is read: by then everybody has given back what it gives back


@dataclass
class Stage:
    """What stands while a row is measured."""

    scene: Scene
    program: Path
    contestants: dict[str, list[int]] = field(default_factory=dict)  # name → the processes that are its hop
    others: list[int] = field(default_factory=list)  # the back end and the CA
    missing: list[str] = field(default_factory=list)

    def load(self, name: str, seconds: float) -> Load:
        """The load for this contestant."""
        row = self.scene.row
        tls = self.scene.client_tls()
        if row.work.streams:
            pieces = {
                "greeting": http2.greeting(),
                "first": http2.request(row.work, tls=bool(tls), first=True),
                "request": http2.request(row.work, tls=bool(tls), first=False),
            }
        else:
            pieces = {"request": request(row.work)}
        files = {what: self.scene.file(what) for what in pieces}
        for what, path in files.items():
            path.write_bytes(pieces[what])
        return Load(self.program, row.work, files, self.scene.entry(name), tls, seconds)


@contextlib.contextmanager
def staged(row: Row, folder: Path, program: Path, names: Sequence[str]) -> Iterator[Stage]:
    """Start everybody who takes part in this row; `names` limits who."""
    folder.mkdir()
    port = int(Ports().backend)
    scene = Scene(row, folder, port)
    stage = Stage(scene, program)
    with contextlib.ExitStack() as stack:
        command = backend(folder, port, grpc=row.work.grpc)
        stage.others.append(_start(stack, scene, "backend", command, port, LOAD_CORE))
        fleet = stack.enter_context(mesh.fleet(scene))
        stage.others.append(fleet.start_ca().pid)
        scene.fetch_certificates(fleet)
        if "mesh" in names:
            with on_core(PROXY_CORE):
                sidecars = [fleet[name].start(ready=False) for name in mesh.services(row)]
            for sidecar in sidecars:
                sidecar.wait_ready()
            stage.contestants["mesh"] = [sidecar.process.pid for sidecar in sidecars]
        for name in row.peers:
            if name in names:
                _start_peer(stack, stage, name)
        yield stage


def _start_peer(stack: contextlib.ExitStack, stage: Stage, name: str) -> None:
    commands = PEERS[name](stage.scene)
    if commands is None:
        stage.missing.append(name)
        return
    ports = (stage.scene.inbound(name), stage.scene.entry(name))
    stage.contestants[name] = [
        _start(stack, stage.scene, f"{name}-{number}", command, ports[number], PROXY_CORE)
        for number, command in enumerate(commands)
    ]


def _start(
    stack: contextlib.ExitStack, scene: Scene, name: str, command: Sequence[str], port: int, core: int
) -> int:
    with on_core(core):
        process = Process(name, command, scene.file(f"{name}.out"))
    stack.callback(process.stop)
    process.until("listening", lambda: listens(port))
    return process.pid


def measure(stage: Stage, name: str, seconds: float) -> dict[str, Any]:
    """One contestant, once. Raises NoLoad where it did not answer right."""
    try:
        return _measure(stage, name, seconds)
    except NoLoad as error:
        raise NoLoad(f"{stage.scene.row.name}, {name}: {error}") from None


def _measure(stage: Stage, name: str, seconds: float) -> dict[str, Any]:
    pids = stage.contestants[name]
    gc.collect()
    with on_core(LOAD_CORE):
        if stage.scene.row.work.mode == "hold":
            return _memory(stage, name, pids)
        with stage.load(name, seconds)() as load:
            load.wait_for("BEGIN")
            before = Sample.now()
            figures = load.result()
            after = Sample.now()
            others, busiest = after.others(before, [*stage.others, load.pid, *_everybody(stage)])
    spent = after.spent(pids[1:] if stage.scene.row.only_outbound else pids, before)
    for log in stage.scene.folder.glob("*.log"):  # access logs, which would fill the disk
        with contextlib.suppress(OSError):
            log.open("r+").truncate(0)
    return {
        "name": name,
        "cpu_us": spent / figures["requests"] * 1e6 if figures["requests"] else None,
        "cpu_us_per_mb": spent / figures["bytes"] * 1e6 * 1e6 if figures["bytes"] else None,
        "cpu_share": spent / figures["seconds"],
        "requests_per_second": figures["requests"] / figures["seconds"],
        "mb_per_second": figures["bytes"] / figures["seconds"] / 1e6,
        "others": others,
        "busiest_other": busiest,
        "steal": after.steal_share(before),
        **{key: figures[key] for key in ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "requests", "backlog")},
    }


def _everybody(stage: Stage) -> list[int]:
    return [pid for pids in stage.contestants.values() for pid in pids]


def _memory(stage: Stage, name: str, pids: list[int]) -> dict[str, Any]:
    """Memory before and with so many idle connections, after a first round of the same that warms caches up."""
    count = stage.scene.row.work.connections
    sample = Sample.now()
    before = proportional_kib(pids)
    with stage.load(name, 0)() as load:
        load.wait_for("HELD 0")
        time.sleep(SETTLE_SECONDS)
        after = proportional_kib(pids)
        end = Sample.now()
        others, busiest = end.others(sample, [*stage.others, load.pid, *_everybody(stage)])
    time.sleep(SETTLE_SECONDS)
    return {
        "name": name, "kib_per_connection": (after - before) / count, "before_mib": before / 1024,
        "held_mib": after / 1024, "left_mib": proportional_kib(pids) / 1024,
        "others": others, "busiest_other": busiest, "steal": end.steal_share(sample),
    }  # fmt: skip
