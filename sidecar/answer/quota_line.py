"""The line of those who want something of a store of quotas: orders of leases, and what `mesh quota` wants done.

Who stands in line is served in order, a batch at a time, and told in our own thread; so nothing here needs a lock, and
a reset never overtakes a reservation. `FileLine` (quota_desk) and `RedisLine` (quota_redis) serve it, each its own way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from sidecar.net.port import Signal
from sidecar.traffic.quota_store import QuotaStoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.net.clock import Clock
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics
    from sidecar.traffic.quota import Order

T = TypeVar("T")

RETRY_SECONDS: Final = 1.0  # after a failure, until the store is tried again
_EFFECT: Final = {
    "file": "callers whose use is known go on to their limit, all others are refused (503)",
    "redis": "callers go on with the part they hold, a hundredth at most, and are then refused (503)",
}
_ADVICE: Final = {
    "file": "mend what is named, or move the file away: then every quota begins anew",
    "redis": "bring that Redis back; nothing is counted twice",
}


class Job:
    """Something to be done with a store, and who is to be told what came of it."""

    __slots__ = ("do", "failed", "told")

    def __init__(
        self, do: Callable[[Any], Any], told: Callable[[Any], None], failed: Callable[[QuotaStoreFailed], None]
    ) -> None:
        self.do = do  # a value, or of a store that is asked over the network something to be awaited
        self.told = told
        self.failed = failed


class Line:
    """Those who want something of one store."""

    store = ""  # `file` or `redis`

    def __init__(self, *, clock: Clock, log: Log, metrics: Metrics) -> None:
        self.nudge: Callable[[], None] = lambda: None  # lets the reactor look whom a signal has woken
        self.problem = ""  # why the store cannot be used; empty where it can
        self.wanted = trio.Event()
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._jobs: list[Job] = []
        self._signals: dict[Order, Signal] = {}
        self._failed_at = -RETRY_SECONDS  # monotonic

    def ask(self, order: Order) -> None:
        """Carry an order to the store, soon; once, however often we are told."""
        if order in self._signals:
            return
        signal = self._signals[order] = Signal()

        def settled(answer: tuple[int, int]) -> None:
            order.quota.settle(order, *answer)
            del self._signals[order]
            signal.fire()

        def failed(_: QuotaStoreFailed) -> None:
            order.quota.fail(order)
            del self._signals[order]
            signal.fire()

        self.put(Job(order.place, settled, failed))

    def signal(self, order: Order) -> Signal | None:
        """What happens once an order is settled or has failed; None where it has happened already."""
        return self._signals.get(order)

    def put(self, job: Job) -> None:
        """Stand in line."""
        self._jobs.append(job)
        self.wanted.set()

    async def do(self, what: Callable[[Any], T]) -> T:
        """Have something done with the store, behind what stands in line already. Raises QuotaStoreFailed."""
        done = trio.Event()
        found: list[T] = []
        problem: list[QuotaStoreFailed] = []

        def told(answer: T) -> None:
            found.append(answer)
            done.set()

        def failed(error: QuotaStoreFailed) -> None:
            problem.append(error)
            done.set()

        self.put(Job(what, told, failed))
        await done.wait()
        if problem:
            raise problem[0]
        return found[0]

    # ---- for who serves it -------------------------------------------------------------------------------------------

    def take(self) -> list[Job]:
        """Everybody who stands in line."""
        jobs, self._jobs = self._jobs, []
        self.wanted = trio.Event()
        for order in self._signals:
            order.sent = True
        return jobs

    def resting(self) -> bool:
        """Whether the store has failed a moment ago, and is not to be tried again yet."""
        return self._clock.monotonic() - self._failed_at < RETRY_SECONDS

    def succeeded(self, jobs: Sequence[Job], answers: Sequence[Any]) -> None:
        """Tell them."""
        self._metrics.counter("mesh_quota_store_up").set(1, (self.store,))
        if self.problem:
            self.problem = ""
            self._log.info("quotas are counted again", store=self.store)
        for job, answer in zip(jobs, answers, strict=True):
            job.told(answer)
        self.nudge()

    def failed(self, jobs: Sequence[Job], error: QuotaStoreFailed) -> None:
        """Tell them, and once everybody who reads the log."""
        self._metrics.counter("mesh_quota_store_failures_total").add((self.store,))
        self._metrics.counter("mesh_quota_store_up").set(0, (self.store,))
        if not self.resting():
            self._failed_at = self._clock.monotonic()
        if str(error) != self.problem:
            self.problem = str(error)
            self._log.error(
                "quotas cannot be counted", store=self.store, problem=self.problem, effect=_EFFECT[self.store],
                advice=_ADVICE[self.store],
            )  # fmt: skip
        for job in jobs:
            job.failed(error)
        self.nudge()
