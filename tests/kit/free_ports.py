"""TCP ports that no other test of this machine will get: safe beside pytest-xdist and beside a second run.

Asking the kernel for port 0 and closing again is a race, because the port is bound later, by another process. So ports
come from below the ephemeral range (ip(7): 32768), where no outgoing connection takes them, and each is claimed by a
lock on a file, which the kernel releases when this process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

RANGE = range(20000, 32000)
BASES = (10000, 12000, 14000, 18000)  # and not 16000: 17000 is the default of people who try things meanwhile
_held: dict[int, int] = {}  # port → descriptor of its lock
_start = random.randrange(len(RANGE))


def free_port() -> int:
    """A port of loopback that is ours until this process ends."""
    global _start
    for _ in RANGE:
        _start = (_start + 1) % len(RANGE)
        port = RANGE[_start]
        if port not in _held and _claim(port):
            return port
    raise RuntimeError("no free port")


def _claim_file(number: int, name: str) -> bool:
    folder = Path(tempfile.gettempdir()) / f"mesh-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _held[number] = descriptor
    return True


def _claim(port: int) -> bool:
    if not _claim_file(port, str(port)):
        return False
    try:
        for host, family in (("127.0.0.1", socket.AF_INET), ("0.0.0.0", socket.AF_INET)):
            with socket.socket(family) as probe:
                probe.bind((host, port))
    except OSError:
        os.close(_held.pop(port))
        return False
    return True


@cache
def free_base() -> int:
    """This process's base for `mesh up --port-base`, with the thousand after it; below the range of single ports."""
    for base in BASES:
        if base not in _held and _claim_file(base, f"base-{base}"):
            return base
    raise RuntimeError("no free port base")


class Ports:
    """Ports by name, each found when it is first asked for: `ports.orders` is the same port every time."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._known:
            self._known[name] = free_port()
        return self._known[name]
