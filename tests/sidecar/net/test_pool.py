"""The pool: last in, first out, never more than its limit, and nobody forgotten in the queue."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from sidecar.errors import ConnectFailed, Overflow
from sidecar.http.h1 import H1Client
from sidecar.net.memory import MemoryPort, MemoryWire
from sidecar.net.pool import FRESH, YOUNG, Connection, Pool
from sidecar.net.port import NEVER


class Fixture:
    """A pool over memory wires; `peers` are the far ends, in the order they were made."""

    def __init__(self, *, limit: int = 2, idle: float = 60.0, pending: float = 1.0) -> None:
        self.port = MemoryPort()
        self.peers: list[MemoryWire] = []
        self.fail = False
        self.delay = 0.0
        self.pool = Pool(self.port, self.connect, idle=idle, limit=limit, pending=pending)

    async def connect(self) -> Connection:
        await self.port.sleep(self.delay)
        if self.fail:
            raise ConnectFailed("down")
        near, far = self.port.pair()
        self.peers.append(far)
        return Connection(near, H1Client(1000, 10), None, "here", self.pool.generation)

    def run(self, script: Any) -> None:
        self.port.run(script)


def test_the_connection_that_came_back_last_is_taken_first() -> None:
    it = Fixture()

    async def script() -> None:
        first, second = await it.pool.take(NEVER), await it.pool.take(NEVER)
        it.pool.give(first)
        it.pool.give(second)
        assert await it.pool.take(NEVER) is second
        assert await it.pool.take(NEVER) is first
        assert first.reused
        assert it.pool.open == 2

    it.run(script())


@pytest.mark.parametrize(
    ("idle_for", "max_idle", "reused"),
    [(0.4, YOUNG, True), (0.5, YOUNG, False), (59.0, NEVER, True), (60.0, NEVER, False), (0.0, FRESH, False)],
)
def test_how_old_a_connection_may_be(idle_for: float, max_idle: float, reused: bool) -> None:
    it = Fixture()

    async def script() -> None:
        it.pool.give(await it.pool.take(NEVER))
        await it.port.sleep(idle_for)
        assert (await it.pool.take(max_idle)).reused is reused

    it.run(script())


def test_an_old_connection_makes_place_for_a_fresh_one() -> None:
    it = Fixture(limit=1)

    async def script() -> None:
        it.pool.give(await it.pool.take(NEVER))
        fresh = await it.pool.take(FRESH)
        assert not fresh.reused
        assert it.peers[0].half_closed
        assert it.pool.open == 1

    it.run(script())


@pytest.mark.parametrize("event", ["speaks", "closes", "aborts"])
def test_an_idle_connection_on_which_anything_happens_is_dropped(event: str) -> None:
    it = Fixture()

    async def script() -> None:
        it.pool.give(await it.pool.take(NEVER))
        if event == "speaks":
            await it.peers[0].write(b"x")
        elif event == "closes":
            it.peers[0].close()
        else:
            it.peers[0].abort()
        assert it.pool.open == 0
        assert not (await it.pool.take(NEVER)).reused

    it.run(script())


def test_a_full_pool_is_waited_for_and_no_longer_than_allowed() -> None:
    it = Fixture(limit=1)

    async def script() -> None:
        taken = await it.pool.take(NEVER)
        with pytest.raises(Overflow):
            await it.pool.take(NEVER)
        assert it.port.now == 1.0
        it.pool.discard(taken)
        assert await it.pool.take(NEVER)

    it.run(script())


def test_whoever_waits_is_served_in_order_when_places_come_free() -> None:
    it = Fixture(limit=1)
    served: list[int] = []

    async def user(number: int) -> None:
        connection = await it.pool.take(NEVER)
        served.append(number)
        await it.port.sleep(0.1)
        it.pool.give(connection)

    async def script() -> None:
        for task in [it.port.spawn(user(n)) for n in range(5)]:
            await it.port.wait(task)

    it.run(script())
    assert served == [0, 1, 2, 3, 4]
    assert len(it.peers) == 1


def test_a_place_given_to_one_who_leaves_at_that_moment_goes_to_the_next() -> None:
    it = Fixture(limit=1)
    served: list[str] = []

    async def user(name: str) -> None:
        await it.pool.take(NEVER)
        served.append(name)

    async def script() -> None:
        taken = await it.pool.take(NEVER)
        leaving, staying = it.port.spawn(user("leaving")), it.port.spawn(user("staying"))
        await it.port.settled()
        it.pool.give(taken)  # wakes the first in the queue
        leaving.cancel()  # who is cancelled before it runs
        await it.port.settled()
        assert served == ["staying"]
        staying.cancel()

    it.run(script())


def test_a_place_given_at_the_very_end_of_the_patience_is_not_lost() -> None:
    it = Fixture(limit=1)
    served: list[float] = []

    async def user(begin: float) -> None:
        await it.port.sleep(begin)
        try:
            await it.pool.take(NEVER)
        except Overflow:
            return
        served.append(begin)

    async def holder() -> None:
        taken = await it.pool.take(NEVER)
        await it.port.sleep(1.0)
        it.pool.give(taken)

    async def script() -> None:
        tasks = [it.port.spawn(coro) for coro in (holder(), user(0.0), user(0.5))]
        for task in tasks:
            await it.port.wait(task)

    it.run(script())
    assert len(served) == 1


def test_a_connection_that_cannot_be_made_leaves_its_place() -> None:
    it = Fixture(limit=1)
    it.fail = True

    async def script() -> None:
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await it.pool.take(NEVER)
        assert it.pool.open == 0
        it.delay = 10.0
        task = it.port.spawn(it.pool.take(NEVER))
        await it.port.sleep(1.0)
        task.cancel()
        assert it.pool.open == 0

    it.run(script())


def test_a_new_generation_ends_idle_connections_now_and_busy_ones_with_their_exchange() -> None:
    it = Fixture()

    async def script() -> None:
        idle, busy = await it.pool.take(NEVER), await it.pool.take(NEVER)
        it.pool.give(idle)
        it.pool.renew(1)
        assert it.peers[0].half_closed
        assert not it.peers[1].half_closed
        it.pool.give(busy)
        assert it.peers[1].half_closed
        assert it.pool.open == 0

    it.run(script())


def test_a_sweep_closes_what_is_too_old() -> None:
    it = Fixture(idle=3.0)

    async def script() -> None:
        first, second = await it.pool.take(NEVER), await it.pool.take(NEVER)
        it.pool.give(first)
        await it.port.sleep(2.0)
        it.pool.give(second)
        await it.port.sleep(1.0)
        it.pool.sweep()
        assert [peer.half_closed for peer in it.peers] == [True, False]
        assert it.pool.open == 1

    it.run(script())


def test_an_upgraded_connection_counts_until_it_ends() -> None:
    it = Fixture(limit=1)

    async def script() -> None:
        taken = await it.pool.take(NEVER)
        with pytest.raises(Overflow):
            await it.pool.take(NEVER)
        it.pool.discard(taken)
        assert await it.pool.take(NEVER)

    it.run(script())


def test_a_connection_that_is_gone_is_gone_at_once() -> None:
    """With all that it holds, TLS above all; the garbage collector may be a long time coming."""
    it = Fixture()

    async def script() -> None:
        for _ in range(3):
            it.pool.give(await it.pool.take(NEVER))
        it.pool.discard(await it.pool.take(NEVER))
        it.pool.give(await it.pool.take(NEVER))
        it.pool.renew(2)

    gc.collect()
    gc.disable()
    try:
        it.run(script())
        assert not any(isinstance(each, Connection) for each in gc.get_objects())
    finally:
        gc.enable()
