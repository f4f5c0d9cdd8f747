"""The log as a chain: what was changed, dropped or cut is found and named; heads are signed, exported, and believed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ca.chain import BEFORE_THE_FIRST, Event, Head, append, hash_of
from ca.checkpoints import checkpoint_if_due, export_head, read_head, sign_head, verify_log
from ca.config import CaSettings
from ca.create import create_ca
from ca.enrolling import register
from ca.entries import NewEntry, parse_identity
from ca.errors import DamagedCa, LogBroken, StoreUnavailable
from ca.roots import load_issuer, slot_of
from ca.schedule import Schedule
from ca.store.base import Checkpoint, Revocation
from ca.store.sqlite import SqliteStore
from certs.bundle import root_hash
from certs.signed import InvalidStatement, Statement
from certs.spiffe import TrustDomain
from tests.ca.office import DAY, DEMO, NOW, an_issuer
from tests.ca.test_store import LINE

ISSUER = an_issuer()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with ten certificates in its log, and checkpoints after the fifth and the tenth."""
    store = SqliteStore(tmp_path / "ca.sqlite3", create=True)
    store.add_slot(slot_of(ISSUER.root, "root", NOW))
    store.add_slot(slot_of(ISSUER.certificate, "issuer", NOW, root=root_hash(ISSUER.root)))
    register(store, DEMO, NewEntry(parse_identity("orders", DEMO)), NOW)
    for number in range(10):
        store.record([replace(LINE, serial=f"a{number}", issued_at=NOW + number)])
        if number in (4, 9):
            assert checkpoint_if_due(store, DEMO, ISSUER, NOW + number) is not None
    store.close()
    return tmp_path / "ca.sqlite3"


def findings(path: Path, kept: Statement | None = None) -> list[str]:
    store = SqliteStore(path)
    try:
        return verify_log(store, DEMO, kept).findings
    finally:
        store.close()


def tamper(path: Path, *statements: str) -> None:
    """What somebody with the file, and no key, can do: triggers do not stop them."""
    with closing(sqlite3.connect(path)) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)
        db.commit()


def rewrite(path: Path, edit: Callable[[int, dict[str, object]], dict[str, object] | None]) -> None:
    """The whole chain made anew after an edit, numbers and hashes in order."""
    with closing(sqlite3.connect(path)) as db:
        old = [json.loads(row[0]) for row in db.execute("SELECT line FROM log ORDER BY number")]
    new = [edited for number, facts in enumerate(old, 1) if (edited := edit(number, facts)) is not None]
    events = [Event(float(str(one.pop("at"))), str(one.pop("kind")), one) for one in new if one.pop("n")]
    lines = [(line.number, line.text, line.hash) for line in append(Head(), events)]
    tamper(path, "DELETE FROM log")
    with closing(sqlite3.connect(path)) as db:
        db.executemany("INSERT INTO log (number, line, hash) VALUES (?, ?, ?)", lines)
        db.commit()


def test_an_outsider_can_follow_the_chain_with_sha256_alone() -> None:
    first, second = append(Head(), [Event(1.5, "issued", {"serial": "a"}), Event(2.0, "x", {})])
    assert first.text == '{"n":1,"at":1.5,"kind":"issued","serial":"a"}'
    assert first.hash == hash_of(BEFORE_THE_FIRST, first.text)
    assert second.hash == hash_of(first.hash, second.text)
    assert list(append(first.head, [Event(2.0, "x", {})])) == [second]


def test_a_whole_log_holds(path: Path) -> None:
    store = SqliteStore(path)
    report = verify_log(store, DEMO)
    assert report.findings == []
    assert report.head == store.head()
    assert (report.head.number, report.checkpoints, report.signed_to) == (13, 2, 13)
    assert report.roots == (root_hash(ISSUER.root),)
    assert report.as_json()["ok"] is True
    report.check()
    assert checkpoint_if_due(store, DEMO, ISSUER, NOW) is None  # it is signed already
    store.close()


