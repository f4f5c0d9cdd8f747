"""Carries what quotas order to their store and back: in batches, in a thread, so that nobody waits for a disk who need
not.

Theory of operation. Whoever orders (a connection, in the reactor's task) leaves the order here and goes on; who cannot
go on without it waits for its signal. One trio task takes whatever has gathered, has a thread do all of it in *one*
transaction, and settles each order back in our own thread; so nothing here needs a lock, and what gathers meanwhile is
the next batch. What `mesh quota` wants done stands in the same line, so a reset never overtakes a reservation.

Where the file cannot be used, every order of the batch fails, at once and for a second on without another try; that is
said in the log once, and in the metrics each time. The file is then opened anew: who repairs it need not restart us.

Windows that ended long ago are forgotten once an hour, but only where both clocks agree on how long that hour was: on
the wrong side of a jump everything would look long ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from sidecar.net.port import Signal
from sidecar.traffic.quota import KEPT
from sidecar.traffic.quota_store import QuotaStoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sidecar.answer.quota_file import QuotaFile
    from sidecar.net.clock import Clock
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics
    from sidecar.traffic.quota import Order
    from sidecar.traffic.quota_limits import Quotas
    from sidecar.traffic.quota_store import QuotaStore

T = TypeVar("T")

RETRY_SECONDS: Final = 1.0  # after a failure, until the file is tried again
FORGET_SECONDS: Final = 3600.0
DISAGREE_SECONDS: Final = 60.0  # of the two clocks over that hour, from which on the wall clock has jumped
_EFFECT: Final = "callers whose use is known go on to their limit, all others are refused (503)"
_ADVICE: Final = "mend what is named, or move the file away: then every quota begins anew"


class _Job:
    """Something to be done with the store, and who is to be told what came of it."""

    __slots__ = ("do", "failed", "told")

    def __init__(
        self, do: Callable[[QuotaStore], Any], told: Callable[[Any], None], failed: Callable[[QuotaStoreFailed], None]
    ) -> None:
        self.do = do
        self.told = told
        self.failed = failed


class QuotaDesk:
    """The way to one store."""

    def __init__(self, path: Path, *, clock: Clock, log: Log, metrics: Metrics) -> None:
        self.path = path
        self.nudge: Callable[[], None] = lambda: None  # lets the reactor look whom a signal has woken
        self.quotas: Quotas | None = None  # of the configuration in force
        self.problem = ""  # why the store cannot be used; empty where it can
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._file: QuotaFile | None = None  # open; only the thread at work touches it
        self._jobs: list[_Job] = []
        self._signals: dict[Order, Signal] = {}
        self._wanted = trio.Event()
        self._tried_at = -RETRY_SECONDS  # monotonic: the last failure
        self._forgot_at = clock.monotonic(), clock.wall()

    # ---- for the hot path --------------------------------------------------------------------------------------------

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

        self._put(_Job(lambda store: self._place(order, store), settled, failed))

    @staticmethod
    def _place(order: Order, store: QuotaStore) -> tuple[int, int]:
        return order.place(store)

    def signal(self, order: Order) -> Signal | None:
        """What happens once an order is settled or has failed; None where it has happened already."""
        return self._signals.get(order)

    def _put(self, job: _Job) -> None:
        self._jobs.append(job)
        self._wanted.set()

    # ---- for people --------------------------------------------------------------------------------------------------

    async def do(self, what: Callable[[QuotaStore], T]) -> T:
        """Have something done with the store, behind what stands in line already. Raises QuotaStoreFailed."""
        done, found, problem = trio.Event(), [], []

        def told(answer: T) -> None:
            found.append(answer)
            done.set()

        def failed(error: QuotaStoreFailed) -> None:
            problem.append(error)
            done.set()

        self._put(_Job(what, told, failed))
        await done.wait()
        if problem:
            raise problem[0]
        return found[0]

    def adopt(self, quotas: Quotas) -> None:
        """These quotas are in force now; the file is opened, so that what is wrong with it is known before anybody
        comes.
        """
        self.quotas = quotas
        quotas.put_in_force()
        if quotas.specs:
            self._put(_Job(lambda store: None, lambda _: None, lambda _: None))

    # ---- the line ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry, until cancelled."""
        while True:
            with trio.move_on_after(FORGET_SECONDS):
                await self._wanted.wait()
            self._wanted = trio.Event()
            self._forget_now_and_then()
            jobs, self._jobs = self._jobs, []
            if jobs:
                await self._carry(jobs)

    async def _carry(self, jobs: Sequence[_Job]) -> None:
        for order in self._signals:
            order.sent = True
        try:
            if self._clock.monotonic() - self._tried_at < RETRY_SECONDS:
                raise QuotaStoreFailed(self.problem)
            answers = await trio.to_thread.run_sync(self._work, jobs)
        except QuotaStoreFailed as error:
            self._note_problem(error)
            for job in jobs:
                job.failed(error)
        else:
            self._note_success()
            for job, answer in zip(jobs, answers, strict=True):
                job.told(answer)
        self.nudge()

    def _work(self, jobs: Sequence[_Job]) -> list[Any]:
        """In a thread: all of it, in one transaction."""
        from sidecar.answer.quota_file import QuotaFile

        try:
            if self._file is None:
                self._file = QuotaFile(self.path)
            with self._file.together():
                return [job.do(self._file) for job in jobs]
        except QuotaStoreFailed:
            if self._file is not None:
                self._file.close()
                self._file = None
            raise

    def _note_problem(self, error: QuotaStoreFailed) -> None:
        self._metrics.counter("mesh_quota_store_failures_total").add()
        self._metrics.counter("mesh_quota_store_up").set(0)
        if self._clock.monotonic() - self._tried_at >= RETRY_SECONDS:
            self._tried_at = self._clock.monotonic()
        if str(error) != self.problem:
            self.problem = str(error)
            self._log.error("quotas cannot be counted", problem=self.problem, effect=_EFFECT, advice=_ADVICE)

    def _note_success(self) -> None:
        self._metrics.counter("mesh_quota_store_up").set(1)
        if self.problem:
            self.problem = ""
            self._log.info("quotas are counted again", file=str(self.path))

    def _forget_now_and_then(self) -> None:
        now, wall = self._clock.monotonic(), self._clock.wall()
        then, wall_then = self._forgot_at
        if now - then < FORGET_SECONDS:
            return
        self._forgot_at = now, wall
        if self._file is not None and abs((wall - wall_then) - (now - then)) < DISAGREE_SECONDS:
            self._put(_Job(lambda store: store.forget(wall - KEPT), lambda _: None, lambda _: None))

    def close(self) -> None:
        """Give back what has been leased and not used, and let go of the file. In a thread, when `run` has ended."""
        if self._file is None:
            return
        try:
            with self._file.together():
                for quota in self.quotas.by_name.values() if self.quotas is not None else ():
                    for lease in quota.leftovers():
                        self._file.give_back(quota.rules.name, lease.key, lease.start, lease.left - lease.debt)
        except QuotaStoreFailed as error:
            self._log.error("what quotas had left could not be given back", problem=str(error))
        self._file.close()
        self._file = None
