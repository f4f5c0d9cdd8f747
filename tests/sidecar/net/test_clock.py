"""Wall time and monotonic time move together until somebody sets the clock."""

from __future__ import annotations

import time

import pytest
import trio

from sidecar.net.clock import SystemClock, TestClock, wait_until_wall
from tests.kit.trio_time import in_trio, in_virtual_time


@in_virtual_time
async def test_wall_time_follows_trio() -> None:
    clock = TestClock(1000.0)
    assert clock.wall() == 1000.0
    await trio.sleep(5)
    assert clock.wall() == pytest.approx(1005.0)
    clock.jump(-100)
    assert clock.wall() == pytest.approx(905.0)


@in_virtual_time
async def test_a_wait_for_wall_time_notices_a_clock_that_was_set_within_30_seconds() -> None:
    clock = TestClock(0.0)
    started = clock.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_until_wall, clock, 10_000.0)
        await trio.sleep(40)
        clock.jump(20_000)
    assert 40 <= clock.monotonic() - started <= 70


@in_trio
async def test_the_systems_clocks() -> None:
    clock = SystemClock()
    assert abs(clock.wall() - time.time()) < 1
    assert clock.monotonic() == pytest.approx(trio.current_time(), abs=1)
