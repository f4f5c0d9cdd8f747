"""The store's blocking calls, from trio: in worker threads, with log commits shared (decision D19).

Sharing: whoever finds no commit under way writes every line that is waiting, in one transaction and one fsync; those
who came meanwhile wait for the next. Nobody is told "recorded" before the commit that holds their line has returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import trio

from ca.errors import Revoked
from ca.store.base import Issuance, Store

THREADS = 4  # SQLite runs one statement at a time; a few threads keep its lock busy and the queue short
MAX_SHARED = 256  # log lines in one commit

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Waiting:
    issuance: Issuance
    done: trio.Event = field(default_factory=trio.Event)
    revoked: bool = False
    error: Exception | None = None


class StoreThreads:
    """A store as trio tasks use it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._limiter = trio.CapacityLimiter(THREADS)
        self._waiting: list[_Waiting] = []
        self._committing = trio.Lock()
        self.failing = False  # the latest record was not taken, and nobody has found the store well since
        self.failures = 0  # records that were not taken

    async def call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one method of the store in a thread. It is not abandoned half-way when we are cancelled."""
        return await trio.to_thread.run_sync(lambda: method(*args, **kwargs), limiter=self._limiter)

    async def record(self, issuance: Issuance) -> None:
        """Append one line to the log; durable on return. Raises what `Store.record` raises, and Revoked."""
        mine = _Waiting(issuance)
        self._waiting.append(mine)
        try:
            async with self._committing:
                while not mine.done.is_set():
                    await self._commit()
        except trio.Cancelled:
            if mine in self._waiting:  # nobody has begun to write it, and now nobody will
                self._waiting.remove(mine)
            raise
        if mine.error is not None:
            raise mine.error
        if mine.revoked:
            raise Revoked(f"{issuance.spiffe_id} was revoked while its certificate was being made")

    async def _commit(self) -> None:
        """Write what is waiting. Shielded: the batch holds other tasks' lines, and their tasks may not be cancelled."""
        batch, self._waiting = self._waiting[:MAX_SHARED], self._waiting[MAX_SHARED:]
        with trio.CancelScope(shield=True):
            try:
                refused = await self.call(self.store.record, [waiting.issuance for waiting in batch])
                for waiting in batch:
                    waiting.revoked = waiting.issuance.serial in refused
                self.failing = False
            except Exception as error:  # noqa: BLE001 - each of the tasks that share the commit raises it
                self.failing = True
                self.failures += len(batch)
                for waiting in batch:
                    waiting.error = error
            finally:
                for waiting in batch:
                    waiting.done.set()
