"""What stands in the store's way, in words that lead out of it: a full disk is the commonest case."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from ca.errors import StoreUnavailable

SCRAPS = 64 * 1024  # bytes; less free space than this is none: SQLite makes files of 32 KiB beside its own


def trouble(what: str, error: Exception, path: Path | None) -> StoreUnavailable:
    """The error to raise for one of SQLite or the system, about the store in this file (None: in memory)."""
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL or no_space(path)
    if not full or path is None:
        return StoreUnavailable(f"{what}: {error}", full=full)
    return StoreUnavailable(f"{what}: {error}; free space on the disk of {path.parent}, that is enough", full=True)


def no_space(path: Path | None) -> bool:
    """Whether nothing more fits beside the file. SQLite says "disk I/O error" where it cannot make its other files."""
    if path is None:
        return False
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < SCRAPS
