"""What a process holds, as the kernel counts it: resident memory, descriptors, processor time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> int:
    """Resident bytes of a process (VmRSS)."""
    return _status(pid, "VmRSS")


def peak_rss(pid: int) -> int:
    """The most bytes that were ever resident (VmHWM)."""
    return _status(pid, "VmHWM")


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(key)


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def processor_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass
class Growth:
    """Resident bytes of one process: at the start, the most that was seen, and the last."""

    first: int
    peak: int
    last: int

    @property
    def grown(self) -> int:
        """How much more than at the start it ever had."""
        return self.peak - self.first

    def __str__(self) -> str:
        return f"{self.first / MIB:.1f} MiB at the start, peak +{self.grown / MIB:.1f}, end {self.last / MIB:.1f}"


@dataclass
class MemoryWatch:
    """Samples VmRSS of processes while the `with` block runs. `pids` by name."""

    pids: Mapping[str, int]
    every: float = 0.02
    growth: dict[str, Growth] = field(default_factory=dict)

    def __enter__(self) -> MemoryWatch:
        for name, pid in self.pids.items():
            now = rss(pid)
            self.growth[name] = Growth(now, now, now)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def __getitem__(self, name: str) -> Growth:
        return self.growth[name]

    def _watch(self) -> None:
        while not self._over.wait(self.every):
            for name, pid in self.pids.items():
                try:
                    now = rss(pid)
                except (OSError, LookupError):  # it has ended
                    continue
                seen = self.growth[name]
                seen.last, seen.peak = now, max(seen.peak, now)

    def report(self) -> str:
        """A line for each process."""
        return "\n".join(f"  {name}: {growth}" for name, growth in self.growth.items())


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """So far."""
        return time.monotonic() - self._began
