"""Processes of a test: started with a log, awaited, ended politely and then not, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sidecar.cli.lifeline import guarded
from tests.kit.tools import need

TICK = 0.02
PATIENCE = 20.0  # seconds that anything may take on a busy machine before a test gives up


class Process:
    """One process in a session of its own; its output goes to a file, and it ends when the test's process does."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                guarded(command) if user is None else as_user(user, command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                cwd="/",
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def text(self) -> str:
        """All that it has written."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code, once it has ended. Fails after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {seconds:g} s:\n{self.tail()}") from None

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM, then SIGKILL to its whole session; returns the exit code."""
        if self.code is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def tail(self, lines: int = 30) -> str:
        """The end of its log, for a failing test."""
        return f"--- {self.name} (exit code {self.code}) ---\n" + "\n".join(self.text().splitlines()[-lines:])

    def until(self, what: str, done: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until `done`; fails with the end of the log where the process ends before, or time runs out."""
        deadline = time.monotonic() + seconds
        while not done():
            if self.code is not None:
                raise AssertionError(f"{self.name} ended before {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: not {what} within {seconds:g} s:\n{self.tail()}")
            time.sleep(TICK)


def as_user(user: str, command: Sequence[str]) -> list[str]:
    """This command as another user, ended when our process ends. Not by the lifeline: a Python under root's own home
    is one that only root can run, and a change of user takes back the wish that the lifeline states.
    """
    return [
        need("setpriv"), "--reuid", user, "--regid", user, "--clear-groups", "--pdeathsig", "TERM", "--", *command,
    ]  # fmt: skip


def eventually(what: str, done: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `done` is true. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(TICK)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False
