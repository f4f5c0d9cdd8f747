"""Where orders of leases go: quotas of one sidecar to a file in its state folder, shared ones to Redis.

Theory of operation. Whoever orders (a connection, in the reactor's task) leaves the order here and goes on; who cannot
go on without it waits for its signal. For the file one trio task takes whatever has gathered and has a thread do all of
it in *one* transaction; what gathers meanwhile is the next batch.

Where the file cannot be used, every order of the batch fails, at once and for a second on without another try; that is
said in the log once, and in the metrics each time. The file is then opened anew: who repairs it need not restart us.

Windows that ended long ago are forgotten once an hour, but only where both clocks agree on how long that hour was: on
the wrong side of a jump everything would look long ended.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from sidecar.answer.quota_line import Job, Line
from sidecar.answer.quota_redis import RedisLine
from sidecar.traffic.quota import KEPT
from sidecar.traffic.quota_store import QuotaStoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sidecar.answer.quota_file import QuotaFile
    from sidecar.config.schema_redis import Redis
    from sidecar.net.clock import Clock
    from sidecar.net.port import Signal
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics
    from sidecar.traffic.quota import Lease, Order, Quota
    from sidecar.traffic.quota_limits import Quotas

FORGET_SECONDS: Final = 3600.0
DISAGREE_SECONDS: Final = 60.0  # of the two clocks over that hour, from which on the wall clock has jumped
GIVE_BACK_SECONDS: Final = 1.0  # that an end waits for Redis


class QuotaDesk:
    """The ways to both stores."""

    def __init__(self, path: Path, *, clock: Clock, log: Log, metrics: Metrics) -> None:
        self.quotas: Quotas | None = None  # of the configuration in force
        self._clock = clock
        self._log = log
        self._file = FileLine(path, clock=clock, log=log, metrics=metrics)
        self._redis = RedisLine(self._window, clock=clock, log=log, metrics=metrics)

    @property
    def nudge(self) -> Callable[[], None]:
        """Lets the reactor look whom a signal has woken."""
        return self._file.nudge

    @nudge.setter
    def nudge(self, nudge: Callable[[], None]) -> None:
        self._file.nudge = self._redis.nudge = nudge

    def line(self, quota: Quota) -> Line:
        """Where what concerns this quota has to stand."""
        return self._redis if quota.rules.shared else self._file

    def ask(self, order: Order) -> None:
        """Carry an order to its store, soon; once, however often we are told."""
        self.line(order.quota).ask(order)

    def signal(self, order: Order) -> Signal | None:
        """What happens once an order is settled or has failed; None where it has happened already."""
        return self.line(order.quota).signal(order)

    def use(self, spec: Redis | None, service: str) -> None:
        """From now on shared quotas of this service are kept in this Redis; None for none."""
        self._redis.use(spec, service)

    def adopt(self, quotas: Quotas) -> None:
        """These quotas are in force now; their stores are opened, so that what is wrong with one is known before
        anybody comes.
        """
        self.quotas = quotas
        quotas.put_in_force()
        for line in {self.line(quota) for quota in quotas.by_name.values()}:
            line.put(Job(lambda store: store.uses(""), lambda _: None, lambda _: None))

    def _window(self, name: str) -> int:
        """When the window of now began, of the quota that is kept under this name."""
        for quota in self.quotas.by_name.values() if self.quotas is not None else ():
            if quota.rules.name == name:
                return quota.window(self._clock.wall())[0]
        return 0

    async def run(self) -> None:
        """Carry, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._file.run)
            nursery.start_soon(self._redis.run)

    async def give_back(self) -> None:
        """Give back to Redis what has been leased and not used, where it answers in time. While `run` runs."""
        ours = self.quotas.by_name.values() if self.quotas is not None else ()
        shared = [quota for quota in ours if quota.rules.shared]
        with trio.move_on_after(GIVE_BACK_SECONDS):
            try:
                for number, quota in enumerate(shared):
                    if not number:
                        await self._redis.do(lambda store: store.uses(""))  # behind all orders that are under way
                    for lease in quota.leftovers():
                        await self._redis.do(partial(_given_back, quota.rules.name, lease))
            except QuotaStoreFailed:
                return  # it was lost with that Redis

    def close(self) -> None:
        """Give back to the file what has been leased and not used, and let go of it. In a thread, after `run`."""
        ours = self.quotas.by_name.values() if self.quotas is not None else ()
        self._file.close([quota for quota in ours if not quota.rules.shared])


def _given_back(name: str, lease: Lease, store: Any) -> Any:
    return store.give_back(name, lease.key, lease.start, lease.left)


class FileLine(Line):
    """The line before the file."""

    store = "file"

    def __init__(self, path: Path, *, clock: Clock, log: Log, metrics: Metrics) -> None:
        super().__init__(clock=clock, log=log, metrics=metrics)
        self.path = path
        self._file: QuotaFile | None = None  # open; only the thread at work touches it
        self._forgot_at = clock.monotonic(), clock.wall()

    async def run(self) -> None:
        """Serve, until cancelled."""
        while True:
            with trio.move_on_after(FORGET_SECONDS):
                await self.wanted.wait()
            self._forget_now_and_then()
            jobs = self.take()
            if jobs:
                await self._serve(jobs)

    async def _serve(self, jobs: Sequence[Job]) -> None:
        try:
            if self.resting():
                raise QuotaStoreFailed(self.problem)
            answers = await trio.to_thread.run_sync(self._work, jobs)
        except QuotaStoreFailed as error:
            self.failed(jobs, error)
        else:
            self.succeeded(jobs, answers)

    def _work(self, jobs: Sequence[Job]) -> list[Any]:
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

    def _forget_now_and_then(self) -> None:
        now, wall = self._clock.monotonic(), self._clock.wall()
        then, wall_then = self._forgot_at
        if now - then < FORGET_SECONDS:
            return
        self._forgot_at = now, wall
        if self._file is not None and abs((wall - wall_then) - (now - then)) < DISAGREE_SECONDS:
            self.put(Job(lambda store: store.forget(wall - KEPT), lambda _: None, lambda _: None))

    def close(self, quotas: Sequence[Quota]) -> None:
        """Give back what is left of these, and let go of the file."""
        if self._file is None:
            return
        try:
            with self._file.together():
                for quota in quotas:
                    for lease in quota.leftovers():
                        self._file.give_back(quota.rules.name, lease.key, lease.start, lease.left - lease.debt)
        except QuotaStoreFailed as error:
            self._log.error("what quotas had left could not be given back", problem=str(error))
        self._file.close()
        self._file = None