TAMPERING = [
    (["UPDATE log SET line = replace(line, 'a3', 'b3') WHERE serial = 'a3'"], "line 7 was changed"),
    (["DELETE FROM log WHERE number = 7"], "line 7 was dropped"),
    (["DELETE FROM log WHERE number BETWEEN 7 AND 9"], "line 7 to 9 was dropped"),
    (["DELETE FROM log WHERE number = 13"], "lines 13 to 13 were cut off"),
    (["DELETE FROM log WHERE number > 10"], "lines 11 to 13 were cut off"),
    (["DELETE FROM log WHERE number = 1"], "line 1 was dropped"),
    (["UPDATE log SET hash = 'x' WHERE number = 9"], "line 9 was changed"),
    (["UPDATE log SET number = 99 WHERE number = 13"], "says that it is line 13"),
    (["UPDATE log SET line = 'x' || line WHERE number = 13"], "malformed JSON"),
    (["UPDATE checkpoints SET document = '{}' WHERE number = 13"], "checkpoint 13 cannot be read"),
    (["UPDATE checkpoints SET at = at + 1"], "checkpoint 8 says something else"),
    (["UPDATE checkpoints SET document = replace(document, '\"by\":\"', '\"by\":\"0')"], "no good signature"),
    (["UPDATE signing_slots SET state = 'retiring' WHERE kind = 'issuer'"], "is retiring in its table and active in"),
    (["INSERT INTO revocations VALUES ('spiffe_id', 'spiffe://demo.mesh/x', 'no', 1, NULL)"], "log says otherwise"),
    (["UPDATE entries SET id = 'other-1'"], "other-1 lives, yet was never added"),
    (["DELETE FROM entries"], "is gone without a line"),
]


@pytest.mark.parametrize(("statements", "says"), TAMPERING, ids=[says for _, says in TAMPERING])
def test_what_was_changed_dropped_or_cut_is_named(path: Path, statements: list[str], says: str) -> None:
    if says == "malformed JSON":  # SQLite itself does not take it
        with pytest.raises(sqlite3.OperationalError, match=says):
            tamper(path, *statements)
        return
    tamper(path, *statements)
    found = findings(path)
    assert any(says in finding for finding in found), found
    store = SqliteStore(path)
    with pytest.raises(LogBroken, match=says):
        verify_log(store, DEMO).check()
    store.close()


REWRITES: list[tuple[str, Callable[[int, dict[str, object]], dict[str, object] | None], str]] = [
    ("changed", lambda n, facts: {**facts, "serial": "ff"} if n == 5 else facts, "a line from 1 to 8 was changed"),
    ("changed late", lambda n, facts: {**facts, "serial": "ff"} if n == 11 else facts, "a line from 9 to 13"),
    ("dropped", lambda n, facts: None if n == 11 else facts, "lines 13 to 13 were cut off"),
    ("inserted", lambda n, facts: {**facts, "at": 1.0} if n == 9 else facts, "a line from 9 to 13"),
]


@pytest.mark.parametrize(("name", "edit", "says"), REWRITES, ids=[row[0] for row in REWRITES])
def test_a_chain_that_was_written_anew_does_not_fit_its_checkpoints(
    path: Path, name: str, edit: Callable[[int, dict[str, object]], dict[str, object] | None], says: str
) -> None:
    rewrite(path, edit)
    found = findings(path)
    assert any(says in finding for finding in found), found


def test_cut_back_with_its_checkpoints_only_a_head_kept_elsewhere_tells(path: Path) -> None:
    store = SqliteStore(path)
    kept = export_head(store)
    store.close()
    assert kept is not None
    assert read_head(kept, DEMO, (ISSUER.root,)) == (Head(13, kept_hash(kept)), NOW + 9)
    assert findings(path, kept) == []
    tamper(path, "DELETE FROM checkpoints WHERE number = 13", "DELETE FROM log WHERE number > 8")
    assert findings(path) == []
    assert findings(path, Statement.parse(json.loads(json.dumps(kept.to_json())))) == [
        "lines 9 to 13 were cut off: the head that was kept names the last"
    ]


def kept_hash(kept: Statement) -> str:
    return str(json.loads(kept.payload)["hash"])


def test_a_log_that_was_forked_after_a_kept_head_is_found(path: Path) -> None:
    store = SqliteStore(path)
    kept = export_head(store)
    store.close()
    rewrite(path, lambda n, facts: {**facts, "serial": "ff"} if n == 11 else facts)
    tamper(path, "DELETE FROM checkpoints WHERE number = 13")
    assert findings(path) == []
    assert findings(path, kept) == ["line 13 is not the one of the head that was kept elsewhere"]


