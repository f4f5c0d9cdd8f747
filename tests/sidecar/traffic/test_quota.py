"""Quotas: never more than the limit in a window, whatever restarts, fails or is shared; and the stores of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.answer.quota_file import QuotaFile
from sidecar.traffic.quota import Quota, QuotaRules, Remaining
from sidecar.traffic.quota_store import MemoryStore, QuotaStore, QuotaStoreFailed, Use

UTC = ZoneInfo("UTC")
NOON = 1_795_608_000.0  # 2026-11-25 12:00 UTC
HOURLY = QuotaRules("hourly", 1000, "hour", UTC)

Stores = Callable[[], QuotaStore]


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> QuotaStore:
    return MemoryStore() if request.param == "memory" else QuotaFile(tmp_path / "quota.db")


def taken(quota: Quota, wall: float, key: str = "web", tries: int = 3000) -> int:
    return sum(quota.take(wall, key) == 0.0 for _ in range(tries))


# ---- stores ----------------------------------------------------------------------------------------------------------


def test_a_store_grants_what_fits_and_takes_back(store):
    window = (0, 3600)
    assert store.reserve("q", "web", window, 7, 10) == (7, 7)
    assert store.reserve("q", "web", window, 7, 10) == (3, 10)
    assert store.reserve("q", "web", window, 7, 10) == (0, 10)
    assert store.reserve("q", "web", window, 1, 5) == (0, 10)  # the limit was lowered meanwhile
    assert store.reserve("q", "web", (3600, 7200), 1, 10) == (1, 1)
    assert store.reserve("q", "é\n'", window, 1, 10) == (1, 1)
    store.give_back("q", "web", 0, 4)
    store.give_back("q", "nobody", 0, 4)
    store.give_back("q", "web", 3600, 400)
    assert store.uses("q") == [
        Use("q", "web", 0, 3600, 6), Use("q", "web", 3600, 7200, 0), Use("q", "é\n'", 0, 3600, 1)
    ]  # fmt: skip
    assert store.uses("other") == []


def test_a_store_forgets_what_it_is_told_to(store):
    for key in ("web", "orders"):
        for start in (0, 3600):
            store.reserve("q", key, (start, start + 3600), 1, 10)
    store.reset("q", "web")
    assert [use.key for use in store.uses("q")] == ["orders", "orders"]
    store.forget(3601.0)
    assert store.uses("q") == [Use("q", "orders", 3600, 7200, 1)]


def test_a_file_outlives_its_process_and_is_its_owners_only(tmp_path):
    path = tmp_path / "quota.db"
    first = QuotaFile(path)
    first.reserve("q", "web", (0, 3600), 7, 10)
    del first  # as a process that was killed: nothing is closed
    assert QuotaFile(path).uses("q") == [Use("q", "web", 0, 3600, 7)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_processes_share_a_file_to_the_unit(tmp_path):
    one, other = QuotaFile(tmp_path / "q.db"), QuotaFile(tmp_path / "q.db")
    quotas = [Quota(HOURLY, each) for each in (one, other)]
    assert sum(quotas[number % 2].take(NOON, "web") == 0.0 for number in range(3000)) == 1000


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_file_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "q.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(QuotaStoreFailed, match=r"q\.db"):
        QuotaFile(path)


def test_a_file_of_a_later_version_is_left_alone(tmp_path):
    db = sqlite3.connect(tmp_path / "q.db")
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(QuotaStoreFailed, match="later version of mesh"):
        QuotaFile(tmp_path / "q.db")


def test_a_file_whose_lock_another_holds_fails_after_a_moment_and_has_done_nothing(tmp_path):
    store = QuotaFile(tmp_path / "q.db")
    other = sqlite3.connect(tmp_path / "q.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(QuotaStoreFailed, match="locked"):
        store.reserve("q", "web", (0, 1), 1, 1)
    other.execute("ROLLBACK")
    other.close()
    assert store.reserve("q", "web", (0, 1), 1, 1) == (1, 1)
    store.close()
    with pytest.raises(QuotaStoreFailed):
        store.uses("q")


def test_a_file_that_somebody_has_emptied_fails_and_leaves_no_lock_behind(tmp_path):
    store = QuotaFile(tmp_path / "q.db")
    other = sqlite3.connect(tmp_path / "q.db", isolation_level=None)
    other.execute("DROP TABLE quota")
    with pytest.raises(QuotaStoreFailed, match="no such table"):
        store.reserve("q", "web", (0, 1), 1, 1)
    other.execute("CREATE TABLE t (x)")  # nobody holds the lock
    other.close()


# ---- quotas ----------------------------------------------------------------------------------------------------------


def test_so_many_in_a_window_and_anew_in_the_next(store):
    quota = Quota(HOURLY, store)
    assert taken(quota, NOON + 100.0) == 1000
    assert quota.take(NOON + 100.0, "web") == 3500.0
    assert quota.remaining(NOON + 100.0, "web") == Remaining(1000, 0, int(NOON) + 3600)
    assert taken(quota, NOON + 100.0, "orders", 10) == 10
    assert quota.remaining(NOON + 100.0, "orders") == Remaining(1000, 990, int(NOON) + 3600)
    assert taken(quota, NOON + 3600.0) == 1000


def test_a_restart_gives_nothing_and_a_crash_costs_a_hundredth_at_most(store):
    quota = Quota(HOURLY, store)
    assert taken(quota, NOON, tries=15) == 15
    assert Quota(HOURLY, store).remaining(NOON, "web").remaining == 980  # as if it had died
    quota.close()
    again = Quota(HOURLY, store)
    assert again.remaining(NOON, "web") == Remaining(1000, 985, int(NOON) + 3600)
    assert taken(again, NOON) == 985


def test_a_request_may_cost_more_than_one(store):
    quota = Quota(HOURLY, store)
    assert [quota.take(NOON, "web", 400) == 0.0 for _ in range(3)] == [True, True, False]
    assert quota.remaining(NOON, "web").remaining == 200
    assert quota.take(NOON, "web", 200) == 0.0
    assert quota.take(NOON, "new", 1001) == 3600.0


def test_a_clock_that_goes_back_over_the_edge_of_a_window_finds_what_was_used(store):
    quota = Quota(HOURLY, store)
    assert taken(quota, NOON - 1.0, tries=900) == 900
    assert taken(quota, NOON, tries=500) == 500
    assert taken(quota, NOON - 1.0) == 100
    assert 490 <= taken(quota, NOON) <= 500  # a lease may be lost each time, never won


def test_a_reset_gives_it_all_again(store):
    quota = Quota(HOURLY, store)
    assert (taken(quota, NOON), taken(quota, NOON, tries=1)) == (1000, 0)
    quota.reset("web")
    assert taken(quota, NOON) == 1000


def test_a_quota_of_nothing_is_refused():
    with pytest.raises(ValueError, match="hourly: a quota is at least 1"):
        QuotaRules("hourly", 0, "hour", UTC)


def test_a_flood_of_keys_shares_one_quota():
    quota = Quota(QuotaRules("q", 10, "hour", UTC), MemoryStore(), most_keys=5)
    let_in = [number for number in range(100) if quota.take(NOON, f"invented-{number}") == 0.0]
    assert let_in == list(range(5 + 10))  # five have one of their own, of ten each; all the others one together
    assert quota.take(NOON, "invented-0") == 0.0
    assert taken(quota, NOON + 3600, "new") == 10


class FailingStore(MemoryStore):
    """A store whose disk comes and goes."""

    broken = False

    def reserve(self, quota: str, key: str, window: tuple[int, int], amount: int, limit: int) -> tuple[int, int]:
        if self.broken:
            raise QuotaStoreFailed("no disk")
        return super().reserve(quota, key, window, amount, limit)

    def uses(self, quota: str) -> list[Use]:
        if self.broken:
            raise QuotaStoreFailed("no disk")
        return super().uses(quota)


def test_while_the_store_is_away_who_is_known_goes_on_to_its_limit_and_who_is_not_is_refused():
    store = FailingStore()
    quota = Quota(HOURLY, store)
    assert taken(quota, NOON, tries=500) == 500
    store.broken = True
    assert taken(quota, NOON) == 500
    assert taken(quota, NOON, "new") == 0
    assert quota.take(NOON + 600, "new") == 3000.0
    assert quota.remaining(NOON, "new").remaining == 1000
    assert quota.failures > 2
    store.broken = False
    assert taken(quota, NOON, "new") == 1000


class Using(RuleBasedStateMachine):
    """Several processes, restarts in order and out of it: nobody ever has more than the limit, nor much less."""

    @initialize(limit=st.sampled_from([1, 7, 100, 1000]))
    def begin(self, limit: int) -> None:
        self.rules = QuotaRules("q", limit, "hour", UTC)
        self.store = MemoryStore()
        self.quotas = [Quota(self.rules, self.store) for _ in range(2)]
        self.wall = NOON
        self.used: dict[tuple[str, int], int] = {}
        self.crashes = 0

    @rule(which=st.integers(0, 1), key=st.sampled_from("ab"), tries=st.integers(1, 400))
    def take(self, which: int, key: str, tries: int) -> None:
        window = (key, int(self.wall // 3600))
        for _ in range(tries):
            if self.quotas[which].take(self.wall, key) == 0.0:
                self.used[window] = self.used.get(window, 0) + 1

    @rule(seconds=st.sampled_from([-100.0, 10.0, 1000.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        self.wall += seconds

    @rule(which=st.integers(0, 1), crash=st.booleans())
    def restart(self, which: int, crash: bool) -> None:
        if not crash:
            self.quotas[which].close()
        self.quotas[which] = Quota(self.rules, self.store)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert all(used <= self.rules.limit for used in getattr(self, "used", {}).values())


TestUsing = Using.TestCase
TestUsing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
