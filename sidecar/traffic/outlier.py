"""Outlier detection: of five endpoints and more, those that are clearly worse than the others are taken out for a time.

Names and numbers are Envoy's (semantics S16), and so is what is off by default there (gateway failures, local ones
apart, failure percentage). An endpoint is ejected

- at once, for five failures in a row;
- at a sweep every 10 s, where its share of good answers is more than 1.9 standard deviations below the mean, among at
  least five endpoints with a hundred answers each;

for 30 s, the second time 60 s, up to 300 s. Each sweep that finds it in service takes one of its times off again.

Two things differ. At most a tenth is ejected, *but one always may be*: with five to nine endpoints a tenth is none, and
one bad replica among a handful is the commonest failure there is; with five at least, one is never the last. And the
cap is looked at before anything is done, and whoever is unhealthy already counts in it (pain 32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.traffic.outcome import Outcome

if TYPE_CHECKING:
    from sidecar.traffic.endpoints import Endpoint, EndpointSet

LONGEST: Final = 300.0  # seconds
_GOOD: Final = Outcome.GOOD  # a class's attribute costs a look-up each time


@dataclass(frozen=True, slots=True)
class OutlierRules:
    """When an endpoint is ejected. 0 switches a reason off."""

    in_a_row: int = 5  # failures of any kind
    gateway_in_a_row: int = 0  # 502, 503, 504 and what brought no answer
    local_in_a_row: int = 0  # what brought no answer; where it is not 0, those count here only
    interval: float = 10.0  # seconds between sweeps
    ejection: float = 30.0  # seconds, for the first time
    most: float = 0.1  # share of all endpoints
    deviations: float = 1.9
    endpoints: int = 5  # that many must have been asked enough
    answers: int = 100  # that is enough, in an interval
    failure_share: float = 0.0  # of answers, over which one is ejected whatever the others do; Envoy offers 0.85
    failure_answers: int = 50


class OutlierDetection:
    """Watches the endpoints of one destination."""

    __slots__ = ("_swept", "rules")

    def __init__(self, rules: OutlierRules, now: float) -> None:
        self.rules = rules
        self._swept = now

    def observe(self, endpoints: EndpointSet, endpoint: Endpoint, outcome: Outcome, now: float) -> bool:
        """Count an answer; returns whether it got its endpoint ejected."""
        if outcome == _GOOD or outcome == Outcome.LIMITED:
            endpoint.good += 1
            endpoint.failures = endpoint.gateway_failures = endpoint.local_failures = 0
            return False
        if outcome == Outcome.NEUTRAL:
            return False
        return self._failed(endpoints, endpoint, outcome, now)

    def _failed(self, endpoints: EndpointSet, endpoint: Endpoint, outcome: Outcome, now: float) -> bool:
        rules = self.rules
        if outcome == Outcome.LOCAL and rules.local_in_a_row:
            endpoint.local_failures += 1
            return endpoint.local_failures >= rules.local_in_a_row and self._eject(endpoints, endpoint, now)
        endpoint.bad += 1
        endpoint.failures += 1
        endpoint.gateway_failures = 0 if outcome == Outcome.FAILED else endpoint.gateway_failures + 1
        over = (rules.in_a_row and endpoint.failures >= rules.in_a_row) or (
            rules.gateway_in_a_row and endpoint.gateway_failures >= rules.gateway_in_a_row
        )
        return bool(over) and self._eject(endpoints, endpoint, now)

    def _eject(self, endpoints: EndpointSet, endpoint: Endpoint, now: float) -> bool:
        """Eject it, unless it is already, or too many are; then it is asked again after as many failures more."""
        endpoint.failures = endpoint.gateway_failures = endpoint.local_failures = 0
        if endpoint.ejected_until > now:
            return False
        out = sum(not each.healthy or each.ejected_until > now for each in endpoints.all if each is not endpoint)
        if out + 1 > max(1, int(self.rules.most * len(endpoints))) or out + 1 >= len(endpoints):
            return False
        endpoint.times_ejected += 1
        endpoint.eject(now + min(LONGEST, self.rules.ejection * endpoint.times_ejected))
        return True

    def sweep(self, endpoints: EndpointSet, now: float) -> list[Endpoint]:
        """Compare the endpoints, once in an interval; returns those that it got ejected."""
        if now - self._swept < self.rules.interval:
            return []
        self._swept = now
        ejected = [each for each in self._outliers(endpoints) if self._eject(endpoints, each, now)]
        for endpoint in endpoints:
            endpoint.good = endpoint.bad = 0
            if endpoint.times_ejected and endpoint.ejected_until <= now:
                endpoint.times_ejected -= 1
        return ejected

    def _outliers(self, endpoints: EndpointSet) -> list[Endpoint]:
        """Those that are worse than they should be, the worst first."""
        rules = self.rules
        asked = [each for each in endpoints if each.good + each.bad >= max(1, rules.answers)]
        worse = []
        if rules.deviations and len(asked) >= rules.endpoints:
            rates = [each.good / (each.good + each.bad) for each in asked]
            mean = sum(rates) / len(rates)
            deviation = (sum((rate - mean) ** 2 for rate in rates) / len(rates)) ** 0.5
            least = mean - rules.deviations * deviation
            worse += [each for each, rate in zip(asked, rates, strict=True) if rate < least]
        if rules.failure_share and len(endpoints) >= rules.endpoints:
            enough = [each for each in endpoints if each.good + each.bad >= max(1, rules.failure_answers)]
            worse += [each for each in enough if each.bad >= rules.failure_share * (each.good + each.bad)]
        return sorted(worse, key=lambda each: each.good / (each.good + each.bad))
