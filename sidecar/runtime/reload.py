"""A changed configuration is put in force whole, or not at all.

Theory of operation. Every second we look at the *content* of all files that were read, through whatever symlinks lead
to them: Kubernetes swaps a ConfigMap behind one, and times and inodes tell nothing there. Patterns under `include:` are
looked up anew, so a file that appears counts too. What differs is given a moment to settle, for editors write in steps,
and then goes the way of `mesh check`. Only a configuration without a mistake, and without a change that needs a
restart, reaches `apply`, which has the last word: a port may be taken. Whatever fails, the old configuration stands,
and everybody can see that it does: log, metrics, `mesh status`.

SIGHUP asks for the same without waiting, and also where no file has changed: a port that was taken may be free now.
"""
# ruff: noqa: PTH118, PTH207 - paths stay text, as in sidecar.config.files

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import trio

from certs.errors import MeshError
from sidecar.config.diff import Change
from sidecar.config.load import Loaded, load
from sidecar.config.mistakes import ConfigErrors
from sidecar.runtime import heap
from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig
    from sidecar.net.clock import Clock
    from sidecar.runtime.orders import Orders
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics

POLL_SECONDS = 1.0
SETTLE_SECONDS = 0.2
MOST_ROUNDS = 3  # of reading, where each finds that other files count than before
Result = Literal["ok", "failed", "unchanged"]


class CannotReload(MeshError):
    """A configuration without mistakes that nevertheless cannot be put in force while we run."""

    name = "cannot_reload"

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One reload: when (seconds since the epoch), how it went, and why not or what has changed."""

    at: float
    result: Result
    mistakes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For `mesh status`."""
        return {
            "at": rfc3339(self.at),
            "result": self.result,
            "mistakes": list(self.mistakes),
            "changes": list(self.changes),
        }


Apply = Callable[["MeshConfig"], tuple[Change, ...]]  # puts it in force, whole; raises CannotReload


