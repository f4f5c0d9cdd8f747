"""The processes behind `mesh up`, and the promise that none of them outlives us.

Theory of operation. Each member is a session of its own, so that Ctrl-C at the terminal reaches only us, and its log is
a file, so that nobody ever blocks on a full pipe. `stop` asks the members politely, in the order in which they were
added, waits a little, and then kills whatever is left. What is left is found by ancestry, not by process group: we are
the subreaper (prctl(2)) of our descendants, so a grandchild that changed its group or lost its parent is still ours to
find under /proc. And should we be killed outright, each member gets SIGTERM from the kernel (see `lifeline`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.cli.lifeline import adopt_orphans, guarded

GRACE = 6.0  # seconds between SIGTERM and SIGKILL: the demo drains for 2 s, docker gives 10 s
POLL = 0.02


@dataclass(slots=True)
class Member:
    """One process: its name for people, its log, and the process itself."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def last_words(self, lines: int = 8) -> str:
        """The end of its log, for an error message."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


@dataclass(slots=True)
class Fleet:
    """All members, from the first start to the last reaping. Use as a context manager: leaving it stops everybody."""

    logs: Path
    grace: float = GRACE
    members: list[Member] = field(default_factory=list)

    def __enter__(self) -> Fleet:
        adopt_orphans()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Member:
        """Start a member, its output going to `<logs>/<name>.log`."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                guarded(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
            )
        member = Member(name, log, process)
        self.members.append(member)
        return member

    def fallen(self) -> Member | None:
        """A member that has ended although nobody asked it to."""
        return next((member for member in self.members if member.exit_code is not None), None)

    def stop(self) -> None:
        """End and reap everybody, politely first. Never raises; takes at most about `grace` seconds."""
        for member in self.members:
            if member.exit_code is None:
                with suppress(ProcessLookupError):
                    member.process.terminate()
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline and any(member.exit_code is None for member in self.members):
            time.sleep(POLL)
        self._kill_the_rest()

    def _kill_the_rest(self) -> None:
        """SIGKILL to every descendant, again and again until none is left: one may fork while we look."""
        for _ in range(200):
            left = descendants(os.getpid())
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            for member in self.members:
                member.process.poll()
            _reap_orphans({member.process.pid for member in self.members if member.exit_code is None})
            if not left:
                return
            time.sleep(POLL)


def _reap_orphans(but: set[int]) -> None:
    """Collect ended children that are not ours by name: those we adopted. `but` are left to their own owner."""
    for pid in descendants(os.getpid()):
        if pid not in but:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def descendants(ancestor: int) -> list[int]:
    """Every process below this one, zombies too, from /proc; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            pid = int(entry.parent.name)
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = [ancestor]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found
