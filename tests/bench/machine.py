"""What the kernel counted: processor time of process trees, memory, stolen time, and who else was at work."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROXY_CORE, LOAD_CORE = 0, 1


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Whatever is started inside the block stays on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def put_first(pids: Iterable[int]) -> None:
    """Let these process trees go before all others. Raises PermissionError where we may not.

    The kernel weighs sessions against each other first (sched(7), autogroup), and within one by nice.
    """
    for pid in tree(pids):
        os.setpriority(os.PRIO_PROCESS, pid, -20)
        with contextlib.suppress(FileNotFoundError):
            Path(f"/proc/{pid}/autogroup").write_text("-20")


@dataclass(frozen=True)
class _Process:
    parent: int
    own: float  # seconds, of all its threads, ended ones too
    reaped: float  # seconds of children that have ended
    name: str


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                fields = rest.split()
                utime, stime, cutime, cstime = (int(each) / TICKS for each in fields[11:15])
                found[int(folder.name)] = _Process(int(fields[1]), utime + stime, cutime + cstime, name)
    return found


def tree(roots: Iterable[int]) -> set[int]:
    """These processes and all that descend from them."""
    return _tree(set(roots), _processes())


def _tree(found: set[int], processes: dict[int, _Process]) -> set[int]:
    while more := {pid for pid, each in processes.items() if each.parent in found} - found:
        found = found | more
    return found


@dataclass(frozen=True)
class Sample:
    """The processor time that everybody has used up to a moment."""

    at: float
    processes: dict[int, _Process]
    busy: float  # of all processors, whoever used them
    steal: float

    @classmethod
    def now(cls) -> Sample:
        """Take it."""
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, irq, softirq, steal = (int(field) / TICKS for field in fields[1:9])
        return cls(time.monotonic(), _processes(), user + nice + system + irq + softirq, steal)

    def spent(self, roots: Iterable[int], before: Sample) -> float:
        """Seconds that these process trees used since, ended threads and children included."""
        return sum(self._since(pid, before) for pid in _tree(set(roots), self.processes))

    def _since(self, pid: int, before: Sample) -> float:
        now, then = self.processes.get(pid), before.processes.get(pid)
        if now is None:
            return 0.0
        return now.own - (then.own if then else 0.0) + (now.reaped - then.reaped if then else 0.0)

    def steal_share(self, before: Sample) -> float:
        """Processor time that the hypervisor gave to others, as a share of one processor."""
        return (self.steal - before.steal) / (self.at - before.at)

    def others(self, before: Sample, known: Iterable[int]) -> tuple[float, str]:
        """The processor time of all processes but these trees, as a share of one processor; and who used most of it."""
        ours = _tree(set(known) | {os.getpid()}, self.processes)
        spent = self.busy - before.busy - sum(self._since(pid, before) for pid in ours)
        own = {
            pid: each.own - (before.processes[pid].own if pid in before.processes else 0.0)
            for pid, each in self.processes.items()
            if pid not in ours
        }
        busiest = max(own, key=lambda pid: own[pid], default=0)
        return max(spent, 0.0) / (self.at - before.at), self.processes[busiest].name if busiest else ""


def proportional_kib(roots: Iterable[int]) -> int:
    """Memory of these process trees in KiB, shared pages divided among those that share them (PSS)."""
    total = 0
    for pid in tree(roots):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total
