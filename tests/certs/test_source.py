"""A source holds the current generation, and nobody who waits for the next one misses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from certs.errors import MeshError, NothingYet
from certs.source import Source


def play(story: Callable[[], Awaitable[None]]) -> None:
    """Run a story in virtual time."""
    trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0))


def test_before_the_first_value_there_is_none() -> None:
    source: Source[str] = Source("SVID")
    assert source.number == 0
    with pytest.raises(NothingYet, match="there is no SVID yet"):
        _ = source.current
    assert issubclass(NothingYet, MeshError)
    assert issubclass(NothingYet, LookupError)


def test_the_latest_value_is_current_and_numbers_grow_by_one() -> None:
    source: Source[str | None] = Source()
    seen = []
    for value in ("a", None, "a"):
        source.publish(value)
        seen.append((source.current, source.number))
    assert seen == [("a", 1), (None, 2), ("a", 3)]


def test_a_reader_keeps_what_it_took() -> None:
    source: Source[tuple[int, ...]] = Source()
    source.publish((1,))
    taken = source.current
    source.publish((2,))
    assert (taken, source.current) == ((1,), (2,))


def test_one_who_waits_wakes_at_the_next_value_and_not_before() -> None:
    source: Source[str] = Source()

    async def story() -> None:
        woken: list[tuple[float, int, str]] = []

        async def wait() -> None:
            number = await source.wait_past(0)
            woken.append((trio.current_time() - start, number, source.current))
            number = await source.wait_past(number)
            woken.append((trio.current_time() - start, number, source.current))

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(3)
            source.publish("first")
            await trio.sleep(4)
            source.publish("second")
        assert woken == [(3, 1, "first"), (7, 2, "second")]

    play(story)


def test_one_who_was_late_does_not_wait() -> None:
    source: Source[str] = Source()
    source.publish("first")
    source.publish("second")

    async def story() -> None:
        with trio.fail_after(0):
            assert await source.wait_past(0) == 2
            assert await source.wait_past(1) == 2

    play(story)


def test_two_values_in_a_row_wake_once_with_the_latest() -> None:
    source: Source[str] = Source()

    async def story() -> None:
        seen: list[tuple[int, str]] = []

        async def wait() -> None:
            seen.append((await source.wait_past(0), source.current))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            source.publish("first")
            source.publish("second")
        assert seen == [(2, "second")] * 3

    play(story)


def test_a_wait_can_be_cancelled() -> None:
    source: Source[str] = Source()

    async def story() -> None:
        with trio.move_on_after(5) as scope:
            await source.wait_past(0)
        assert scope.cancelled_caught
        source.publish("later")
        assert await source.wait_past(0) == 1

    play(story)


# ---- subscribers -------------------------------------------------------------------------------------------------


def test_a_subscriber_hears_the_current_value_and_each_later_one_in_order() -> None:
    source: Source[str] = Source()
    early: list[str] = []
    late: list[str] = []
    source.subscribe(early.append)
    source.publish("a")
    source.subscribe(late.append)
    source.publish("b")
    assert (early, late) == (["a", "b"], ["a", "b"])


def test_subscribers_are_told_in_the_order_in_which_they_came_and_see_the_new_value() -> None:
    source: Source[str] = Source()
    heard: list[tuple[str, str]] = []
    source.subscribe(lambda value: heard.append(("first", value + source.current)))
    source.subscribe(lambda value: heard.append(("second", value + source.current)))
    source.publish("a")
    assert heard == [("first", "aa"), ("second", "aa")]


def test_one_who_stopped_hears_no_more() -> None:
    source: Source[str] = Source()
    heard: list[str] = []
    stop = source.subscribe(heard.append)
    source.publish("a")
    stop()
    stop()
    source.publish("b")
    assert heard == ["a"]


def test_the_same_subscriber_twice_stops_one_at_a_time() -> None:
    source: Source[str] = Source()
    heard: list[str] = []
    stop = source.subscribe(heard.append)
    source.subscribe(heard.append)
    stop()
    stop()
    source.publish("a")
    assert heard == ["a"]


def test_a_subscriber_that_raises_keeps_the_value_from_nobody() -> None:
    source: Source[str] = Source()
    heard: list[str] = []

    def fail(_: str) -> None:
        raise RuntimeError("cannot use it")

    source.subscribe(fail)
    source.subscribe(heard.append)
    with pytest.raises(RuntimeError, match="cannot use it"):
        source.publish("a")
    assert (heard, source.current, source.number) == (["a"], "a", 1)
