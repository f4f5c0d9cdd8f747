"""The folders of one `mesh up`: a private one for keys, state and logs, gone at the end, and the sockets' usual place.

The private folder holds a lock for as long as we live. A folder whose lock is free belongs to a `mesh up` that was
killed outright; the next one removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sidecar.admin.client import make_run_folder

PREFIX = "mesh-up-"
LOCK = "lock"


class Workspace:
    """Use as a context manager: entering makes the folders, leaving removes all that we made."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.folder = Path()
        self._lock = -1
        self._services: list[str] = []
        self._made_run_dir = False

    def __enter__(self) -> Workspace:
        sweep(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # 0700
        self._lock = _lock(self.folder / LOCK)
        for name in ("state", "logs"):
            (self.folder / name).mkdir(mode=0o700)
        return self

    def claim(self, services: Iterable[str]) -> None:
        """From now on the sockets of these services are ours to remove. Raises UnsafeRunFolder."""
        self._services = list(services)
        self._made_run_dir = not self.run_dir.exists()
        make_run_folder(self.run_dir)

    def __exit__(self, *_: object) -> None:
        for service in self._services:
            (self.run_dir / f"{service}.sock").unlink(missing_ok=True)
        if self._made_run_dir:
            with suppress(OSError):  # not empty: somebody else has moved in
                self.run_dir.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def sweep(parent: Path) -> list[Path]:
    """Remove folders of ours that nobody holds any more; returns them."""
    gone = []
    for folder in parent.glob(PREFIX + "*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = _lock(folder / LOCK, create=False)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            gone.append(folder)
    return gone


def _lock(path: Path, *, create: bool = True) -> int:
    """An open descriptor that holds the lock. Raises OSError where somebody else does, or there is none to hold."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
