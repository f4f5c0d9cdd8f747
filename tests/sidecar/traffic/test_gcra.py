"""Rate limits: as a token bucket says, at all levels or at none, bounded, and nobody limited is forgotten."""

from __future__ import annotations

from fractions import Fraction
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.traffic.fields import rate_limit, retry_after
from sidecar.traffic.gcra import OTHERS, Levels, Rate, key_of


def taken(rate: Rate, now: float, key: str = "", tries: int = 1000) -> int:
    return sum(rate.take(now, key) == 0.0 for _ in range(tries))


def test_so_many_at_once_then_one_after_the_other():
    rate = Rate("callers", rate=2.0, burst=3)
    assert taken(rate, 100.0) == 3
    assert rate.take(100.0) == pytest.approx(0.5, abs=0.001)
    assert [taken(rate, now) for now in (100.4, 100.5, 101.0, 101.6, 200.0)] == [0, 1, 1, 1, 3]


def test_who_waits_as_told_is_let_in():
    rate = Rate("callers", rate=3.0, burst=2)
    now = 100.0
    for _ in range(50):
        now += (wait := rate.take(now))
        if wait:
            assert rate.take(now) == 0.0


class Bucket:
    """A token bucket in fractions: what GCRA must be equal to."""

    def __init__(self, rate: int, burst: int) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, Fraction(burst), Fraction(0)

    def take(self, now: Fraction, count: int = 1) -> bool:
        self.tokens = min(Fraction(self.burst), self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < count:
            return False
        self.tokens -= count
        return True


@given(st.integers(1, 50), st.integers(1, 50), st.lists(st.tuples(st.integers(0, 300), st.integers(1, 5)), max_size=60))
def test_it_is_a_token_bucket(rate: int, burst: int, steps: list[tuple[int, int]]) -> None:
    """In steps of a millisecond and a rate that divides a second into few of them, so that no rounding matters."""
    limit, bucket = Rate("r", float(rate), burst), Bucket(rate, burst)
    now = 1000
    for pause, tries in steps:
        now += pause
        for _ in range(tries):
            bucket.take(Fraction(now, 1000), 0)
            near = abs(bucket.tokens - 1) < Fraction(1, 500)  # within what rounding is forgiven
            let_in = limit.take(now / 1000) == 0.0
            if near:
                bucket.tokens = max(bucket.tokens, Fraction(1)) if let_in else min(bucket.tokens, Fraction(999, 1000))
            assert bucket.take(Fraction(now, 1000)) == let_in
            assert near or abs(limit.standing(now / 1000).remaining - int(bucket.tokens)) <= 1


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 20))
def test_many_at_once_are_as_one_after_the_other(burst, first, second):
    one, other = Rate("r", 7.0, burst), Rate("r", 7.0, burst)
    for now, count in ((50.0, first), (50.5, second)):
        assert one.take_many(now, "k", count) == taken(other, now, "k", count)


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (-1.0, 1), (float("inf"), 1), (float("nan"), 1), (1.0, 0)])
def test_what_is_no_rate_is_refused(rate, burst):
    with pytest.raises(ValueError, match="no rate"):
        Rate("r", rate, burst)


def test_keys_have_nothing_to_do_with_each_other():
    rate = Rate("r", 1.0, 5)
    assert [taken(rate, 10.0, key) for key in ("web", "web", "orders")] == [5, 0, 5]
    rate.reset("web")
    assert taken(rate, 10.0, "web") == 5


def test_a_clock_that_goes_back_limits_for_longer_and_never_less():
    rate = Rate("r", 1.0, 2)
    assert taken(rate, 100.0) == 2
    assert rate.take(40.0) == pytest.approx(61.0, abs=0.01)
    assert taken(rate, 101.0) == 1


# ---- several levels --------------------------------------------------------------------------------------------------


def test_what_one_level_refuses_costs_nothing_at_the_others():
    listener, caller, endpoint = Rate("listener", 100.0, 100), Rate("caller", 1.0, 2), Rate("endpoint", 10.0, 10)
    levels = Levels((listener, caller, endpoint))
    said = [levels.take(50.0, ("", "web", "GET /x")) for _ in range(50)]
    assert said[:2] == [None, None]
    refused = said[2]
    assert refused is not None
    assert (refused.level, refused.key, refused.wait) == (caller, "web", pytest.approx(1.0, abs=0.01))
    assert listener.standing(50.0).remaining == 98
    assert endpoint.standing(50.0, "GET /x").remaining == 8
    assert levels.take(50.0, ("", "orders", "GET /x")) is None


def test_of_several_that_refuse_the_longest_wait_is_told():
    levels = Levels((Rate("listener", 10.0), Rate("caller", 0.1), Rate("endpoint", 1.0)))
    assert levels.take(5.0, ("", "web", "x")) is None
    refused = levels.take(5.0, ("", "web", "x"))
    assert refused is not None
    assert (refused.level.name, round(refused.wait)) == ("caller", 10)
    assert levels.take(5.0 + refused.wait, ("", "web", "x")) is None


