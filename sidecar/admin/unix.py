"""A Unix socket that only our own user and root can use, whatever the folder's permissions say.

Three locks: the folder is ours and writable by nobody else, the socket file is 0600, and for each connection the kernel
is asked who it is (SO_PEERCRED). A socket file left by a process that died is replaced, but only when nobody answers
there.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import trio

from certs.errors import MeshError
from sidecar.admin.client import MAX_SOCKET_PATH, make_run_folder

_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class SocketTaken(MeshError):
    """The place of our admin socket is taken, or no socket can stand there."""

    name: ClassVar[str] = "socket_taken"


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """Who connected, by the kernel's word."""

    pid: int
    uid: int
    gid: int


def peer_credentials(connection: trio.socket.SocketType) -> PeerCredentials:
    """Who connected to this Unix socket. Raises OSError."""
    return PeerCredentials(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def may_use(peer: PeerCredentials) -> bool:
    """Whether this is our own user or root."""
    return peer.uid in (os.getuid(), 0)


async def listen_unix(path: Path) -> trio.SocketListener:
    """Listen at this path, 0600, in a folder that is ours. Raises SocketTaken, UnsafeRunFolder."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise SocketTaken(f"{path} is too long for a Unix socket ({MAX_SOCKET_PATH} bytes); set MESH_RUN_DIR")
    make_run_folder(path.parent)
    await _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # bound here: trio would bind in a thread
    try:
        listening.bind(str(path))
        os.chmod(path, 0o600)  # noqa: PTH101 - a moment later is soon enough: the folder is ours, and so must the peer be
        listening.listen(64)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise SocketTaken(f"{path}: {error.strerror}") from None
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def remove(path: Path, inode: int) -> None:
    """Take our socket file away, unless it is no longer ours."""
    with suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()


async def _clear(path: Path) -> None:
    """Remove a socket file that nobody answers at. Raises SocketTaken for anything else that stands there."""
    inode = _socket_inode(path)
    if inode is None:
        return
    probe = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with trio.move_on_after(1.0) as waiting:
            await probe.connect(str(path))
    except ConnectionRefusedError:
        remove(path, inode)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketTaken(f"{path}: {error.strerror}") from None
    finally:
        probe.close()
    what = "its owner is there but does not answer" if waiting.cancelled_caught else "another sidecar answers there"
    raise SocketTaken(f"{path}: {what}; stop it, or set MESH_RUN_DIR")


def _socket_inode(path: Path) -> int | None:
    """The inode of the socket that stands there, None where nothing does. Raises SocketTaken for anything else."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(status.st_mode):
        raise SocketTaken(f"{path} is there and is no socket; move it away")
    return status.st_ino
