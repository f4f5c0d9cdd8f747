"""Which rate limits a request comes under, by which keys, and what it is told where one of them refuses it.

Theory of operation. A limit of the configuration is one `Rate` (sidecar.traffic.gcra) with a key for whoever shares it:
a listener, an identity, an endpoint, the value of a header. Which limits apply to a hop depends on who calls, by which
method, on which path; so do all their keys but those of headers. What applies is found once for all requests of a kind
and kept as *dues*, of which the hot path has one ready for each of its tickets: judging a request is then one call
(`Levels.take`) for all limits together, which takes from all or from none.

Limits are asked last, after authentication and authorization: who is refused for another reason takes nothing from
anybody. Who has proved no identity (posture `permissive`) shares one key with all others who have not.

The value of a header may be a credential. It is a key in memory for as long as the limit remembers it, and shows up
nowhere: not in an error, a log, a metric or an explanation. A long one is kept as its digest.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from sidecar.config.cover import path_covers
from sidecar.errors import RateLimited, Throttled
from sidecar.patterns import PathTemplate
from sidecar.traffic.claims import claim_key
from sidecar.traffic.fields import rate_limit, retry_after
from sidecar.traffic.gcra import Levels, Rate
from sidecar.traffic.throttle import Throttle, ThrottleRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sidecar.config.schema_amounts import QuotaLimit
    from sidecar.config.schema_inbound import RateLimit
    from sidecar.hop import Headers, Hop
    from sidecar.traffic.gcra import Refused
    from sidecar.traffic.quota_limits import Charges

NOBODY: Final = "-"  # the key of callers without identity; no SPIFFE ID is so short
ABSENT: Final = ""  # and of requests without the header; a value is never empty where this is not meant
LONGEST: Final = 64  # bytes of a header's value that are kept as they are
MOST_KNOWN: Final = 4096  # kinds of requests that are remembered; they can be worked out again at any time

Facts = tuple[object, ...]
L = TypeVar("L", bound="Scope")
D = TypeVar("D")
Make: TypeAlias = "Callable[[Sequence[L], Sequence[str]], D]"


class Scope:
    """Whom and what a limit of the configuration is for."""

    __slots__ = ("_scope", "claim", "header", "kind", "methods", "paths")

    def __init__(self, spec: RateLimit | QuotaLimit) -> None:
        self._scope = spec
        self.kind = spec.per.kind
        self.claim = spec.per.claim
        self.header = b"authorization" if self.claim else spec.per.header.encode("ascii")
        self.methods = frozenset(spec.methods)
        self.paths = spec.paths

    def is_for(self, hop: Hop) -> bool:
        """Whether it can apply to this caller, protocol and method."""
        if hop.protocol != "http":
            return not self._scope.http_only and self._caller_matches(hop)
        return (not self.methods or hop.method in self.methods) and self._caller_matches(hop)

    def _caller_matches(self, hop: Hop) -> bool:
        callers, peer = self._scope.callers, hop.peer
        return not callers or (peer is not None and any(pattern.matches(peer) for pattern in callers))

    def path_for(self, route: PathTemplate | None) -> PathTemplate | None:
        """The template by which it takes every request on this route of the rules; None where that has to be asked of
        each. A limit without paths takes what the rules do.
        """
        if not self.paths or route is None:
            return route if not self.paths else None
        return self.paths[0] if path_covers(self.paths[0], route) else None

    def path_of(self, segments: tuple[str, ...]) -> str:
        """The first of its templates that matches; empty where none does."""
        for path in self.paths:
            if path.matches(segments):
                return path.text
        return ""

    def key(self, hop: Hop, path: str) -> str:
        """The key of a hop that comes under it, by this template."""
        if self.kind == "listener":
            return hop.listener
        if self.kind == "caller":
            return hop.peer.text if hop.peer is not None else NOBODY
        return f"{hop.listener} {hop.method} {path}" if self.kind == "endpoint" else ABSENT


class Limit(Scope):
    """A limit of the configuration and the rate that stands for it, which outlives this one over a reload."""

    __slots__ = ("rate", "spec", "throttle")

    def __init__(self, spec: RateLimit, counted: Rate | Throttle) -> None:
        super().__init__(spec)
        self.spec = spec
        self.throttle = counted if isinstance(counted, Throttle) else None
        self.rate = counted.pace if isinstance(counted, Throttle) else counted

    def __str__(self) -> str:
        spec = self.spec
        return f"{spec.name} ({spec.where}: {spec.limit} per {spec.per}, {spec.burst} at once)"


class Dues:
    """All limits that requests of one kind come under."""

    __slots__ = ("_claims", "_headers", "charges", "fixed", "held", "keys", "levels", "limits", "plain", "shared")

    def __init__(self, limits: Sequence[Limit], keys: Sequence[str], charges: Charges | None = None) -> None:
        self.charges = charges  # the quotas that they come under besides
        self.levels = Levels([limit.rate for limit in limits])
        self.keys = list(keys)
        self.limits = limits
        self._headers = [(place, limit.header) for place, limit in enumerate(limits) if limit.kind == "header"]
        self._claims = [(place, limit.claim) for place, limit in enumerate(limits) if limit.kind == "claim"]
        self.fixed = not self._headers and not self._claims  # whether the keys are the same for all of the kind
        self.shared = tuple(place for place, limit in enumerate(limits) if limit.spec.shared == "redis")
        tells = any(limit.spec.headers == "always" for limit in limits)  # something to whoever is let in, too
        self.held = tells or bool(self.shared) or any(limit.throttle for limit in limits)  # more than yes or no
        self.plain = not tells and not (self.shared and charges)  # the express cannot wait for one and keep the other

    def beside(self, charges: Charges) -> Dues:
        """The same, for requests that come under these quotas too."""
        return Dues(self.limits, self.keys, charges)

    def keys_of(self, headers: Headers) -> list[str]:
        """The keys of a request with these headers. The list is used again by the next one."""
        for place, name in self._headers:
            self.keys[place] = value_of(headers, name)
        for place, claim in self._claims:
            self.keys[place] = claim_key(headers, claim)
        return self.keys

    def take(self, now: float, headers: Headers) -> None:
        """Let a request in at every level, or raise RateLimited and take nothing."""
        keys = self.keys if self.fixed else self.keys_of(headers)
        refused = self.levels.take(now, keys)
        if refused is not None:
            raise self.error(now, refused)

    def error(self, now: float, refused: Refused) -> RateLimited:
        """What a request is refused with by this level."""
        limit = next(limit for limit in self.limits if limit.rate is refused.level)
        limit.rate.refused += 1
        standing = limit.rate.standing(now, refused.key)
        spec = limit.spec
        detail = f"over the limit {limit}, which has room again after {_shown(refused.wait)}"
        told = (retry_after(refused.wait), *rate_limit(limit.rate, standing))
        kind = RateLimited if limit.throttle is None else Throttled
        return kind(detail, limit=spec.name, per=spec.per.kind, wait=refused.wait, told=told)

    def told(self, now: float, keys: Sequence[str]) -> Headers:
        """The header fields for the answer of a request that was let in: of those limits that are to tell it always,
        the one with the least left.
        """
        telling = [place for place, limit in enumerate(self.limits) if limit.spec.headers == "always"]
        if not telling:
            return []
        rates = Levels([self.limits[place].rate for place in telling])
        nearest = rates.nearest(now, [keys[place] for place in telling])
        return rate_limit(*nearest) if nearest is not None else []


class _Kind(Generic[L, D]):
    """Requests of one caller, by one method, on one route of the rules, and which limits they come under. Where a limit
    names paths that the route does not settle, each request is asked.
    """

    __slots__ = ("_asked", "_by_paths", "_first", "_make", "_rest")

    def __init__(self, limits: Iterable[L], make: Make[L, D], hop: Hop, route: str) -> None:
        template = PathTemplate.parse(route) if route else None
        self._make = make
        self._first: list[tuple[L, str]] = []  # that apply to all of them, with their keys
        self._asked: list[L] = []  # whose paths have to be asked
        for limit in limits:
            if not limit.is_for(hop):
                continue
            path = limit.path_for(template)
            if limit.paths and path is None:
                self._asked.append(limit)
            else:
                self._first.append((limit, limit.key(hop, path.text if path is not None else route)))
        self._rest = self._made(self._first)  # what applies where none of those asked does
        self._by_paths: dict[tuple[str, ...], D | None] = {}  # as few as they have templates

    def _made(self, limits: Sequence[tuple[L, str]]) -> D | None:
        return self._make([limit for limit, _ in limits], [key for _, key in limits]) if limits else None

    def find(self, hop: Hop) -> D | None:
        """What applies to one of them."""
        if not self._asked:
            return self._rest
        paths = tuple([limit.path_of(hop.segments) for limit in self._asked])
        try:
            return self._by_paths[paths]
        except KeyError:
            asked = zip(self._asked, paths, strict=True)
            more = [(limit, limit.key(hop, path)) for limit, path in asked if path]
            if len(self._by_paths) >= MOST_KNOWN:
                self._by_paths.clear()
            found = self._by_paths[paths] = self._made([*self._first, *more])
            return found


class Kinds(Generic[L, D]):
    """What requests come under, by their kind; `make` makes it of limits and their keys."""

    __slots__ = ("_kinds", "_limits", "_make")

    def __init__(self, limits: Sequence[L], make: Make[L, D]) -> None:
        self._limits = limits
        self._make = make
        self._kinds: dict[tuple[str, str, str], _Kind[L, D]] = {}

    def find(self, hop: Hop, route: str) -> D | None:
        """What applies to a hop on this route of the rules, the same object for hops of the same kind; or nothing."""
        peer = hop.peer
        kind = (NOBODY if peer is None else peer.text, hop.method, route)  # raw TCP has no method
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= MOST_KNOWN:
                self._kinds.clear()
            found = self._kinds[kind] = _Kind(self._limits, self._make, hop, route)
        return found.find(hop)


class RateLimits(Kinds["Limit", "Dues"]):
    """The limits of one listener."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        whole = tuple(limits)
        super().__init__(whole, Dues)
        self.headers = frozenset(limit.header for limit in whole if limit.header)  # that somebody looks at

    dues = Kinds.find

    def check(self, hop: Hop, route: str, now: float) -> None:
        """Let a permitted hop in at every limit that it comes under, or raise RateLimited and take nothing."""
        dues = self.dues(hop, route)
        if dues is not None:
            dues.take(now, hop.headers)