@given(st.lists(st.tuples(st.floats(0, 2), st.sampled_from("ab"), st.sampled_from("xyz")), max_size=80))
@settings(deadline=None)
def test_levels_are_what_buckets_asked_together_are(steps):
    levels = Levels((Rate("l", 4.0, 9), Rate("c", 2.0, 5), Rate("e", 1.0, 4)))
    apart = [Rate("l", 4.0, 9), Rate("c", 2.0, 5), Rate("e", 1.0, 4)]
    now = 7.0
    for pause, caller, endpoint in steps:
        now += pause
        keys = ("", caller, endpoint)
        may = all(rate.standing(now, key).wait == 0.0 for rate, key in zip(apart, keys, strict=True))
        assert (levels.take(now, keys) is None) == may
        if may:
            assert [rate.take(now, key) for rate, key in zip(apart, keys, strict=True)] == [0.0] * 3


def test_the_nearest_limit_is_what_a_caller_is_told():
    levels = Levels((Rate("all", 100.0, 100), Rate("each caller", 2.0, 4)))
    for _ in range(3):
        levels.take(5.0, ("", "web"))
    nearest = levels.nearest(5.0, ("", "web"))
    assert nearest is not None
    assert rate_limit(*nearest) == [
        (b"ratelimit-policy", b'"each caller";q=4;w=2'),
        (b"ratelimit", b'"each caller";r=1;t=2'),
    ]
    assert Levels(()).nearest(5.0, ()) is None
    assert Levels(()).take(5.0, ()) is None


@pytest.mark.parametrize(("seconds", "text"), [(0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2"), (60.5, b"61")])
def test_retry_after_is_rounded_up_to_whole_seconds(seconds, text):
    assert retry_after(seconds) == (b"retry-after", text)


def test_no_name_of_a_limit_breaks_a_header_line():
    rate = Rate('a "b"\\c\r\nSet-Cookie: ä', 1.0)
    assert rate_limit(rate, rate.standing(1.0))[1][1] == b'"a \\"b\\"\\\\c??Set-Cookie: ?";r=1;t=0'


# ---- bounded ---------------------------------------------------------------------------------------------------------


def test_a_flood_of_keys_shares_one_allowance_and_touches_nobody_who_is_known():
    rate = Rate("r", 1.0, 5, most_keys=100)
    assert taken(rate, 10.0, "known") == 5
    let_in = sum(rate.take(10.0, f"invented-{number}") == 0.0 for number in range(10_000))
    assert let_in == 99 + 5  # one for each for which there was room; five for all of the others
    assert rate.keys == 101
    assert rate.take(10.0, "known") > 0.0
    assert taken(rate, 12.0, "known") == 2
    assert rate.take(10.0, OTHERS) > 0.0


def test_long_values_are_kept_by_their_hash():
    values = [b"", b"web", b"x" * 64, b"x" * 65, b"x" * 66, b"y" * 32_000]
    keys = [key_of(value) for value in values]
    assert len(set(keys)) == len(values)
    assert max(map(len, keys)) == 64
    assert keys[1] == "web"


def test_when_the_flood_is_over_there_is_room_again():
    rate = Rate("r", 1.0, 5, most_keys=100)
    for number in range(1000):
        rate.take(10.0, f"invented-{number}")
    assert taken(rate, 40.0, "new") == 5
    assert rate.keys == 1


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 7), st.integers(1, 9)), max_size=60))
@settings(deadline=None)
def test_nobody_limited_is_ever_forgotten(steps):
    """With few keys to be kept or many: whoever has been given a key of its own is treated alike."""
    few, many = Rate("r", 0.5, 4, most_keys=8), Rate("r", 0.5, 4)
    now = 3.0
    for pause, number, tries in steps:
        now += pause
        assert taken(few, now, f"{number}", tries) == taken(many, now, f"{number}", tries)
        assert few.keys <= 9


def test_bytes_are_paced():
    rate = Rate("bandwidth", 1000.0, 500)
    now, moved = 10.0, 0
    while now < 20.0:
        wait = rate.spend(now, "web", 400)
        moved += 400
        now += max(wait, 0.001)
    assert 9_800 <= moved <= 11_000
    assert rate.spend(now, "web", 1e12) < 10.0  # no debt for ever


def test_a_million_decisions_a_second():
    """The bar of the issue; of our own processor time, so that others do not count."""
    rate = Rate("r", 1e9, 1000)
    best = 0.0
    for _ in range(5):
        began, now, take = process_time(), 1000.0, rate.take
        for _ in range(50_000):
            now += 1e-6
            take(now, "web")
        best = max(best, 50_000 / (process_time() - began))
    assert best > 1_000_000
