"""Every released store comes up to today's tables, whole or not at all, and loses nothing on the way."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ca.checkpoints import verify_log
from ca.errors import StoreUnavailable
from ca.store import migrations
from ca.store.base import Ack
from ca.store.migrations import STEPS, Step
from ca.store.sqlite import SqliteStore
from certs.bundle import root_hash
from tests.ca import schema_v1
from tests.ca.office import DEMO, an_issuer
from tests.ca.schema_v1 import NOW


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_a_store_of_version_1_keeps_all_it_knew(tmp_path: Path) -> None:
    path, issuer = tmp_path / "ca.sqlite3", an_issuer()
    schema_v1.make(path, issuer)
    store = SqliteStore(path)
    assert [entry.id for entry in store.entries()] == ["orders-1"]
    assert [key.key_id for key in store.keys("orders-1")] == ["k1"]
    assert store.token("t1") is not None
    assert [(one.serial, one.number, one.dns_names, one.issued_at) for one in store.issuances()] == [
        ("a3", 3, ("a.b",), NOW + 3), ("a2", 2, ("a.b",), NOW + 2), ("a1", 1, ("a.b",), NOW + 1),
    ]  # fmt: skip
    slots = {slot.sha256: slot for slot in store.slots()}
    assert {sha256: slot.state for sha256, slot in slots.items()} == {
        "00": "retired", root_hash(issuer.root): "active", root_hash(issuer.certificate): "active",
    }  # fmt: skip
    assert slots[root_hash(issuer.certificate)].root == root_hash(issuer.root)
    assert store.acks() == (Ack(schema_v1_orders(), "a3", "bundle", 1, NOW),)
    assert (store.bundle_sequence(), store.denylist_sequence()) == (1, 1)
    kinds = [line.facts["kind"] for line in store.lines()]
    assert kinds == [*["issued"] * 3, *["slot"] * 3, "entry_added", "entry_added", "entry_removed", "migrated"]
    report = verify_log(store, DEMO)
    assert report.findings == []
    store.check_schema()
    store.check_integrity()
    store.close()
    assert version(path) == len(STEPS)
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT version, name FROM schema_versions").fetchall()
    assert found == [(number, step.name) for number, step in enumerate(STEPS, 1)]


def schema_v1_orders() -> str:
    return "spiffe://demo.mesh/ns/default/sa/orders"


def test_a_step_that_fails_leaves_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca.sqlite3"
    schema_v1.make(path, an_issuer())

    def fail(db: sqlite3.Connection) -> None:
        db.execute("DROP TABLE issuances")
        raise sqlite3.OperationalError("disk I/O error")

    broken = (STEPS[0], Step("chain", STEPS[1].sql, fail))
    monkeypatch.setattr(migrations, "STEPS", broken)
    monkeypatch.setattr("ca.store.database.STEPS", broken)
    with pytest.raises(StoreUnavailable, match="disk I/O"):
        SqliteStore(path)
    assert version(path) == 1
    monkeypatch.undo()
    store = SqliteStore(path)
    assert len(store.issuances()) == 3
    store.close()


def test_of_two_that_open_at_once_one_migrates(tmp_path: Path) -> None:
    path = tmp_path / "ca.sqlite3"
    schema_v1.make(path, an_issuer())
    start, heads = threading.Barrier(2), list[object]()

    def opened() -> None:
        start.wait()
        store = SqliteStore(path)
        heads.append(store.head())
        store.close()

    threads = [threading.Thread(target=opened) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heads) == 2
    assert heads[0] == heads[1]


def test_a_new_store_and_a_migrated_one_have_the_same_tables(tmp_path: Path) -> None:
    schema_v1.make(tmp_path / "old", an_issuer())
    store = SqliteStore(tmp_path / "old")
    store.check_schema()
    store._db.execute("DROP TRIGGER log_lines_never_change")
    with pytest.raises(StoreUnavailable, match="not those"):
        store.check_schema()
    store.close()


@pytest.mark.parametrize("begin", range(2, len(STEPS)))
def test_a_store_of_each_later_version_comes_up_with_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: int
) -> None:
    """Version 1 needs its own tables and is tried above; from 2 on the older program is ours with fewer steps."""
    path = tmp_path / "ca.sqlite3"
    with monkeypatch.context() as older:
        older.setattr("ca.store.database.STEPS", STEPS[:begin])
        schema_v1.make(path, an_issuer())
        store = SqliteStore(path)
        before = store.head(), store.issuances()
        store.note(NOW, "of_old")
        store.close()
    assert version(path) == begin
    store = SqliteStore(path)
    assert version(path) == len(STEPS)
    store.check_schema()
    assert (store.head().number, store.issuances()) == (before[0].number + 1, before[1])
    assert verify_log(store, DEMO).findings == []
    assert (store.partners(), store.jwt_keys(), store.clusters()) == ((), (), ())
    store.check_writable(NOW)
    store.close()
    with monkeypatch.context() as older:
        older.setattr("ca.store.database.STEPS", STEPS[:begin])
        with pytest.raises(StoreUnavailable, match="use a newer one"):
            SqliteStore(path)
