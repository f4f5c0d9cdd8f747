"""Whose turn it is where some limits refuse and others let wait; and that what is not let in takes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.schema_inbound import RateLimit
from sidecar.config.terms import Frequency, Per
from sidecar.errors import RateLimited, Throttled
from sidecar.traffic.limits import Dues, Rates
from sidecar.traffic.shared import Answered, Names, settle
from sidecar.traffic.turn import Turn, turn_of
from tests.kit.hops import a_hop


def dues_of(*specs: RateLimit) -> Dues:
    limits = Rates(specs).limits("http")
    assert limits is not None
    dues = limits.dues(a_hop(), "/**")
    assert dues is not None
    return dues


def limit(name: str, rate: int, burst: int, **more: object) -> RateLimit:
    return RateLimit(name=name, limit=Frequency(rate, "s"), burst=burst, per=Per("caller"), **more)  # type: ignore[arg-type]


def state(dues: Dues, now: float) -> list[float]:
    """How far ahead of the clock each limit is."""
    return [round(rate.standing(now, key).reset, 6) for rate, key in zip(dues.levels.rates, dues.keys, strict=True)]


def test_the_longest_of_its_turns_is_waited_for_once() -> None:
    dues = dues_of(limit("slow", 1, 1, over="delay"), limit("quick", 10, 1, over="delay"), limit("no", 100, 10))
    assert turn_of(dues, 5.0, dues.keys).wait == 0.0
    turn = turn_of(dues, 5.0, dues.keys)
    assert (round(turn.wait, 2), turn.limit) == (1.0, "slow")
    assert [each.throttle.waiting for each in dues.limits[:2] if each.throttle] == [1, 1]
    turn.leave()
    turn.leave()
    assert [each.throttle.waiting for each in dues.limits[:2] if each.throttle] == [0, 0]


def test_where_one_line_is_full_the_others_have_not_been_joined() -> None:
    dues = dues_of(limit("long", 1, 1, over="delay", delay=10.0), limit("short", 1, 1, over="delay", delay=1.0))
    turn_of(dues, 5.0, dues.keys)
    turn_of(dues, 5.0, dues.keys)
    before = state(dues, 5.0)
    with pytest.raises(Throttled) as caught:
        turn_of(dues, 5.0, dues.keys)
    assert caught.value.limit == "short"
    assert state(dues, 5.0) == before
    assert dues.limits[0].throttle is not None
    assert dues.limits[0].throttle.waiting == 1


def test_what_is_given_back_is_there_for_the_next_and_only_once() -> None:
    dues = dues_of(limit("line", 1, 1, over="delay"), limit("no", 5, 2))
    turn_of(dues, 5.0, dues.keys)
    before = state(dues, 5.0)
    turn = turn_of(dues, 5.0, dues.keys)
    turn.give_back()
    turn.give_back()
    assert state(dues, 5.0) == before


def test_a_flood_of_keys_is_no_way_past_a_limit_beside_a_line() -> None:
    """Whoever is new while a table is full shares one allowance with all who are."""
    dues = dues_of(limit("line", 1, 1, over="delay"), limit("no", 1, 1))
    full = dues.limits[1].rate
    full._most = 1
    assert full.take(5.0, "known") == 0.0
    assert full.take(5.0, "somebody new") == 0.0
    with pytest.raises(RateLimited) as caught:
        turn_of(dues, 5.0, dues.keys)
    assert caught.value.limit == "no"
    assert state(dues, 5.0)[0] == 0.0


LIMITS = st.lists(
    st.tuples(st.integers(1, 10), st.integers(1, 3), st.sampled_from(["refuse", "delay"]), st.floats(0.1, 2.0)),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(LIMITS, st.lists(st.floats(0.0, 0.4), min_size=1, max_size=60))
def test_a_refused_request_takes_nothing_from_anybody(
    limits: list[tuple[int, int, str, float]], pauses: list[float]
) -> None:
    specs = [
        limit(f"l{number}", rate, burst, over=over, delay=delay, strikes=5, block=3.0)
        for number, (rate, burst, over, delay) in enumerate(limits)
    ]
    dues, now = dues_of(*specs), 10.0
    for pause in pauses:
        now += pause
        before = state(dues, now)
        blocked = [each.throttle.blocked for each in dues.limits if each.throttle]
        turn = _tried(dues, now)
        if isinstance(turn, float):
            assert turn > 0.0
            same = [each.throttle.blocked for each in dues.limits if each.throttle] == blocked
            assert not same or state(dues, now) == before  # whoever is shut out from now on is ahead by that
        else:
            assert turn.wait <= max((spec.delay for spec in specs if spec.over == "delay"), default=0.0) + 1e-6
            turn.leave()


def _tried(dues: Dues, now: float) -> Turn | float:
    """A turn, or the seconds after which to come again."""
    try:
        return turn_of(dues, now, dues.keys)
    except RateLimited as error:
        return error.wait


def test_what_the_others_have_had_is_known_here_and_never_more_than_a_full_bucket() -> None:
    dues = dues_of(limit("all", 1, 4, shared="redis"))
    assert turn_of(dues, 5.0, dues.keys).wait == 0.0
    assert settle(dues, 5.0, dues.keys, Answered(True, (3.0,))) is None
    assert state(dues, 5.0) == [3.0]
    assert turn_of(dues, 5.0, dues.keys).wait == 0.0
    with pytest.raises(RateLimited):
        turn_of(dues, 5.0, dues.keys)
    settle(dues, 5.0, dues.keys, Answered(True, (1e9,)))
    assert state(dues, 5.0)[0] <= 4.01
    settle(dues, 5.0, dues.keys, Answered(True, (0.0,)))  # it never goes back: another server, or one that was flushed
    assert state(dues, 5.0)[0] >= 4.0


def test_a_refusal_of_all_together_gives_back_what_was_taken_here() -> None:
    dues = dues_of(limit("all", 1, 4, shared="redis"), limit("mine", 1, 9))
    turn = turn_of(dues, 5.0, dues.keys)
    turn.give_back()
    refused = settle(dues, 5.0, dues.keys, Answered(False, (4.0,)))
    assert refused is not None
    assert (refused.level.name, round(refused.wait, 2)) == ("all", 1.0)
    assert state(dues, 5.0) == [4.0, 0.0]


@given(st.text(max_size=300), st.text(max_size=300))
def test_keys_of_redis_are_of_one_length_and_two_for_two(one: str, other: str) -> None:
    names, (of_all,) = Names("mesh", "spiffe://demo.mesh/ns/default/sa/orders"), dues_of(limit("all", 1, 4)).limits
    keys = names.key(of_all, one), names.key(of_all, other)
    assert len(keys[0]) == len(keys[1])
    assert (keys[0] == keys[1]) == (one == other)
    assert b" " not in keys[0]


def test_another_limit_another_service_and_another_prefix_count_apart() -> None:
    service = "spiffe://demo.mesh/ns/default/sa/orders"
    (mine,), (larger,) = dues_of(limit("all", 1, 4)).limits, dues_of(limit("all", 1, 5)).limits
    keys = {
        Names("mesh", service).key(mine, "web"),
        Names("mesh", service).key(larger, "web"),
        Names("other", service).key(mine, "web"),
        Names("mesh", service + "2").key(mine, "web"),
    }
    assert len(keys) == 4