class Rates:
    """The rates behind the limits of a service, through all its generations."""

    def __init__(self, specs: Sequence[RateLimit], before: Rates | None = None) -> None:
        self._rates: dict[Facts, Rate | Throttle] = {}
        for spec in specs:
            facts = facts_of(spec)
            kept = before._rates.get(facts) if before is not None else None
            self._rates[facts] = kept or _counted(spec)
        self._specs = specs

    def __iter__(self) -> Iterator[Limit]:
        """Every limit of the service."""
        return (Limit(spec, self._rates[facts_of(spec)]) for spec in self._specs)

    def limits(self, listener: str) -> RateLimits | None:
        """The limits of one listener; None where there is none."""
        ours = [spec for spec in self._specs if not spec.ports or listener in spec.ports]
        return RateLimits(Limit(spec, self._rates[facts_of(spec)]) for spec in ours) if ours else None


def _counted(spec: RateLimit) -> Rate | Throttle:
    """What counts for a limit."""
    rate = spec.limit.per_second
    if spec.over == "refuse":
        return Rate(spec.name, rate, spec.burst)
    rules = ThrottleRules(rate, spec.burst, spec.delay, spec.waiting, spec.strikes, spec.block)
    return Throttle(rules, name=spec.name)


def facts_of(spec: RateLimit) -> Facts:
    """What a rate depends on. Where it stays the same over a reload, so does what everybody has had of it."""
    facts = (spec.name, spec.per, spec.limit, spec.burst)
    if spec.over == "refuse":
        return facts
    return *facts, spec.delay, spec.waiting, spec.strikes, spec.block


def value_of(headers: Headers, name: bytes) -> str:
    """The key that stands for the value of a header: all its lines, in their order."""
    values = [value for each, value in headers if each == name]
    if not values:
        return ABSENT
    whole = values[0] if len(values) == 1 else b", ".join(values)
    if len(whole) <= LONGEST:
        return "=" + whole.decode("latin-1")
    return "#" + blake2b(whole, digest_size=20).hexdigest()


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1.0 else f"{seconds:.1f} s"
