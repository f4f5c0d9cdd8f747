"""Quotas that sidecars share by a real Redis: together never more, and with it away never open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from sidecar.answer.quota_desk import QuotaDesk
from sidecar.config.redis_url import RedisAddress
from sidecar.config.schema_amounts import QuotaLimit
from sidecar.config.schema_redis import Redis
from sidecar.config.terms import Address, Amount
from sidecar.net.clock import SystemClock
from sidecar.runtime.quotas import reset, show
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.traffic.quota import Order, Quota
from sidecar.traffic.quota_limits import Quotas
from tests.kit.redis_server import RedisServer

# coredis 6.9 leaves the memory streams of a connection that has failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
SPEC = QuotaLimit("monthly", Amount(1000, "month"), shared="redis")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


class Sharer:
    """A sidecar, as far as its quotas go."""

    def __init__(self, folder: Path, name: str, port: int) -> None:
        self.clock = SystemClock()
        self.desk = QuotaDesk(folder / name, clock=self.clock, log=Log(), metrics=Metrics("test"))
        url = RedisAddress(Address("127.0.0.1", port), False, 0)
        self.desk.use(Redis(url), "spiffe://demo.mesh/ns/default/sa/orders")
        self.quotas = Quotas((SPEC,), self.desk)
        self.desk.adopt(self.quotas)

    @property
    def quota(self) -> Quota:
        return self.quotas.by_name["monthly"]

    async def take(self, key: str = "web") -> str:
        """`in`, `spent` or `unknown`, as a request would find."""
        for _ in range(100):
            wall = self.clock.wall()
            if self.quota.room(wall, key):
                order = self.quota.spend(self.quota.lease(wall, key), wall)
                if order is not None:
                    self.desk.ask(order)
                return "in"
            wanted = self.quota.want(wall, key)
            if not isinstance(wanted, Order):
                return "spent"
            self.desk.ask(wanted)
            while self.desk.signal(wanted) is not None:
                await trio.sleep(0.001)
            if wanted.failed:
                return "unknown"
        raise AssertionError("nobody settles")


@asynccontextmanager
async def running(*sharers: Sharer) -> Any:
    async with trio.open_nursery() as nursery:
        for each in sharers:
            nursery.start_soon(each.desk.run)
        yield
        for each in sharers:
            await each.desk.give_back()
        nursery.cancel_scope.cancel()


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(60):
            await story()

    trio.run(bounded)


def test_two_sidecars_have_one_quota_and_give_back_what_they_have_not_used(redis: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        one, other = Sharer(tmp_path, "one", redis.port), Sharer(tmp_path, "other", redis.port)
        async with running(one, other):
            first = [await (one, other)[number % 2].take() for number in range(500)]
            assert first == ["in"] * 500
        again, more = Sharer(tmp_path, "one", redis.port), Sharer(tmp_path, "other", redis.port)
        async with running(again, more):
            (row,) = (await show(again.desk, again.clock.wall()))["quotas"]
            assert [(key["key"], key["used"]) for key in row["keys"]] == [("web", 500)]
            rest = [await (again, more)[number % 2].take() for number in range(600)]
            assert 490 <= rest.count("in") <= 500  # one may hold the last lease while the other has none
            assert rest[-1] == "spent" or rest[-2] == "spent"
            assert (await reset(again.desk, "monthly", "web", again.clock.wall()))["was"] == 1000
            assert await again.take() == "in"

    play(story)


def test_while_redis_is_away_a_lease_is_used_up_and_nothing_more(redis: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        one = Sharer(tmp_path, "one", redis.port)
        async with running(one):
            assert await one.take() == "in"
            redis.kill()
            told = [await one.take() for _ in range(40)]
            assert told.count("in") <= 10  # a hundredth
            assert told[-1] == "unknown"
            assert await one.take("new") == "unknown"
            redis.start()
            with trio.fail_after(20):
                while await one.take() != "in":
                    await trio.sleep(0.1)

    play(story)


def test_what_is_no_count_under_our_key_lets_nobody_in(redis: RedisServer, tmp_path: Path) -> None:
    async def story() -> None:
        one = Sharer(tmp_path, "one", redis.port)
        start = one.quota.window(one.clock.wall())[0]
        key = f"mesh:quota:{{spiffe://demo.mesh/ns/default/sa/orders}}:monthly/month:{start}"
        redis.do("SET", key, "another's")
        async with running(one):
            assert await one.take() == "unknown"
            redis.do("DEL", key)
            redis.do("HSET", key, "web", "many")
            await trio.sleep(1.1)
            assert await one.take() == "unknown"
            redis.do("DEL", key)
            await trio.sleep(1.1)
            assert await one.take() == "in"

    play(story)
