"""Outlier detection: the worst go, never too many, never the last, and they come back."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.traffic.endpoints import EndpointSet
from sidecar.traffic.outcome import Outcome
from sidecar.traffic.outlier import OutlierDetection, OutlierRules
from sidecar.traffic.watch import Watch
from tests.kit.traffic import a_set, declared, dice, names

G, F, W, L, X, N = Outcome.GOOD, Outcome.FAILED, Outcome.GATEWAY, Outcome.LOCAL, Outcome.LIMITED, Outcome.NEUTRAL


def observe(endpoints: EndpointSet, number: int, outcomes: list[Outcome], now: float = 1.0, **rules: float) -> bool:
    detection = OutlierDetection(OutlierRules(**rules), 0.0)  # type: ignore[arg-type]
    return [detection.observe(endpoints, endpoints.all[number], each, now) for each in outcomes][-1]


@pytest.mark.parametrize(
    ("outcomes", "rules", "out"),
    [
        ([F] * 5, {}, True),
        ([F] * 4, {}, False),
        ([F, W, L, F, W], {}, True),
        ([F] * 4 + [G, F], {}, False),
        ([F] * 4 + [X, F], {}, False),  # 429 is no 5xx
        ([F] * 4 + [N, F], {}, True),  # our own overflow neither counts nor clears
        ([N] * 99, {}, False),
        ([F] * 5, {"in_a_row": 0}, False),
        ([W] * 3, {"gateway_in_a_row": 3}, True),
        ([W, F, W, W], {"gateway_in_a_row": 3, "in_a_row": 9}, False),
        ([L] * 99, {"local_in_a_row": 100}, False),  # counted apart
        ([L] * 3, {"local_in_a_row": 3}, True),
        ([F, F, L, F, F, F], {"local_in_a_row": 3}, True),
    ],
)
def test_failures_in_a_row(outcomes, rules, out):
    assert observe(a_set(10), 0, outcomes, **rules) == out


@pytest.mark.parametrize(
    ("count", "most", "may"),
    [(5, 0.1, 1), (9, 0.1, 1), (10, 0.1, 1), (20, 0.1, 2), (100, 0.1, 10), (5, 1.0, 4), (5, 0.0, 1)],
)
def test_a_tenth_but_always_one_and_never_the_last(count, most, may):
    endpoints = a_set(count)
    assert sum(observe(endpoints, number, [F] * 5, most=most) for number in range(count)) == may


def test_who_could_not_be_ejected_is_asked_again_after_as_many_failures_more():
    endpoints = a_set(10)
    detection = OutlierDetection(OutlierRules(), 0.0)
    first, second = endpoints.all[:2]
    assert [detection.observe(endpoints, first, F, 1.0) for _ in range(5)] == [False] * 4 + [True]
    assert not any(detection.observe(endpoints, second, F, 2.0) for _ in range(8))
    first.readmit(3.0)
    assert [detection.observe(endpoints, second, F, 4.0) for _ in range(2)] == [False, True]


def test_who_is_unhealthy_already_counts_in_the_cap():
    endpoints = a_set(10)
    endpoints.all[9].mark(0.0, healthy=False)
    assert not observe(endpoints, 0, [F] * 5)
    assert observe(endpoints, 9, [F] * 5)  # it is out anyway


def test_each_time_is_longer_up_to_300_seconds_and_good_conduct_takes_times_off():
    endpoints = a_set(10)
    detection = OutlierDetection(OutlierRules(), 0.0)
    bad = endpoints.all[0]
    now, lengths = 0.0, []
    for _ in range(12):
        assert [detection.observe(endpoints, bad, F, now) for _ in range(5)][-1]
        assert not detection.observe(endpoints, bad, F, now)  # it is out already
        lengths.append(bad.ejected_until - now)
        now = bad.ejected_until
        bad.failures = 0
    assert lengths == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]
    for _ in range(20):
        now += 10.0
        detection.sweep(endpoints, now)
    assert bad.times_ejected == 0


def a_sweep(good: list[int], bad: list[int], **rules: float) -> list[str]:
    endpoints = a_set(len(good))
    detection = OutlierDetection(OutlierRules(in_a_row=0, **rules), 0.0)  # type: ignore[arg-type]
    for endpoint, well, badly in zip(endpoints, good, bad, strict=True):
        for outcome in [G] * well + [F] * badly:
            detection.observe(endpoints, endpoint, outcome, 1.0)
    assert detection.sweep(endpoints, 9.9) == []
    found = detection.sweep(endpoints, 10.0)
    assert not any(each.good or each.bad for each in endpoints)
    return names(found)


@pytest.mark.parametrize(
    ("good", "bad", "rules", "out"),
    [
        ([100] * 4 + [0], [0] * 4 + [100], {}, ["5"]),  # below mean − 1.9 deviations: 0.8 − 0.76
        ([100] * 4 + [80], [0] * 4 + [20], {}, ["5"]),
        ([99] * 3, [1] * 3, {}, []),  # too few endpoints
        ([100] * 4 + [0], [0] * 4 + [99], {}, []),  # too few answers there
        ([50] * 5, [50] * 5, {}, []),  # all alike
        ([100] * 4 + [0], [0] * 4 + [100], {"deviations": 0}, []),
        ([100] * 18 + [0, 40], [0] * 18 + [100, 60], {}, ["19", "20"]),
        ([100] * 9 + [10], [0] * 9 + [90], {"deviations": 0, "failure_share": 0.85}, ["10"]),
        ([100] * 9 + [10], [0] * 9 + [39], {"deviations": 0, "failure_share": 0.7}, []),  # 49 answers
        ([40] * 3 + [0, 0], [0] * 3 + [60, 90], {"deviations": 0, "failure_share": 0.85}, ["4"]),  # one of five
    ],
)
def test_a_sweep_finds_who_is_worse_than_the_others(good, bad, rules, out):
    assert a_sweep(good, bad, **rules) == out


class Ejecting(RuleBasedStateMachine):
    """Whatever is answered: never more out than the cap says, never all, and nobody for longer than 300 s."""

    @initialize(count=st.integers(5, 30), seed=st.integers(0, 99))
    def begin(self, count: int, seed: int) -> None:
        self.now = 0.0
        self.endpoints = a_set(count)
        self.watch = Watch(self.endpoints, dice(seed), 0.0)

    @rule(which=st.integers(0, 99), outcome=st.sampled_from([G, F, W, L, X, N]), times=st.integers(1, 120))
    def answer(self, which: int, outcome: Outcome, times: int) -> None:
        endpoint = self.endpoints.all[which % len(self.endpoints)]
        for _ in range(times):
            self.watch.begin(endpoint, self.now)
            endpoint.active -= 1
            self.watch.end(endpoint, outcome, self.now, self.now)

    @rule(seconds=st.sampled_from([0.5, 10.0, 31.0, 301.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.watch.sweep(self.now)

    @rule(count=st.integers(5, 30))
    def replace(self, count: int) -> None:
        out = [each for each in self.endpoints if each.ejected_until > self.now]
        keep = {each.name for each in out[: max(1, count // 10)]}
        entries = [each for each in declared(count) if str(each.address) not in {e.name for e in out} - keep]
        if len(entries) >= 5 and len(keep & {str(e.address) for e in entries}) <= max(1, len(entries) // 10):
            self.endpoints = self.endpoints.replaced_by(entries, self.now)
            self.watch.replace(self.endpoints)

    @invariant()
    def a_tenth_or_one(self) -> None:
        if hasattr(self, "endpoints"):
            out = [each for each in self.endpoints if each.ejected_until > self.now]
            assert len(out) <= max(1, len(self.endpoints) // 10)
            assert all(each.ejected_until <= self.now + 300.0 for each in out)


TestEjecting = Ejecting.TestCase
TestEjecting.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
