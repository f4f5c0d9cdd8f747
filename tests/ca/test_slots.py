"""The states of signing keys and their dates, as tables; and schedules lived through, on disk and in virtual time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ca.checkpoints import verify_log
from ca.config import CaSettings, ServeConfig
from ca.create import create_ca
from ca.entries import MIN_TTL
from ca.roots import key_file, load_issuer, renew_issuer
from ca.schedule import Schedule
from ca.server import CaServer, open_server
from ca.slots import (
    ACTIVATE_PART,
    MIN_ISSUER_TTL,
    MOVES,
    Activate,
    Life,
    Prepare,
    Retire,
    SlotState,
    Step,
    next_date,
    next_step,
)
from ca.store.sqlite import SqliteStore
from certs.keys import new_key
from certs.verify import verify_chain
from sidecar.net.clock import TestClock
from tests.ca.office import DAY, DEMO, NOW

PASS = b"correct horse battery staple"


def life(name: str, state: SlotState, begins: float, ends: float) -> Life:
    return Life(name, state, begins * DAY, begins * DAY - 3600, ends * DAY)


A = life("a", "active", 0, 30)
OLD, NEXT = life("o", "retiring", -20, 10), life("n", "prepared", 15, 45)
TABLE: list[tuple[str, list[Life], float, Step | None]] = [
    ("young", [A], 1, None),
    ("just before half", [A], 14.99, None),
    ("half its life", [A], 15, Prepare()),
    ("prepared already", [A, NEXT], 16, None),
    ("a sixth is left", [A, NEXT], 25, Activate("n")),
    ("a sixth is left, none prepared", [A], 25.5, Prepare()),
    ("expired, none prepared", [A], 31, Prepare()),
    ("expired, one prepared", [A, NEXT], 31, Activate("n")),
    ("the old one holds still", [OLD, A], 5, None),
    ("the old one is past its end", [OLD, A], 10, Retire("o")),
    ("one that was prepared and never used", [life("n", "prepared", -40, -10), A], 1, Retire("n")),
    ("all expired while it was off", [life("a", "active", -90, -60), life("n", "prepared", -75, -45)], 0, Retire("n")),
    ("and then", [life("a", "active", -90, -60)], 0, Prepare()),
    ("the clock went back before the active one began", [A], -1, Prepare()),
    ("a fresh one for that time", [A, life("n", "prepared", -1, 29)], -1, Activate("n")),
    ("the clock went back a little", [A], -0.02, None),
    ("prepared in the future, and the active one is good", [A, life("n", "prepared", 40, 70)], 1, None),
    ("prepared in the future, and the active one is not", [A, life("n", "prepared", 40, 70)], 31, Retire("n")),
    ("nothing at all", [], 0, Prepare()),
    ("no active one", [life("n", "prepared", 0, 30)], 1, Activate("n")),
    ("the root's end cuts both", [life("a", "active", 0, 30), life("n", "prepared", 15, 30)], 29, None),
]


@pytest.mark.parametrize(("name", "lives", "day", "step"), TABLE, ids=[row[0] for row in TABLE])
def test_what_is_due(name: str, lives: list[Life], day: float, step: Step | None) -> None:
    assert next_step(lives, day * DAY) == step


def test_dates_are_those_of_s6() -> None:
    assert (A.prepare_at, A.activate_at) == (15 * DAY, 25 * DAY)
    year = life("y", "active", 0, 365)
    assert (year.prepare_at, year.activate_at) == (335 * DAY, 358 * DAY)  # the caps: 30 and 7 days
    assert next_date([A], 0.0) == 15 * DAY
    assert next_date([A, NEXT], 16 * DAY) == 25 * DAY
    assert next_date([OLD, A], 1 * DAY) == 10 * DAY
    assert next_date([], 0.0) is None
    assert ACTIVATE_PART * MIN_ISSUER_TTL > MIN_TTL  # the shortest leaf fits under the shortest issuing CA


def test_the_table_of_moves_has_no_way_back_from_the_end() -> None:
    assert MOVES["retired"] == MOVES["revoked"] == frozenset()
    assert all(target in MOVES for targets in MOVES.values() for target in targets)


# ---- on disk -----------------------------------------------------------------------------------------------------


def a_ca(folder: Path, **options: Any) -> tuple[Path, SqliteStore]:
    create_ca(folder / "ca", CaSettings(DEMO), PASS, NOW, **options)
    return folder / "ca", SqliteStore(folder / "ca" / "ca.sqlite3")


def states(store: SqliteStore) -> str:
    return " ".join(slot.state for slot in store.slots() if slot.kind == "issuer")


def test_a_quarter_passes_by_itself(tmp_path: Path) -> None:
    directory, store = a_ca(tmp_path)
    schedule, story = Schedule(directory, store, DEMO, PASS), list[tuple[int, str]]()
    for hour in range(0, 90 * 24, 6):
        if schedule.round(NOW + hour * 3600):
            story.append((hour // 24, states(store)))
        issuer = load_issuer(directory, store, PASS)
        assert issuer.not_after - (NOW + hour * 3600) > 4.7 * DAY  # a leaf of a day is never cut short
    assert story[:5] == [
        (15, "active prepared"),
        (25, "retiring active"),
        (30, "retired active prepared"),
        (40, "retired retiring active"),
        (45, "retired retired active prepared"),
    ]
    for slot in store.slots():
        assert key_file(directory, slot.sha256).exists() == (slot.state != "retired")
    assert verify_log(store, DEMO).findings == []
    moves = [line.facts for line in store.lines() if line.facts["kind"] == "slot"]
    assert [one["state"] for one in moves[:5]] == ["active", "active", "prepared", "retiring", "active"]
    store.close()


def test_off_for_years_it_catches_up_in_one_round(tmp_path: Path) -> None:
    directory, store = a_ca(tmp_path)
    schedule = Schedule(directory, store, DEMO, PASS)
    now = NOW + 3 * 365 * DAY
    assert [type(step).__name__ for step in schedule.round(now)] == ["Prepare", "Activate", "Retire"]
    assert load_issuer(directory, store, PASS).not_after == now + 30 * DAY
    assert schedule.round(now) == ()
    store.close()


def test_a_clock_that_jumps_and_returns_leaves_a_ca_that_signs(tmp_path: Path) -> None:
    directory, store = a_ca(tmp_path)
    schedule = Schedule(directory, store, DEMO, PASS)
    for day in (0, 400, 0, 16, -3, 1):
        now = NOW + day * DAY
        schedule.round(now)
        issuer = load_issuer(directory, store, PASS) if day >= 0 else None
        if issuer is not None:
            assert issuer.certificate.not_valid_before_utc.timestamp() <= now < issuer.not_after
    assert schedule.problem is None or "root" in schedule.problem  # before the root's birth nothing can be made
    store.close()


def test_the_roots_end_is_said_and_nothing_is_made_in_vain(tmp_path: Path) -> None:
    directory, store = a_ca(tmp_path, root_ttl=40 * DAY)
    schedule = Schedule(directory, store, DEMO, PASS)
    schedule.round(NOW + 15 * DAY)
    schedule.round(NOW + 25 * DAY)
    assert states(store) == "retiring active"
    assert load_issuer(directory, store, PASS).not_after == NOW + 40 * DAY
    for day in range(26, 40):
        schedule.round(NOW + day * DAY)
    assert states(store) == "retired active"
    assert "a new root is needed" in str(schedule.problem)
    store.close()


def test_two_schedules_at_once_prepare_one(tmp_path: Path) -> None:
    directory, store = a_ca(tmp_path)
    other = SqliteStore(directory / "ca.sqlite3")
    one, two = (Schedule(directory, each, DEMO, PASS) for each in (store, other))
    assert [one.round(NOW + 15 * DAY), two.round(NOW + 15 * DAY)] == [(Prepare(),), ()]
    assert states(store) == "active prepared"
    store.close()
    other.close()


def test_by_hand_the_prepared_one_takes_over(tmp_path: Path) -> None:
    directory, store = a_ca(tmp_path)
    Schedule(directory, store, DEMO, PASS).round(NOW + 16 * DAY)
    prepared = store.slots()[-1]
    assert renew_issuer(directory, store, DEMO, PASS, NOW + 16 * DAY).serial
    assert [slot.state for slot in store.slots() if slot.sha256 == prepared.sha256] == ["active"]
    assert states(store) == "retiring active"
    store.close()


def test_what_a_kill_left_behind_is_made_up_for(tmp_path: Path) -> None:
    """Each copy of the directory is a CA that died between two writes of one turn of the schedule."""
    directory, store = a_ca(tmp_path)
    store.close()
    copies: list[Path] = []

    class Dying(SqliteStore):
        def add_slot(self, slot: Any) -> None:
            copies.append(snapshot())  # the key is on disk, its slot is not
            super().add_slot(slot)
            copies.append(snapshot())

        def activate_slot(self, sha256: str, now: float) -> None:
            super().activate_slot(sha256, now)
            copies.append(snapshot())

        def set_slot_state(self, sha256: str, state: SlotState, now: float) -> None:
            super().set_slot_state(sha256, state, now)
            copies.append(snapshot())  # retired, its key not yet destroyed

    def snapshot() -> Path:
        return Path(shutil.copytree(directory, tmp_path / f"died-{len(copies)}"))

    dying = Dying(directory / "ca.sqlite3")
    Schedule(directory, dying, DEMO, PASS).round(NOW + 31 * DAY)
    dying.close()
    assert len(copies) == 4
    for copy in copies:
        store, now = SqliteStore(copy / "ca.sqlite3"), NOW + 31 * DAY + 60
        schedule = Schedule(copy, store, DEMO, PASS)
        schedule.round(now)
        schedule.destroy_keys()
        assert states(store) == "retired active"
        assert load_issuer(copy, store, PASS).not_after >= now + 29 * DAY
        assert not key_file(copy, store.slots()[1].sha256).exists()
        assert verify_log(store, DEMO).findings == []
        store.close()


# ---- while serving -----------------------------------------------------------------------------------------------


async def inline(method: Any, *args: Any, **kwargs: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return method(*args, **kwargs)


def test_while_serving_issuers_change_by_themselves_and_leaves_never_outlive_them(tmp_path: Path) -> None:
    create_ca(tmp_path / "ca", CaSettings(DEMO), PASS, NOW, root_ttl=DAY, issuer_ttl=200.0)
    seen: list[str] = []

    async def whole() -> None:
        clock = TestClock(NOW)
        config = ServeConfig(tmp_path / "ca", port=0, bundle_poll=1e6, svid_ttl=60.0, store_check=1e6)
        server = open_server(config, PASS, clock)
        server.store.call = inline  # type: ignore[method-assign]  # virtual time would run on while a thread works
        async with trio.open_nursery() as nursery:
            await server.renew_own_svid()
            nursery.start_soon(server._keep_schedule)
            nursery.start_soon(server._keep_checkpoints)
            for _ in range(200):
                await trio.sleep(10)
                await judge(server, clock)
            nursery.cancel_scope.cancel()
        server.checkpoint()
        assert verify_log(server.store.store, DEMO).findings == []
        server.store.store.close()

    async def judge(server: CaServer, clock: TestClock) -> None:
        svid = await server.authority.issue_own(new_key(), 60.0)
        assert svid.not_after <= server.issuer.not_after
        assert svid.not_after - clock.wall() >= MIN_TTL
        verify_chain(svid.chain, server.bundles.current, clock.wall())
        if server.issuer.serial not in seen:
            seen.append(server.issuer.serial)

    trio.run(whole, clock=trio.testing.MockClock(autojump_threshold=0))
    assert 18 <= len(seen) <= 21  # 2,000 s; each is made when half of the one before is left, so a turn takes 100 s


def test_an_expired_issuing_ca_is_replaced_before_it_serves(tmp_path: Path) -> None:
    create_ca(tmp_path / "ca", CaSettings(DEMO), PASS, NOW)
    server = open_server(ServeConfig(tmp_path / "ca", port=0), PASS, TestClockAt(NOW + 100 * DAY))
    assert server.issuer.not_after == NOW + 130 * DAY
    server.store.store.close()


class TestClockAt(TestClock):
    """A clock outside trio."""

    __test__ = False

    def __init__(self, at: float) -> None:
        super().__init__(at)
        self.at = at

    def wall(self) -> float:
        return self.at
