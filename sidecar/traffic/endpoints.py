"""The places where a destination may be found, and what we have seen of each.

A list (`Declared`) comes from the configuration, DNS or Kubernetes and is replaced whole. What we have observed belongs
to the place and not to the list: an endpoint that stays keeps its latency, its ejection and its breaker, so that
neither a reload nor a DNS answer forgives a bad one or floods a new one.

Latency is a *peak* exponentially weighted moving average (Finagle, and Linkerd after it; semantics S18): a slower
answer counts at once and in full, faster ones win it back with a time constant of 10 s, and while nobody asks it fades,
so that nobody is shunned for ever. Who has been asked and says nothing is as slow as it has been silent: a frozen peer
is left alone long before the first time-out says so. The load of an endpoint is that latency times the requests that it
has, and one.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.config.terms import Address
    from sidecar.traffic.breaker import Breaker
    from sidecar.traffic.health import Health

FIRST_LATENCY: Final = 0.030  # seconds, of an endpoint that has not answered yet (S18: Linkerd)
DECAY: Final = 10.0  # seconds: time constant of the average (S18: Linkerd)
LIMITED_AS: Final = 5.0  # seconds that a 429 or RESOURCE_EXHAUSTED counts for, where it does not say (S18)
LONGEST_HINT: Final = 300.0  # seconds: no more of a Retry-After is believed (S13, S18)
MOST: Final = 4096  # endpoints of one destination; what a resolver says beyond is left out
RAMP_FLOOR: Final = 0.1  # share of its load that a new endpoint is given at least (S18: Envoy's slow start)


class Declared(NamedTuple):
    """One entry of a list of endpoints."""

    address: Address
    weight: int = 1
    zone: str = ""


class Changes:
    """Counts whatever changes who may be picked, for those who keep a view of it."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Endpoint:
    """One place, and its observed state. Times are monotonic seconds."""

    __slots__ = (
        "active", "address", "bad", "breaker", "changes", "ejected_until", "failures", "gateway_failures", "good",
        "health", "healthy", "latency", "latency_at", "local_failures", "name", "probe_began", "probing", "ramp_from",
        "silent_since", "times_ejected", "weight", "why", "zone",
    )  # fmt: skip

    def __init__(self, declared: Declared, changes: Changes, now: float, *, ramp: bool = False) -> None:
        self.address = declared.address
        self.name = str(declared.address)  # "host:port"
        self.weight = declared.weight
        self.zone = declared.zone
        self.changes = changes
        self.active = 0  # attempts under way
        self.latency = FIRST_LATENCY
        self.latency_at = now
        self.silent_since = now  # while something is under way: the last answer, or the first request without one
        self.ramp_from = now if ramp else float("-inf")  # slow start begins
        self.healthy = True  # what active health checks say
        self.health: Health | None = None  # where it is checked
        self.why = ""  # the last failure of a request there, for people
        self.ejected_until = float("-inf")
        self.times_ejected = 0
        self.failures = self.gateway_failures = self.local_failures = 0  # in a row; sidecar.traffic.outlier
        self.good = self.bad = 0  # answers since the last sweep; sidecar.traffic.outlier
        self.breaker: Breaker | None = None  # where the set is small
        self.probing = False  # a breaker's one request is under way
        self.probe_began = 0.0

    def __repr__(self) -> str:
        return f"<endpoint {self.name}>"

    def load(self, now: float) -> float:
        """What another request would wait for here: latency times those under way and itself, by its weight."""
        age = now - self.latency_at
        latency = self.latency * exp(-age / DECAY) if age > 0.0 else self.latency
        if self.active and now - self.silent_since > latency:
            latency = now - self.silent_since
        return latency * (self.active + 1) / self.weight

    def share(self, now: float, ramp: float) -> float:
        """How much of its share it is given: grows from a tenth to all of it within `ramp` seconds of slow start."""
        since = now - self.ramp_from
        if since >= ramp or ramp <= 0.0:
            return 1.0
        return max(RAMP_FLOOR, since / ramp)

    def end(self, now: float, seconds: float) -> None:
        """An attempt (`sidecar.traffic.watch` began it) was answered after so many seconds."""
        self.active -= 1
        self.silent_since = now
        old = self.latency
        age = now - self.latency_at
        if seconds > old:
            self.latency = seconds
        elif seconds < 0.0:  # a clock that went back; it tells nothing
            return
        elif age > 0.0:
            weight = exp(-age / DECAY)
            self.latency = old * weight + seconds * (1.0 - weight)
        if age > 0.0:
            self.latency_at = now

    def end_badly(self, now: float, seconds: float) -> None:
        """It failed, or nobody waits any more. A quick failure does not make an endpoint quick; a slow one is slow."""
        age = now - self.latency_at
        faded = self.latency * exp(-age / DECAY) if age > 0.0 else self.latency
        self.end(now, max(seconds, faded))

    def end_limited(self, now: float, seconds: float, retry_after: float | None) -> None:
        """It was refused for its number (429, RESOURCE_EXHAUSTED): as slow as it asks us to be (S18)."""
        self.end(now, max(seconds, LIMITED_AS, min(retry_after or 0.0, LONGEST_HINT)))

    def eject(self, until: float) -> None:
        """Take it out until then; it comes back by slow start."""
        self.ejected_until = self.ramp_from = until
        self.changes.count += 1

    def readmit(self, now: float) -> None:
        """Let it in again at once."""
        if self.ejected_until > now:
            self.ejected_until = self.ramp_from = now
        self.changes.count += 1

    def mark(self, now: float, *, healthy: bool) -> None:
        """What an active health check has found. Passing one ends an ejection too (S16)."""
        if healthy == self.healthy and not (healthy and self.ejected_until > now):
            return
        if healthy and not self.healthy:
            self.ramp_from = now
        self.healthy = healthy
        if healthy:
            self.readmit(now)
        else:
            self.changes.count += 1

    def state(self, now: float) -> str:
        """In a word, for logs and `mesh endpoints`."""
        if not self.healthy:
            return "unhealthy"
        if self.breaker is not None and self.breaker.open:
            return "half-open" if self.probing or self.ejected_until <= now else "open"
        return "ejected" if self.ejected_until > now else "available"


