"""The retry budget: a fifth of the requests of ten seconds, or one a second where that is more."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sidecar.traffic.budget import Budget


def spend(budget: Budget, now: float, most: int = 10_000) -> int:
    return sum(budget.take(now) for _ in range(most))


@pytest.mark.parametrize(
    ("requests", "retries"), [(0, 10), (1, 10), (50, 10), (54, 10), (55, 11), (1000, 200), (2000, 400)]
)
def test_a_fifth_or_the_floor_whichever_is_more(requests, retries):
    budget = Budget()
    for _ in range(requests):
        budget.request(50.0)
    assert sum(spend(budget, 50.5 + second) for second in range(5)) == retries
    assert (budget.left(54.9), budget.spent) == (0, 50_000 - retries)


def test_at_200_requests_a_second_there_are_never_more_than_240_attempts():
    """Nor over any ten seconds, with everything failing always; the sum of share and floor would be more."""
    budget = Budget()
    sent: list[int] = []
    for second in range(60):
        retries = 0
        for step in range(200):
            now = second + step / 200
            budget.request(now)
            retries += budget.take(now) + budget.take(now)
        sent.append(200 + retries)
    assert max(sum(sent[at : at + 10]) for at in range(50)) <= 1.2 * 2000
    assert max(sent[1:]) <= 300  # nor half as much again in any second, but for the first


def test_half_as_many_retries_as_requests_in_one_second_at_most():
    budget = Budget()
    spent = []
    for second in range(50, 86):
        for step in range(200):
            budget.request(second + step / 200)
        spent.append(spend(budget, second + 0.999) if second >= 60 else 0)
    assert spent[10:] == [100] * 4 + [0] * 7 + [100] * 4 + [0] * 7 + [100] * 4


def test_what_was_taken_comes_back_after_eleven_seconds():
    budget = Budget()
    assert spend(budget, 100.9) == 10
    assert [spend(budget, now) for now in (110.9, 111.0, 121.9, 122.0)] == [0, 10, 0, 10]


@pytest.mark.parametrize(("ratio", "floor", "window"), [(-0.1, 1, 1), (1.1, 1, 1), (0.2, -1, 1), (0.2, 1, 0)])
def test_what_is_no_budget_is_refused(ratio, floor, window):
    with pytest.raises(ValueError, match="no budget"):
        Budget(ratio, floor, window)


def test_without_a_floor_a_quiet_destination_has_none():
    budget = Budget(floor=0.0)
    for _ in range(9):
        budget.request(1.0)
    assert (budget.take(1.0), budget.take(1.0)) == (True, False)


class Spending(RuleBasedStateMachine):
    """Against one that remembers everything."""

    @initialize(
        ratio=st.sampled_from([0.0, 0.2, 1.0]), floor=st.sampled_from([0.0, 0.5, 3.0]), window=st.integers(1, 10)
    )
    def begin(self, ratio: float, floor: float, window: int) -> None:
        self.budget = Budget(ratio, floor, window)
        self.ratio, self.floor, self.window = ratio, floor * window, window
        self.now = self.latest = 5000.0
        self.budget.left(self.now)
        self.requests: list[int] = []
        self.retries: list[int] = []

    @rule(seconds=st.sampled_from([-3.0, 0.0, 0.1, 0.9, 1.0, 2.5, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.latest = max(self.latest, self.now)
        self.budget.left(self.now)  # it sees the clock only when it is asked, and the model must not know more

    @rule(count=st.integers(1, 40))
    def request(self, count: int) -> None:
        for _ in range(count):
            self.budget.request(self.now)
            self.requests.append(int(self.latest))

    @rule(count=st.integers(1, 20))
    def retry(self, count: int) -> None:
        for _ in range(count):
            second = int(self.latest)
            allowed = max(self.ratio * sum(at > second - self.window for at in self.requests), self.floor)
            spent = sum(at >= second - self.window for at in self.retries)
            at_once = max(1.0, 0.25 * allowed, self.floor) - self.retries.count(second)
            left = max(0, int(min(allowed - spent, at_once)))
            assert self.budget.left(self.now) == left
            assert self.budget.take(self.now) == (left > 0)
            if left:
                self.retries.append(int(self.latest))


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_request_that_is_not_sent_after_all_is_not_counted():
    budget = Budget()
    for _ in range(100):
        budget.request(7.0)
    budget.request(7.0)
    budget.undo()
    assert (budget.requests, budget.left(7.0)) == (100, 10)
    budget.left(30.0)
    assert budget.requests == 0
