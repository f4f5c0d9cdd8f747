"""Tasks, children, deadlines and signals: the scheduler that both drivers share, and the memory driver's own time."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.net.memory import Deadlock, MemoryPort, where
from sidecar.net.port import NEVER, Cancelled, Expired, Signal, Unreachable, WireBroken


def test_time_jumps_to_whatever_comes_next() -> None:
    port = MemoryPort()

    async def script() -> list[float]:
        seen = []
        for seconds in (3600.0, 0.0, 0.25):
            await port.sleep(seconds)
            seen.append(port.now)
        return seen

    assert port.run(script()) == [3600.0, 3600.0, 3600.25]
    assert port.clock.wall() - 3600.25 == pytest.approx(1_700_000_000.0)


def test_the_wall_clock_jumps_alone() -> None:
    port = MemoryPort()
    before = port.wall()
    port.clock.jump(-120.0)
    assert (port.wall() - before, port.clock.monotonic()) == (-120.0, 0.0)


def test_tasks_run_in_the_order_they_were_woken() -> None:
    port = MemoryPort()
    said: list[int] = []

    async def speak(number: int) -> None:
        await port.sleep(1.0)
        said.append(number)

    async def script() -> None:
        for task in [port.spawn(speak(n)) for n in range(20)]:
            await port.wait(task)

    port.run(script())
    assert said == list(range(20))


def test_deadlines_that_pass_together_are_told_in_the_order_the_tasks_began() -> None:
    port = MemoryPort()
    said: list[int] = []

    async def expire(number: int) -> None:
        port.deadline(1.0)
        with pytest.raises(Expired):
            await port.sleep(NEVER)
        said.append(number)

    async def script() -> None:
        for task in [port.spawn(expire(n)) for n in range(20)]:
            await port.wait(task)

    port.run(script())
    assert said == list(range(20))


def test_a_deadline_is_told_once_and_can_be_taken_away() -> None:
    port = MemoryPort()

    async def script() -> None:
        port.deadline(5.0)
        with pytest.raises(Expired):
            await port.sleep(10.0)
        assert port.now == 5.0
        await port.sleep(10.0)  # it has been cleared
        port.deadline(16.0)
        port.deadline(NEVER)
        await port.sleep(10.0)
        assert port.now == 25.0

    port.run(script())


def test_everybody_waiting_for_ever_is_told_with_names() -> None:
    port = MemoryPort()
    left, _ = port.pair()

    async def waits_for_godot() -> None:
        await left.read()

    with pytest.raises(Deadlock, match=r"waits_for_godot.*MemoryWire.read"):
        port.run(waits_for_godot())
    port.close()


def test_the_first_of_several_events_is_returned() -> None:
    port = MemoryPort()
    first, second = Signal(), Signal()

    async def fire() -> None:
        await port.sleep(1.0)
        second.fire()

    async def script() -> None:
        task = port.spawn(fire())
        assert await port.wait(first, second) is second
        assert await port.wait(first, second) is second  # it stays
        assert await port.wait(task) is task
        assert first._waiters == []

    port.run(script())


def test_a_childs_failure_is_raised_in_its_parent_at_its_await() -> None:
    port = MemoryPort()

    async def fails() -> None:
        await port.sleep(1.0)
        raise WireBroken("mine")

    async def script() -> None:
        port.spawn(fails())
        with pytest.raises(WireBroken, match="mine"):
            await port.sleep(100.0)
        assert port.now == 1.0

    port.run(script())


def test_a_parents_end_cancels_all_of_its_children_and_theirs() -> None:
    port = MemoryPort()
    ended: list[str] = []

    async def child(name: str, depth: int) -> None:
        if depth:
            port.spawn(child(name + ".1", depth - 1))
            port.spawn(child(name + ".2", depth - 1))
        try:
            await port.sleep(NEVER)
        except Cancelled:
            ended.append(name)
            raise

    async def parent() -> None:
        for n in range(4):
            port.spawn(child(str(n), 1))
        await port.sleep(1.0)

    async def script() -> None:
        task = port.spawn(parent())
        await port.wait(task)
        assert len(port.tasks) == 1

    port.run(script())
    assert sorted(ended) == sorted([f"{n}{part}" for n in range(4) for part in ("", ".1", ".2")])


def test_cancelling_runs_the_cleanup_before_it_returns() -> None:
    port = MemoryPort()
    ended: list[str] = []

    async def child() -> None:
        try:
            await port.sleep(NEVER)
        finally:
            ended.append("cleaned up")

    async def script() -> None:
        task = port.spawn(child())
        await port.sleep(1.0)
        task.cancel()
        assert ended == ["cleaned up"]
        assert task.happened
        assert isinstance(task.error, Cancelled)
        task.cancel()  # again is nothing
        await port.wait(task)

    port.run(script())


def test_a_task_that_cancels_itself_ends_at_its_next_await() -> None:
    port = MemoryPort()
    said: list[str] = []

    async def child() -> None:
        assert port.current is not None
        port.current.cancel()
        said.append("still here")
        await port.sleep(0.0)
        await port.sleep(1.0)
        said.append("never")

    async def script() -> None:
        task = port.spawn(child())
        await port.wait(task)
        assert isinstance(task.error, Cancelled)

    port.run(script())
    assert said == ["still here"]


def test_a_cancelled_task_that_waits_on_is_a_fault() -> None:
    port = MemoryPort()

    async def stubborn() -> None:
        try:
            await port.sleep(NEVER)
        except Cancelled:
            await port.sleep(1.0)

    async def script() -> None:
        task = port.spawn(stubborn())
        await port.sleep(1.0)
        task.cancel()
        assert isinstance(task.error, RuntimeError)
        with pytest.raises(RuntimeError, match="went on waiting"):
            await port.sleep(1.0)

    port.run(script())


def test_a_crash_of_a_task_of_its_own_ends_the_run() -> None:
    port = MemoryPort()

    async def crashes() -> None:
        raise ZeroDivisionError

    async def script() -> None:
        port.start(crashes())
        await port.sleep(1.0)

    with pytest.raises(ZeroDivisionError):
        port.run(script())
    port.close()


def test_dialling() -> None:
    port = MemoryPort()
    served: list[Any] = []

    async def serve(wire: Any) -> None:
        served.append(wire.peer_address()[0])
        await wire.write(b"hello")
        wire.close()

    async def script() -> None:
        port.listen("10.0.0.1", 80, serve)
        port.listen("10.0.0.2", 80, serve, delay=1.5)
        port.swallow("10.0.0.3", 80)
        wire = await port.dial("10.0.0.1", 80)
        assert await wire.read() == b"hello"
        wire.close()
        wire = await port.dial("10.0.0.2", 80)
        assert port.now == 1.5
        wire.close()
        port.deadline(10.0)
        with pytest.raises(Expired):
            await port.dial("10.0.0.3", 80)
        port.refuse("10.0.0.1", 80)
        for host in ("10.0.0.1", "10.0.0.4"):
            with pytest.raises(Unreachable):
                await port.dial(host, 80)

    port.run(script())
    assert served == ["127.0.0.1"] * 2


def test_settled_means_that_nobody_else_can_move_and_no_time_has_passed() -> None:
    port = MemoryPort()
    said: list[int] = []

    async def busy() -> None:
        for n in range(5):
            said.append(n)
            await port.settled() if n == 4 else await port.sleep(0.0)
        await port.sleep(1.0)
        said.append(99)

    async def script() -> None:
        port.spawn(busy())
        await port.settled()
        assert said == [0, 1, 2, 3, 4]
        assert port.now == 0.0

    port.run(script())


def test_a_buffer_is_never_over_its_size() -> None:
    port = MemoryPort()
    left, right = port.pair(capacity=10)

    async def script() -> None:
        writer = port.spawn(left.write(b"x" * 95))
        for _ in range(9):
            await port.settled()
            assert right.unread == 10
            assert await right.read() == b"x" * 10
        await port.wait(writer)
        assert await right.read() == b"x" * 5

    port.run(script())


def test_what_a_reset_finds_unread_is_lost_and_unread_bytes_make_a_close_a_reset() -> None:
    port = MemoryPort()

    async def script() -> None:
        a, b = port.pair()
        await a.write(b"lost")
        a.abort()
        with pytest.raises(WireBroken):
            await b.read()
        c, d = port.pair()
        await c.write(b"never read")
        d.close()
        with pytest.raises(WireBroken):
            await c.read()

    port.run(script())


@pytest.mark.parametrize(("deaf", "sent"), [(False, 4), (True, 0)])
def test_a_vanished_end_is_noticed_at_the_next_write(deaf: bool, sent: int) -> None:
    port = MemoryPort()

    async def script() -> None:
        a, b = port.pair()
        stirred: list[bool] = []
        a.rest(lambda: stirred.append(True))
        b.vanish(deaf=deaf)
        await port.sleep(10.0)
        assert stirred == []
        a.rest(None)
        if deaf:
            with pytest.raises(WireBroken):
                await a.write(b"ping")
        else:
            await a.write(b"ping")
            with pytest.raises(WireBroken):
                await a.read()
        assert a.sent == sent

    port.run(script())


def test_where_names_the_functions_that_a_task_waits_in() -> None:
    port = MemoryPort()

    async def inner() -> None:
        await port.sleep(1.0)

    async def outer() -> None:
        await inner()

    task = port.start(outer())
    port.run_ready()
    assert "outer" in where(task)
    assert "inner" in where(task)
    assert "Driver.sleep" in where(task)
    port.close()
