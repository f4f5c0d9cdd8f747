"""Who may be picked at this moment, worked out when something has changed and not for each request.

Four things narrow the endpoints of a destination, in this order:

- *Health.* An unhealthy, ejected or open one is left out.
- *Panic* (S16, decision D24). With five endpoints or more, when fewer than half may be picked, all are, of every zone:
  health checks that fail everywhere tell more of the checks than of the endpoints, and the rest would drown. With
  fewer, nothing is ever forced on an open breaker.
- *Probes.* A breaker whose back-off is over lets one request through to see; the next one is it.
- *Zone.* Our own zone is preferred as long as it has room: of what we send, as large a share stays as it has endpoints
  to pick, times 1.4, and the rest spills over into all other zones. So with five of seven standing, everything stays;
  below that it spreads by degrees and not at once. 1.4 is Envoy's overprovisioning factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.traffic.endpoints import Endpoint, EndpointSet

SMALL: Final = 5  # fewer endpoints than this are watched by breakers, these and more by outlier detection (D24)
PANIC: Final = 0.5  # share of endpoints below which health is ignored (S16)
ROOM: Final = 1.4  # how much more than its share a zone can take


class View:
    """Who may be picked, until something changes or `until` comes. Only `until` may be set, to look sooner."""

    __slots__ = ("available", "local", "lone", "panic", "probes", "remote", "stays", "until", "version")

    def __init__(self, endpoints: EndpointSet, now: float, *, zone: str = "", panic: float = PANIC) -> None:
        every = endpoints.all
        self.version = endpoints.changes.count
        self.until = float("inf")
        self.available: tuple[Endpoint, ...] = tuple(each for each in every if self._may(each, now))
        self.probes: tuple[Endpoint, ...] = tuple(each for each in every if self._is_due(each, now))
        self.lone = every[0] if len(every) == len(self.available) == 1 else None  # no choice, and nothing to find out
        self.panic = len(every) >= SMALL and len(self.available) < panic * len(every)
        if self.panic:
            self.available = every
            zone = ""  # else all would go to the unhealthy ones of ours, past the healthy ones of others
        self.local, self.remote, self.stays = self._by_zone(every, zone) if zone else (self.available, (), 1.0)

    def _may(self, endpoint: Endpoint, now: float) -> bool:
        if not endpoint.healthy:
            return False
        if endpoint.ejected_until > now:
            self.until = min(self.until, endpoint.ejected_until)
            return False
        return endpoint.breaker is None or not endpoint.breaker.open

    def _is_due(self, endpoint: Endpoint, now: float) -> bool:
        breaker = endpoint.breaker
        return (
            breaker is not None and breaker.open and endpoint.healthy and not endpoint.probing
            and endpoint.ejected_until <= now
        )  # fmt: skip

    def _by_zone(
        self, every: tuple[Endpoint, ...], zone: str
    ) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...], float]:
        local = tuple(each for each in self.available if each.zone == zone)
        remote = tuple(each for each in self.available if each.zone != zone)
        declared = sum(each.zone == zone for each in every)
        if not local or not remote:
            return self.available, (), 1.0
        return local, remote, min(1.0, ROOM * len(local) / declared)

    def holds(self, endpoints: EndpointSet, now: float) -> bool:
        """Whether it is still true."""
        return now < self.until and self.version == endpoints.changes.count
