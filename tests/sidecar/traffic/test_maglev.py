"""Affinity: even shares, the same on every machine, and as few moves as can be."""

from __future__ import annotations

from collections import Counter

import pytest

from sidecar.traffic.endpoints import EndpointSet
from sidecar.traffic.maglev import SLOTS, Affine, key_hash, table
from tests.kit.traffic import a_set, declared, dice

KEYS = [b"caller-%d" % number for number in range(20_000)]


def where(balancer: Affine, now: float = 1.0) -> list[str]:
    found = [balancer.pick(now, key=key) for key in KEYS]
    return [each.name if each is not None else "" for each in found]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
def test_every_slot_is_taken_and_shares_differ_by_less_than_two_percent(count):
    taken = Counter(table(a_set(count).all))
    assert sum(taken.values()) == SLOTS
    assert max(taken.values()) / min(taken.values()) < 1.02


def test_shares_follow_weights():
    taken = Counter(table(a_set(4, weights=(1, 2, 3, 10)).all))
    assert [taken[number] / SLOTS for number in range(4)] == pytest.approx([1 / 16, 2 / 16, 3 / 16, 10 / 16], abs=0.001)


def test_keys_are_spread_as_slots_are():
    spread = Counter(where(Affine(a_set(10), dice(), 0.0)))
    assert all(0.09 < count / len(KEYS) < 0.11 for count in spread.values())


def test_it_is_the_same_on_every_machine_whatever_the_order_of_the_list():
    entries = declared(20)
    one = Affine(EndpointSet.of(entries, 0.0), dice(1), 0.0)
    other = Affine(EndpointSet.of(entries[7:] + entries[:7], 5.0), dice(2), 5.0)
    assert where(one) == where(other)
    assert key_hash(b"caller") == 6902993206827706167  # and in every release: sidecars of two versions share callers


@pytest.mark.parametrize("count", [5, 20, 100])
def test_when_one_goes_little_more_than_its_own_keys_move(count):
    endpoints = a_set(count)
    balancer = Affine(endpoints, dice(), 0.0)
    before = where(balancer)
    gone = endpoints.all[count // 2].name
    balancer.replace(endpoints.replaced_by([each for each in declared(count) if f"{each.address}" != gone], 1.0))
    after = where(balancer)
    own = sum(each == gone for each in before)
    moved = sum(a != b for a, b in zip(before, after, strict=True))
    assert own <= moved <= own + 0.05 * len(KEYS)


def test_when_one_is_ejected_only_its_keys_move_and_they_spread_and_come_back():
    endpoints = a_set(10)
    balancer = Affine(endpoints, dice(), 0.0)
    before = where(balancer)
    out = endpoints.all[3]
    out.eject(10.0)
    meanwhile = where(balancer, 5.0)
    moved = [new for old, new in zip(before, meanwhile, strict=True) if old != new]
    assert sum(old == out.name for old in before) == len(moved)
    assert out.name not in meanwhile
    assert all(count < len(moved) / 4 for count in Counter(moved).values())
    assert where(balancer, 11.0) == before


def test_who_has_no_key_is_balanced_by_load():
    endpoints = a_set(2)
    endpoints.all[0].latency, endpoints.all[0].latency_at = 9.0, 1.0
    assert {Affine(endpoints, dice(), 0.0, slots=251).pick(1.0) for _ in range(20)} == {endpoints.all[1]}


def test_a_table_that_was_made_beforehand_is_taken_as_it_is():
    endpoints = a_set(3)
    balancer = Affine(endpoints, dice(), 0.0, slots=251)
    after = endpoints.replaced_by(declared(5), 1.0)
    prepared = table(after.all, 251)
    balancer.replace(after, prepared)
    other = Affine(a_set(5), dice(), 0.0, slots=251)
    assert where(balancer) == where(other)
