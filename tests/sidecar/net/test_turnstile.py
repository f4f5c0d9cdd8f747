"""The turnstile: how many at once, in which order, and that nobody who stalls keeps the others out."""

from __future__ import annotations

import pytest
import trio

from sidecar.net.turnstile import Turnstile
from tests.sidecar.net.test_http_server import in_virtual_time


@in_virtual_time
async def test_so_many_at_once_and_the_others_in_their_order() -> None:
    turnstile, inside, most, done = Turnstile(2, hold=100.0), 0, 0, list[int]()

    async def pass_through(number: int) -> None:
        nonlocal inside, most
        await trio.sleep(number / 1000)
        async with turnstile.turn():
            inside += 1
            most = max(most, inside)
            await trio.sleep(1)
            inside -= 1
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(pass_through, number)
        await trio.sleep(0.5)
        assert turnstile.waiting == 4
    assert (most, done, turnstile.waiting) == (2, list(range(6)), 0)


@in_virtual_time
async def test_who_stalls_gives_up_the_place_but_not_the_passage() -> None:
    turnstile, seen = Turnstile(1, hold=0.25), list[tuple[str, float]]()

    async def take(name: str, seconds: float) -> None:
        async with turnstile.turn():
            await trio.sleep(seconds)
        seen.append((name, round(trio.current_time() - began, 3)))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, "stalls", 5.0)
        await trio.sleep(0.01)
        nursery.start_soon(take, "quick", 0.01)
    assert seen == [("quick", 0.26), ("stalls", 5.0)]


@in_virtual_time
async def test_errors_come_as_themselves_and_free_the_place() -> None:
    turnstile = Turnstile(1)
    with pytest.raises(ValueError, match="as it is"):
        async with turnstile.turn():
            raise ValueError("as it is")
    with trio.move_on_after(1.0) as scope:
        async with turnstile.turn():
            await trio.sleep_forever()
    assert scope.cancelled_caught
    with trio.fail_after(0.1):
        async with turnstile.turn():
            pass


@in_virtual_time
async def test_who_leaves_while_waiting_takes_nothing() -> None:
    turnstile = Turnstile(1, hold=100.0)
    async with turnstile.turn():
        with trio.move_on_after(1.0):
            async with turnstile.turn():
                raise AssertionError
    async with turnstile.turn():
        assert turnstile.waiting == 0