class EndpointSet:
    """The endpoints of one generation of a list. Immutable; those that stay are shared with the next one."""

    __slots__ = ("all", "changes", "left_out")

    def __init__(self, endpoints: tuple[Endpoint, ...], changes: Changes, left_out: int = 0) -> None:
        self.all = endpoints
        self.changes = changes
        self.left_out = left_out  # entries beyond `MOST`

    @classmethod
    def of(cls, declared: Iterable[Declared], now: float) -> EndpointSet:
        """The first list of a destination. All begin alike, so slow start would only change nothing."""
        return cls((), Changes())._next(declared, now, ramp=False)

    def replaced_by(self, declared: Iterable[Declared], now: float) -> EndpointSet:
        """The set of a new list: who stays keeps its state, who is new begins slowly. Weights and zones are the new
        ones at once, for readers of the old set too. Raises ValueError, with nothing changed, for a weight below 1.
        """
        return self._next(declared, now, ramp=bool(self.all))

    def _next(self, declared: Iterable[Declared], now: float, *, ramp: bool) -> EndpointSet:
        declared = list(declared)
        for entry in declared:
            if entry.weight < 1:
                raise ValueError(f"{entry.address}: a weight is at least 1, not {entry.weight}")
        known = {endpoint.address: endpoint for endpoint in self.all}
        found: dict[Address, Endpoint] = {}
        left_out = 0
        for entry in declared:
            if entry.address in found:
                continue  # resolvers repeat themselves; the first one stands
            if len(found) >= MOST:
                left_out += 1
                continue
            endpoint = known.get(entry.address)
            if endpoint is None:
                endpoint = Endpoint(entry, self.changes, now, ramp=ramp)
            else:
                endpoint.weight, endpoint.zone = entry.weight, entry.zone
            found[entry.address] = endpoint
        self.changes.count += 1
        return EndpointSet(tuple(found.values()), self.changes, left_out)

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self.all)
