"""All of it together, as the proxy calls it."""

from __future__ import annotations

from operator import itemgetter

import pytest

from sidecar.traffic.ceilings import Ceiling, CeilingRules, Ceilings
from sidecar.traffic.destination import Destination, DestinationRules
from sidecar.traffic.endpoints import Endpoint
from sidecar.traffic.maglev import Affine
from sidecar.traffic.outcome import Outcome
from tests.kit.traffic import declared, dice

G, F, N = Outcome.GOOD, Outcome.FAILED, Outcome.NEUTRAL


def a_destination(count: int = 3, rules: DestinationRules | None = None) -> Destination:
    return Destination(declared(count), dice(), 0.0, rules or DestinationRules())


def ask(destination: Destination, outcome: Outcome, now: float, seconds: float = 0.01) -> str:
    endpoint = destination.begin(now)
    if endpoint is None:
        return ""
    destination.end(endpoint, outcome, now, now + seconds)
    return endpoint.name


@pytest.mark.parametrize("algorithm", ["least_loaded", "round_robin", "weighted", "maglev"])
def test_every_way_of_balancing_reaches_everybody(algorithm):
    destination = a_destination(3, DestinationRules(balance=algorithm))
    reached = set()
    for number in range(60):
        endpoint = destination.begin(1.0 + number, key=b"%d" % number)
        assert endpoint is not None
        assert endpoint.active == 1
        destination.end(endpoint, G, 1.0 + number, 1.01 + number)
        reached.add(endpoint.name)
    assert len(reached) == 3
    assert isinstance(destination._balancer, Affine) == (algorithm == "maglev")


def test_when_all_are_open_the_answer_says_when_to_come_again():
    destination = a_destination(3)
    while ask(destination, F, 10.0):
        pass
    assert {each.state for each in destination.seen(10.5)} == {"open"}
    assert 11.0 <= destination.retry_at(10.0) <= 11.5
    assert ask(destination, G, 12.0)
    assert ask(destination, G, 12.0)


@pytest.mark.parametrize("count", [3, 6])
def test_where_the_watch_is_off_nobody_is_taken_out_but_by_health_checks(count):
    destination = a_destination(count, DestinationRules(watch=False))
    assert all(ask(destination, F, 10.0 + step / 10) for step in range(300))
    assert not destination.sweep(50.0)
    destination.endpoints.all[0].mark(50.0, healthy=False)
    assert [each.state for each in destination.seen(50.0)] == ["unhealthy"] + ["available"] * (count - 1)


def test_who_has_no_endpoint_says_come_again_in_a_second():
    destination = a_destination(0)
    assert destination.begin(5.0) is None
    assert (destination.retry_at(5.0), destination.seen(5.0), destination.sweep(5.0)) == (6.0, [], [])


@pytest.mark.parametrize(("algorithm", "most"), [("least_loaded", 5), ("round_robin", 5)])
def test_five_and_more_are_watched_by_comparison(algorithm, most):
    """By load a failing endpoint is hardly asked even before it is ejected; in turn it is found out at once."""
    destination = a_destination(6, DestinationRules(balance=algorithm))
    bad = destination.endpoints.all[2]
    failures = 0
    for step in range(6000):
        now = 1.0 + step / 200
        endpoint = destination.begin(now)
        assert endpoint is not None
        failures += endpoint is bad
        destination.end(endpoint, F if endpoint is bad else G, now, now + 0.005)
        destination.sweep(now)
    assert failures <= most
    assert [each.name for each in destination.seen(30.9) if each.state == "ejected"] == [bad.name]
    assert all(each.active == 0 for each in destination.seen(31.0))


def test_a_caller_who_leaves_does_an_endpoint_no_harm_but_its_patience_counts():
    destination = a_destination(1)
    for _ in range(100):
        ask(destination, N, 1.0, 2.0)
    (seen,) = destination.seen(3.0)
    assert (seen.state, seen.latency, seen.active) == ("available", 2.0, 0)


