"""A CA in one file and out of it again: while it serves, on an empty machine, and never over a living one."""

from __future__ import annotations

import io
import json
import sqlite3
import stat
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from ca.backup import back_up, restore
from ca.bootstrap import enrolment_file, prepare
from ca.checkpoints import verify_log
from ca.config import ServeConfig, load_settings
from ca.enrolling import grant_token
from ca.entries import NewEntry, parse_identity
from ca.errors import CaExists, InvalidBackup, LogBroken, NoCa, StoreUnavailable, TokenUsed
from ca.roots import load_bundle, load_issuer
from ca.server import open_server
from ca.store.sqlite import SqliteStore
from certs.enrolment import Enrolment, EnrolmentKey
from certs.errors import PrivateFileUnavailable
from tests.ca.office import ADDRESS, DAY, DEMO, NOW, HandClock
from tests.ca.test_store import KEY, LINE

PASS = b"correct horse battery staple"
ORDERS = NewEntry(parse_identity("orders", DEMO), ("orders",))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare(tmp_path / "ca", DEMO, PASS, [ORDERS], ADDRESS, NOW)
    return tmp_path / "ca"


def opened(directory: Path) -> SqliteStore:
    return SqliteStore(directory / "ca.sqlite3")


def test_all_of_it_comes_back_and_serves(directory: Path, tmp_path: Path) -> None:
    store = opened(directory)
    store.record([replace(LINE, issued_at=NOW)])
    facts = back_up(directory, tmp_path / "back.tar", NOW + 1)
    assert stat.S_IMODE((tmp_path / "back.tar").stat().st_mode) == 0o600
    assert (facts.log_number, facts.keys) == (store.head().number, 3)
    store.close()
    found = restore(tmp_path / "back.tar", tmp_path / "new" / "ca", NOW + DAY)
    assert (found.taken_at, found.keys, found.tokens_ended) == (NOW + 1, 3, 0)
    again = opened(tmp_path / "new" / "ca")
    before = opened(directory)
    for path in [tmp_path / "new" / "ca", *(tmp_path / "new" / "ca").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert again.entries() == before.entries()
    assert again.issuances() == before.issuances()
    assert again.slots() == before.slots()
    assert load_settings(tmp_path / "new" / "ca") == load_settings(directory)
    assert load_issuer(tmp_path / "new" / "ca", again, PASS).serial == load_issuer(directory, before, PASS).serial
    assert verify_log(again, DEMO).findings == []
    assert again.lines(before.head().number)[0].facts["kind"] == "restored"
    for store in (again, before):
        store.close()

    async def serve() -> None:
        server = open_server(ServeConfig(tmp_path / "new" / "ca", port=0), PASS, HandClock(NOW + DAY))
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            entry = server.store.store.entries()[0]
            proof = Enrolment.load(enrolment_file(directory, ORDERS.spiffe_id)).proof  # a sidecar's own, from before
            assert isinstance(proof, EnrolmentKey)
            assert server.store.store.keys(entry.id)[0].public_bytes == proof.public_bytes
            nursery.cancel_scope.cancel()
        server.store.store.close()

    trio.run(serve)


def test_sequences_jump_so_that_what_was_told_since_is_older(directory: Path, tmp_path: Path) -> None:
    store = opened(directory)
    back_up(directory, tmp_path / "back.tar", NOW)
    for number in range(50):  # told to sidecars after the copy
        store.unrevoke("serial", f"{number}", NOW) if number % 2 else None
    told = (store.bundle_sequence(), store.denylist_sequence())
    store.close()
    for day, place in ((1, "one"), (2, "two")):
        restore(tmp_path / "back.tar", tmp_path / place, NOW + day * DAY)
        store = opened(tmp_path / place)
        now = (store.bundle_sequence(), store.denylist_sequence())
        assert now == (NOW + day * DAY,) * 2
        assert now > told
        assert load_bundle(store, DEMO).sequence == now[0]
        told = now
        store.close()


def test_a_token_spent_after_the_copy_is_not_good_again(directory: Path, tmp_path: Path) -> None:
    store = opened(directory)
    entry = store.entries()[0]
    for _ in range(2):
        grant_token(store, entry, ADDRESS, NOW)
    [first, second] = [str(row[0]) for row in store._read("SELECT token_sha256 FROM join_tokens")]
    back_up(directory, tmp_path / "back.tar", NOW)
    store.redeem_token(first, replace(KEY, entry=entry.id), NOW + 1)
    store.close()
    assert restore(tmp_path / "back.tar", tmp_path / "new", NOW + 2).tokens_ended == 2
    store = opened(tmp_path / "new")
    for token in (first, second):
        with pytest.raises(TokenUsed):
            store.redeem_token(token, replace(KEY, entry=entry.id), NOW + 3)
    store.close()


def test_a_back_up_while_it_issues_is_of_one_moment(directory: Path, tmp_path: Path) -> None:
    store, done = opened(directory), threading.Event()
    written = [0]

    def issue() -> None:
        while not done.is_set():
            store.record([replace(LINE, serial=f"s{written[0]}", issued_at=NOW)])
            written[0] += 1

    thread = threading.Thread(target=issue)
    thread.start()
    try:
        for number in range(5):
            facts = back_up(directory, tmp_path / f"back-{number}.tar", NOW)
            restore(tmp_path / f"back-{number}.tar", tmp_path / f"new-{number}", NOW)
            copy = opened(tmp_path / f"new-{number}")
            assert verify_log(copy, DEMO).findings == []
            assert copy.head().number == facts.log_number + 1
            copy.close()
    finally:
        done.set()
        thread.join()
        store.close()
    assert written[0] > 0


def test_a_living_ca_is_never_overwritten(directory: Path, tmp_path: Path) -> None:
    back_up(directory, tmp_path / "back.tar", NOW)
    with pytest.raises(CaExists, match="never overwritten"):
        restore(tmp_path / "back.tar", directory, NOW)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("mine")
    with pytest.raises(CaExists):
        restore(tmp_path / "back.tar", tmp_path / "other", NOW)
    with pytest.raises(CaExists, match="--force"):
        back_up(directory, tmp_path / "back.tar", NOW)
    back_up(directory, tmp_path / "back.tar", NOW, force=True)
    with pytest.raises(NoCa):
        back_up(tmp_path / "other", tmp_path / "x.tar", NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.tar", "ca", "other"]


Members = dict[str, bytes]


def flipped(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def edit_manifest(whole: Members, /, **changes: object) -> Members:
    document = json.loads(whole["manifest.json"])
    return {**whole, "manifest.json": json.dumps({**document, **changes}).encode()}


def honest(members: Members) -> Members:
    """The manifest made to agree with what was changed."""
    import hashlib

    named = json.loads(members["manifest.json"])["members"]
    return edit_manifest(members, members={name: hashlib.sha256(members[name]).hexdigest() for name in named})


def edit_store(members: Members, folder: Path, sql: str) -> Members:
    (folder / "edited").write_bytes(members["ca.sqlite3"])
    with closing(sqlite3.connect(folder / "edited")) as db:
        db.executescript(sql)
    return honest({**members, "ca.sqlite3": (folder / "edited").read_bytes()})


DAMAGE: list[tuple[str, Callable[[Members, Path], Members], type[Exception], str]] = [
    ("a flipped byte", lambda m, _: {**m, "ca.sqlite3": flipped(m["ca.sqlite3"])}, InvalidBackup, "damaged"),
    ("no manifest", lambda m, _: {k: v for k, v in m.items() if k != "manifest.json"}, InvalidBackup, "no manifest"),
    ("no store", lambda m, _: {k: v for k, v in m.items() if k != "ca.sqlite3"}, InvalidBackup, "has no ca.sqlite3"),
    ("not JSON", lambda m, _: {**m, "manifest.json": b"{"}, InvalidBackup, "cannot be read"),
    ("newer", lambda m, _: edit_manifest(m, version=2), InvalidBackup, "use a newer one"),
    ("a stray name", lambda m, _: edit_manifest(m, members={"../x": "0"}), InvalidBackup, "other files"),
    ("an absolute name", lambda m, _: edit_manifest(m, members={"/etc/x": "0"}), InvalidBackup, "other files"),
    ("a name with dots", lambda m, _: with_name(m, "keys/../ca.pem"), InvalidBackup, "other files"),
    ("another domain", lambda m, _: edit_manifest(m, trust_domain="x.y"), InvalidBackup, "another trust domain"),
    ("no keys", lambda m, _: without_keys(m), InvalidBackup, "is not in the back-up"),
    ("no database", lambda m, _: honest({**m, "ca.sqlite3": b"x" * 9000}), InvalidBackup, "no store that can be used"),
    ("a changed log", lambda m, f: edit_store(m, f, CHANGED), LogBroken, "line 4 was changed"),
    ("a missing trigger", lambda m, f: edit_store(m, f, DROPPED), StoreUnavailable, "tables"),
    ("a new trigger", lambda m, f: edit_store(m, f, ADDED), StoreUnavailable, "tables"),
]
CHANGED = """
DROP TRIGGER log_lines_never_change;
UPDATE log SET line = replace(line, 'issuer', 'Issuer') WHERE number = 4;
CREATE TRIGGER log_lines_never_change BEFORE UPDATE ON log
BEGIN SELECT RAISE (ABORT, 'the log is append-only'); END;
"""
DROPPED = "DROP TRIGGER log_lines_never_vanish"
ADDED = "CREATE TRIGGER quiet AFTER INSERT ON join_tokens BEGIN DELETE FROM join_tokens; END;"


def with_name(members: Members, name: str) -> Members:
    return edit_manifest(members, members={**json.loads(members["manifest.json"])["members"], name: "0"})


def without_keys(members: Members) -> Members:
    named = json.loads(members["manifest.json"])["members"]
    return edit_manifest(members, members={name: one for name, one in named.items() if not name.startswith("keys/")})


@pytest.mark.parametrize(("name", "change", "error", "says"), DAMAGE, ids=[row[0] for row in DAMAGE])
def test_a_damaged_or_forged_file_restores_nothing(
    directory: Path,
    tmp_path: Path,
    name: str,
    change: Callable[[Members, Path], Members],
    error: type[Exception],
    says: str,
) -> None:
    back_up(directory, tmp_path / "back.tar", NOW)
    with tarfile.open(tmp_path / "back.tar") as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar.getmembers()}  # type: ignore[union-attr]
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for member, data in change(members, tmp_path).items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(error, match=says):
        restore(tmp_path / "bad.tar", tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".new")] == []


def test_what_is_no_tar_at_all_or_cut_short(directory: Path, tmp_path: Path) -> None:
    back_up(directory, tmp_path / "back.tar", NOW)
    whole = (tmp_path / "back.tar").read_bytes()
    for size in (0, 100, 511, 512, 1024, 5000, len(whole) // 2):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(InvalidBackup):
            restore(tmp_path / "cut.tar", tmp_path / "new", NOW)
    assert not (tmp_path / "new").exists()


def test_a_link_in_the_tar_is_not_followed(directory: Path, tmp_path: Path) -> None:
    back_up(directory, tmp_path / "back.tar", NOW)
    with tarfile.open(tmp_path / "back.tar") as tar:
        manifest = tar.extractfile("manifest.json").read()  # type: ignore[union-attr]
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
        link = tarfile.TarInfo("ca.json")
        link.type, link.linkname = tarfile.SYMTYPE, str(directory / "ca.json")
        tar.addfile(link)
    with pytest.raises(InvalidBackup, match=r"has no ca\.json"):
        restore(tmp_path / "bad.tar", tmp_path / "new", NOW)


def test_a_ca_whose_log_or_keys_do_not_hold_is_not_backed_up(directory: Path, tmp_path: Path) -> None:
    next((directory / "keys").iterdir()).unlink()
    with pytest.raises(PrivateFileUnavailable):
        back_up(directory, tmp_path / "back.tar", NOW)
    with closing(sqlite3.connect(directory / "ca.sqlite3")) as db:
        db.executescript("DROP TRIGGER log_lines_never_vanish; DELETE FROM log WHERE number = 2;")
    with pytest.raises(LogBroken, match="line 2 was dropped"):
        back_up(directory, tmp_path / "back.tar", NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]
