"""What every store promises, over SQLite on disk and in memory."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ca.entries import EnrolmentKeyRecord, Entry, JoinTokenRecord
from ca.errors import DamagedCa, InvalidEntry, ProofRefused, SlotTaken, StoreUnavailable, TokenUsed, UnknownEntry
from ca.slots import SlotState
from ca.store.base import Ack, Issuance, Slot
from ca.store.sqlite import SqliteStore
from tests.ca.office import DEMO

ORDERS = Entry("orders-1", DEMO.id("ns", "default", "sa", "orders"), ("a.b",), 3600.0, 1.0)
KEY = EnrolmentKeyRecord("k1", "orders-1", bytes(32), 2.0)
TOKEN = JoinTokenRecord("t1", "orders-1", 2.0, 100.0)
LINE = Issuance("a1", "orders-1", "spiffe://demo.mesh/x", ("a.b",), 1.0, 2.0, 1.5, "renewal", "9f", "1", "ff")


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(None) if request.param == "memory" else SqliteStore(tmp_path / "ca.sqlite3", create=True)
    yield opened
    opened.close()
    opened.close()


def test_an_entry_lives_from_add_to_remove(store: SqliteStore) -> None:
    store.add_entry(ORDERS)
    assert store.entry("orders-1") == ORDERS
    assert store.entries() == (ORDERS,)
    with pytest.raises(InvalidEntry, match="has an entry already"):
        store.add_entry(replace(ORDERS, id="orders-2"))
    assert store.remove_entry("orders-1", 5.0)
    assert not store.remove_entry("orders-1", 6.0)
    assert store.entry("orders-1") is None
    assert store.entries() == ()
    store.add_entry(replace(ORDERS, id="orders-2"))
    store.remove_entry("orders-2", 7.0)
    with pytest.raises(InvalidEntry):
        store.add_entry(ORDERS)  # an id is never used again


def test_keys_are_revocable_and_go_with_their_entry(store: SqliteStore) -> None:
    with pytest.raises(UnknownEntry):
        store.add_key(KEY)
    store.add_entry(ORDERS)
    store.add_key(KEY)
    with pytest.raises(InvalidEntry, match="registered already"):
        store.add_key(KEY)
    assert store.keys("orders-1") == (KEY,)
    assert not store.revoke_key("web-1", "k1", 3.0)
    assert store.revoke_key("orders-1", "k1", 3.0)
    assert not store.revoke_key("orders-1", "k1", 4.0)
    assert store.keys("orders-1") == (replace(KEY, revoked_at=3.0),)
    store.remove_entry("orders-1", 5.0)
    assert store.keys("orders-1") == ()
    with pytest.raises(UnknownEntry):
        store.add_key(replace(KEY, key_id="k2"))


def test_a_token_is_exchanged_for_a_key_once(store: SqliteStore) -> None:
    with pytest.raises(UnknownEntry):
        store.add_token(TOKEN)
    store.add_entry(ORDERS)
    store.add_token(TOKEN)
    assert store.token("t1") == TOKEN
    assert store.token("t2") is None
    store.redeem_token("t1", KEY, 50.0)
    assert store.token("t1") == replace(TOKEN, used_at=50.0)
    assert store.keys("orders-1") == (KEY,)
    with pytest.raises(TokenUsed):
        store.redeem_token("t1", replace(KEY, key_id="k2"), 51.0)
    assert store.keys("orders-1") == (KEY,)


def test_a_token_that_is_expired_unknown_or_orphaned_buys_nothing(store: SqliteStore) -> None:
    store.add_entry(ORDERS)
    store.add_entry(replace(ORDERS, id="web-1", spiffe_id=DEMO.id("web")))
    store.add_token(TOKEN)
    for name, key, now in (("t1", KEY, 100.0), ("t2", KEY, 5.0), ("t1", replace(KEY, entry="web-1"), 5.0)):
        with pytest.raises(ProofRefused):
            store.redeem_token(name, key, now)
    store.add_key(KEY)
    with pytest.raises(InvalidEntry):  # the key is known: the token is not spent either
        store.redeem_token("t1", KEY, 5.0)
    assert store.token("t1") == TOKEN
    store.remove_entry("orders-1", 5.0)
    assert store.token("t1") is None
    with pytest.raises(ProofRefused):
        store.redeem_token("t1", replace(KEY, key_id="k3"), 5.0)


def test_of_many_threads_one_redeems(store: SqliteStore) -> None:
    store.add_entry(ORDERS)
    store.add_token(TOKEN)
    start, outcomes = threading.Barrier(12), list[str]()

    def redeem(number: int) -> None:
        start.wait()
        try:
            store.redeem_token("t1", replace(KEY, key_id=f"k{number}", public_bytes=bytes([number] * 32)), 5.0)
            outcomes.append("won")
        except TokenUsed:
            outcomes.append("lost")

    threads = [threading.Thread(target=redeem, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 11 + ["won"]
    assert len(store.keys("orders-1")) == 1


def test_of_two_processes_one_redeems(tmp_path: Path) -> None:
    one = SqliteStore(tmp_path / "ca.sqlite3", create=True)
    two = SqliteStore(tmp_path / "ca.sqlite3")
    one.add_entry(ORDERS)
    two.add_token(TOKEN)
    one.redeem_token("t1", KEY, 5.0)
    with pytest.raises(TokenUsed):
        two.redeem_token("t1", replace(KEY, key_id="k2"), 5.0)
    one.close()
    two.close()


def test_the_log_is_kept_in_order_and_found_by_serial(store: SqliteStore) -> None:
    store.record([LINE, replace(LINE, serial="a2", entry="web-1")])
    store.record([replace(LINE, serial="a3")])
    assert [one.serial for one in store.issuances()] == ["a3", "a2", "a1"]
    assert [one.number for one in store.issuances(entry_id="orders-1")] == [3, 1]
    assert [one.number for one in store.issuances(spiffe_id=LINE.spiffe_id, limit=2)] == [3, 2]
    assert store.issuances(spiffe_id="spiffe://demo.mesh/y") == ()
    assert store.issuances(ends_after=2.0) == ()
    assert store.issued_count() == len(store.issuances(ends_after=1.9)) == 3
    assert store.issued_by("1", 1.9) == (3, 2.0, 2.0)
    assert store.issued_by("2", 1.9) == store.issued_by("1", 2.0) == (0, 0.0, 0.0)
    assert [one.serial for one in store.issuances(limit=1)] == ["a3"]
    assert store.issuance("a1") == replace(LINE, number=1)
    assert store.issuance("zz") is None


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE log SET line = '{}'",
        "UPDATE log SET hash = 'x' WHERE number = 1",
        "DELETE FROM log",
        "DELETE FROM log WHERE serial = 'a1'",
        "REPLACE INTO log (number, line, hash) SELECT 1, line, hash FROM log",
        "INSERT OR REPLACE INTO log (number, line, hash) SELECT 1, '{}', hash FROM log",
        "REPLACE INTO log (number, line, hash) SELECT 2, line, hash FROM log",
        "INSERT INTO log (number, line, hash) SELECT 3, '{}', hash FROM log",
    ],
)
def test_the_log_is_append_only_for_everyone_with_the_file(tmp_path: Path, sql: str) -> None:
    store = SqliteStore(tmp_path / "ca.sqlite3", create=True)
    store.record([LINE])
    with sqlite3.connect(tmp_path / "ca.sqlite3") as other, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(sql)
    other.close()
    assert store.issuances() == (replace(LINE, number=1),)
    store.close()


def test_a_spent_token_cannot_be_made_fresh(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ca.sqlite3", create=True)
    store.add_entry(ORDERS)
    store.add_token(TOKEN)
    store.redeem_token("t1", KEY, 5.0)
    with sqlite3.connect(tmp_path / "ca.sqlite3") as other, pytest.raises(sqlite3.IntegrityError, match="spent once"):
        other.execute("UPDATE join_tokens SET used_at = NULL")
    other.close()
    store.close()


def test_a_batch_is_recorded_whole_or_not_at_all(store: SqliteStore) -> None:
    store.record([LINE])
    with pytest.raises(StoreUnavailable, match="append-only"):
        store.record([replace(LINE, serial="b1"), LINE])
    assert [one.serial for one in store.issuances()] == ["a1"]
    store.record([replace(LINE, serial="b1")])


MOVES: list[tuple[SlotState, SlotState, bool]] = [
    ("prepared", "active", True),
    ("prepared", "retired", True),
    ("prepared", "revoked", True),
    ("prepared", "retiring", False),
    ("active", "retiring", True),
    ("active", "retired", False),
    ("active", "prepared", False),
    ("retiring", "retired", True),
    ("retiring", "active", True),
    ("active", "revoked", False),
    ("retiring", "revoked", True),
    ("retired", "active", False),
    ("retired", "prepared", False),
    ("retired", "revoked", False),
    ("revoked", "active", False),
]


@pytest.mark.parametrize(("before", "after", "allowed"), MOVES)
def test_slots_move_by_the_table(store: SqliteStore, before: SlotState, after: SlotState, allowed: bool) -> None:
    store.add_slot(Slot("s1", "root", before, b"der", 1.0))
    if allowed:
        store.set_slot_state("s1", after, 2.0)
    else:
        with pytest.raises(DamagedCa, match=f"is {before} and cannot become {after}"):
            store.set_slot_state("s1", after, 2.0)
    assert store.slots()[0].state == (after if allowed else before)


def test_one_slot_of_a_kind_is_active_and_a_successor_takes_over_at_once(store: SqliteStore) -> None:
    store.add_slot(Slot("s1", "issuer", "active", b"1", 1.0))
    with pytest.raises(SlotTaken):
        store.add_slot(Slot("s2", "issuer", "active", b"2", 2.0))
    store.add_slot(Slot("s2", "issuer", "prepared", b"2", 2.0))
    with pytest.raises(SlotTaken):
        store.add_slot(Slot("s3", "issuer", "prepared", b"3", 2.0))
    store.activate_slot("s2", 3.0)
    assert [(slot.sha256, slot.state) for slot in store.slots()] == [("s1", "retiring"), ("s2", "active")]
    with pytest.raises(DamagedCa, match="unknown"):
        store.activate_slot("s3", 3.0)
    assert [slot.state for slot in store.slots()] == ["retiring", "active"]


def test_the_bundle_sequence_grows_when_the_set_of_roots_changes(store: SqliteStore) -> None:
    story = [store.bundle_sequence()]
    store.add_slot(Slot("i", "issuer", "active", b"", 1.0))
    story.append(store.bundle_sequence())
    store.add_slot(Slot("r1", "root", "active", b"", 1.0))
    story.append(store.bundle_sequence())
    store.add_slot(Slot("r2", "root", "prepared", b"", 1.0))
    story.append(store.bundle_sequence())
    store.activate_slot("r2", 2.0)
    story.append(store.bundle_sequence())
    store.set_slot_state("r1", "retired", 2.0)
    story.append(store.bundle_sequence())
    assert story == [0, 0, 1, 2, 2, 3]


def test_the_latest_acknowledgement_stays(store: SqliteStore) -> None:
    ack = Ack("spiffe://demo.mesh/x", "a1", "bundle", 1, 5.0)
    store.acknowledge([ack, replace(ack, topic="time")])
    store.acknowledge([replace(ack, sequence=2, at=6.0)])
    assert store.acks() == (replace(ack, topic="time"), replace(ack, sequence=2, at=6.0))


def test_a_commit_of_the_log_reaches_the_disk_before_it_returns(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ca.sqlite3", create=True)
    store.acknowledge([])  # leaves the connection with the cheaper setting
    seen: list[str] = []
    store._db.set_trace_callback(seen.append)
    store.record([LINE])
    assert seen[0] == "PRAGMA synchronous=FULL"
    assert seen[1] == "BEGIN IMMEDIATE"
    assert seen[-1] == "COMMIT"
    store.close()


def test_the_file_is_ours_alone_and_never_made_by_accident(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "missing.sqlite3")
    assert list(tmp_path.iterdir()) == []
    SqliteStore(tmp_path / "ca.sqlite3", create=True).close()
    assert stat.S_IMODE((tmp_path / "ca.sqlite3").stat().st_mode) == 0o600
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "ca.sqlite3", create=True)


def test_a_damaged_or_newer_or_closed_store_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "ca.sqlite3"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable):
        SqliteStore(path)
    path.unlink()
    store = SqliteStore(path, create=True)
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreUnavailable, match="newer"):
        SqliteStore(path)
    for use in (lambda: store.record([LINE]), lambda: store.issuances(), lambda: store.check_writable(1.0)):
        with pytest.raises(StoreUnavailable):
            use()


def test_writable_or_not(store: SqliteStore) -> None:
    store.check_writable(1.0)
    store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        store.check_writable(2.0)
    with pytest.raises(StoreUnavailable):
        store.record([LINE])
