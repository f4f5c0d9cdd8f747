"""Run a command that ends when whoever started it ends: `python -I -S lifeline.py PARENT_PID GATE COMMAND [ARG…]`.

Theory of operation. Linux sends a process a signal of its choice when its parent dies (prctl(2), PR_SET_PDEATHSIG), and
keeps that wish across exec. So this file, run between fork and the command, states the wish and then becomes the
command. A parent that died before the wish was stated is found by comparing its pid. It is a process step of its own,
not a `preexec_fn`, because running Python between fork and exec is unsafe where the parent has threads. Where there is
no prctl the command simply starts.

The same step can hold the command at a gate: a pipe, of which GATE is our end (`-` for none). One byte opens it; its
end without a byte means that the command is not to run after all. So a parent can fork the command before it confines
itself (`sidecar.runtime.hygiene`), which children would inherit, and start it later: what becomes the command is a
process that was never confined, and still the parent's own child.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # what shells exit with


NO_GATE = "-"


def guarded(command: Sequence[str], gate: int | None = None) -> list[str]:
    """This command as one that gets SIGTERM when the calling process dies, and waits for a byte on `gate` if there is
    one: a descriptor that the process must inherit.
    """
    held = NO_GATE if gate is None else str(gate)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), held, *command]


def prctl(option: int, value: int) -> bool:
    """Whether the kernel took this option."""
    import ctypes

    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def adopt_orphans(adopt: bool) -> bool:
    """Be the parent of every descendant whose own parent dies, so that none escapes; or no longer. Whether we can."""
    return prctl(PR_SET_CHILD_SUBREAPER, int(adopt))


def main() -> int:
    """State the wish, wait at the gate, become the command."""
    parent, gate, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C while we wait is an end, not a traceback
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
    if gate != NO_GATE:
        if not os.read(int(gate), 1):
            return 128 + signal.SIGTERM
        os.close(int(gate))
    try:
        os.execvp(command[0], command)  # noqa: S606 (the user's own command, no shell between)
    except FileNotFoundError:
        print(f"mesh: there is no program {command[0]!r}.", file=sys.stderr)
        return NOT_FOUND
    except OSError as error:
        print(f"mesh: {command[0]!r} cannot be run: {error.strerror}.", file=sys.stderr)
        return NOT_EXECUTABLE


if __name__ == "__main__":
    sys.exit(main())
