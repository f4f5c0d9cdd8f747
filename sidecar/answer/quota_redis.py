"""Quotas that the sidecars of a service share: one count for all of them, in Redis.

One hash for each quota and window, with a field for each key; it goes by itself two days after the window's end. A
reservation is one script, so two sidecars never both get the last of it. What is counted survives what that Redis
survives: for quotas it should write an append-only file.

Where Redis is away, slow or strange, every order fails. Who holds a lease goes on with that, a hundredth at most, and
is then refused: to go on by its own count would give each sidecar the whole rest, and that is more than there is.

coredis runs on anyio; its errors come alone or in groups, and all of them mean the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from sidecar.answer.quota_line import Line
from sidecar.answer.redis import _client, _told
from sidecar.traffic.quota import KEPT
from sidecar.traffic.quota_store import QuotaStoreFailed, Use

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.schema_redis import Redis
    from sidecar.net.clock import Clock
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics

ANSWER_SECONDS: Final = 1.0  # for a batch; a sound Redis takes a millisecond
IDLE_SECONDS: Final = 60.0  # without a wish, until the connection is closed
RESERVE: Final = """
local used = redis.call('HGET', KEYS[1], ARGV[1])
used = used and assert(tonumber(used), 'not a count') or 0
local granted = math.max(0, math.min(tonumber(ARGV[2]), tonumber(ARGV[3]) - used))
if granted > 0 then
    redis.call('HINCRBY', KEYS[1], ARGV[1], granted)
    redis.call('EXPIREAT', KEYS[1], ARGV[4])
end
return {granted, used + granted}
"""
GIVE_BACK: Final = """
local used = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') or 0
if used > 0 then
    return redis.call('HINCRBY', KEYS[1], ARGV[1], -math.min(used, tonumber(ARGV[2])))
end
return 0
"""


class RedisStore:
    """The `QuotaStore` of one connection, but that everything is awaited. Raises what coredis raises."""

    def __init__(self, client: Any, stem: str, window: Callable[[str], int]) -> None:
        self._client = client
        self._stem = stem
        self._window = window

    def _key(self, quota: str, start: int) -> str:
        return f"{self._stem}:{quota}:{start}"

    async def reserve(
        self, quota: str, key: str, window: tuple[int, int], amount: int, limit: int
    ) -> tuple[int, int]:
        """See QuotaStore."""
        start, end = window
        said = await self._client.eval(
            RESERVE, keys=[self._key(quota, start)], args=[key, amount, limit, end + int(KEPT)]
        )
        granted, used = (int(each) for each in said)
        if not 0 <= granted <= amount:
            raise QuotaStoreFailed("Redis answers what no script of ours says")
        return granted, used

    async def give_back(self, quota: str, key: str, start: int, amount: int) -> None:
        """See QuotaStore."""
        await self._client.eval(GIVE_BACK, keys=[self._key(quota, start)], args=[key, amount])

    async def uses(self, quota: str) -> list[Use]:
        """What was used in the window of now."""
        start = self._window(quota)
        found = await self._client.hgetall(self._key(quota, start))
        return [Use(quota, key.decode(), start, 0, int(used)) for key, used in found.items()]

    async def reset(self, quota: str, key: str) -> None:
        """Forget what a key has used in the window of now."""
        await self._client.hdel(self._key(quota, self._window(quota)), [key])


class RedisLine(Line):
    """The line before Redis."""

    store = "redis"

    def __init__(self, window: Callable[[str], int], *, clock: Clock, log: Log, metrics: Metrics) -> None:
        super().__init__(clock=clock, log=log, metrics=metrics)
        self._window = window
        self._spec: Redis | None = None
        self._stem = ""
        self._scope = trio.CancelScope()  # of the connection to this one

    def use(self, spec: Redis | None, service: str) -> None:
        """From now on it is this one."""
        if spec != self._spec:
            self._spec = spec
            self._stem = f"{spec.prefix}:quota:{{{service}}}" if spec is not None else ""
            self._scope.cancel()

    async def run(self) -> None:
        """Serve, until cancelled. A connection is made when somebody wants something, and kept while that goes on."""
        while True:
            await self.wanted.wait()
            if self._spec is None or self.resting():
                self.failed(self.take(), QuotaStoreFailed(self.problem or "no Redis is declared (redis)"))
                continue
            with trio.CancelScope() as self._scope:
                try:
                    await self._connected(self._spec)
                except Exception as error:  # noqa: BLE001 - whatever it is, Redis is no help, and that is all
                    told = error if isinstance(error, QuotaStoreFailed) else QuotaStoreFailed(f"Redis: {_told(error)}")
                    self.failed(self.take(), told)

    async def _connected(self, spec: Redis) -> None:
        """One connection's life. Raises whatever ends it."""
        client = await trio.to_thread.run_sync(_client, spec)
        problem: BaseException | None = None
        with trio.CancelScope(deadline=trio.current_time() + ANSWER_SECONDS) as scope:
            async with client:
                try:
                    await client.ping()
                    scope.deadline = float("inf")
                    await self._serve(RedisStore(client, self._stem, self._window))
                    return
                except Exception as error:  # noqa: BLE001 - see `run`
                    problem = error
                    scope.cancel()
        raise problem or QuotaStoreFailed(f"no answer within {ANSWER_SECONDS:g} s")

    async def _serve(self, store: RedisStore) -> None:
        while True:
            with trio.move_on_after(IDLE_SECONDS) as idle:
                await self.wanted.wait()
            if idle.cancelled_caught:
                return
            jobs, answers = self.take(), []
            try:
                with trio.fail_after(ANSWER_SECONDS):
                    for job in jobs:
                        answers.append(await job.do(store))  # noqa: PERF401 - those before a failure have been done
            except BaseException as error:
                self.succeeded(jobs[: len(answers)], answers)
                told = QuotaStoreFailed(f"Redis: {_told(error)}")
                self.failed(jobs[len(answers) :], told)
                raise
            self.succeeded(jobs, answers)
