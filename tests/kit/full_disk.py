"""A disk that a test can fill and empty again: a small file system of its own, or, where nobody may mount one, a limit.

`Disk.full(pid)` and `Disk.roomy(pid)` name the process that is to feel it. As root the folder becomes a tmpfs of a few
MiB, and ballast takes what is left of it, so that every write anywhere on it fails with ENOSPC. Without that right the
process gets RLIMIT_FSIZE 0: no file of its may grow, which SQLite calls an I/O error and not a full disk.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE = "3m"
BALLAST = "ballast"


@dataclass
class Disk:
    """One folder. `real` says whether it is a file system of its own."""

    folder: Path
    real: bool

    def full(self, pid: int) -> None:
        """Nothing more fits."""
        if not self.real:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with (self.folder / BALLAST).open("ab", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12, 1 << 8, 1):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError:
                    pass
        found = os.statvfs(self.folder)
        assert found.f_bavail == 0

    def roomy(self, pid: int) -> None:
        """There is space again."""
        if self.real:
            (self.folder / BALLAST).unlink()
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def own_disk(folder: Path) -> Iterator[Disk]:
    """Put what is in this folder on a disk of its own, for as long as the block lasts."""
    aside = Path(tempfile.mkdtemp(prefix="aside-", dir=folder.parent))
    shutil.copytree(folder, aside, dirs_exist_ok=True)  # keeps every mode
    mounted = _mount(folder)
    try:
        if mounted:
            shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(aside)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "mesh-test", str(folder)]
    try:
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False
