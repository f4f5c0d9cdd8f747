"""`mesh run -- CMD`: starts when ready, passes signals on, drains when the command ends, exits with its code."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from sidecar.cli.supervise import supervise
from sidecar.runtime.orders import Orders

ENV = dict(os.environ)


class FakeSidecar:
    """Becomes ready when told to, drains when asked; keeps a diary."""

    def __init__(self, *, ready_at_once: bool = True, fails: Exception | None = None) -> None:
        self.diary: list[str] = []
        self.ready_at_once = ready_at_once
        self.fails = fails
        self.may_fail = trio.Event()

    async def serve(self, ready: Callable[[], None], orders: Orders) -> None:
        try:
            if self.ready_at_once:
                self.diary.append("ready")
                ready()
            if self.fails is not None:
                await self.may_fail.wait()
                raise self.fails
            await orders.drain.wait()
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
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


def test_hup_reloads_before_and_after_ready_and_drains_nothing() -> None:
    async def story() -> list[str]:
        diary: list[str] = []

        async def serve(ready: Callable[[], None], orders: Orders) -> None:
            for moment in ("before ready", "while ready"):
                diary.append(moment)
                await orders.wait_reload()
                diary.append("reload")
                ready()
            await orders.drain.wait()
            diary.append(f"drain: {orders.why}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, serve, [], ENV)
            for count in (1, 3):
                while len(diary) < count:
                    await trio.sleep(0.01)
                os.kill(os.getpid(), signal.SIGHUP)
            while len(diary) < 4:
                await trio.sleep(0.01)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)
        return diary

    expected = ["before ready", "reload", "while ready", "reload", "drain: SIGTERM"]
    assert trio.run(story) == expected


def test_hup_with_a_command_reloads_and_is_passed_on(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    handler = f"signal.signal({int(signal.SIGHUP)}, lambda *_: sys.exit(41))"

    async def story() -> tuple[list[str], int]:
        diary: list[str] = []

        async def serve(ready: Callable[[], None], orders: Orders) -> None:
            ready()
            await orders.wait_reload()
            diary.append("reload")
            await orders.drain.wait()
            assert orders.application_gone is not None
            diary.append(f"{orders.why}, gone: {orders.application_gone.is_set()}")

        async with trio.open_nursery() as nursery:
            result: list[int] = []

            async def go() -> None:
                result.append(await supervise(serve, python(announcing(mark, handler)), ENV))

            nursery.start_soon(go)
            await wait_for(mark)
            os.kill(os.getpid(), signal.SIGHUP)
        return diary, result[0]

    assert trio.run(story) == (["reload", "its command has ended, gone: True"], 41)


def test_a_terminal_that_goes_away_is_no_wish_for_a_reload() -> None:
    """HUP, as the kernel sends it then, ends a sidecar that stood alone at that terminal."""
    code = (
        "import trio, sys\n"
        "from sidecar.cli.supervise import supervise\n"
        "async def serve(ready, orders):\n"
        "    ready(); print('ready', flush=True)\n"
        "    await orders.drain.wait()\n"
        "sys.exit(trio.run(supervise, serve, [], {}))\n"
    )
    ours, theirs = pty.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-c", code]
    child = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.close(theirs)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        os.close(ours)
        assert child.wait(10) == 0, child.stdout.read()
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_a_second_signal_while_draining_ends_at_once() -> None:
    class Slow(FakeSidecar):
        async def serve(self, ready: Callable[[], None], orders: Orders) -> None:
            try:
                ready()
                await orders.drain.wait()
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

    async def serve(ready: Callable[[], None], orders: Orders) -> None:
        raise RuntimeError("the port is taken")

    async def story() -> None:
        with trio.fail_after(20):
            await supervise(serve, python(f"open({str(mark)!r}, 'w').close()"), ENV)

    with pytest.raises(RuntimeError, match="the port is taken"):
        trio.run(story)
    assert not mark.exists()
