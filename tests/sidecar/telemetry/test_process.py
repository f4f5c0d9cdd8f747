"""The six process metrics, held to those of prometheus_client."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from sidecar.telemetry.process import Process


def values(text: str) -> dict[str, float]:
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_it_tells_what_prometheus_client_tells() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    theirs = {sample.name: sample.value for family in registry.collect() for sample in family.samples}
    ours = values("".join(Process().lines()))
    assert ours.keys() == theirs.keys()
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert ours[name] == theirs[name]
    for name in ("process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds"):
        assert 0.8 * theirs[name] <= ours[name] <= 1.25 * theirs[name], name
    assert -0.01 < ours["process_cpu_seconds_total"] - theirs["process_cpu_seconds_total"] < 5  # sums of floats


def test_a_programs_name_may_hold_spaces_and_parentheses(tmp_path: Path) -> None:
    own = tmp_path / "7"
    (own / "fd").mkdir(parents=True)
    fields = [b"S", *(str(number).encode() for number in range(4, 53))]  # each holds its own number in proc(5)
    (own / "stat").write_bytes(b"7 (a) S (1 2 3) " + b" ".join(fields) + b"\n")
    (tmp_path / "stat").write_bytes(b"cpu 1 2 3\nbtime 1000\nprocesses 9\n")
    got = values("".join(Process(own).lines()))
    process = Process(own)
    ticks, page = process._ticks, process._page
    assert got["process_cpu_seconds_total"] == (14 + 15) / ticks
    assert got["process_start_time_seconds"] == 1000 + 22 / ticks
    assert got["process_virtual_memory_bytes"] == 23
    assert got["process_resident_memory_bytes"] == 24 * page
    assert got["process_open_fds"] == 0


def test_without_proc_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert Process(tmp_path / "none").lines() == []
