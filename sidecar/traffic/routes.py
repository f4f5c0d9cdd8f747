"""Which destination a request goes to: the first route in file order whose every condition holds.

A condition that is not named holds for all; one that is named needs all of what it looks at to be there (a header or a
query parameter that is absent satisfies nothing, and where it comes several times every one has to satisfy it). Routes
decide where, never whether: authorization has been asked before.

A route leads to one destination or to several by weight: the split takes a number in [0, 1), a throw of the dice for
each request.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from sidecar.http.changes import HeaderChanges, PrefixRewrite
from sidecar.patterns import PatternError
from sidecar.traffic.faults import FaultRules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.hop import Hop
    from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate, QueryPattern
    from sidecar.traffic.retry import RetryRules


@dataclass(frozen=True, slots=True)
class Split:
    """Destinations by weight, in whole numbers; 0 is nobody, for now."""

    names: tuple[str, ...]
    weights: tuple[int, ...]
    _ends: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise PatternError for what is no split."""
        if len(self.names) != len(self.weights) or not self.names:
            raise PatternError("a split has destinations, and a weight for each")
        if any(weight < 0 for weight in self.weights) or not sum(self.weights):
            raise PatternError(f"{dict(zip(self.names, self.weights, strict=True))}: weights are 0 or more, not all 0")
        object.__setattr__(self, "_ends", tuple(accumulate(self.weights)))

    def choose(self, dice: float) -> str:
        """The destination for this throw."""
        if len(self.names) == 1:
            return self.names[0]
        return self.names[bisect_right(self._ends, int(dice * self._ends[-1]))]


@dataclass(frozen=True, slots=True)
class Route:
    """One route: when it holds, where it leads, and what it changes on the way."""

    name: str
    to: Split
    hosts: tuple[HostPattern, ...] = ()
    paths: tuple[PathTemplate, ...] = ()
    methods: frozenset[str] = frozenset()
    headers: tuple[HeaderPattern, ...] = ()
    query: tuple[QueryPattern, ...] = ()
    callers: tuple[IdentityPattern, ...] = ()
    rewrite: PrefixRewrite | None = None
    request: HeaderChanges = field(default_factory=HeaderChanges)
    response: HeaderChanges = field(default_factory=HeaderChanges)
    fault: FaultRules | None = None
    retries: RetryRules | None = None  # in the place of the destination's own

    def matches(self, hop: Hop) -> bool:
        """Whether every condition holds; the cheapest are asked first."""
        return (
            (not self.methods or hop.method in self.methods)
            and (not self.paths or any(path.matches(hop.segments) for path in self.paths))
            and (not self.hosts or any(host.matches(hop.host) for host in self.hosts))
            and (not self.callers or (hop.peer is not None and any(each.matches(hop.peer) for each in self.callers)))
            and all(header.matches(hop.headers) for header in self.headers)
            and (not self.query or self._query_matches(hop.target))
        )

    def _query_matches(self, target: str) -> bool:
        query = target.partition("?")[2].encode("ascii", "replace")
        return all(each.matches(query) for each in self.query)


class Routes:
    """All routes of an upstream. Immutable; a reload makes new ones."""

    __slots__ = ("all",)

    def __init__(self, routes: Iterable[Route]) -> None:
        self.all = tuple(routes)

    def find(self, hop: Hop) -> Route | None:
        """The first that matches; None where none does: then what was asked for is what it is."""
        for route in self.all:
            if route.matches(hop):
                return route
        return None
