"""A sidecar and, around its life, a command: ready before it starts, drained after it ends, signals passed on.

Theory of operation. The command stays in our process group, so that a terminal's job control (Ctrl-C, Ctrl-Z, fg)
treats both as one job. It follows that a Ctrl-C reaches the command without our help; passing SIGINT or SIGQUIT on is
right only where we are not the terminal's foreground job. All other signals were meant for us alone and are passed on.

    a signal     before ready     while the command runs    without a command    while draining
    TERM         end at once      passed on                 drain                end at once
    INT, QUIT    end at once      passed on (see above)     drain                end at once
    HUP          reload           reload, and passed on     reload               nothing
    USR1, USR2   ignored          passed on                 ignored              ignored

HUP also comes when our terminal goes away. That is no wish for a reload, and counts as TERM.

We then wait for the command to end, however long it takes: whoever sent the signal decides when to lose patience.

The command is started by the main thread itself, never by one of trio's workers: the kernel's "parent has died" (see
`lifeline`) means the thread that forked, and a worker of trio ends after ten idle seconds. Its process exists from the
beginning, held at a gate until the sidecar is ready, so that nothing which `confine` does to this process is inherited.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import trio

from sidecar.cli.console import Code
from sidecar.cli.lifeline import guarded
from sidecar.runtime.orders import Orders

Serve = Callable[[Callable[[], None], Orders], Awaitable[None]]

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
PASSED = (*ENDING, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
PATIENCE = 5.0  # seconds between SIGTERM and SIGKILL for a command whose sidecar has died under it


async def supervise(
    serve: Serve, command: Sequence[str], env: Mapping[str, str], confine: Callable[[], object] = lambda: None
) -> int:
    """Run `serve` until it ends or is drained, with the command inside if there is one; returns the exit code.

    `serve` gets a function to call once it is ready, and the orders that it is given meanwhile. Its errors pass
    through, after the command has been ended. `confine` is called before `serve`, and what it does to this process is
    not inherited by the command.
    """
    held = _Held(command, env) if command else None
    try:
        confine()
        return await _Supervisor(serve, held).run()
    finally:
        if held is not None:
            held.dismiss()


class _Held:
    """A command whose process is there, and waits to become it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        gate, self._opener = os.pipe()
        try:
            self.process = subprocess.Popen(guarded(command, gate), env=env, pass_fds=(gate,))
        except BaseException:
            os.close(self._opener)
            raise
        finally:
            os.close(gate)

    def start(self) -> subprocess.Popen[bytes]:
        """Let it become the command."""
        with suppress(BrokenPipeError):  # somebody has killed it; its exit code says so
            os.write(self._opener, b"!")
        self._close()
        return self.process

    def dismiss(self) -> None:
        """End it, if it was never started."""
        if self._opener >= 0:
            self._close()
            self.process.kill()
            self.process.wait()

    def _close(self) -> None:
        os.close(self._opener)
        self._opener = -1


class _Supervisor:
    def __init__(self, serve: Serve, held: _Held | None) -> None:
        self._serve, self._held = serve, held
        self._ready, self._gone = trio.Event(), trio.Event()
        self._orders = Orders(application=held is not None)
        self._at_terminal = _has_terminal()
        self._error: BaseException | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._caught: int = 0  # the first signal that asked us to end
        self._everything = trio.CancelScope()

    async def run(self) -> int:
        code = int(Code.OK)
        with trio.open_signal_receiver(*PASSED) as signals, self._everything:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sidecar)
                nursery.start_soon(self._listen, signals)
                code = await self._live()
                self._orders.begin_drain("its command has ended" if self._held is not None else "its own end")
                await self._gone.wait()
                nursery.cancel_scope.cancel()
        if self._error is not None:
            raise self._error
        if self._everything.cancelled_caught and self._caught:
            return 128 + self._caught
        return code

    async def _live(self) -> int:
        """Everything between the start and the drain; returns the exit code."""
        await _first_of(self._ready.wait, self._gone.wait)
        if self._gone.is_set():
            return Code.OK
        if self._held is None:
            await _first_of(self._orders.drain.wait, self._gone.wait)
            return Code.OK
        self._process = self._held.start()
        await _first_of(partial(_ended, self._process), self._gone.wait)
        status = self._process.poll()
        if status is None:
            status = await _end(self._process)
        assert self._orders.application_gone is not None
        self._orders.application_gone.set()
        return status if status >= 0 else 128 - status

    async def _sidecar(self) -> None:
        try:
            await self._serve(self._ready.set, self._orders)
        except Exception as error:  # noqa: BLE001 (kept, and raised again once the command has ended)
            self._error = error
        finally:
            self._gone.set()

    async def _listen(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self._take(signal.Signals(number))

    def _take(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP and self._at_terminal and not _has_terminal():
            number = signal.SIGTERM
        if number == signal.SIGHUP:
            self._orders.reload()
        process = self._process
        if process is not None and process.poll() is None:
            if number not in FROM_KEYBOARD or not _is_foreground_job():
                with suppress(ProcessLookupError):
                    process.send_signal(number)
        elif number in ENDING:
            self._caught = self._caught or number
            if self._orders.drain.is_set() or not self._ready.is_set():
                self._everything.cancel()
            else:
                self._orders.begin_drain(number.name)


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when any of these does."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[[], Awaitable[object]]) -> None:
            await one()
            nursery.cancel_scope.cancel()

        for one in waits:
            nursery.start_soon(wait, one)


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process that is ours; returns its code as `Popen` has it."""
    descriptor = os.pidfd_open(process.pid)  # Linux 5.3
    try:
        while (status := process.poll()) is None:
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    return status


async def _end(process: subprocess.Popen[bytes]) -> int:
    """End a process, politely first."""
    process.terminate()
    with trio.move_on_after(PATIENCE):
        return await _ended(process)
    process.kill()
    return await _ended(process)


def _has_terminal() -> bool:
    """Whether our standard input is a terminal that is still there."""
    try:
        os.tcgetpgrp(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _is_foreground_job() -> bool:
    """Whether a Ctrl-C at our terminal reaches our whole process group, the command included."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False  # no terminal
