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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.cli.console import Failure
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


def fallen_words(member: Member) -> Failure:
    """The error for a member that ended although nobody asked it to."""
    words = member.last_words() or "It wrote nothing."
    return Failure(f"{member.name} ended with code {member.exit_code}; its last words:", words)


@dataclass(slots=True)
class Fleet:
    """All members, from the first start to the last reaping. Use as a context manager: leaving it stops everybody."""

    logs: Path
    grace: float = GRACE
    members: list[Member] = field(default_factory=list)
    _ended: list[Member] = field(default_factory=list)
    _not_ours: frozenset[int] = frozenset()  # whoever was below us before we began

    def __enter__(self) -> Fleet:
        self._not_ours = frozenset(descendants(os.getpid()))
        adopt_orphans(True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        adopt_orphans(False)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Member:
        """Start a member, its output going to `<logs>/<name>.log`, without blanks (`the-ca.log`)."""
        log = self.logs / f"{name.replace(' ', '-').lower()}.log"
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

    def someone_left(self, on_end: Callable[[Member], None]) -> bool:
        """Whether a service still runs; `on_end` hears once of each that ended well. Raises Failure for any other end.

        The first member serves all others (it is the CA), so its end is never a good one.
        """
        for member in self.members:
            if member.exit_code is None or member in self._ended:
                continue
            if member.exit_code != 0 or member is self.members[0]:
                raise fallen_words(member)
            self._ended.append(member)
            on_end(member)
        return len(self._ended) < len(self.members) - 1

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
            left = set(descendants(os.getpid())) - self._not_ours
            for pid in left:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            for member in self.members:
                member.process.poll()
            named = {member.process.pid for member in self.members if member.exit_code is None}
            _reap(left - named)
            if not left:
                return
            time.sleep(POLL)


def _reap(adopted: set[int]) -> None:
    """Collect those of these processes that have ended; who is not our own child is left to its parent."""
    for pid in adopted:
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
