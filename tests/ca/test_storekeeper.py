"""A store that takes no write: noticed, told once, believed only with room to spare; and acknowledgements that wait."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from ca.errors import StoreUnavailable
from ca.store.sqlite import SqliteStore
from ca.store.threads import StoreThreads
from ca.store.trouble import trouble
from ca.storekeeper import LITTLE, REMIND, ROOM, Storekeeper
from sidecar.net.http_client import Duplex
from tests.ca.desk import CSR, Desk, at_the_desk
from tests.ca.office import HandClock, open_office


class Small(SqliteStore):
    """Takes writes of up to so many bytes."""

    space = 1 << 30

    def __init__(self) -> None:
        super().__init__(None)
        self.asked: list[int] = []

    def check_writable(self, now: float, room: int = 0) -> None:
        self.asked.append(room)
        if room >= self.space or self.space == 0:
            raise StoreUnavailable("database or disk is full", full=True)
        super().check_writable(now, room)


@dataclass
class Watched:
    """A storekeeper and what it looks after."""

    store: Small
    threads: StoreThreads
    clock: HandClock
    keeper: Storekeeper

    def look(self) -> str | None:
        return trio.run(self.keeper.look)


@pytest.fixture
def watched() -> Watched:
    store, clock = Small(), HandClock()
    threads = StoreThreads(store)
    return Watched(store, threads, clock, Storekeeper(threads, None, clock))


def test_after_a_record_that_failed_a_small_write_is_no_good_sign(watched: Watched) -> None:
    watched.store.space = 100
    assert watched.look() is None
    watched.threads.failing = True  # an issuance needed more
    assert watched.look() == "database or disk is full"
    watched.threads.failing = False
    assert watched.look() == "database or disk is full"
    watched.store.space = ROOM + 1
    assert watched.look() is None
    assert not watched.threads.failing
    assert watched.look() is None
    assert watched.store.asked == [0, ROOM, ROOM, ROOM, 0]


def test_the_log_hears_of_it_once_a_minute_and_of_its_end(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "mesh.ca")
    watched.store.space = 0
    for _ in range(int(2 * REMIND / 5)):
        watched.look()
        watched.clock.now += 5
    watched.store.space = 1 << 30
    watched.look()
    watched.look()
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in told] == ["THE STORE TAKES NO WRITE"] * 2 + ["the store takes writes again"]
    assert told[-1].endswith("after 120 s")


def test_what_was_tried_leaves_nothing_behind(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store", create=True)
    store.check_writable(1.0, ROOM)
    assert store._read("SELECT name FROM numbers WHERE name = 'room'") == []
    sequence = store.bundle_sequence()
    store.close()
    assert SqliteStore(tmp_path / "store").bundle_sequence() == sequence


def test_little_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Storekeeper(StoreThreads(Small()), tmp_path, HandClock())
    facts = os.statvfs(tmp_path)

    class Facts:
        f_frsize = facts.f_frsize
        f_bavail = LITTLE // facts.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda _: Facts)
    assert keeper.warnings() == ()
    Facts.f_bavail -= 1
    (warning,) = keeper.warnings()
    assert "are free on the disk of the CA's store" in warning


def test_sqlite_says_full_and_so_do_we(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "store", create=True)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match=r"full; free space on the disk of ") as caught:
        store.check_writable(1.0, ROOM)
    assert caught.value.full
    assert "once there is space" in caught.value.advice
    assert str(tmp_path) not in caught.value.advice
    store.close()

    class NoSpace:
        f_frsize, f_bavail = 4096, 3

    monkeypatch.setattr(os, "statvfs", lambda _: NoSpace)  # SQLite calls it an I/O error where it makes its other files
    assert trouble("it cannot be opened", OSError("disk I/O error"), tmp_path / "store").full
    assert not trouble("it cannot be opened", OSError("disk I/O error"), None).full


def test_a_record_that_failed_is_counted() -> None:
    office = open_office()
    entry = office.entry()
    office.store.broken = True
    with pytest.raises(StoreUnavailable):
        trio.run(office.issue, entry)
    assert (office.threads.failing, office.threads.failures) == (True, 1)
    office.store.broken = False
    trio.run(office.issue, entry)
    assert (office.threads.failing, office.threads.failures) == (False, 1)


@at_the_desk
async def test_the_metrics_tell_what_was_issued_and_refused_and_what_could_stop_it(desk: Desk) -> None:
    await desk.svid(desk.entry())
    await desk.post("/v1/enrol", {"csr": CSR, "proof": {"type": "join_token", "token": "x"}})
    answer = await desk.get("/v1/metrics")
    lines = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    assert answer.header(b"content-type") == b"text/plain; version=0.0.4; charset=utf-8"
    assert lines["mesh_ca_issued_total"] == "1.0"
    assert sum(float(value) for name, value in lines.items() if name.startswith("mesh_ca_refused_total{")) == 1
    assert (lines["mesh_ca_ready"], lines["mesh_ca_store_writable"]) == ("1.0", "1.0")
    assert float(lines['mesh_ca_certificate_expires_at_seconds{kind="issuer"}']) > desk.clock.now
    assert float(lines["mesh_ca_store_free_bytes"]) > 0


@at_the_desk(bundle_poll=0.05, watch_beat=0.1)
async def test_a_watch_outlives_a_store_that_takes_no_acknowledgement(desk: Desk) -> None:
    svid, store = await desk.svid(desk.entry()), desk.server.store.store
    assert isinstance(store, SqliteStore)
    store._db.execute("PRAGMA query_only = 1")
    async with desk.connect(svid) as client:
        duplex = await client.duplex("POST", "/v1/watch")
        assert isinstance(duplex, Duplex)
        await duplex.send(b'{"ack":"bundle","sequence":1}\n')
        beats, buffer = 0, b""
        while beats < 4:
            piece = await duplex.receive()
            assert piece is not None
            *lines, buffer = (buffer + piece).split(b"\n")
            beats += sum(json.loads(line)["topic"] == "time" for line in lines)
        assert store.acks() == ()
        store._db.execute("PRAGMA query_only = 0")
        await duplex.send(b'{"ack":"time","sequence":2}\n')
        while len(store.acks()) < 3:
            await trio.sleep(0.01)
        assert {ack.topic for ack in store.acks()} == {"bundle", "time", "watch"}
