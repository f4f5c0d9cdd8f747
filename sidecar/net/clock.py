"""Monotonic and wall time from one object, so that a test moves time-outs and expiry alike.

Monotonic time measures waits; it may stand still while a laptop sleeps. Wall time decides what is valid and when to
renew; it may jump. Whoever waits for a moment of wall time waits in short steps and looks again (`wait_until_wall`).
"""

from __future__ import annotations

import time
from typing import Protocol

import trio

LOOK_AGAIN = 30.0  # seconds: a sleep or a clock that was set is noticed this soon at the latest (S5)


class Clock(Protocol):
    """Where components ask for the time."""

    def monotonic(self) -> float:
        """Seconds that only grow, with no meaning of their own; trio's deadlines use the same."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, as this machine believes."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """trio's clock, which a time-out inside trio is measured by."""
        return trio.current_time()

    def wall(self) -> float:
        """The system's idea of the time."""
        return time.time()


class TestClock:
    """Wall time that follows trio's clock (a MockClock, usually) from `start` on; `jump` sets it forward or back."""

    __test__ = False  # not a test case, whatever pytest thinks of its name

    def __init__(self, start: float) -> None:
        self._start = start
        self._zero: float | None = None

    def monotonic(self) -> float:
        """trio's clock."""
        return trio.current_time()

    def wall(self) -> float:
        """`start`, plus what trio's clock has counted since the first question, plus all jumps."""
        if self._zero is None:
            self._zero = trio.current_time()
        return self._start + trio.current_time() - self._zero

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward (or back, where negative) without any monotonic time passing."""
        self._start += seconds


async def wait_until_wall(clock: Clock, moment: float) -> None:
    """Sleep until wall time reaches `moment` (seconds since the epoch), looking again every 30 s."""
    while (left := moment - clock.wall()) > 0:  # noqa: ASYNC110 - wall time has no event to wait for
        await trio.sleep(min(left, LOOK_AGAIN))
    await trio.lowlevel.checkpoint()
