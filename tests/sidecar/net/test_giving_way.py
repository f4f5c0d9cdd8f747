"""Who has given way is stepped after everybody else, and one at a time: on both drivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.net.port import Expired, Signal
from tests.kit.drivers import DRIVERS, Pair, on_reactor

Run = Callable[[Any], Any]
STRANGERS = 200


@pytest.fixture(params=DRIVERS)
def run(request: pytest.FixtureRequest) -> Run:
    driver: Run = DRIVERS[request.param]
    return driver


def test_a_known_caller_waits_for_one_step_of_a_stranger_at_most(run: Run) -> None:
    """However many strangers there are: in between they are only stepped while no event is there."""

    async def scenario(port: Any, pair: Pair) -> tuple[list[int], int]:
        steps = 0
        over = Signal()

        async def stranger() -> None:
            nonlocal steps
            while not over.happened:
                await port.give_way()
                steps += 1

        async def serve(wire: Any) -> None:
            while data := await wire.read():
                await wire.write(data)

        near, far = await pair()
        serving = port.spawn(serve(far))
        strangers = [port.spawn(stranger()) for _ in range(STRANGERS)]
        waited = []
        for _ in range(50):
            before = steps
            await near.write(b"?")
            assert await near.read() == b"?"
            waited.append(steps - before)
        over.fire()
        for task in strangers:
            await port.wait(task)
        near.close()
        await port.wait(serving)
        return waited, steps

    waited, steps = run(scenario)
    # A question and its answer are two events; where both ends are one process, a socket may need a third look.
    assert sorted(waited)[25] <= 4, waited
    assert steps >= STRANGERS  # and they all came to their end


def test_those_who_gave_way_are_stepped_in_the_order_they_were_woken(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> list[str]:
        said: list[str] = []

        async def speak(name: str, *, patient: bool) -> None:
            if patient:
                await port.give_way()
            said.append(name)

        tasks = [port.spawn(speak(f"{'p' if n < 5 else 'r'}{n}", patient=n < 5)) for n in range(10)]
        for task in tasks:
            await port.wait(task)
        return said

    assert run(scenario) == ["r5", "r6", "r7", "r8", "r9", "p0", "p1", "p2", "p3", "p4"]


def test_bytes_that_come_for_who_has_given_way_wait_too(run: Run) -> None:
    """A handshake's second half is begun by an event on its socket."""

    async def scenario(port: Any, pair: Pair) -> list[str]:
        said: list[str] = []
        wires = [await pair() for _ in range(6)]

        async def hear(name: str, wire: Any, *, patient: bool) -> None:
            if patient:
                await port.give_way()
            await wire.read()
            said.append(name)

        tasks = [port.spawn(hear(f"p{n}", wires[n][1], patient=True)) for n in range(3)]
        tasks += [port.spawn(hear(f"r{n}", wires[n][1], patient=False)) for n in range(3, 6)]
        await port.sleep(0.15)
        for near, _ in wires:
            await near.write(b"x")
        for task in tasks:
            await port.wait(task)
        return said

    assert run(scenario)[:3] == ["r3", "r4", "r5"]


def test_who_hurries_again_is_like_all_others(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> list[str]:
        said: list[str] = []
        go = Signal()

        async def speak(name: str, *, patient: bool, hurries: bool = False) -> None:
            if patient:
                await port.give_way()
            if hurries:
                port.hurry()
            await port.wait(go)
            said.append(name)

        tasks = [
            port.spawn(speak("gives way", patient=True)),
            port.spawn(speak("hurries", patient=True, hurries=True)),
        ]
        await port.sleep(0.01)
        tasks.append(port.spawn(speak("never gave way", patient=False)))
        await port.sleep(0.01)
        go.fire()
        for task in tasks:
            await port.wait(task)
        return said

    assert run(scenario) == ["hurries", "never gave way", "gives way"]


def test_a_deadline_and_a_cancellation_reach_who_has_given_way(run: Run) -> None:
    async def scenario(port: Any, pair: Pair) -> list[str]:
        said: list[str] = []

        async def wait(name: str, seconds: float) -> None:
            await port.give_way()
            port.deadline(port.now + seconds)
            try:
                await port.wait(Signal())
            except Expired:
                said.append(f"{name} expired")
            finally:
                said.append(f"{name} ended")

        late, cancelled = port.spawn(wait("late", 0.05)), port.spawn(wait("cancelled", 1000.0))
        await port.wait(late)
        cancelled.cancel()
        return said

    assert run(scenario) == ["late expired", "late ended", "cancelled ended"]


def test_patience_needs_no_event_on_a_socket_to_come_to_its_end() -> None:
    """More steps than one turn has, while nothing at all happens on any socket, then after a timer."""

    async def body(reactor: Any) -> int:
        steps = 0

        async def many(count: int) -> None:
            nonlocal steps
            for _ in range(count):
                await reactor.give_way()
                steps += 1

        await reactor.wait(reactor.spawn(many(1000)))
        await reactor.give_way()
        await reactor.sleep(0.15)
        return steps

    assert on_reactor(body) == 1000
