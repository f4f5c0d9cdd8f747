"""Who watches the endpoints of a destination: breakers below five of them, outlier detection from five up (D24).

A breaker's probe is told from a request that began before the breaker opened by when it began: while one is being
probed nobody else is sent there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.traffic.breaker import Breaker
from sidecar.traffic.outcome import Outcome
from sidecar.traffic.outlier import OutlierDetection, OutlierRules
from sidecar.traffic.view import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.traffic.endpoints import Endpoint, EndpointSet


class Watch:
    """Takes endpoints out, and lets them in again."""

    __slots__ = ("_dice", "_endpoints", "_on", "outliers", "small")

    def __init__(
        self, endpoints: EndpointSet, dice: Callable[[], float], now: float, rules: OutlierRules | None = None, *,
        on: bool = True,
    ) -> None:  # fmt: skip
        self._dice = dice
        self._on = on  # else nobody is taken out
        self.outliers = OutlierDetection(rules or OutlierRules(), now)
        self.replace(endpoints)

    def replace(self, endpoints: EndpointSet) -> None:
        """Another generation of the list. Who was out for a time stays out for it, whoever watches from now on."""
        self._endpoints = endpoints
        self.small = len(endpoints) < SMALL
        for endpoint in endpoints:
            if not (self.small and self._on):
                endpoint.breaker, endpoint.probing = None, False
            elif endpoint.breaker is None:
                endpoint.breaker = Breaker()
        endpoints.changes.count += 1

    def begin(self, endpoint: Endpoint, now: float) -> None:
        """An attempt begins there; where the breaker is open, as its probe."""
        if not endpoint.active:
            endpoint.silent_since = now
        endpoint.active += 1
        breaker = endpoint.breaker
        if breaker is not None and breaker.open and not endpoint.probing:
            endpoint.probing = True
            endpoint.probe_began = now
            endpoint.changes.count += 1

    def end(self, endpoint: Endpoint, outcome: Outcome, began: float, now: float) -> bool:
        """It has ended; returns whether that took the endpoint out. Latency is not ours."""
        breaker = endpoint.breaker
        if breaker is None:
            return self._on and not self.small and self.outliers.observe(self._endpoints, endpoint, outcome, now)
        if not breaker.open:
            if not breaker.observe(outcome, now):
                return False
            breaker.trip(endpoint, now, self._dice())
            return True
        if not endpoint.probing or began < endpoint.probe_began:
            return False  # it began before the breaker opened
        endpoint.probing = False
        if outcome == Outcome.GOOD:
            breaker.close(endpoint, now)
            return False
        if outcome == Outcome.NEUTRAL:  # we have learned nothing: the next request is the probe
            endpoint.changes.count += 1
            return False
        breaker.trip(endpoint, now, self._dice())
        return True

    def sweep(self, now: float) -> list[Endpoint]:
        """To be called every second or so; returns the endpoints that it took out."""
        return [] if self.small or not self._on else self.outliers.sweep(self._endpoints, now)
