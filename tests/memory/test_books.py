"""The books balance whatever happens: cancelled or broken at any step, every hop is recorded once, nothing stays open.

Each scenario is first played undisturbed, to count the steps of the tasks in it. Then it is played once for every step
of every downstream connection, and at that step the task is cancelled, or one of the wires is reset. `Stage.run` checks
the books each time. No caller may ever take half an answer for a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sidecar.config.posture import show_moment
from sidecar.net.memory import EPOCH, MemoryPort, MemoryWire
from sidecar.net.port import Task, WireBroken
from tests.kit.h1_line import HungUp, Line
from tests.kit.play import Stage

Script = Callable[[Stage], Coroutine[Any, Any, None]]
BODY = bytes(range(256)) * 1024  # 256 KiB: four buffers


async def careful(line: Line) -> None:
    """Answers 100 where it is wanted, reads the body, answers with it in chunks."""
    while True:
        request = await line.request_head()
        if request.get("expect"):
            await line.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.body, _ = await line._body(request, to_the_end=False)
        if request.get("upgrade"):
            await line.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            while data := await line.wire.read():
                await line.say(data)
            return
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if request.body:
            await line.say(b"%x\r\n%s\r\n" % (len(request.body), request.body))
        await line.say(b"0\r\nX-Sum: 1\r\n\r\n")


async def get_twice(stage: Stage) -> None:
    web = await stage.call()
    for _ in range(2):
        await web.say(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
        answer = await web.answer()
        assert answer.status in (200, 503)
        assert answer.status != 200 or answer.body == b""
    web.close()


async def upload(stage: Stage) -> None:
    web = await stage.call()
    await web.say(b"PUT / HTTP/1.1\r\nHost: orders\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(BODY))
    sending = stage.port.spawn(_quietly(web.say(BODY)))
    answer = await web.answer()
    assert answer.status != 200 or answer.body == BODY
    sending.cancel()


async def refused(stage: Stage) -> None:
    web = await stage.call()
    await web.say(b"POST /a/../b HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\n\r\nhello")
    assert (await web.answer()).status in (400, 403, 503)


async def upgrade(stage: Stage) -> None:
    web = await stage.call()
    await web.say(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello")
    if (await web.answer()).status == 101:
        assert await web.hear(5) == b"hello"
        await web.finish()
        assert await web.hear_all() == b""


async def connect(stage: Stage) -> None:
    web = await stage.call(9000)
    await web.say(b"CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\nGET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    await web.until(b"\r\n\r\n")
    await web.answer()


async def raw(stage: Stage) -> None:
    web = await stage.call(9002)
    await web.say(b"hello")
    await web.finish()
    assert await web.hear_all() in (b"hello", b"")  # nothing, where the application left without a word


async def stale(stage: Stage) -> None:
    await get_twice(stage)
    await stage.quiet()
    for line in stage.apps:
        line.wire.vanish()
    await get_twice(stage)


async def without_tls(stage: Stage) -> None:
    """A caller that only the posture of the listener lets in."""
    line = await stage.stranger()
    for request in (b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n", b"GET /../ HTTP/1.1\r\nHost: orders\r\n\r\n"):
        await line.say(request)
        assert (await line.answer()).status in (200, 400, 503)
    upgraded = await stage.stranger()
    await upgraded.say(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello")
    if (await upgraded.answer()).status == 101:
        assert await upgraded.hear(5) == b"hello"
    await stage.quiet()
    books = stage.orders.books
    assert sum(books.metrics.would_refuse.values()) == sum(hop.waived is not None for hop in books.hops)


SCRIPTS: list[Script] = [get_twice, upload, refused, upgrade, connect, raw, stale, without_tls]
MORE: dict[Script, dict[str, str]] = {
    without_tls: {"http": f", posture: permissive, until: '{show_moment(EPOCH + 3600.0)}'"}
}


async def _quietly(doing: Coroutine[Any, Any, None]) -> None:
    try:
        await doing
    except WireBroken:
        pass


class StepPort(MemoryPort):
    """Does something to whoever has just been stepped for the nth time."""

    def __init__(self) -> None:
        super().__init__()
        self.victims: Callable[[Task], bool] = lambda task: False
        self.steps = 0
        self.at = -1
        self.strike: Callable[[Task], None] = lambda task: None

    def step(self, task: Task, error: BaseException | None = None) -> None:
        super().step(task, error)
        if self.victims(task):
            self.steps += 1
            if self.steps == self.at:
                self.strike(task)


def play(script: Script, at: int, strike: Callable[[Stage, Task], None]) -> int:
    """Play the scene; strike after the nth step of any downstream connection. Returns how many steps there were."""
    stage = Stage(**MORE.get(script, {}))
    port = StepPort()
    stage.port.__class__ = StepPort  # the stage has built everything on its port: teach that one
    stage.port.__dict__.update({name: port.__dict__[name] for name in ("victims", "steps", "at", "strike")})
    mine = stage.port
    assert isinstance(mine, StepPort)
    mine.at = at
    mine.victims = lambda task: _root(task) in stage.web.tasks or _root(task) in stage.orders.tasks
    mine.strike = lambda task: strike(stage, task)
    stage.app(careful)
    stage.app(apps_echo_raw, "127.0.0.1:5432")

    async def whole() -> None:
        try:
            await script(stage)
        except (WireBroken, HungUp):
            assert at >= 0

    stage.run(whole())
    return mine.steps


def _root(task: Task) -> Task:
    while task.parent is not None:
        task = task.parent
    return task


async def apps_echo_raw(line: Line) -> None:
    await line.say(await line.hear_all())


def cancel(stage: Stage, task: Task) -> None:
    _root(task).cancel()


def reset(pick: Callable[[Stage], list[MemoryWire]]) -> Callable[[Stage, Task], None]:
    """Reset the newest of these wires that is still open."""

    def strike(stage: Stage, task: Task) -> None:
        for wire in reversed(pick(stage)):
            if not wire.closed:
                wire.abort()
                return

    return strike


def close(pick: Callable[[Stage], list[MemoryWire]]) -> Callable[[Stage, Task], None]:
    """End the newest of these wires that is still open, politely."""

    def strike(stage: Stage, task: Task) -> None:
        for wire in reversed(pick(stage)):
            if not wire.closed:
                wire.close()
                return

    return strike


def callers(stage: Stage) -> list[MemoryWire]:
    return [line.wire for line in stage._callers]


def applications(stage: Stage) -> list[MemoryWire]:
    return [line.wire for line in stage.apps]


def between(stage: Stage) -> list[MemoryWire]:
    return [wire for wire in stage.port.wires if wire.greeting is not None]


STRIKES = {
    "cancel": cancel,
    "caller resets": reset(callers),
    "caller leaves": close(callers),
    "application resets": reset(applications),
    "application leaves": close(applications),
    "network between resets": reset(between),
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_undisturbed_every_scenario_ends_well(script: Script) -> None:
    assert play(script, -1, lambda stage, task: None) > 3


@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_the_books_balance_wherever_it_strikes(script: Script, strike: str) -> None:
    steps = play(script, -1, lambda stage, task: None)
    for at in range(1, steps + 1):
        try:
            play(script, at, STRIKES[strike])
        except BaseException as error:
            error.add_note(f"{strike} at step {at} of {steps}")
            raise
