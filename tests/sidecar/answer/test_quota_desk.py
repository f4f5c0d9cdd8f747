"""The way of an order to the file and back: batches, failures that are told once, and what an end gives back."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
import trio.testing

from sidecar.answer.quota_desk import FORGET_SECONDS, QuotaDesk
from sidecar.answer.quota_file import QuotaFile
from sidecar.config.schema_amounts import QuotaLimit
from sidecar.config.terms import Amount
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.traffic.quota import Order, Quota
from sidecar.traffic.quota_limits import Quotas
from sidecar.traffic.quota_store import Use

NOON = 1_795_608_000.0  # 2026-11-25 12:00 UTC
DAY = 86_400
MIDNIGHT = int(NOON) - 12 * 3600
SPEC = QuotaLimit("daily", Amount(1000, "d"))


class Hands:
    """A clock that goes as it is told."""

    def __init__(self) -> None:
        self.time = 100.0
        self.ahead = NOON - 100.0

    def monotonic(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time + self.ahead


class Kept(Log):
    """A log that is read in the test."""

    def __init__(self, out: io.StringIO) -> None:
        super().__init__()
        self._out = out

    def write(self, level: Any, message: str, fields: dict[str, object]) -> None:
        self._out.write(f"{level} {message} {fields}\n")


class Desk(QuotaDesk):
    """A desk with one quota."""

    def __init__(self, path: Path) -> None:
        self.hands, self.said, self.nudges = Hands(), io.StringIO(), 0
        super().__init__(path, clock=self.hands, log=Kept(self.said), metrics=Metrics("test"))  # type: ignore[arg-type]
        self.nudge = self._nudged
        self.adopt(Quotas((SPEC,), self))

    def _nudged(self) -> None:
        self.nudges += 1

    @property
    def quota(self) -> Quota:
        assert self.quotas is not None
        return self.quotas.by_name["daily"]

    def order(self, key: str) -> Order:
        wanted = self.quota.want(self.hands.wall(), key)
        assert isinstance(wanted, Order), wanted
        self.ask(wanted)
        self.ask(wanted)
        return wanted

    async def settled(self, *orders: Order) -> None:
        with trio.fail_after(10):
            while any(self.signal(order) is not None for order in orders):
                await trio.sleep(0.001)


def play(path: Path, story: Callable[[Desk], Awaitable[None]]) -> None:
    async def whole() -> None:
        desk = Desk(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.run)
            await story(desk)
            await desk.give_back()
            nursery.cancel_scope.cancel()
        desk.close()

    trio.run(whole)


def test_orders_that_gather_are_one_batch_and_an_end_gives_back(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        orders = [desk.order(key) for key in ("web", "cart", "web")]
        assert orders[0] is orders[2]  # the same lease, and room for both who wait for it
        await desk.settled(*orders)
        assert desk.nudges == 1
        wall = desk.hands.wall()
        assert desk.quota.lease(wall, "web").left == 11
        for _ in range(4):
            desk.quota.spend(desk.quota.lease(wall, "web"), wall)

    play(tmp_path / "q", story)
    store = QuotaFile(tmp_path / "q")
    assert store.uses("daily/day") == [
        Use("daily/day", "cart", MIDNIGHT, MIDNIGHT + DAY, 0), Use("daily/day", "web", MIDNIGHT, MIDNIGHT + DAY, 4)
    ]  # fmt: skip


def test_a_file_that_cannot_be_used_is_told_once_and_found_again_when_it_is_mended(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        first = desk.order("web")
        await desk.settled(first)
        assert first.failed
        again = desk.order("web")  # within the second: nobody touches the disk
        await desk.settled(again)
        assert again.failed
        assert desk.said.getvalue().count("quotas cannot be counted") == 1
        assert "all others are refused (503)" in desk.said.getvalue()
        (tmp_path / "q").rmdir()
        desk.hands.time += 1.1
        third = desk.order("web")
        await desk.settled(third)
        assert not third.failed
        assert "quotas are counted again" in desk.said.getvalue()

    (tmp_path / "q").mkdir()
    play(tmp_path / "q", story)


def test_what_ended_long_ago_is_forgotten_but_not_by_a_clock_that_jumped(tmp_path: Path) -> None:
    async def rows(desk: Desk) -> int:
        return len(await desk.line(desk.quota).do(lambda store: store.uses("daily/day")))

    async def story(desk: Desk) -> None:
        await desk.settled(desk.order("web"))
        desk.hands.ahead += 365 * DAY  # the wall clock alone
        desk.hands.time += FORGET_SECONDS
        await desk.settled(desk.order("web"))
        assert await rows(desk) == 2
        desk.hands.time += FORGET_SECONDS  # both agree on this hour
        await desk.settled(desk.order("cart"))
        assert await rows(desk) == 2
        desk.hands.ahead -= 365 * DAY  # and back again
        found = desk.quota.remaining(desk.hands.wall(), "cart")
        assert found.remaining == 1000

    play(tmp_path / "q", story)


def test_without_quotas_there_is_no_file(tmp_path: Path) -> None:
    async def whole() -> None:
        desk = QuotaDesk(tmp_path / "q", clock=Hands(), log=Log(), metrics=Metrics("test"))  # type: ignore[arg-type]
        desk.adopt(Quotas((), desk))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        desk.close()

    trio.run(whole)
    assert not (tmp_path / "q").exists()
