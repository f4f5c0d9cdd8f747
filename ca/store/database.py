"""How the store talks to SQLite: one file, one connection, one lock, whole transactions, and steps to today's tables.

WAL mode with `synchronous=FULL`: a commit has reached the disk when it returns
(sqlite.org/pragma.html#pragma_synchronous). Other processes (`mesh ca entry add` while the server runs) are other
connections to the same file; every write is a `BEGIN IMMEDIATE`, so that nobody reads, decides and then finds the world
changed. Nothing is cached here: what one process removes, the next request of another does not find.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ca.chain import Event, Head, append
from ca.errors import StoreUnavailable
from ca.store.migrations import STEPS
from ca.store.trouble import trouble

BUSY_TIMEOUT = 5.0  # seconds to wait for another process's commit, each of which takes milliseconds
# fullfsync: on macOS alone, a plain fsync leaves data in the drive's cache
# temp_store: a line that splits many pages at once makes SQLite note down 64 KiB of them in a temporary file, which the
# confined server may not open: about one issuance in 3,000 failed until those notes were kept in memory
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "fullfsync=ON", "foreign_keys=ON", "temp_store=MEMORY")


class Database:
    """One SQLite file, or one in memory for tests. Safe to call from any thread."""

    def __init__(self, path: Path | None, *, create: bool = False) -> None:
        """Open the file; with `create` make it, 0600. Raises StoreUnavailable."""
        self._lock = threading.Lock()
        self._path = path
        try:
            if path is not None:
                _make_or_find(path, create)
            target = ":memory:" if path is None else str(path)
            self._db = sqlite3.connect(target, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise trouble(f"cannot open the CA's store {path}", error, path) from error
        try:
            for pragma in _PRAGMAS:
                self._db.execute(f"PRAGMA {pragma}")
            self._migrate()
        except sqlite3.Error as error:
            self._db.close()
            raise trouble(f"cannot open the CA's store {path}", error, path) from error
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """See Store.close."""
        with self._lock:
            self._db.close()

    def copy_to(self, path: Path) -> None:
        """See Store.copy_to. SQLite's online back-up, in one step: writers go on beside it (WAL)."""
        try:
            _make_or_find(path, create=True)
            with self._lock, closing(sqlite3.connect(path, isolation_level=None)) as copy:
                self._db.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
        except (OSError, sqlite3.Error) as error:
            raise trouble(f"cannot copy the CA's store to {path}", error, path) from error

    def check_integrity(self) -> None:
        """Let SQLite look at every page and every index. Raises StoreUnavailable."""
        found = [str(row[0]) for row in self._read("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise StoreUnavailable(f"the CA's store is damaged: {'; '.join(found)}")

    def check_schema(self) -> None:
        """Hold tables, indexes and triggers against those of a new store. Raises StoreUnavailable.

        For a file that came from elsewhere: a trigger that is missing, or one too many, would go unnoticed for long.
        """
        fresh = Database(None)
        try:
            if self._schema() != fresh._schema():
                raise StoreUnavailable("the tables of the store are not those that this program makes")
        finally:
            fresh.close()

    def _schema(self) -> dict[str, str]:
        rows = self._read("SELECT type || ' ' || name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
        return {str(name): "".join(str(sql).split()) for name, sql in rows}

    def _migrate(self) -> None:
        version = self._version()
        if version > len(STEPS):
            raise StoreUnavailable(f"the store has version {version}, this program knows {len(STEPS)}; use a newer one")
        if version == len(STEPS):
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for number, step in enumerate(STEPS[self._version() :], self._version() + 1):
                for statement in _statements(step.sql):
                    self._db.execute(statement)
                if step.fill is not None:
                    step.fill(self._db)
                if number > 1:  # version 1 had no such table; version 2 wrote its line
                    self._db.execute(
                        "INSERT INTO schema_versions VALUES (?, ?, CAST(strftime('%s', 'now') AS REAL))",
                        (number, step.name),
                    )
                self._db.execute(f"PRAGMA user_version = {number}")
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _read(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise trouble("the CA's store cannot be read", error, self._path) from error

    @contextmanager
    def _write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing. IntegrityError is the caller's to explain, other trouble is ours."""
        with self._lock:
            try:
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._is_open() and self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                    raise trouble("the CA's store cannot be written", error, self._path) from error
                raise

    def _is_open(self) -> bool:
        try:
            return self._db.total_changes >= 0
        except sqlite3.ProgrammingError:
            return False


def head_of(db: sqlite3.Connection) -> Head:
    """Where the log ends."""
    row = db.execute("SELECT number, hash FROM log ORDER BY number DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head()


def log_to(db: sqlite3.Connection, *events: Event) -> None:
    """Append to the log, within the transaction that is open."""
    lines = [(line.number, line.text, line.hash) for line in append(head_of(db), events)]
    db.executemany("INSERT INTO log (number, line, hash) VALUES (?, ?, ?)", lines)


def next_number(db: sqlite3.Connection, name: str) -> None:
    """One more for a sequence."""
    db.execute("UPDATE numbers SET value = value + 1 WHERE name = ?", (name,))


def _statements(sql: str) -> Iterator[str]:
    """The statements of a script, one by one: executescript would end the transaction that it runs in."""
    statement = ""
    for piece in sql.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _make_or_find(path: Path, create: bool) -> None:
    """Create the file 0600 before SQLite would with the umask's mode, or insist that it is there."""
    if create:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    elif not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
