"""The breaker of an endpoint among few: what opens it, who probes, how long it waits."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.traffic.balance import LeastLoaded
from sidecar.traffic.breaker import Breaker
from sidecar.traffic.endpoints import Endpoint, EndpointSet
from sidecar.traffic.outcome import Outcome
from sidecar.traffic.watch import Watch
from tests.kit.traffic import a_set, declared, dice

G, F, W, L, X, N = Outcome.GOOD, Outcome.FAILED, Outcome.GATEWAY, Outcome.LOCAL, Outcome.LIMITED, Outcome.NEUTRAL


def a_watch(count: int = 1, throw: float = 0.0) -> tuple[EndpointSet, Watch]:
    endpoints = a_set(count)
    return endpoints, Watch(endpoints, lambda: throw, 0.0)


def ask(watch: Watch, endpoint: Endpoint, outcome: Outcome, now: float) -> bool:
    watch.begin(endpoint, now)
    endpoint.active -= 1
    return watch.end(endpoint, outcome, now, now)


@pytest.mark.parametrize(
    ("outcomes", "opens_at"),
    [
        ([G] * 50 + [F] * 7, 57),  # seven in a row
        ([G] * 50 + [F, W, L, F, W, L, L], 57),  # of any kind
        ([G] * 50 + [F] * 6 + [G] + [F] * 6 + [G], 0),
        ([G] * 50 + [F] * 6 + [N, F], 58),  # what says nothing changes nothing
        ([F] * 4, 0),  # fewer than five answers
        ([G, G, G, G, F], 0),  # exactly 0.8
        ([G, G, G, F, F], 5),
        ([G] * 8 + [X] * 2, 0),
        ([G] * 8 + [X] * 3, 11),  # refusals for number count in the ratio,
        ([G] * 90 + [F] * 6 + [X] * 9 + [F], 106),  # neither add to the row nor end it
        ([N] * 100, 0),
    ],
)
def test_what_opens_it(outcomes, opens_at):
    breaker = Breaker()
    opened = [number for number, outcome in enumerate(outcomes, 1) if breaker.observe(outcome, 100.0)]
    assert opened[:1] == ([opens_at] if opens_at else [])


def test_the_window_is_ten_seconds():
    breaker = Breaker()
    assert not any(breaker.observe(F, 100.9) for _ in range(4))
    breaker.observe(G, 100.9)  # would be the fifth, had they not been forgiven meanwhile
    breaker = Breaker()
    for at in (100.0, 101.0, 102.0, 103.0):
        assert not breaker.observe(F, at)
    assert not breaker.observe(G, 113.5)
    assert (breaker.good, breaker.bad) == (1, 0)
    assert not breaker.observe(G, 90.0)  # the clock has gone back: added to what is now
    assert (breaker.good, breaker.bad) == (2, 0)


def test_a_short_total_outage_is_seen_though_the_average_is_good():
    """300 good answers in nine seconds hide ten bad ones from any ratio; seven in a row do not."""
    breaker = Breaker()
    assert not any(breaker.observe(G, 100.0 + step / 33) for step in range(300))
    assert [breaker.observe(L, 109.1) for _ in range(7)] == [False] * 6 + [True]


def test_it_waits_twice_as_long_each_time_up_to_a_minute_and_forgets_when_closed():
    endpoints, watch = a_watch()
    (endpoint,) = endpoints
    now, waits = 100.0, []
    assert [ask(watch, endpoint, F, now) for _ in range(5)][-1]
    for _ in range(9):
        waits.append(endpoint.ejected_until - now)
        now = endpoint.ejected_until
        assert ask(watch, endpoint, F, now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    now = endpoint.ejected_until
    assert not ask(watch, endpoint, G, now)
    assert endpoint.state(now) == "available"
    assert endpoint.breaker is not None
    assert (endpoint.breaker.good, endpoint.breaker.bad, endpoint.breaker.times) == (0, 0, 0)
    assert [ask(watch, endpoint, F, now) for _ in range(5)] == [False] * 4 + [True]
    assert endpoint.ejected_until - now == 1


@pytest.mark.parametrize(("throw", "wait"), [(0.0, 1.0), (0.5, 1.25), (0.999, 1.4995)])
def test_up_to_half_as_long_again_by_chance(throw, wait):
    endpoints, watch = a_watch(throw=throw)
    for _ in range(5):
        ask(watch, endpoints.all[0], F, 100.0)
    assert endpoints.all[0].ejected_until == pytest.approx(100.0 + wait)


@pytest.mark.parametrize(
    ("outcome", "state"), [(G, "available"), (F, "open"), (L, "open"), (X, "open"), (N, "half-open")]
)
def test_one_real_request_decides(outcome, state):
    endpoints, watch = a_watch()
    (endpoint,) = endpoints
    balancer = LeastLoaded(endpoints, dice(), 0.0)
    for _ in range(5):
        ask(watch, endpoint, F, 100.0)
    assert (balancer.pick(100.9), endpoint.state(100.9)) == (None, "open")
    assert (balancer.pick(101.0), endpoint.state(101.0)) == (endpoint, "half-open")
    watch.begin(endpoint, 101.0)
    assert balancer.pick(101.1) is None  # one at a time
    watch.end(endpoint, outcome, 101.0, 101.2)
    assert endpoint.state(101.2) == state
    assert balancer.pick(101.2) is (None if state == "open" else endpoint)


def test_requests_from_before_it_opened_are_no_probes():
    endpoints, watch = a_watch()
    (endpoint,) = endpoints
    for _ in range(20):
        watch.begin(endpoint, 99.0)
    for _ in range(5):
        watch.end(endpoint, F, 99.0, 100.0)
    for outcome in (G, F, N):
        assert not watch.end(endpoint, outcome, 99.0, 100.5)
    assert endpoint.ejected_until == 101.0
    watch.begin(endpoint, 101.0)
    assert not watch.end(endpoint, G, 99.0, 101.1)
    assert endpoint.state(101.1) == "half-open"
    assert not watch.end(endpoint, G, 101.0, 101.2)
    assert endpoint.state(101.2) == "available"


def test_a_request_that_has_failed_elsewhere_is_not_sent_to_probe_unless_nobody_else_is_there():
    endpoints, watch = a_watch(2)
    failed, other = endpoints
    balancer = LeastLoaded(endpoints, dice(), 0.0)
    for _ in range(5):
        ask(watch, other, F, 100.0)
    assert balancer.pick(102.0, (failed,)) is failed
    assert balancer.pick(102.0) is other
    for _ in range(5):
        ask(watch, failed, F, 102.0)
    assert balancer.pick(102.0, (failed,)) is other


def test_all_of_four_may_be_open_and_a_fifth_endpoint_brings_outlier_detection():
    endpoints, watch = a_watch(4)
    balancer = LeastLoaded(endpoints, dice(), 0.0)
    for endpoint in endpoints:
        for _ in range(5):
            ask(watch, endpoint, F, 100.0)
    assert balancer.pick(100.5) is None
    after = endpoints.replaced_by(declared(5), 100.5)
    watch.replace(after)
    balancer.replace(after)
    assert balancer.pick(100.5) is not None  # panic: four of five are out
    assert [each.state(100.5) for each in after] == ["ejected"] * 4 + ["available"]
    assert [each.state(101.0) for each in after] == ["available"] * 5
    back = after.replaced_by(declared(4), 102.0)
    watch.replace(back)
    assert all(each.breaker is not None and not each.breaker.open for each in back)


def test_a_breaker_outlives_a_new_list():
    endpoints, watch = a_watch(2)
    for _ in range(5):
        ask(watch, endpoints.all[0], F, 100.0)
    after = endpoints.replaced_by(declared(3), 100.1)
    watch.replace(after)
    assert [each.state(100.5) for each in after] == ["open", "available", "available"]


class Breaking(RuleBasedStateMachine):
    """A breaker against a naive one that keeps every answer with its time."""

    @initialize()
    def begin(self) -> None:
        self.endpoints, self.watch = a_watch()
        (self.endpoint,) = self.endpoints
        self.now = 1000.0
        self.answers: list[tuple[int, Outcome]] = []
        self.opened_for = 0.0
        self.opened_at: float | None = None
        self.balancer = LeastLoaded(self.endpoints, dice(), self.now)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 3.0, 11.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(outcomes=st.lists(st.sampled_from([G, G, G, F, L, X, N]), min_size=1, max_size=12))
    def ask(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            picked = self.balancer.pick(self.now)
            open_now = self.opened_at is not None
            assert (picked is None) == (open_now and self.now < self.opened_at + self.opened_for)  # type: ignore[operator]
            if picked is None:
                return
            ask(self.watch, self.endpoint, outcome, self.now)
            self.learn(outcome)

    def learn(self, outcome: Outcome) -> None:
        if outcome == N:
            return
        if self.opened_at is not None:
            if outcome == G:
                self.opened_at, self.opened_for, self.answers = None, 0.0, []
            else:
                self.opened_at, self.opened_for = self.now, min(60.0, self.opened_for * 2)
            return
        self.answers.append((int(self.now), outcome))
        row = [each for _, each in self.answers if each != X][-7:]
        window = [each for second, each in self.answers if second > int(self.now) - 10]
        good = window.count(G)
        seven = len(row) == 7 and G not in row and outcome != G
        if seven or (outcome != G and len(window) >= 5 and good < 0.8 * len(window)):
            self.opened_at, self.opened_for = self.now, 1.0

    @invariant()
    def nothing_is_left_under_way(self) -> None:
        assert not hasattr(self, "endpoint") or self.endpoint.active == 0


TestBreaking = Breaking.TestCase
TestBreaking.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
