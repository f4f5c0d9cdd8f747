"""Following names, by a clock that jumps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence

import pytest
import trio
import trio.testing

from sidecar.config.terms import Address
from sidecar.discovery.answers import Found, NotFound
from sidecar.discovery.follow import FIRST_WAIT, LONGEST, LONGEST_WAIT, MOST, SHORTEST, Follower
from sidecar.telemetry.log import Log
from sidecar.traffic.endpoints import Declared

NAME = Address("orders.test", 443)


class Upstream:
    """Who is told."""

    name = "orders"
    names: tuple[Address, ...] = (NAME,)
    sources: tuple[Hashable, ...] = ()
    why_none = ""
    loops: tuple[Address, ...] = ()

    def __init__(self) -> None:
        self.told: list[tuple[float, tuple[str, ...]]] = []

    def found(self, name: Address, addresses: tuple[str, ...]) -> None:
        assert name == NAME
        self.told.append((round(trio.current_time() - self.began, 3), addresses))

    def listed(self, source: Hashable, declared: Sequence[Declared]) -> None:
        raise AssertionError("nobody lists anything here")

    began = 0.0


def play(answer: Callable[[float], Found], seconds: float) -> tuple[Upstream, list[float]]:
    """Follow for so long; `answer` is asked with the time. Returns who was told, and when we asked."""
    upstream, asked = Upstream(), list[float]()

    async def look_up(name: str) -> Found:
        now = trio.current_time() - upstream.began
        asked.append(round(now, 3))
        return answer(now)

    async def run() -> None:
        upstream.began = trio.current_time()
        async with trio.open_nursery() as nursery:
            follower = Follower(look_up, Log())
            await nursery.start(follower.run)
            follower.look([upstream])
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    return upstream, asked


def down(now: float) -> Found:
    raise NotFound("nobody there")


@pytest.mark.parametrize(("ttl", "every"), [(0.0, SHORTEST), (30.0, 30.0), (86400.0, LONGEST)])
def test_an_answer_is_good_for_its_time_within_bounds(ttl: float, every: float) -> None:
    _, asked = play(lambda now: Found(("10.0.0.1",), ttl), 3.5 * every)
    assert asked == [0.0, every, 2 * every, 3 * every]


def test_only_another_answer_is_told() -> None:
    upstream, _ = play(lambda now: Found(("10.0.0.2", "10.0.0.1") if now < 25 else ("10.0.0.3",), 10.0), 45.0)
    assert upstream.told == [(0.0, ("10.0.0.1", "10.0.0.2")), (30.0, ("10.0.0.3",))]


def test_the_order_of_an_answer_means_nothing() -> None:
    """Resolvers turn it each time."""
    upstream, asked = play(lambda now: Found(("10.0.0.1", "10.0.0.2")[:: 1 if now % 2 else -1], 1.0), 9.5)
    assert len(asked) == 10
    assert len(upstream.told) == 1


def test_what_is_known_stands_while_nobody_can_tell() -> None:
    upstream, asked = play(lambda now: down(now) if 10 <= now < 200 else Found(("10.0.0.1",), 10.0), 230.0)
    assert upstream.told == [(0.0, ("10.0.0.1",))]
    waits = [later - earlier for earlier, later in itertools.pairwise(asked[1:])]
    assert waits[:6] == [FIRST_WAIT, 2.0, 4.0, 8.0, 16.0, LONGEST_WAIT]
    assert max(waits) == LONGEST_WAIT


def test_a_name_that_stands_for_nothing_is_told() -> None:
    upstream, _ = play(lambda now: Found(("10.0.0.1",) if now < 5 else (), 5.0), 8.0)
    assert upstream.told == [(0.0, ("10.0.0.1",)), (5.0, ())]


def test_a_thousand_addresses_are_some() -> None:
    upstream, _ = play(lambda now: Found(tuple(f"10.0.{n // 250}.{n % 250}" for n in range(1000)), 5.0), 1.0)
    assert len(upstream.told[0][1]) == MOST


def test_names_that_are_gone_are_not_followed() -> None:
    asked: list[str] = []

    async def look_up(name: str) -> Found:
        asked.append(name)
        return Found(("10.0.0.1",), 1.0)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            follower, upstream = Follower(look_up, Log()), Upstream()
            await nursery.start(follower.run)
            follower.look([upstream])
            await trio.sleep(2.5)
            follower.look([upstream])
            before = len(asked)
            follower.look([])
            await trio.sleep(10.0)
            assert len(asked) == before == 3
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
