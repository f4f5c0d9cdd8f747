"""Holding a network namespace once its rules are installed: without any right, as nobody's user, until SIGTERM.

This is what the holder container of a compose project does (decision D29). Application and sidecar join its namespace
and may die alone; the namespace lives for as long as this process. Since it may be process 1 of its container it takes
in the orphans that end under it.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

from sidecar.deploy.names import PROXY_UID
from sidecar.deploy.redirect_kernel import RedirectFailed

HOLDER_UID = 17002  # neither the sidecar's user nor anybody's
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4  # linux/prctl.h
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")


def drop_rights(uid: int = HOLDER_UID) -> None:
    """Become this user, with no capability and no way to gain one, for good. Raises RedirectFailed, which says why."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            break  # the last of them, or we may not; no_new_privs does the same for what matters
    if os.getuid() != uid:
        _become(uid)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _check(uid)


def _become(uid: int) -> None:
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except PermissionError:
        raise RedirectFailed(
            f"cannot become uid {uid} once the rules are installed",
            'Compose: user: "0:0" with cap_drop: [ALL] and cap_add: [NET_ADMIN, SETUID, SETGID].',
        ) from None


def _check(uid: int) -> None:
    """Believe the kernel only."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    left = [name for name in SETS if int(status.get(name, "0"), 16)]
    if left or set(status["Uid"].split()) != {str(uid)} or status.get("NoNewPrivs") != "1":
        raise RedirectFailed(f"rights could not be dropped: {', '.join(left) or 'uid'}", "This is a fault; report it.")


def hold(install: Callable[[], None], uid: int = HOLDER_UID) -> None:
    """Install, drop every right, and wait for SIGTERM or SIGINT. A signal that comes earlier is not lost."""
    if uid in (0, PROXY_UID):
        raise RedirectFailed(f"the holder may not run as uid {uid}", "Leave --as out, or name a user of nobody's.")
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the first process's default would discard it
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    install()
    drop_rights(uid)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    _reap()
    while signal.sigwait(ends | {signal.SIGCHLD}) == signal.SIGCHLD:
        _reap()


def _reap() -> None:
    """Take in whoever has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
