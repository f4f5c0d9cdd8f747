"""What docs/traffic.md says of the bad days, held to what happens in them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from sidecar.traffic.throttle import Stage
from tests.sim import throttling
from tests.sim.plot import draw
from tests.sim.scenarios import BARE, GUARDED, SCENARIOS, fleet, metastable, storm
from tests.sim.world import Books

DOCS = Path(__file__).parents[2] / "docs"


@cache
def played(number: int) -> tuple[Books, Books]:
    """With budget and breakers, and without."""
    scenario = SCENARIOS[number]
    return scenario.play(GUARDED), scenario.play(BARE)


METASTABLE, HERD, SLOW, FLAPPING, PARTITION, STORM = range(6)


def p99(books: Books) -> float:
    """Seconds."""
    waits = sorted(books.latencies)
    return waits[int(len(waits) * 0.99)]


def test_overload_ends_with_its_cause_and_without_a_budget_it_does_not():
    guarded, bare = played(METASTABLE)
    assert guarded.rate(5, 60) > 0.99
    assert guarded.rate(140, 297) > 0.999  # a minute after
    assert bare.rate(200, 297) < 0.01
    assert guarded.amplification(60, 200) <= 1.2 < 2.9 < bare.amplification(60, 200)


def test_a_floor_of_ten_a_second_bounds_nothing_for_those_who_send_seven():
    """Why the budget's floor is not Linkerd's."""
    habits = replace(GUARDED, rules=replace(GUARDED.rules, budget_floor=10.0))
    assert metastable(habits).rate(200, 297) < 0.01


def test_a_herd_is_not_multiplied():
    guarded, bare = played(HERD)
    crowds = [sum(books.attempts[second] for second in (60, 120, 180, 240)) for books in (guarded, bare)]
    assert crowds[0] < 0.75 * crowds[1]
    assert abs(guarded.rate(60, 297) - bare.rate(60, 297)) < 0.02  # and nobody loses by it
    assert guarded.rate(65, 119) == 1.0


def test_a_slow_replica_is_avoided():
    guarded, bare = played(SLOW)
    assert guarded.rate(60, 240) > 0.999
    assert p99(guarded) < 0.5 * p99(bare)
    assert guarded.amplification(60, 240) < 1.02 < bare.amplification(60, 240)


def test_flapping_costs_nobody_an_answer():
    guarded, bare = played(FLAPPING)
    assert guarded.rate(60, 240) == bare.rate(60, 240) == 1.0
    assert guarded.amplification(60, 240) < 1.05 < 1.15 < bare.amplification(60, 240)
    assert guarded.rate(240, 297) == 1.0


def test_who_cannot_be_reached_is_found_out_by_each_caller_for_itself():
    guarded, bare = played(PARTITION)
    assert guarded.rate(60, 180) > 0.999
    assert p99(guarded) < 0.5 * p99(bare)


def test_over_three_hops_only_the_nearest_tries_again():
    """The sentence of issue 6: 200 requests a second, a dead leaf, at most 1.2 attempts for each."""
    guarded, bare = played(STORM)
    assert guarded.amplification(20, 50) <= 1.2
    assert 1.6 < storm(GUARDED, alone=True).amplification(20, 50) < 1.75  # each with its own fifth: 1.2 ** 3
    assert bare.amplification(20, 50) > 25.0
    assert guarded.rate(52, 67) > 0.999


def test_an_hour_of_a_thousand_endpoints():
    """In seconds."""
    books = fleet(GUARDED)
    assert sum(books.requests.values()) > 350_000
    assert books.rate(0, 3590) == 1.0
    assert books.amplification(0, 3590) < 1.02


def test_who_asks_for_too_much_waits_and_the_other_does_not():
    """The sentence of issue 6: an abusive caller's p50 grows while another's p99 stays flat."""
    waits, without = throttling.play(throttled=True), throttling.play(throttled=False)
    assert [round(waits["abusive"].percentile(at, 0.5), -2) for at in (0, 24, 30, 60)] == [0.0, 300.0, 1700.0, 2000.0]
    assert max(waits["good"].percentile(at, 0.99) for at in range(0, 120, 3)) < 150.0
    assert without["good"].percentile(60, 0.99) > 2000.0
    assert [waits["abusive"].share(at, Stage.BLOCKED) for at in (90, 105)] == [0.0, 1.0]
    assert waits["good"].share(60, Stage.FREE) == 1.0


def test_the_drawing_has_the_scenarios_of_today():
    """Its lines are not compared: another libm may take another turn."""
    played_all = [(each, dict(zip(("guarded", "bare"), played(n), strict=True))) for n, each in enumerate(SCENARIOS)]
    waits = throttling.play(throttled=True)
    numbers = re.compile(r"[-\d.,]+")
    today = numbers.sub("", draw(played_all, {"guarded": waits, "bare": waits}))
    assert numbers.sub("", (DOCS / "traffic.svg").read_text()) == today, "run `python -m tests.sim`"
