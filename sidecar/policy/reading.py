"""How one inbound listener reads a request: its canonical target and host, and the route that it is on (decision D4).

The proxy and `mesh explain` read by this same object, so that a question has the answer that the wire would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from sidecar.errors import AmbiguousPath
from sidecar.http.canonical import Leniency, Target, canonical_target, request_host

if TYPE_CHECKING:
    from sidecar.config.schema import Service
    from sidecar.config.schema_inbound import Inbound, Route
    from sidecar.hop import Hop


class Reading:
    """The reading of one listener. `paths_matter` is false where no rule, route or limit looks at paths: then `;`
    cannot by-pass one (semantics S21) and is accepted.
    """

    def __init__(self, routes: Sequence[Route], *, paths_matter: bool = True) -> None:
        self._routes = routes
        self._without_route = Leniency(path_parameters=not paths_matter)
        self._most = reduce(or_, map(_leniency, routes), self._without_route)

    @classmethod
    def of(cls, service: Service, listener: Inbound) -> Reading:
        """The reading of a listener of this service."""
        looked_at = bool(listener.routes) or any(rule.paths for rule in (*service.allow, *service.deny))
        looked_at = looked_at or any(rate.paths for rate in service.rates)
        looked_at = looked_at or any(quota.paths for quota in service.quotas)
        return cls(listener.routes, paths_matter=looked_at)

    def read(self, hop: Hop, target: bytes, hosts: Sequence[bytes]) -> tuple[Target, Route | None]:
        """Read a request target, with `hosts` the values of its Host lines, into host and segments of the hop.

        Returns the target and the first route that it is on. Raises AmbiguousPath, HostMismatch, ProtocolViolation.
        """
        found = canonical_target(target, hop.method, leniency=self._most)
        hop.host, _ = request_host(found, hosts, hop.version)
        hop.segments = found.segments
        return found, self._route(hop, found)

    def route_of(self, hop: Hop) -> Route | None:
        """The first route that a hop is on whose target has been read."""
        for route in self._routes:
            known = (not route.methods or hop.method in route.methods) and route.path.matches(hop.segments)
            if known and _holds(route, hop):
                return route
        return None

    def _route(self, hop: Hop, target: Target) -> Route | None:
        found = self.route_of(hop)
        if not (_leniency(found) if found is not None else self._without_route).covers(target.needs):
            raise AmbiguousPath("this path needs an unsafe_… option of its route, which it does not have")
        return found


def _holds(route: Route, hop: Hop) -> bool:
    """Whether what a route asks beyond path and method is so."""
    return (
        (not route.callers or (hop.peer is not None and any(each.matches(hop.peer) for each in route.callers)))
        and (not route.hosts or any(each.matches(hop.host) for each in route.hosts))
        and all(each.matches(hop.headers) for each in route.headers)
        and all(each.matches(hop.target.partition("?")[2].encode("ascii", "replace")) for each in route.query)
    )


def _leniency(route: Route) -> Leniency:
    return Leniency(route.unsafe_encoded_slash, route.unsafe_empty_segments, route.unsafe_path_parameters)
