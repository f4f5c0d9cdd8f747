"""Whether the store takes what an issuance writes, looked at every few seconds and told to the log when it changes.

A full disk is the case in mind. SQLite writes into room that its files have already, so a small write may pass where an
issuance does not: once one has failed, only a write with some room to spare counts as a good sign. Nothing is lost
meanwhile and nothing need be restarted: no certificate leaves without its line, and the first that fits is written.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ca.config import STORE_FILE
from ca.errors import StoreUnavailable
from ca.store.threads import StoreThreads
from sidecar.net.clock import Clock

ROOM = 64 * 1024  # bytes that must fit before a store that failed counts as well; an issuance writes some 30 KiB
LITTLE = 64 << 20  # bytes free on the store's disk, under which the health warns; good for some 100,000 issuances
REMIND = 60.0  # seconds between two lines in the log about one trouble

_log = logging.getLogger("mesh.ca")


class Storekeeper:
    """Looks after one store. `problem` is what the last look found, None where all was well."""

    def __init__(self, threads: StoreThreads, directory: Path | None, clock: Clock) -> None:
        self._threads = threads
        self._directory = directory
        self._clock = clock
        self._since = 0.0
        self._told = 0.0
        self.problem: str | None = None

    async def look(self) -> str | None:
        """Whether the store takes a write now; what is wrong if it does not."""
        threads, suspect = self._threads, self.problem is not None or self._threads.failing
        try:
            await threads.call(threads.store.check_writable, self._clock.wall(), ROOM if suspect else 0)
        except StoreUnavailable as error:
            self._bad(str(error))
        else:
            self._good()
        return self.problem

    def warnings(self) -> tuple[str, ...]:
        """What an operator should hear before the disk is full."""
        free = self.free_bytes()
        if free is None or free >= LITTLE:
            return ()
        return (f"only {free >> 10} KiB are free on the disk of the CA's store; without space nothing can be issued",)

    def free_bytes(self) -> int | None:
        """What is free on the store's disk; None where that cannot be told."""
        if self._directory is None:
            return None
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    def store_bytes(self) -> int | None:
        """How much of the disk the store takes, its journal included; None where that cannot be told."""
        if self._directory is None:
            return None
        try:
            return sum(file.stat().st_size for file in self._directory.glob(f"{STORE_FILE}*"))
        except OSError:
            return None

    def _bad(self, problem: str) -> None:
        now = self._clock.monotonic()
        if self.problem is None:
            self._since, self._told = now, now - REMIND
        self.problem = problem
        if now - self._told >= REMIND:
            self._told = now
            _log.error("THE STORE TAKES NO WRITE, so nothing is issued until it does: %s", problem)

    def _good(self) -> None:
        self._threads.failing = False
        if self.problem is not None:
            self.problem = None
            _log.warning("the store takes writes again, after %.0f s", self._clock.monotonic() - self._since)
