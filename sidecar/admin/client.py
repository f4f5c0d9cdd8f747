"""The CLI's end of the admin socket: synchronous, standard library only, quick to import.

The run folder holds one socket per sidecar, `<service>.sock`. It is `$MESH_RUN_DIR`, else `$XDG_RUNTIME_DIR/mesh`, else
`/tmp/mesh-<uid>`; since others may write to /tmp, a folder that is not ours alone is refused.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from certs.errors import MeshError

SUFFIX = ".sock"
MAX_SOCKET_PATH = 107  # bytes: sun_path of unix(7) holds 108 with its end
_MAX_ANSWER = 64 * 1024 * 1024


class NoSidecar(MeshError):
    """Nobody answers on this socket. The message says what to look at."""

    name: ClassVar[str] = "no_sidecar"


class UnsafeRunFolder(MeshError):
    """The run folder is not ours alone, so whoever listens there may not be our sidecar."""

    name: ClassVar[str] = "unsafe_run_folder"


def run_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where the sockets of our sidecars are; the folder may not exist yet."""
    environment = os.environ if environment is None else environment
    if chosen := environment.get("MESH_RUN_DIR"):
        return Path(chosen)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "mesh"
    return Path(f"/tmp/mesh-{os.getuid()}")  # noqa: S108 - check_run_folder refuses one that is not ours alone


def check_run_folder(folder: Path) -> None:
    """Make sure that the folder is a folder of ours that nobody else may write to. Raises UnsafeRunFolder."""
    try:
        status = folder.lstat()
    except OSError as error:
        raise UnsafeRunFolder(f"{folder}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeRunFolder(f"{folder} is not a folder")
    if status.st_uid not in (os.getuid(), 0):
        raise UnsafeRunFolder(f"{folder} belongs to user {status.st_uid}, not to us; set MESH_RUN_DIR to another")
    if status.st_mode & 0o022:
        raise UnsafeRunFolder(f"{folder} is writable by others; run: chmod 700 {folder}")


def make_run_folder(folder: Path) -> None:
    """Make the folder (0700) where it is missing, and check it. Raises UnsafeRunFolder."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UnsafeRunFolder(f"{folder}: {error.strerror}") from None
    check_run_folder(folder)


def sockets(folder: Path | None = None) -> list[Path]:
    """The admin sockets in the run folder, by name; empty where there is no folder. Raises UnsafeRunFolder."""
    folder = run_folder() if folder is None else folder
    if not os.path.lexists(folder):
        return []
    check_run_folder(folder)
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.is_socket())


def call(
    socket_path: Path, method: str, path: str, body: Any = None, *, timeout: float = 10.0
) -> tuple[int, dict[str, Any]]:
    """One request to a sidecar's admin API; returns status and JSON. Raises NoSidecar."""
    payload = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\ncontent-length: {len(payload)}\r\n"
    if payload:
        head += "content-type: application/json\r\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(socket_path))
            connection.sendall(head.encode("ascii") + b"\r\n" + payload)
            answer = _receive(connection)
    except TimeoutError:
        raise NoSidecar(f"{socket_path}: the sidecar did not answer within {timeout:g} s") from None
    except (OSError, UnicodeEncodeError) as error:
        raise NoSidecar(f"{socket_path}: {getattr(error, 'strerror', None) or error}") from None
    return _parse(socket_path, answer)


def _receive(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while size <= _MAX_ANSWER and (piece := connection.recv(65536)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _parse(socket_path: Path, answer: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a whole answer. The server closes after it, so its end is the end of the bytes."""
    if not answer:
        raise NoSidecar(f"{socket_path}: the sidecar closed the connection; it answers only its own user and root")
    head, _, body = answer.partition(b"\r\n\r\n")
    parts = head.split(b" ", 2)
    try:
        status = int(parts[1])
        values = json.loads(body) if body.strip() else {}
    except (IndexError, ValueError):
        raise NoSidecar(f"{socket_path}: what answers there is not a sidecar") from None
    return status, values if isinstance(values, dict) else {"value": values}
