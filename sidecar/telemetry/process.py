"""What Prometheus's client libraries tell of a process, under the names that they have agreed upon.

prometheus_client tells the same, but brings an HTTP server and a client with it, and so three of the sixty MiB that an
idle sidecar may use. Without /proc (not on Linux) there is nothing to tell.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from sidecar.telemetry.series import Definition, header, sample

PROCESS_METRICS = (
    Definition("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    Definition("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    Definition("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    Definition("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    Definition("process_open_fds", "gauge", "Number of open file descriptors."),
    Definition("process_max_fds", "gauge", "Maximum number of open file descriptors."),
)
_UTIME, _STIME, _STARTTIME, _VSIZE, _RSS = 11, 12, 19, 20, 21  # proc(5): fields 14, 15, 22, 23, 24; ours begin at 3


class Process:
    """This process, or the one whose folder in /proc is named."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    def lines(self) -> list[str]:
        """All of it as Prometheus text; nothing where /proc cannot be read."""
        try:
            values = self._values()
        except (OSError, ValueError, IndexError, StopIteration):
            return []
        return [
            text
            for definition, value in zip(PROCESS_METRICS, values, strict=True)
            for text in (header(definition), sample(definition.name, "", value))
        ]

    def _values(self) -> tuple[float, ...]:
        # the second field is the program's name in parentheses, and may hold any byte, parentheses too
        fields = (self._proc / "stat").read_bytes().rpartition(b")")[2].split()
        machine = (self._proc.parent / "stat").read_bytes().splitlines()
        boot = next(line for line in machine if line.startswith(b"btime"))
        return (
            (int(fields[_UTIME]) + int(fields[_STIME])) / self._ticks,
            int(boot.split()[1]) + int(fields[_STARTTIME]) / self._ticks,
            int(fields[_RSS]) * self._page,
            int(fields[_VSIZE]),
            sum(1 for _ in (self._proc / "fd").iterdir()),
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )
