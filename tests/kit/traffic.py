"""Endpoints and dice for the tests of `sidecar.traffic`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from sidecar.config.terms import Address
from sidecar.traffic.balance import Balancer
from sidecar.traffic.endpoints import Declared, Endpoint, EndpointSet


def declared(count: int, *, weights: tuple[int, ...] = (), zones: str = "") -> list[Declared]:
    """So many endpoints, `10.0.0.1:80` and on; `zones` has a letter for each."""
    return [
        Declared(
            Address(f"10.0.{number // 250}.{number % 250 + 1}", 80),
            weights[number] if weights else 1,
            zones[number] if zones else "",
        )
        for number in range(count)
    ]


def a_set(count: int, *, weights: tuple[int, ...] = (), zones: str = "", now: float = 0.0) -> EndpointSet:
    """A first set of so many."""
    return EndpointSet.of(declared(count, weights=weights, zones=zones), now)


def dice(seed: int = 1) -> Callable[[], float]:
    """The same throws each time."""
    return Random(seed).random


def shares(balancer: Balancer, picks: int, now: float = 1000.0) -> dict[str, float]:
    """What part of so many picks each endpoint gets, when nothing else happens."""
    found: Counter[str] = Counter()
    for _ in range(picks):
        endpoint = balancer.pick(now)
        assert endpoint is not None
        found[endpoint.name] += 1
    return {name: count / picks for name, count in found.items()}


def names(endpoints: tuple[Endpoint, ...] | list[Endpoint]) -> list[str]:
    """Last numbers of their addresses, in order: short enough to read."""
    return [each.name.removesuffix(":80").rpartition(".")[2] for each in endpoints]
