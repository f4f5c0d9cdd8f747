"""Files that are ours alone: written whole or not at all, read only if nobody else could have written or read them.

A file is written to a temporary name in its own folder, made durable, and renamed over the old one; then the folder
itself is made durable. A reader, or a crash at any point, sees the old content or the new one, never a mixture. What we
read is judged on the open descriptor, so that nothing can be exchanged between the look and the reading.

Everything here blocks on the disk; trio tasks call it in a worker thread.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from certs.errors import PrivateFileUnavailable

MAX_PRIVATE_BYTES = 1 << 20  # keys, passphrases and enrolment files are a few KiB; a megabyte is a mistake

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_private(path: Path, data: bytes) -> None:
    """Replace the file with this content, atomically and durably, readable by us alone (0600). Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp creates with 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """The content of a regular file that belongs to us (or root) and that nobody else may read or write.

    Symbolic links are followed and the file they lead to is judged. Raises PrivateFileUnavailable.
    """
    return _read(path, _OTHERS)


def _read(path: Path, forbidden: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not hold us up
        with os.fdopen(descriptor, "rb") as file:
            _check_ours(path, os.fstat(file.fileno()), forbidden)
            data = file.read(MAX_PRIVATE_BYTES + 1)
    except OSError as error:
        raise PrivateFileUnavailable(f"{path}: {error.strerror}") from error
    if len(data) > MAX_PRIVATE_BYTES:
        raise PrivateFileUnavailable(f"{path} is larger than {MAX_PRIVATE_BYTES} bytes")
    return data


def read_guarded(path: Path) -> bytes:
    """The content of a regular file that belongs to us (or root) and that nobody else may write; others may read it.

    Symbolic links are followed and the file they lead to is judged. Raises PrivateFileUnavailable.
    """
    return _read(path, stat.S_IWGRP | stat.S_IWOTH)


def read_key(path: Path) -> bytes:
    """The content of a regular file that belongs to us (or root), that others cannot read, and nobody else write.

    Its group may read it: Kubernetes gives the files of a secret to root, and to the group of the pod (`fsGroup`).
    Symbolic links are followed and the file they lead to is judged. Raises PrivateFileUnavailable.
    """
    return _read(path, stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO)


def ensure_private_dir(path: Path) -> None:
    """Make sure that this folder exists and is ours alone (0700); its parents are made likewise where they are missing.

    A folder of ours that others may merely look into is tightened; one that others could have written into, that
    belongs to somebody else or that is a symbolic link is refused. Raises PrivateFileUnavailable.
    """
    try:
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
        _tighten(path)
    except OSError as error:
        raise PrivateFileUnavailable(f"{path}: {error.strerror}") from error


def _tighten(path: Path) -> None:
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise PrivateFileUnavailable(f"{path} is not a folder")
    if facts.st_uid != os.geteuid():
        raise PrivateFileUnavailable(f"{path} belongs to user {facts.st_uid}, not to us (user {os.geteuid()})")
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PrivateFileUnavailable(f"{path} can be written by others; look at what is in it, then: chmod 700 {path}")
    if facts.st_mode & _OTHERS:
        path.chmod(0o700)


def _check_ours(path: Path, facts: os.stat_result, forbidden: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise PrivateFileUnavailable(f"{path} is not a regular file")
    if facts.st_uid not in (0, os.geteuid()):
        raise PrivateFileUnavailable(f"{path} belongs to user {facts.st_uid}, not to us (user {os.geteuid()})")
    if facts.st_mode & forbidden:
        mode = stat.S_IMODE(facts.st_mode)
        raise PrivateFileUnavailable(f"{path} is open to others (mode {mode:04o}); make it private: chmod 600 {path}")


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
