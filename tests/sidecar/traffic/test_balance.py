"""Who is picked: by load, in turn, by weight; within the zone; never who is out while others are in."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.traffic.balance import Balancer, LeastLoaded, RoundRobin, Weighted
from sidecar.traffic.endpoints import Endpoint, EndpointSet
from sidecar.traffic.maglev import Affine
from sidecar.traffic.view import View
from tests.kit.traffic import a_set, declared, dice, names, shares

KINDS = (LeastLoaded, RoundRobin, Weighted, Affine)
kinds = pytest.mark.parametrize("kind", KINDS)


def a_balancer(kind: type[Balancer], endpoints: EndpointSet, seed: int = 1, **options: object) -> Balancer:
    more = {"slots": 251} if kind is Affine else {}
    return kind(endpoints, dice(seed), 0.0, **options, **more)  # type: ignore[arg-type]


@kinds
def test_of_none_nobody_is_picked_and_of_one_always_that(kind):
    assert a_balancer(kind, a_set(0)).pick(0.0) is None
    assert a_balancer(kind, a_set(0)).pick(0.0, key=b"k") is None
    endpoints = a_set(1)
    balancer = a_balancer(kind, endpoints)
    assert {balancer.pick(1.0), balancer.pick(1.0, key=b"k")} == {endpoints.all[0]}


@kinds
def test_equal_endpoints_get_equal_shares(kind):
    found = shares(a_balancer(kind, a_set(10)), 20_000)
    assert len(found) == 10
    assert all(0.09 < share < 0.11 for share in found.values())


@kinds
def test_another_endpoint_is_preferred_to_one_that_has_failed_the_request(kind):
    endpoints = a_set(3)
    balancer = a_balancer(kind, endpoints)
    first, second, third = endpoints
    assert {balancer.pick(1.0, (first, second)) for _ in range(20)} == {third}
    assert {balancer.pick(1.0, (first, second), b"k") for _ in range(20)} == {third}
    assert balancer.pick(1.0, tuple(endpoints)) in endpoints.all  # better one that failed than none
    third.eject(99.0)
    assert balancer.pick(1.0, (first, second)) in (first, second)


@kinds
def test_a_new_endpoint_is_given_a_tenth_of_its_share_at_first_and_all_of_it_in_the_end(kind):
    endpoints = a_set(4)
    balancer = a_balancer(kind, endpoints)
    balancer.replace(endpoints.replaced_by(declared(5), 100.0))
    new = "10.0.0.5:80"
    found = []
    for now in (100.0, 111.0):
        for endpoint in balancer.endpoints:
            endpoint.latency, endpoint.latency_at = 0.001, now
        found.append(shares(balancer, 5000, now).get(new, 0.0))
    assert found[0] < 0.05 < 0.15 < found[1] < 0.25


def test_by_load_the_slow_one_gets_only_what_falls_between_two_slow_ones():
    endpoints = a_set(5)
    for endpoint, latency in zip(endpoints, (0.5, 0.01, 0.01, 0.01, 0.01), strict=True):
        endpoint.latency, endpoint.latency_at = latency, 1000.0
    found = shares(a_balancer(LeastLoaded, endpoints), 10_000)
    assert "10.0.0.1:80" not in found  # it loses against every other
    assert sum(found.values()) == pytest.approx(1.0)


def test_fast_refusals_attract_no_traffic():
    """Five endpoints, one of which answers 429 in a millisecond while the others work 20 ms (S18)."""
    endpoints = a_set(5)
    balancer = a_balancer(LeastLoaded, endpoints)
    busy: list[tuple[float, Endpoint]] = []
    sent: Counter[str] = Counter()
    for step in range(60_000):
        now = 100.0 + step / 1000
        while busy and busy[0][0] <= now:
            ended, done = busy.pop(0)
            done.end(ended, 0.020)
        endpoint = balancer.pick(now)
        assert endpoint is not None
        sent[endpoint.name] += 1
        endpoint.active += 1
        if endpoint is endpoints.all[0]:
            endpoint.end_limited(now, 0.001, None)
        else:
            busy.append((now + 0.020, endpoint))
    assert sent["10.0.0.1:80"] < 0.01 * 60_000


@kinds
def test_slow_start_may_be_off_also_in_panic(kind):
    endpoints = a_set(5)
    balancer = a_balancer(kind, endpoints, ramp=0.0)
    for endpoint in endpoints:
        endpoint.eject(99.0)
    assert {balancer.pick(1.0 + step) for step in range(100)} == set(endpoints)


def test_turns_follow_each_other():
    endpoints = a_set(3)
    balancer = a_balancer(RoundRobin, endpoints)
    picked = [balancer.pick(1.0) for _ in range(6)]
    assert picked[:3] == picked[3:]
    assert set(picked) == set(endpoints)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(0, 2**32))
@settings(deadline=None)
def test_by_weight_each_gets_its_share_of_every_round_to_within_one(weights: list[int], seed: int) -> None:
    endpoints = a_set(len(weights), weights=tuple(weights))
    balancer = a_balancer(Weighted, endpoints, seed)
    total = sum(weights)
    count: Counter[Endpoint | None] = Counter()
    for turn in range(1, 3 * total + 1):
        count[balancer.pick(1000.0)] += 1
        for endpoint in endpoints:
            assert abs(count[endpoint] - turn * endpoint.weight / total) < 1 + len(weights)
    for endpoint in endpoints:
        assert abs(count[endpoint] - 3 * endpoint.weight) <= 1


def test_weights_hold_while_requests_are_tried_again_elsewhere():
    endpoints = a_set(3, weights=(1, 2, 5))
    balancer = a_balancer(Weighted, endpoints)
    count: Counter[Endpoint | None] = Counter()
    for _ in range(800):
        count[balancer.pick(1000.0)] += 1
        balancer.pick(1000.0, (endpoints.all[0],))
    assert [count[each] for each in endpoints] == pytest.approx([100, 200, 500], abs=2)


# ---- zones -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "stays"),
    [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.8), (5, 0.4), (6, 0.2), (7, 0.0)],  # of seven in our zone
)
def test_our_zone_is_left_by_degrees(out, stays):
    endpoints = a_set(14, zones="a" * 7 + "b" * 7)
    for endpoint in endpoints.all[:out]:
        endpoint.mark(0.0, healthy=False)
    balancer = a_balancer(LeastLoaded, endpoints, zone="a", panic=0.0)
    found = shares(balancer, 5000)
    local = sum(share for name, share in found.items() if int(name.split(":")[0].rpartition(".")[2]) <= 7)
    assert local == pytest.approx(stays, abs=0.03)


def test_a_zone_that_has_nobody_is_no_reason_to_send_to_nobody():
    endpoints = a_set(3, zones="bbc")
    assert a_balancer(LeastLoaded, endpoints, zone="a").pick(0.0) in endpoints.all
    assert View(a_set(3, zones="aaa"), 0.0, zone="a").stays == 1.0


# ---- panic -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "out", "panic"), [(10, 5, False), (10, 6, True), (10, 10, True), (5, 3, True), (4, 4, False)]
)
@kinds
def test_when_most_are_out_all_are_in_again_unless_there_are_few(kind, count, out, panic):
    endpoints = a_set(count)
    for endpoint in endpoints.all[:out]:
        endpoint.mark(0.0, healthy=False)
    balancer = a_balancer(kind, endpoints)
    assert balancer.view.panic == panic
    picked = {balancer.pick(1.0, key=b"%d" % number) for number in range(300)}
    assert picked == ({None} if out == count < 5 else set(endpoints.all if panic else endpoints.all[out:]))


def test_in_panic_zones_do_not_count():
    """Else all would go to the unhealthy ones of our own zone, past the healthy ones of another."""
    endpoints = a_set(6, zones="aaabbb")
    for endpoint in endpoints.all[:4]:
        endpoint.mark(0.0, healthy=False)
    found = shares(a_balancer(LeastLoaded, endpoints, zone="a"), 3000)
    assert len(found) == 6


# ---- against a naive model -------------------------------------------------------------------------------------------


class Picking(RuleBasedStateMachine):
    """Whatever happens to endpoints, who is picked is one of those that a naive reading of the rules allows."""

    @initialize(kind=st.sampled_from(KINDS), count=st.integers(0, 8), zone=st.sampled_from(["", "a", "z"]))
    def begin(self, kind: type[Balancer], count: int, zone: str) -> None:
        self.now = 0.0
        self.endpoints = a_set(count, zones="ab" * 4)
        self.zone = zone
        self.balancer = a_balancer(kind, self.endpoints, zone=zone)

    @rule(which=st.integers(0, 20), seconds=st.floats(0.1, 60.0))
    def eject(self, which: int, seconds: float) -> None:
        if self.endpoints.all:
            self.endpoints.all[which % len(self.endpoints)].eject(self.now + seconds)

    @rule(which=st.integers(0, 20), healthy=st.booleans())
    def check_health(self, which: int, healthy: bool) -> None:
        if self.endpoints.all:
            self.endpoints.all[which % len(self.endpoints)].mark(self.now, healthy=healthy)

    @rule(count=st.integers(0, 9), first=st.integers(0, 3))
    def replace(self, count: int, first: int) -> None:
        self.endpoints = self.endpoints.replaced_by(declared(12, zones="ab" * 6)[first : first + count], self.now)
        self.balancer.replace(self.endpoints)

    @rule(seconds=st.floats(0.0, 40.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(excluded=st.sets(st.integers(0, 8)), key=st.sampled_from([b"", b"a", b"b", b"c"]))
    def pick(self, excluded: set[int], key: bytes) -> None:
        every = self.endpoints.all
        avoid = [each for number, each in enumerate(every) if number in excluded]
        picked = self.balancer.pick(self.now, avoid, key)
        well = [each for each in every if each.healthy and each.ejected_until <= self.now]
        if len(every) >= 5 and len(well) < len(every) / 2:
            well = list(every)
        allowed = [each for each in well if each not in avoid] or well
        assert picked in allowed if allowed else picked is None

    @invariant()
    def the_view_is_no_older_than_the_last_change(self) -> None:
        if hasattr(self, "balancer"):
            self.balancer.pick(self.now)
            assert self.balancer.view.holds(self.endpoints, self.now)


TestPicking = Picking.TestCase
TestPicking.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_names_are_short():
    assert names(a_set(2).all) == ["1", "2"]


# ---- what is picked and not asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RoundRobin, Weighted])
def test_who_was_picked_and_not_asked_is_next(kind):
    """Whatever the dice say: a new endpoint to which there is no connection would wait for two throws, not one."""
    endpoints = a_set(5)
    balancer = a_balancer(kind, endpoints)
    for number in range(50):
        picked = balancer.pick(1.0 + number)
        assert picked is not None
        balancer.undo(picked)
        balancer.undo(picked)
        assert balancer.pick(1.0 + number) is picked


def test_turns_go_on_as_if_nothing_had_been_undone():
    plain, undone = (a_balancer(RoundRobin, a_set(3)) for _ in range(2))
    expected = [str(plain.pick(1.0)) for _ in range(9)]
    found = []
    for _ in range(9):
        picked = undone.pick(1.0)
        assert picked is not None
        undone.undo(picked)
        found.append(str(undone.pick(1.0)))
    assert found == expected


@kinds
def test_who_has_left_or_is_out_by_then_is_owed_nothing(kind):
    endpoints = a_set(3)
    balancer = a_balancer(kind, endpoints)
    picked = balancer.pick(1.0)
    assert picked is not None
    balancer.undo(picked)
    assert balancer.pick(1.0, [picked]) is not picked  # nor one on which the request has failed
    balancer.undo(picked)
    picked.eject(9.0)
    assert all(balancer.pick(2.0) is not picked for _ in range(20))
    assert any(balancer.pick(99.0) is picked for _ in range(60))  # the view is looked at again in time
