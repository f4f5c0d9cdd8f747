"""Quotas in a file: `sidecar.traffic.quota_store.QuotaStore` over SQLite.

One row for each key and window. Every change is one transaction that takes the writer's lock first, so that several
processes may share the file and none of them counts on what another has just changed. In WAL mode without a sync for
each commit: what was committed survives the death of the process; a power cut may take the last moments, but never the
file.

A reservation writes a page or two, a tenth of a millisecond or so, once in a hundredth of a quota for each key.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sidecar.traffic.quota_store import QuotaStoreFailed, Use

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE: Final = 0.25  # seconds that a request waits for another process to finish writing
_VERSION: Final = 1
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS quota (
        name TEXT NOT NULL, key TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
        used INTEGER NOT NULL CHECK (used >= 0),
        PRIMARY KEY (name, key, start)
    ) WITHOUT ROWID
"""


class QuotaFile:
    """A store in one file, made where there is none, readable by its owner only. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Raises QuotaStoreFailed where the file cannot be used, or was written by a later version."""
        self._path = path
        self._together = False
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise QuotaStoreFailed(f"{path}: {error}") from None
        try:
            self._prepare()
        except QuotaStoreFailed:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with self._translated():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise QuotaStoreFailed(f"{self._path}: written by a later version of mesh ({version})")
        with self._transaction():
            self._db.execute(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def reserve(self, quota: str, key: str, window: tuple[int, int], amount: int, limit: int) -> tuple[int, int]:
        """See QuotaStore."""
        start, end = window
        with self._transaction():
            row = self._db.execute(
                "SELECT used FROM quota WHERE name = ? AND key = ? AND start = ?", (quota, key, start)
            ).fetchone()
            used = row[0] if row else 0
            granted = max(0, min(amount, limit - used))
            self._db.execute(
                "INSERT INTO quota VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET used = excluded.used",
                (quota, key, start, end, used + granted),
            )
        return granted, used + granted

    def give_back(self, quota: str, key: str, start: int, amount: int) -> None:
        """See QuotaStore."""
        with self._transaction():
            self._db.execute(
                "UPDATE quota SET used = max(0, used - ?) WHERE name = ? AND key = ? AND start = ?",
                (amount, quota, key, start),
            )

    def uses(self, quota: str) -> list[Use]:
        """See QuotaStore."""
        with self._translated():
            rows = self._db.execute("SELECT * FROM quota WHERE name = ? ORDER BY key, start", (quota,)).fetchall()
        return [Use(*row) for row in rows]

    def reset(self, quota: str, key: str) -> None:
        """See QuotaStore."""
        with self._transaction():
            self._db.execute("DELETE FROM quota WHERE name = ? AND key = ?", (quota, key))

    def forget(self, ended_before: float) -> None:
        """See QuotaStore."""
        with self._transaction():
            self._db.execute("DELETE FROM quota WHERE end < ?", (ended_before,))

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction for all that is done inside, which is done whole or not at all. Raises QuotaStoreFailed."""
        with self._transaction():
            self._together = True
            try:
                yield
            finally:
                self._together = False

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise QuotaStoreFailed(f"{self._path}: {error}") from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._together:
            with self._translated():
                yield
            return
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