@dataclass
class Reloader:
    """Watches the files behind one sidecar's configuration."""

    path: Path
    config: MeshConfig  # in force
    apply: Apply
    log: Log
    metrics: Metrics
    clock: Clock
    on_refused: Callable[[tuple[str, ...]], None] = lambda _: None  # told what was wrong with a configuration
    generation: int = 1  # of the configuration: 1 is the one that we started with
    digest: str = ""  # of the files that it came from; empty until they have been looked at once
    last: Attempt | None = None
    _seen: str = ""  # what the files held when we looked last
    _files: tuple[str, ...] = ()  # to look at: those of the configuration in force, and of the one that failed
    _globs: tuple[tuple[str, str], ...] = ()
    _problem: Attempt | None = field(default=None)  # why what is on disk is not what is in force

    def __post_init__(self) -> None:
        self._files = (str(self.path), *self.config.files)
        self.metrics.counter("mesh_config_generation").set(self.generation)
        self.metrics.counter("mesh_config_last_reload_success").set(1)

    async def run(self, orders: Orders) -> None:
        """Reload whenever a file has changed, or when told to, until a drain begins."""
        await self._guarded(self.adopt)
        while not orders.drain.is_set():
            told = False
            with trio.move_on_after(POLL_SECONDS):
                await orders.wait_reload()
                told = True
            if orders.drain.is_set():
                return
            await self._guarded(partial(self._look, told=told))

    async def _look(self, *, told: bool) -> None:
        if told or await self._changed():
            await self.reload(told=told)

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> None:
        """A fault of ours in here is a failed reload, and ends nothing else."""
        try:
            await step()
        except Exception as fault:  # noqa: BLE001 - the configuration in force goes on serving
            self.log.fault("a reload failed inside the sidecar", fault)
            self._failed((f"a fault of this sidecar: {type(fault).__name__}: {fault}",))

    async def adopt(self) -> None:
        """Look at the files for the first time: what was loaded at the start may have changed since."""
        self._seen = await self._glance()
        await self.reload(told=False)

    async def _changed(self) -> bool:
        """Whether the files hold something else than when we looked last, and have settled."""
        now = await self._glance()
        if now == self._seen:
            return False
        while True:
            before = now
            await trio.sleep(SETTLE_SECONDS)
            now = await self._glance()
            if now == before:
                self._seen = now
                return True

    async def _glance(self) -> str:
        return await trio.to_thread.run_sync(glance, self._files, self._globs)

    async def reload(self, *, told: bool) -> None:
        """Read what is on disk and put it in force, if it is another configuration and a good one."""
        noted: tuple[str, ...] | None = None
        for _ in range(MOST_ROUNDS):
            watched = (self._files, self._globs)
            self._seen = await self._glance()  # before they are read: what changes meanwhile is seen the next time
            noted = await self._read(noted, told=told and noted is None)
            if (self._files, self._globs) == watched:
                return
        self._seen = ""  # other files again and again; the next look begins with them

    async def _read(self, noted: tuple[str, ...] | None, *, told: bool) -> tuple[str, ...]:
        """Once, and what was wrong; which is told unless it is what was `noted`."""
        try:
            loaded = await trio.to_thread.run_sync(load, str(self.path), self.clock.wall())
            self._take(loaded, told=told)
        except ConfigErrors as error:
            self._files = (*self._files_in_force(), *error.sources)
            mistakes = tuple(str(mistake) for mistake in error.mistakes)
        except CannotReload as error:
            mistakes = error.mistakes
        else:
            return ()
        if mistakes != noted:
            self._failed(mistakes)
        return mistakes

    def _files_in_force(self) -> tuple[str, ...]:
        return (str(self.path), *self.config.files)

    def _take(self, loaded: Loaded, *, told: bool) -> None:
        """Put it in force, unless it is what is. Raises CannotReload."""
        self._globs = loaded.globs
        self._files = (str(self.path), *loaded.config.files)
        if loaded.digest == self.digest:
            self._unchanged(told=told)
            return
        first = not self.digest
        changes = self.apply(loaded.config)
        self.config, self.digest = loaded.config, loaded.digest
        if first and not changes:
            return
        self._succeeded(loaded, tuple(map(str, changes)))

    # ---- how it went ------------------------------------------------------------------------------------------------

    def _failed(self, mistakes: tuple[str, ...]) -> None:
        self._note(Attempt(self.clock.wall(), "failed", mistakes))
        self._problem = self.last
        self.on_refused(mistakes)
        self.metrics.counter("mesh_config_last_reload_success").set(0)
        self.log.error(
            "the configuration was not reloaded; the one before stands",
            file=self.path,
            generation=self.generation,
            **_numbered("mistake", mistakes),
        )

    def _unchanged(self, *, told: bool) -> None:
        """What is on disk is what is in force."""
        if self._problem is not None:
            self._note(Attempt(self.clock.wall(), "unchanged"))
            self._settled()
            self.log.info("the configuration on disk is the one in force again", file=self.path)
        elif told:
            self._note(Attempt(self.clock.wall(), "unchanged"))
            self.log.info("the configuration has not changed", file=self.path, generation=self.generation)

    def _succeeded(self, loaded: Loaded, changes: tuple[str, ...]) -> None:
        self.generation += 1
        self.metrics.counter("mesh_config_generation").set(self.generation)
        self._note(Attempt(self.clock.wall(), "ok", changes=changes))
        self._settled()
        heap.collect()
        self.log.info(
            "the configuration was reloaded",
            file=self.path,
            generation=self.generation,
            changes=len(changes),
            **_numbered("change", changes),
        )
        for warning in loaded.warnings:
            self.log.warning("the configuration is odd", warning=str(warning))

    def _settled(self) -> None:
        self._problem = None
        self.metrics.counter("mesh_config_last_reload_success").set(1)

    def _note(self, attempt: Attempt) -> None:
        self.last = attempt
        self.metrics.counter("mesh_config_reloads_total").add((attempt.result,))

    def to_json(self) -> dict[str, Any]:
        """For `mesh status`."""
        return {
            "file": str(self.path),
            "generation": self.generation,
            "digest": self.digest,
            "last_reload": self.last.to_json() if self.last is not None else None,
        }


def glance(files: Iterable[str], globs: Iterable[tuple[str, str]]) -> str:
    """A digest of what these files hold now, and of which files these patterns mean, seen from their folders."""
    found = hashlib.sha256()
    for path in dict.fromkeys(files):
        found.update(b"\0file " + os.fsencode(path))
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError):
            found.update(b" absent")
        else:
            found.update(b" %d " % len(data) + data)
    for folder, pattern in globs:
        names = sorted(glob.glob(pattern, root_dir=folder or ".", recursive=True))
        found.update(b"\0glob " + os.fsencode(os.path.join(folder, pattern)))
        for name in names:
            found.update(b"\0" + os.fsencode(name))
    return found.hexdigest()


def _numbered(name: str, values: Iterable[str]) -> dict[str, str]:
    """One field of a log line for each, so that none is cut because all of them are long."""
    return {f"{name}_{number}": value for number, value in enumerate(values, 1)}
