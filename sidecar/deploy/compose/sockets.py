"""Which TCP ports are listened on in this network namespace, by the kernel's own tables."""

from __future__ import annotations

from pathlib import Path

_LISTEN = "0A"  # state of a socket in /proc/net/tcp (linux include/net/tcp_states.h)


def listening(proc: Path = Path("/proc/self/net")) -> list[int]:
    """The ports, sorted; whatever address they are bound to."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / name).read_text().splitlines()[1:]
        except FileNotFoundError:  # no IPv6 in this kernel
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(found)