def test_checkpoints_of_strangers_are_worth_nothing(path: Path) -> None:
    store = SqliteStore(path)
    store.record([replace(LINE, serial="b")])
    head, other = store.head(), an_issuer()
    store.add_checkpoint(sign_head(head, DEMO, other, NOW + 20))
    assert verify_log(store, DEMO).findings == ["checkpoint 14 has no good signature of an issuing CA"]
    # a stranger who also puts his certificate into the table is not vouched for by a root of ours
    store.add_slot(slot_of(other.certificate, "issuer", NOW, "prepared", root=root_hash(ISSUER.root)))
    store.record([replace(LINE, serial="c")])
    store.add_checkpoint(sign_head(store.head(), DEMO, other, NOW + 20))
    assert "checkpoint 16 has no good signature of an issuing CA" in verify_log(store, DEMO).findings
    store.close()


def test_a_checkpoint_from_outside_its_signers_life_is_not_believed(path: Path) -> None:
    store = SqliteStore(path)
    store.record([replace(LINE, serial="b")])
    checkpoint_if_due(store, DEMO, ISSUER, NOW + 31 * DAY)
    assert verify_log(store, DEMO).findings == ["checkpoint 14 has no good signature of an issuing CA"]
    store.close()


def test_signers_change_and_the_old_checkpoints_still_hold(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    create_ca(directory, CaSettings(DEMO), b"a passphrase", NOW)
    store = SqliteStore(directory / "ca.sqlite3")
    signers = []
    for day in (0, 26, 52):
        store.note(NOW + day * DAY, "restored", tokens_ended=0)
        Schedule(directory, store, DEMO, b"a passphrase").round(NOW + day * DAY)
        issuer = load_issuer(directory, store, b"a passphrase")
        checkpoint_if_due(store, DEMO, issuer, NOW + day * DAY)
        signers.append(issuer.serial)
    assert len(set(signers)) == 3
    assert [slot.state for slot in store.slots()] == ["active", "retired", "retiring", "active"]
    report = verify_log(store, DEMO)
    assert (report.findings, report.checkpoints, report.signed_to) == ([], 3, store.head().number)
    store.close()


def test_heads_that_cannot_be_believed(path: Path) -> None:
    store = SqliteStore(path)
    kept = export_head(store)
    assert kept is not None
    other = an_issuer()
    table = [
        (replace(kept, payload=kept.payload.replace(b'"number":13', b'"number":12')), "bad_signature"),
        (Statement.sign("denylist", kept.payload, ISSUER.key, kept.signer), "bad_signature"),
        (Statement.sign("log-head", kept.payload, other.key, (other.certificate,)), "unknown_root"),
        (replace(kept, payload=b"{}"), "malformed"),
        (replace(kept, payload=b"nonsense"), "malformed"),
    ]
    for statement, reason in table:
        with pytest.raises(InvalidStatement) as caught:
            read_head(statement, DEMO, (ISSUER.root,))
        assert caught.value.reason == reason
        assert "does not hold" in verify_log(store, DEMO, statement).findings[0]
    with pytest.raises(InvalidStatement, match=r"of the log of demo\.mesh"):
        read_head(kept, TrustDomain.parse("other.mesh"), (ISSUER.root,))
    store.close()


def test_a_head_without_its_signer_or_its_line_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(None)
    assert export_head(store) is None
    assert checkpoint_if_due(store, DEMO, ISSUER, NOW) is None  # an empty log has nothing to sign
    with pytest.raises(StoreUnavailable):
        store.add_checkpoint(Checkpoint(7, NOW, "{}"))
    store.note(NOW, "restored")
    checkpoint_if_due(store, DEMO, ISSUER, NOW)
    with pytest.raises(DamagedCa, match="does not have"):
        export_head(store)
    store.close()


def test_every_change_of_who_may_have_what_is_a_line() -> None:
    store = SqliteStore(None)
    entry = register(store, DEMO, NewEntry(parse_identity("orders", DEMO)), NOW)
    store.revoke(Revocation("spiffe_id", entry.spiffe_id.text, "stolen", NOW + 1))
    store.unrevoke("spiffe_id", entry.spiffe_id.text, NOW + 2)
    store.remove_entry(entry.id, NOW + 3)
    told = [(line.facts["kind"], line.facts["at"]) for line in store.lines()]
    assert told == [("entry_added", NOW), ("revoked", NOW + 1), ("unrevoked", NOW + 2), ("entry_removed", NOW + 3)]
    store.close()
