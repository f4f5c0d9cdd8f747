"""Run an async test in trio, on the real clock or in virtual time where hours pass in no time."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec

import trio
import trio.testing

P = ParamSpec("P")


def in_trio(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """The test runs on the real clock, and fails after 10 s."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def limited() -> None:
            with trio.fail_after(10):
                await test(*args, **kwargs)

        trio.run(limited)

    return run


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """The test's clock jumps ahead whenever every task waits. Worker threads do not count as waiting for anything."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def whole() -> None:
            await test(*args, **kwargs)

        trio.run(whole, clock=trio.testing.MockClock(autojump_threshold=0))

    return run
