"""`mesh run -- CMD`: starts when ready, passes signals on, drains when the command ends, exits with its code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from sidecar.cli.supervise import supervise

ENV = dict(os.environ)


class FakeSidecar:
    """Becomes ready when told to, drains when asked; keeps a diary."""

    def __init__(self, *, ready_at_once: bool = True, fails: Exception | None = None) -> None:
        self.diary: list[str] = []
        self.ready_at_once = ready_at_once
        self.fails = fails
        self.may_fail = trio.Event()

    async def serve(self, ready: Callable[[], None], drain: trio.Event) -> None:
        try:
            if self.ready_at_once:
                self.diary.append("ready")
                ready()
            if self.fails is not None:
                await self.may_fail.wait()
                raise self.fails
            await drain.wait()
            self.diary.append("drained")
        except trio.Cancelled:
            self.diary.append("cancelled")
            raise


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


async def run(fake: FakeSidecar, command: list[str]) -> int:
    with trio.fail_after(20):
        return await supervise(fake.serve, command, ENV)


async def wait_for(path: Path) -> str:
    while not path.exists() or not path.read_text():
        await trio.sleep(0.01)
    return path.read_text()


def announcing(path: Path, then: str) -> str:
    """Code that writes its pid once it is set up, and goes on."""
    imports = "import os, pathlib, signal, sys, time"
    return f"{imports}\n{then}\npathlib.Path({str(path)!r}).write_text(str(os.getpid()))\ntime.sleep(20)"


@pytest.mark.parametrize("code", [0, 1, 7])
def test_the_command_s_code_is_ours_and_the_sidecar_drains_after_it(code: int) -> None:
    fake = FakeSidecar()
    assert trio.run(run, fake, python(f"raise SystemExit({code})")) == code
    assert fake.diary == ["ready", "drained"]


def test_a_signal_that_ends_the_command_is_128_plus_its_number() -> None:
    fake = FakeSidecar()
    assert trio.run(run, fake, python("import os; os.kill(os.getpid(), 9)")) == 128 + 9
    assert fake.diary == ["ready", "drained"]


def test_an_unknown_program_is_127_and_the_sidecar_drains(capfd: pytest.CaptureFixture[str]) -> None:
    fake = FakeSidecar()
    assert trio.run(run, fake, ["no-such-program-here"]) == 127
    assert "no-such-program-here" in capfd.readouterr().err
    assert fake.diary == ["ready", "drained"]


def test_the_command_starts_only_once_the_sidecar_is_ready(tmp_path: Path) -> None:
    mark = tmp_path / "started"

    async def story() -> int:
        fake = FakeSidecar(ready_at_once=False)
        async with trio.open_nursery() as nursery:
            result: list[int] = []

            async def go() -> None:
                result.append(await run(fake, python(f"open({str(mark)!r}, 'w').close()")))

            nursery.start_soon(go)
            await trio.sleep(0.3)
            assert not mark.exists()
            os.kill(os.getpid(), signal.SIGTERM)  # nobody is ready: end at once
        return result[0]

    assert trio.run(story) == 128 + signal.SIGTERM
    assert not mark.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_passed_on_and_the_command_decides(number: signal.Signals, tmp_path: Path) -> None:
    """The command answers each signal with a code of its own, so we see that exactly this one arrived."""
    mark = tmp_path / "pid"
    handler = f"signal.signal({int(number)}, lambda *_: sys.exit(40 + {int(number)}))"

    async def story() -> int:
        fake = FakeSidecar()
        async with trio.open_nursery() as nursery:
            result: list[int] = []

            async def go() -> None:
                result.append(await run(fake, python(announcing(mark, handler))))

            nursery.start_soon(go)
            await wait_for(mark)
            os.kill(os.getpid(), number)
        assert fake.diary == ["ready", "drained"]
        return result[0]

    assert trio.run(story) == 40 + int(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_without_a_command_a_signal_drains(number: signal.Signals) -> None:
    async def story() -> tuple[int, list[str]]:
        fake = FakeSidecar()
        async with trio.open_nursery() as nursery:
            result: list[int] = []

            async def go() -> None:
                result.append(await run(fake, []))

            nursery.start_soon(go)
            while not fake.diary:
                await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), number)
        return result[0], fake.diary

    assert trio.run(story) == (0, ["ready", "drained"])


def test_a_second_signal_while_draining_ends_at_once() -> None:
    class Slow(FakeSidecar):
        async def serve(self, ready: Callable[[], None], drain: trio.Event) -> None:
            try:
                ready()
                await drain.wait()
                self.diary.append("draining")
                await trio.sleep_forever()
            except trio.Cancelled:
                self.diary.append("cancelled")
                raise

    async def story() -> tuple[int, list[str]]:
        slow = Slow()
        async with trio.open_nursery() as nursery:
            result: list[int] = []

            async def go() -> None:
                result.append(await run(slow, []))

            nursery.start_soon(go)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)
            while "draining" not in slow.diary:
                await trio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
        return result[0], slow.diary

    assert trio.run(story) == (128 + signal.SIGTERM, ["draining", "cancelled"])


def test_a_sidecar_that_fails_takes_the_command_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    fake_error = RuntimeError("lost its identity")

    async def story() -> int:
        fake = FakeSidecar(fails=fake_error)
        async with trio.open_nursery() as nursery:

            async def go() -> None:
                with pytest.raises(RuntimeError, match="lost its identity"):
                    await run(fake, python(announcing(mark, "")))

            nursery.start_soon(go)
            pid = int(await wait_for(mark))
            fake.may_fail.set()
        return pid

    pid = trio.run(story)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_sidecar_that_never_starts_says_why_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "started"

    async def serve(ready: Callable[[], None], drain: trio.Event) -> None:
        raise RuntimeError("the port is taken")

    async def story() -> None:
        with trio.fail_after(20):
            await supervise(serve, python(f"open({str(mark)!r}, 'w').close()"), ENV)

    with pytest.raises(RuntimeError, match="the port is taken"):
        trio.run(story)
    assert not mark.exists()
