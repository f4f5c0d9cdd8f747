"""Run a command that ends when whoever started it ends: `python -I -S lifeline.py PARENT_PID COMMAND [ARG…]`.

Theory of operation. Linux sends a process a signal of its choice when its parent dies (prctl(2), PR_SET_PDEATHSIG), and
keeps that wish across exec. So this file, run between fork and the command, states the wish and then becomes the
command. A parent that died before the wish was stated is found by comparing its pid. It is a process step of its own,
not a `preexec_fn`, because running Python between fork and exec is unsafe where the parent has threads. Where there is
no prctl the command simply starts.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # what shells exit with


def guarded(command: Sequence[str]) -> list[str]:
    """This command as one that gets SIGTERM when the calling process dies."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


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
    """State the wish, become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
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
