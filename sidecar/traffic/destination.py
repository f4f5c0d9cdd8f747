"""One destination's share of everything: what the proxy talks to, for each request and each attempt.

    destination.ceilings.requests.enter()          else 503, flag UO
    destination.budget.request(now)
    endpoint = destination.begin(now, key=…)       None: 503, flag UH, Retry-After from `retry_at`
        … send, wait …
    destination.end(endpoint, outcome, began, now, hint)
    destination.retries.check(…)                   Again: begin(now, excluded=[endpoint]); Enough: pass it on
    destination.ceilings.requests.leave()

and `sweep` every second or so, `replace` when the list of endpoints has changed. Every `begin` has one `end`, with
`Outcome.NEUTRAL` where the caller left. Nothing here waits, and nothing is allocated where all goes well.

This is for what we call. Toward the application behind us `watch` is to be off: it is one endpoint for all callers, and
a breaker there would let one of them, with a request that makes the application fail, shut out all the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sidecar.traffic.balance import RAMP, Balancer, LeastLoaded, RoundRobin, Weighted
from sidecar.traffic.budget import FLOOR, RATIO, WINDOW, Budget
from sidecar.traffic.ceilings import CeilingRules, Ceilings
from sidecar.traffic.endpoints import Declared, Endpoint, EndpointSet
from sidecar.traffic.maglev import Affine
from sidecar.traffic.outcome import Outcome
from sidecar.traffic.outlier import OutlierRules
from sidecar.traffic.retry import RetryRules
from sidecar.traffic.view import PANIC
from sidecar.traffic.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sidecar.traffic.health import Health

_GOOD: Final = Outcome.GOOD  # a class's attribute costs a look-up each time
Algorithm = Literal["least_loaded", "round_robin", "weighted", "maglev"]
_BALANCERS: dict[Algorithm, type[Balancer]] = {
    "least_loaded": LeastLoaded, "round_robin": RoundRobin, "weighted": Weighted, "maglev": Affine,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DestinationRules:
    """All that an operator can say of one destination."""

    balance: Algorithm = "least_loaded"
    zone: str = ""  # ours, where it is to be preferred
    ramp: float = RAMP  # seconds of slow start
    panic: float = PANIC
    key: bytes = b""  # what `maglev` goes by where a request has no key of its own: the caller's identity
    watch: bool = True  # take out who fails, by breakers or outlier detection; health checks do in any case
    outliers: OutlierRules = field(default_factory=OutlierRules)
    retries: RetryRules = field(default_factory=RetryRules)
    ceilings: CeilingRules = field(default_factory=CeilingRules)
    budget_ratio: float = RATIO
    budget_floor: float = FLOOR
    budget_window: int = WINDOW


class Seen(NamedTuple):
    """What we know of an endpoint, for `mesh endpoints` and for whoever asks why a request failed (pain 34)."""

    name: str
    state: str  # available, unhealthy, ejected, open, half-open
    latency: float  # seconds
    active: int
    until: float  # monotonic: the end of its ejection; in the past where there is none
    weight: int
    zone: str
    health: Health | None  # where it is checked
    why: str  # the last failure of a request there


class Destination:
    """Where to send, whom to avoid, and whether to try again."""

    __slots__ = ("_balancer", "_dice", "_watch", "budget", "ceilings", "endpoints", "retries", "rules")

    def __init__(
        self, declared: Iterable[Declared], dice: Callable[[], float], now: float,
        rules: DestinationRules = DestinationRules(),
    ) -> None:  # fmt: skip
        self.rules = rules
        self.endpoints = EndpointSet.of(declared, now)
        self._dice = dice
        self._attend(now)
        self.budget = Budget(rules.budget_ratio, rules.budget_floor, rules.budget_window)
        self.ceilings = Ceilings(rules.ceilings)
        self.retries = rules.retries

    def _attend(self, now: float) -> None:
        """Watch these endpoints, and choose among them."""
        rules = self.rules
        self._watch = Watch(self.endpoints, self._dice, now, rules.outliers, on=rules.watch)
        self._balancer = _BALANCERS[rules.balance](
            self.endpoints, self._dice, now, zone=rules.zone, ramp=rules.ramp, panic=rules.panic
        )
        if isinstance(self._balancer, Affine):
            self._balancer.own = rules.key

    def inherit(self, before: Destination, declared: Iterable[Declared], now: float) -> None:
        """Stand in the place of another, with this list: who stays keeps its latency, its ejection, its breaker and
        what is under way there, and a budget of the same rules what is spent of it. Raises ValueError as `replace`.
        """
        self.endpoints = before.endpoints.replaced_by(declared, now)
        self._attend(now)
        ours, theirs = self.rules, before.rules
        if (ours.budget_ratio, ours.budget_floor, ours.budget_window) == (
            theirs.budget_ratio, theirs.budget_floor, theirs.budget_window,
        ):  # fmt: skip
            self.budget = before.budget

    def replace(self, declared: Iterable[Declared], now: float) -> None:
        """The list of endpoints is another one. Raises ValueError and changes nothing where it is no list."""
        self.endpoints = self.endpoints.replaced_by(declared, now)
        self._watch.replace(self.endpoints)
        self._balancer.replace(self.endpoints)

    def begin(self, now: float, excluded: Sequence[Endpoint] = (), key: bytes = b"") -> Endpoint | None:
        """Pick an endpoint and begin an attempt there; None where nobody may be asked."""
        view = self._balancer.view
        lone = view.lone
        if lone is not None and view.version == lone.changes.count:  # most destinations: there is nothing to choose
            lone.active += 1
            return lone
        endpoint = self._balancer.pick(now, excluded, key)
        if endpoint is not None:
            self._watch.begin(endpoint, now)
        return endpoint

    def end(
        self, endpoint: Endpoint, outcome: Outcome, began: float, now: float, hint: float | None = None
    ) -> bool:
        """An attempt that began then has ended; returns whether that took its endpoint out. `hint` is the Retry-After
        of an answer that refused for number, in seconds.
        """
        if outcome == _GOOD:
            endpoint.end(now, now - began)
            breaker = endpoint.breaker
            if breaker is not None and not breaker.open:
                breaker.well(now)
                return False
        elif outcome == Outcome.LIMITED:
            endpoint.end_limited(now, now - began, hint)
        else:
            endpoint.end_badly(now, now - began)
        return self._watch.end(endpoint, outcome, began, now)

    def undo(self, endpoint: Endpoint) -> None:
        """What was begun and ended at this very moment was no request: the next one has its turn."""
        self._balancer.undo(endpoint)
        self.budget.undo()

    def sweep(self, now: float) -> list[Endpoint]:
        """Compare the endpoints; returns those that were taken out for it."""
        return self._watch.sweep(now)

    def forget_health(self, now: float) -> None:
        """Nobody checks the endpoints any more: none is unhealthy."""
        for endpoint in self.endpoints:
            endpoint.health = None
            if not endpoint.healthy:
                endpoint.mark(now, healthy=True)

    def retry_at(self, now: float) -> float:
        """When to come again, where `begin` gave None: the end of the first back-off; monotonic seconds."""
        ends = [each.ejected_until for each in self.endpoints if each.healthy and not each.probing]
        return max(now, min(ends, default=now + 1.0))

    def seen(self, now: float) -> list[Seen]:
        """What the balancer sees."""
        return [
            Seen(each.name, each.state(now), each.latency, each.active, each.ejected_until, each.weight, each.zone,
                 each.health, each.why)
            for each in self.endpoints
        ]  # fmt: skip
