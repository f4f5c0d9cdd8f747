"""What callers notice of a bad network: packets that get lost, resets, partitions, narrow links, calls into a void.

Two callers ask three copies 40 times a second each, half of it POST that nobody may send twice; it befalls the copy
that is asked most. Connecting takes at most 2 s (the default), an answer's head 3 s (15 s by default). Bounds are of
counts, or of seconds where a time-out of ours decides them: the machine may be busy with other tests.
"""

from __future__ import annotations

import time

import pytest

from tests.kit.street import INBOUND, Street

pytestmark = pytest.mark.alone  # its bounds are of time-outs, and two more meshes beside it would move them

TO_SHOP, FROM_SHOP = f"input tcp dport {INBOUND}", f"output tcp sport {INBOUND}"
ESTABLISHED = "tcp flags & (syn | fin | rst) == 0"
CONNECT, ANSWER = 2.0, 3.0  # seconds, of the time-outs
SPARE = 0.7  # for a busy machine


@pytest.mark.parametrize(("per_cent", "well", "slow"), [(1, 1.0, 0.02), (10, 0.99, 0.05)])
def test_lost_packets_cost_time_and_hardly_a_request(street: Street, per_cent: int, well: float, slow: float) -> None:
    """TCP sends them again, after 200 ms and more; and the endpoint that answers slower is asked less."""
    with street.calls() as calls:
        shop = calls.favourite()
        since = calls.mark()
        shop.host.lose(per_cent)
        time.sleep(2.5)
        story = calls.stop().sound().during(since)
    assert story.share_ok() >= well, f"{story}: {story.failures}"
    assert len(story.slower(1.0)) <= slow * len(story.asked), story


def test_connections_that_are_reset(street: Street) -> None:
    """What was under way on them may have been done: POSTs among that fail, and nothing else does."""
    with street.calls() as calls:
        shop = calls.favourite()
        since = calls.mark()
        shop.host.filter(
            f"{TO_SHOP} {ESTABLISHED} reject with tcp reset", f"{FROM_SHOP} {ESTABLISHED} reject with tcp reset"
        )
        time.sleep(0.5)
        shop.host.heal()
        street.until_well(8.0)
        well = calls.mark()
        time.sleep(0.5)
        story = calls.stop().sound()
    assert all(each.post for each in story.failed), story.failures
    assert len(story.failed) <= 5, story.failures
    assert story.during(since).share_ok() >= 0.95, story.failures
    assert story.during(well).share_ok() == 1.0, story.failures


def test_an_endpoint_that_nobody_reaches(street: Street) -> None:
    """In the middle of requests: the packets of both directions vanish, for four seconds. What is under way there, and
    what is sent on its connections before silence is felt, fails; from then on it is gone round.
    """
    with street.calls() as calls:
        shop = calls.favourite()
        since = calls.mark()
        shop.host.part()
        time.sleep(4.0)
        shop.host.heal()
        street.until_well(8.0)
        well = calls.mark()
        time.sleep(0.7)
        story = calls.stop().sound()
    assert len(story.failed) <= 15, f"{story}: {story.failures}"
    assert not story.slower(CONNECT + ANSWER + SPARE), story
    felt = story.during(since + CONNECT + SPARE)
    assert len(felt.slower(1.0)) <= 8, felt  # of which each found out for all the others, or began just before
    assert story.during(well).share_ok() == 1.0, story.failures


def test_one_caller_that_does_not_reach_an_endpoint(street: Street) -> None:
    """Its sidecar goes round it; nobody else is told, and nobody else notices."""
    here, there = street.callers
    with street.calls() as calls:
        shop = calls.favourite()
        since = calls.mark()
        shop.host.part(here.host)
        time.sleep(4.0)
        states, resents = (here.states(), there.states()), here.resents()
        shop.host.heal()
        street.until_well(8.0)
        story = calls.stop().sound()
    assert story.of(there).share_ok() == 1.0
    assert not story.of(there).slower(1.0), story.of(there)
    assert set(states[1].values()) == {"available"}
    assert states[0][shop.host.address] in ("open", "half-open") or resents  # left alone by its breaker, or by load
    assert len(story.of(here).failed) <= 15, story.failures
    assert len(story.of(here).during(since + CONNECT + SPARE).slower(1.0)) <= 5, story.of(here)


def test_an_endpoint_that_has_moved_far_away(street: Street) -> None:
    """150 ms and more each way, and four times that for a new connection. It is left by load: nobody fails, and after
    the first few hardly anybody waits.
    """
    with street.calls() as calls:
        shop = calls.favourite()
        since = calls.mark()
        with shop.far_away(0.15):
            time.sleep(3.5)
            story = calls.stop().sound().during(since)
    assert len(story.failed) <= 5, story.failures  # of the reset
    felt = story.during(since + 1.5)
    assert felt.share_ok() == 1.0, felt.failures
    assert len(felt.slower(0.29)) <= 0.05 * len(felt.asked), felt
    assert not story.slower(2.0), story


def test_a_narrow_link(street: Street) -> None:
    """A copy whose answers leave at 1 Mbit/s is left by load; large ones that are on it already take their time."""
    with street.calls(8.0, large=1.0) as calls:
        shop = calls.favourite(1.0)
        shop.host.narrow("1mbit")
        time.sleep(1.0)
        before = {each: len(each.done()) for each in street.shops}
        time.sleep(2.0)
        asked = {each: len(each.done()) - count for each, count in before.items()}
        shop.host.heal()
        story = calls.stop().sound()
    assert story.share_ok() >= 0.97, story.failures  # a head may wait for 3 s behind the body of another
    assert asked[shop] <= sum(asked.values()) / 5, list(asked.values())
    assert len(story.slower(1.0)) <= 0.15 * len(story.asked), story


def test_calls_into_a_void(street: Street) -> None:
    """An endpoint whose connections are reset, and to which SYNs vanish from then on. Each of the first requests waits
    for one connect time-out and then is answered elsewhere, POSTs too: nothing of them was sent. Later only the one
    that finds out does, once in a back-off.
    """
    with street.calls() as calls:
        shop = calls.favourite()
        since = calls.mark()
        shop.host.filter(f"{TO_SHOP} tcp flags & (syn | ack) == syn drop", f"{TO_SHOP} reject with tcp reset")
        time.sleep(6.0)
        story = calls.stop().sound().during(since)
    assert all(each.post and each.took < 1.0 for each in story.failed), story.failures  # on what was reset
    assert len(story.failed) <= 5, story.failures
    assert not story.slower(CONNECT + SPARE), story
    felt = story.during(since + CONNECT + SPARE)
    assert felt.share_ok() == 1.0, felt.failures
    assert len(felt.slower(1.0)) <= 6, felt
