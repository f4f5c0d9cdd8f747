"""Callers on the CA's Unix socket: who they are by the kernel's word (decision D20).

User and group are those of the process that connected (SO_PEERCRED), always. Its program is told only where all of this
holds: the kernel gives a descriptor of that very process (SO_PEERPIDFD, Linux 6.5), so that its number cannot have
become another's; `/proc` lets us read it; and the process sees the file system that we see, for elsewhere a path means
nothing. Otherwise there is no such selector; it is never guessed.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from ca.attest.proof import Attested, SocketProof, nothing_to_settle
from ca.errors import ProofRefused
from ca.selectors import choose
from ca.store.threads import StoreThreads

_SO_PEERPIDFD = 77  # asm-generic/socket.h
Connection = socket.socket | trio.socket.SocketType
_UCRED = struct.Struct("3i")  # unix(7): pid, uid, gid


@dataclass(frozen=True, slots=True)
class SocketPeer:
    """A caller. `program` is empty where it could not be known for sure."""

    uid: int
    gid: int
    program: str = ""

    @property
    def selectors(self) -> tuple[str, ...]:
        """What this shows."""
        path = (f"unix:path:{self.program}",) if self.program else ()
        return (f"unix:uid:{self.uid}", f"unix:gid:{self.gid}", *path)


def listen_on(path: Path) -> socket.socket:
    """A listening socket for everybody of this machine, who are then told apart. Raises OSError.

    Its folder must be ours or root's, and writable by nobody else: whoever listens there in our place would not prove
    to be the CA, and would keep everybody from it. What we left there when we died is replaced.
    """
    facts = path.parent.stat()
    if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "its folder belongs to, or can be written by, somebody else", str(path))
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if path.is_socket():
            _refuse_living(path)
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen(64)
    except BaseException:
        listening.close()
        raise
    return listening


def _refuse_living(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(ConnectionRefusedError):
        probe.settimeout(1.0)
        probe.connect(str(path))
        raise OSError(errno.EADDRINUSE, "somebody listens there already", str(path))


def peer_of(connection: Connection) -> SocketPeer:
    """Who connected. Raises OSError."""
    _, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return SocketPeer(uid, gid, _program(connection))


async def attest(store: StoreThreads, proof: SocketProof) -> Attested:
    """Find the entry that this caller fits. Raises ProofRefused, StoreUnavailable."""
    if not proof.shown:
        raise ProofRefused("a proof by Unix socket was presented, yet this connection is not on the CA's socket")
    entries = await store.call(store.store.entries)
    entry = choose(entries, proof.shown, "a caller on the CA's socket", proof.entry)
    return Attested(entry, "unix", " ".join(proof.shown), nothing_to_settle)


def _program(connection: Connection) -> str:
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        return ""
    try:
        pid = _pid_of(pidfd)
        theirs, ours = Path(f"/proc/{pid}"), Path("/proc/self")
        path = str((theirs / "exe").readlink())
        same_view = (theirs / "ns/mnt").readlink() == (ours / "ns/mnt").readlink()
        same_root = (theirs / "root").samefile(ours / "root")
        signal.pidfd_send_signal(pidfd, 0)  # it lives still, so all of this was about it
    except (OSError, ValueError):
        return ""
    finally:
        os.close(pidfd)
    good = same_view and same_root and path.startswith("/") and path.isascii() and not path.endswith(" (deleted)")
    return path if good and " " not in path and path.isprintable() else ""


def _pid_of(pidfd: int) -> int:
    """The process's number, as we see it. Raises ValueError where it is gone or beyond our sight, OSError."""
    with open(f"/proc/self/fdinfo/{pidfd}") as info:  # noqa: PTH123 - a file of the kernel's
        for line in info:
            if line.startswith("Pid:"):
                pid = int(line[4:])
                if pid > 0:
                    return pid
    raise ValueError("the process is gone")