def test_an_endpoint_that_freezes_is_left_alone_before_any_time_out_says_so():
    """100 requests a second for 12 s to three, answered after 10 ms, one in twenty after 200; then one answers nobody
    any more.
    """
    destination, stuck = a_destination(3), 0
    under_way: list[tuple[float, float, Endpoint]] = []
    for number in range(1200):
        now = number / 100
        for done in sorted((each for each in under_way if each[0] <= now), key=itemgetter(0)):
            at, began, endpoint = done
            destination.end(endpoint, G, began, at)
            under_way.remove(done)
        endpoint = destination.begin(now)
        assert endpoint is not None
        if endpoint is destination.endpoints.all[0] and number >= 200:
            stuck += 1
        else:
            under_way.append((now + (0.2 if number % 20 == 0 else 0.01), now, endpoint))
    assert stuck <= 2


def test_a_refusal_for_number_is_as_slow_as_it_asks_to_be():
    destination = a_destination(2)
    endpoint = destination.begin(1.0)
    assert endpoint is not None
    destination.end(endpoint, Outcome.LIMITED, 1.0, 1.001, 60.0)
    assert (endpoint.latency, endpoint.state(1.0)) == (60.0, "available")
    other = destination.begin(2.0)
    assert other is not endpoint


def test_a_new_list_takes_effect_at_once_and_a_bad_one_not_at_all():
    destination = a_destination(2)
    destination.replace(declared(7)[5:], 1.0)
    assert {ask(destination, G, 1.0 + step) for step in range(20)} == {"10.0.0.6:80", "10.0.0.7:80"}
    with pytest.raises(ValueError, match="weight"):
        destination.replace([declared(1)[0]._replace(weight=0)], 2.0)
    assert len(destination.endpoints) == 2


def test_ceilings_count_and_refuse():
    ceiling = Ceiling("ceilings.requests", 2)
    assert [ceiling.enter() for _ in range(4)] == [True, True, False, False]
    ceiling.leave()
    assert (ceiling.enter(), ceiling.count, ceiling.refused) == (True, 2, 2)
    ceilings = Ceilings(CeilingRules())
    ceilings.requests.enter()
    ceilings.adopt(CeilingRules(requests=3, retries=4))
    assert [each.most for each in (ceilings.requests, ceilings.retries)] == [3, 4]
    assert ceilings.requests.count == 1


# ---- in the place of another -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["least_loaded", "round_robin", "weighted", "maglev"])
def test_an_heir_knows_what_is_known(algorithm):
    before = a_destination(3)
    for number in range(12):
        ask(before, F, 1.0 + number / 10)
    running = before.begin(2.5)
    known = before.endpoints.all
    heir = a_destination(4, DestinationRules(balance=algorithm))
    heir.inherit(before, declared(4), 3.0)
    assert heir.endpoints.all[:3] == known
    assert [each.state for each in heir.seen(3.0)[:3]] == [each.state for each in before.seen(3.0)]
    assert heir.budget is before.budget
    picked = {heir.begin(3.1 + number, key=b"%d" % number) for number in range(200)}
    assert heir.endpoints.all[3] in picked
    if running is not None:  # what is under way there comes to its end on the books of both
        active = running.active
        before.end(running, G, 2.5, 4.0)
        assert running.active == active - 1


def test_another_budget_begins_anew_and_a_key_of_our_own_decides():
    before = a_destination(5)
    heir = a_destination(5, DestinationRules(balance="maglev", key=b"spiffe://demo.mesh/web", budget_ratio=0.5))
    heir.inherit(before, declared(5), 1.0)
    assert heir.budget is not before.budget
    assert len({heir.begin(2.0 + number) for number in range(50)}) == 1


def test_without_checks_nobody_is_unhealthy_and_an_ejection_stands():
    destination = a_destination(6)
    ill, out = destination.endpoints.all[:2]
    ill.mark(1.0, healthy=False)
    out.eject(50.0)
    destination.forget_health(2.0)
    assert [each.state for each in destination.seen(2.0)[:2]] == ["available", "ejected"]
