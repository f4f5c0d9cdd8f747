"""What checks make of an endpoint: the first decides, then so many in a row, and some say nothing."""

from __future__ import annotations

import pytest

from sidecar.traffic.endpoints import Endpoint
from sidecar.traffic.health import Health, HealthRules, Result, Word, first_due, next_due, observe
from tests.kit.traffic import a_set

RULES = HealthRules()
WORDS: dict[str, Word] = {
    "p": "passed", "f": "failed", "t": "timed_out", "u": "unreachable", "r": "refused", "s": "skipped",
}  # fmt: skip


def an_endpoint() -> Endpoint:
    return a_set(1).all[0]


@pytest.mark.parametrize(("checks", "states"), [
    ("p", "+"),
    ("f", "-"),  # the first decides at once
    ("pffp", "++++"),
    ("pfff", "+++-"),
    ("ptuf", "+++-"),  # in whatever way
    ("pffpfff", "++++++-"),  # in a row
    ("fpp", "--+"),
    ("fpfpp", "----+"),
    ("ffffpp", "-----+"),
    ("rrrr", "++++"),  # they say nothing,
    ("rrf", "++-"),  # so the first that does decides,
    ("pfrfsf", "+++++-"),  # and they break no row
    ("fprp", "---+"),
])  # fmt: skip
def test_who_is_taken_out_and_let_in_again(checks: str, states: str) -> None:
    endpoint, health, found, changes = an_endpoint(), Health(0.0), "", 0
    for now, word in enumerate(checks):
        before = endpoint.healthy
        changed = observe(endpoint, health, Result(WORDS[word]), float(now), RULES)
        assert changed == (before != endpoint.healthy)
        changes += changed
        found += "+" if endpoint.healthy else "-"
    assert found == states
    assert health.last == Result(WORDS[checks[-1]])


def test_since_when_it_is_what_it_is() -> None:
    endpoint, health = an_endpoint(), Health(0.0)
    for now, word in enumerate("rpfff"):
        observe(endpoint, health, Result(WORDS[word]), float(now), RULES)
    assert (health.since, health.at, health.judged) == (4.0, 4.0, True)
    health = Health(0.0)
    observe(an_endpoint(), health, Result("refused"), 3.0, RULES)
    assert (health.since, health.judged) == (0.0, False)


def test_a_good_one_ends_an_ejection_and_a_bad_one_does_not() -> None:
    endpoint, health = an_endpoint(), Health(0.0)
    endpoint.eject(100.0)
    observe(endpoint, health, Result("refused"), 1.0, RULES)
    assert endpoint.state(1.0) == "ejected"
    observe(endpoint, health, Result("passed"), 2.0, RULES)
    assert endpoint.state(2.0) == "available"


def test_a_few_are_asked_at_once_and_many_over_their_time() -> None:
    assert first_due(5.0, 3, RULES, 0.9) == 5.0
    assert [first_due(5.0, 100, RULES, dice) for dice in (0.0, 0.5, 1.0)] == [5.0, 6.0, 7.0]
    assert first_due(5.0, 4000, RULES, 1.0) == 15.0  # never longer than from one check to the next
    assert [next_due(5.0, RULES, dice) for dice in (0.0, 0.5, 1.0)] == [14.0, 15.0, 16.0]
