"""Slower before no: free, delayed, refused, blocked; and what that does to the others: nothing."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.traffic.throttle import Stage, Throttle, ThrottleRules

RULES = ThrottleRules(rate=10.0, burst=5, longest=1.0, places=100, strikes=20, block=30.0)


def test_the_four_stages_in_their_order():
    throttle = Throttle(RULES)
    said = [throttle.check(50.0, "web") for _ in range(60)]
    assert Counter(each.stage for each in said) == {
        Stage.FREE: 5, Stage.DELAYED: 10, Stage.REFUSED: 20, Stage.BLOCKED: 25
    }  # fmt: skip
    assert [each.stage for each in said] == sorted(each.stage for each in said)
    assert [round(each.wait, 2) for each in said[5:15]] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert said[15].wait == pytest.approx(0.1, abs=0.01)  # then one could wait again
    assert said[-1].wait == 30.0
    assert throttle.waiting == 10


def test_a_block_ends_though_requests_go_on():
    throttle = Throttle(RULES)
    for _ in range(60):
        throttle.check(50.0, "web")
    for step in range(290):
        assert throttle.check(50.1 + step / 10, "web").stage == Stage.BLOCKED
    assert throttle.check(80.0, "web").stage == Stage.FREE


def test_who_is_blocked_is_remembered_until_it_ends_and_so_many_at_once():
    throttle = Throttle(RULES, most_keys=2)
    for who in ("a", "b", "c"):
        said = [throttle.check(50.0, who) for _ in range(60)]
        assert said[-1].stage == (Stage.REFUSED if who == "c" else Stage.BLOCKED)
    assert len(throttle._blocked) == 2
    for _ in range(60):
        throttle.check(100.0, "c")
    assert set(throttle._blocked) == {"c"}  # the others' time is over


def test_who_stays_within_its_rate_never_waits_whoever_else_does_what():
    throttle = Throttle(RULES)
    for step in range(10_000):
        now = 50.0 + step / 1000
        throttle.check(now, "abusive")  # what waits of it never leaves: the worst that it can do
        if step % 100 == 0:
            assert throttle.check(now, "good").stage == Stage.FREE


def test_one_alone_takes_half_of_the_places_and_leaves_half_of_the_rest_to_each_who_follows():
    throttle = Throttle(ThrottleRules(rate=1.0, longest=1e6, places=100, strikes=1000))
    held = [sum(throttle.check(50.0, who).stage == Stage.DELAYED for _ in range(200)) for who in ("a", "b", "c")]
    assert held == [50, 25, 13]
    assert throttle.waiting == sum(held) <= 100
    for _ in range(50):
        throttle.leave("a")
    assert throttle.waiting == 38
    assert throttle.check(50.0, "b").stage == Stage.DELAYED


@pytest.mark.parametrize("wrong", [{"longest": -1.0}, {"places": 0}, {"strikes": 0}, {"block": 0.0}, {"rate": 0.0}])
def test_what_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError, match="no"):
        Throttle(ThrottleRules(**({"rate": 1.0} | wrong)))


def test_an_abusive_callers_median_grows_while_anothers_p99_stays_flat():
    """The sentence of the issue: twice the rate for ten seconds, beside one who asks half of it."""
    throttle = Throttle(ThrottleRules(rate=100.0, burst=10, longest=2.0, places=1000, strikes=10_000))
    waits: dict[str, list[float]] = {"abusive": [], "good": []}
    ends: list[tuple[float, str]] = []
    asks = sorted([(step / 200, "abusive") for step in range(2000)] + [(step / 50, "good") for step in range(500)])
    for now, who in asks:
        while ends and ends[0][0] <= now:
            throttle.leave(heappop(ends)[1])
        said = throttle.check(100.0 + now, who)
        if said.stage == Stage.DELAYED:
            heappush(ends, (now + said.wait, who))
        waits[who].append(said.wait)
    thirds = [sorted(waits["abusive"][at : at + 600])[300] for at in (0, 600, 1200)]
    assert thirds[0] < thirds[1] < thirds[2]
    assert max(waits["good"]) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 0.5), st.booleans()), max_size=200))
@settings(deadline=None)
def test_places_are_never_exceeded_and_always_given_back(steps):
    throttle = Throttle(ThrottleRules(rate=5.0, burst=2, longest=3.0, places=7, strikes=15, block=5.0))
    now, held = 10.0, []
    for who, pause, leaves in steps:
        now += pause
        said = throttle.check(now, who)
        if said.stage == Stage.DELAYED:
            held.append(who)
            assert 0.0 < said.wait <= 3.0 + 1e-9
        elif said.stage != Stage.FREE:
            assert said.wait > 0.0
        if leaves and held:
            throttle.leave(held.pop(0))
        assert throttle.waiting == len(held) <= 7
    for who in held:
        throttle.leave(who)
    assert throttle.waiting == 0
