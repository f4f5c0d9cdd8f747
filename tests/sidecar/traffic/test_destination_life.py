"""Anything may happen to a destination, in any order: its books stay right, and nobody is shut out for ever."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.traffic.destination import Algorithm, Destination, DestinationRules
from sidecar.traffic.endpoints import Endpoint
from sidecar.traffic.maglev import Affine
from sidecar.traffic.outcome import Outcome
from tests.kit.traffic import declared, dice

ALGORITHMS: list[Algorithm] = ["least_loaded", "round_robin", "weighted", "maglev"]
LONGEST_OUT = 300.0  # seconds: of an ejection; a breaker's back-off ends sooner


class Life(RuleBasedStateMachine):
    """Attempts begin and end in any order, lists come and go, time passes."""

    @initialize(
        algorithm=st.sampled_from(ALGORITHMS), count=st.integers(0, 8), zone=st.sampled_from(["", "a"]),
        seed=st.integers(0, 50),
    )  # fmt: skip
    def begin_life(self, algorithm: Algorithm, count: int, zone: str, seed: int) -> None:
        self.now = 100.0
        rules = DestinationRules(balance=algorithm, zone=zone)
        self.destination = Destination(declared(count, zones="ab" * 4), dice(seed), self.now, rules)
        if isinstance(self.destination._balancer, Affine):
            self.destination._balancer._slots = 251
            self.destination._balancer.replace(self.destination.endpoints)
        self.under_way: list[tuple[Endpoint, float]] = []
        self.active: dict[Endpoint, int] = {}

    @rule(tries=st.integers(1, 8), key=st.sampled_from([b"", b"a", b"b"]), again=st.booleans())
    def attempt(self, tries: int, key: bytes, again: bool) -> None:
        excluded = [endpoint for endpoint, _ in self.under_way[-2:]] if again else []
        for _ in range(tries):
            before = {each: each.probing for each in self.destination.endpoints}
            endpoint = self.destination.begin(self.now, excluded, key)
            if endpoint is None:
                assert self.destination.retry_at(self.now) >= self.now
                assert not any(each.state(self.now) == "available" for each in self.destination.endpoints)
                return
            assert endpoint in before
            assert not before[endpoint] or not endpoint.probing  # never a second probe
            self.under_way.append((endpoint, self.now))
            self.active[endpoint] = self.active.get(endpoint, 0) + 1

    @rule(which=st.integers(0, 30), outcomes=st.lists(st.sampled_from(list(Outcome)), min_size=1, max_size=8))
    def end(self, which: int, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if self.under_way:
                endpoint, began = self.under_way.pop(which % len(self.under_way))
                self.destination.end(endpoint, outcome, began, self.now, 7.0)
                self.active[endpoint] -= 1

    @rule(count=st.integers(0, 8), first=st.integers(0, 4))
    def replace(self, count: int, first: int) -> None:
        self.destination.replace(declared(12, zones="ab" * 6)[first : first + count], self.now)

    @rule(which=st.integers(0, 8), healthy=st.booleans())
    def check_health(self, which: int, healthy: bool) -> None:
        every = self.destination.endpoints.all
        if every:
            every[which % len(every)].mark(self.now, healthy=healthy)

    @rule(seconds=st.sampled_from([0.0, 0.2, 1.5, 12.0, 95.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.destination.sweep(self.now)

    @rule()
    def after_a_long_quiet_everybody_is_asked_again(self) -> None:
        for endpoint, began in self.under_way:
            self.destination.end(endpoint, Outcome.NEUTRAL, began, self.now)
            self.active[endpoint] -= 1
        self.under_way = []
        self.now += LONGEST_OUT
        healthy = [each for each in self.destination.endpoints if each.healthy]
        states = {each.state(self.now) for each in healthy}
        assert states <= {"available", "half-open"}
        reached = set()
        for number in range(10 * len(healthy)):
            endpoint = self.destination.begin(self.now, (), b"%d" % number)
            assert endpoint is not None
            self.destination.end(endpoint, Outcome.GOOD, self.now, self.now + 0.01)
            reached.add(endpoint)
            self.now += 1.0
        assert bool(reached & set(healthy)) == bool(healthy)
        assert all(each.state(self.now) == "available" for each in reached if each.healthy)

    @invariant()
    def the_books_are_right(self) -> None:
        if hasattr(self, "destination"):
            for endpoint in self.destination.endpoints:
                assert endpoint.active == self.active.get(endpoint, 0)
                assert endpoint.latency >= 0.0


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
