"""What is known of endpoints, and what of it outlives a new list."""

from __future__ import annotations

from math import exp

import pytest

from sidecar.config.terms import Address
from sidecar.traffic.endpoints import MOST, Declared, EndpointSet
from tests.kit.traffic import a_set, declared, names


def test_a_slower_answer_counts_at_once_and_faster_ones_win_it_back_by_and_by():
    (endpoint,) = a_set(1)
    for at, seconds, latency in [
        (1.0, 0.5, 0.5),
        (11.0, 0.1, 0.5 * exp(-1) + 0.1 * (1 - exp(-1))),
        (11.0, 0.05, 0.5 * exp(-1) + 0.1 * (1 - exp(-1))),  # no time has passed: nothing is forgotten
        (5.0, 0.01, 0.5 * exp(-1) + 0.1 * (1 - exp(-1))),  # the clock has gone back
        (30.0, -3.0, 0.5 * exp(-1) + 0.1 * (1 - exp(-1))),  # since the request began
    ]:
        endpoint.active += 1
        endpoint.end(at, seconds)
        assert endpoint.latency == pytest.approx(latency)
    assert endpoint.active == 0


def test_silence_lets_a_bad_memory_fade():
    (endpoint,) = a_set(1)
    endpoint.active = 1
    endpoint.end_limited(0.0, 0.001, None)
    assert [round(endpoint.load(now), 3) for now in (0.0, 10.0, 60.0, -5.0)] == [5.0, 1.839, 0.012, 5.0]


def test_who_was_asked_and_says_nothing_is_as_slow_as_it_has_been_silent():
    frozen, quick = a_set(2)
    for endpoint in (frozen, quick):
        endpoint.silent_since = 100.0  # after a long pause, which is no silence
        endpoint.active = 1
    assert frozen.load(100.0) == quick.load(100.0) <= 2 * 0.030
    quick.end(100.01, 0.01)
    assert frozen.load(101.0) == pytest.approx(2.0)
    assert quick.load(101.0) < 0.030
    frozen.end(101.5, 1.5)
    assert frozen.load(101.5) == 1.5


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(None, 5.0), (0.0, 5.0), (60.0, 60.0), (300.0, 300.0), (3_155_760_000.0, 300.0)]
)
def test_a_refusal_for_number_counts_as_five_seconds_or_what_it_asks_for_up_to_300(retry_after, seconds):
    (endpoint,) = a_set(1)
    endpoint.active = 1
    endpoint.end_limited(1.0, 0.001, retry_after)
    assert endpoint.latency == seconds


def test_a_quick_failure_makes_nobody_quick_but_a_slow_one_is_slow():
    (endpoint,) = a_set(1)
    endpoint.active = 2
    endpoint.end_badly(1.0, 0.0001)
    assert 0.030 * exp(-0.1) <= endpoint.latency <= 0.030  # fades as it would have done
    endpoint.end_badly(2.0, 15.0)
    assert endpoint.latency == 15.0


def test_load_is_latency_times_those_under_way_and_one_by_weight():
    light, heavy = a_set(2, weights=(1, 3))
    light.active = heavy.active = 2
    assert light.load(0.0) == pytest.approx(0.09)
    assert heavy.load(0.0) == pytest.approx(0.03)


def test_a_new_list_keeps_who_stays_and_starts_slowly_who_is_new():
    before = a_set(3)
    stays = before.all[1]
    stays.eject(99.0)
    entries = declared(4)
    after = before.replaced_by([entries[3], entries[1]._replace(weight=7, zone="b")], 10.0)
    assert names(after.all) == ["4", "2"]
    assert after.all[1] is stays
    assert (stays.weight, stays.zone, stays.ejected_until) == (7, "b", 99.0)
    new = after.all[0]
    assert [new.share(now, 10.0) for now in (10.0, 10.5, 15.0, 20.0)] == [0.1, 0.1, 0.5, 1.0]
    assert [each.share(0.0, 10.0) for each in before.all[::2]] == [1.0, 1.0]  # the first list begins at full speed
    assert after.changes is before.changes


@pytest.mark.parametrize("count", [0, 1, 5, MOST + 10])
def test_lists_of_any_length_are_bounded_and_say_what_was_left_out(count):
    found = EndpointSet.of([Declared(Address("10.0.0.1", 1 + number)) for number in range(count)], 0.0)
    assert (len(found), found.left_out) == (min(count, MOST), max(0, count - MOST))


def test_an_address_that_is_listed_twice_is_one_endpoint():
    entry = declared(1)[0]
    assert [each.weight for each in EndpointSet.of([entry, entry._replace(weight=5)], 0.0)] == [1]


def test_a_list_with_an_impossible_weight_changes_nothing():
    before = a_set(2)
    first, second = declared(2)
    with pytest.raises(ValueError, match=r"10\.0\.0\.2:80: a weight is at least 1, not 0"):
        before.replaced_by([first._replace(weight=9), second._replace(weight=0)], 1.0)
    assert [each.weight for each in before] == [1, 1]


def test_a_passing_health_check_ends_an_ejection_and_a_failing_one_takes_out():
    (endpoint,) = a_set(1)
    endpoint.eject(50.0)
    assert endpoint.state(1.0) == "ejected"
    changes = endpoint.changes.count
    endpoint.mark(2.0, healthy=True)
    assert (endpoint.state(2.0), endpoint.changes.count > changes) == ("available", True)
    endpoint.mark(3.0, healthy=False)
    assert endpoint.state(3.0) == "unhealthy"
    changes = endpoint.changes.count
    endpoint.mark(4.0, healthy=False)  # nothing new
    assert endpoint.changes.count == changes
    endpoint.mark(5.0, healthy=True)
    assert (endpoint.state(5.0), endpoint.share(5.0, 10.0)) == ("available", 0.1)
    assert repr(endpoint) == "<endpoint 10.0.0.1:80>"
