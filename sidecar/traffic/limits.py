"""Which rate limits a request comes under, by which keys, and what it is told where one of them refuses it.

Theory of operation. A limit of the configuration is one `Rate` (sidecar.traffic.gcra) with a key for whoever shares it:
a listener, an identity, an endpoint, the value of a header. Which limits apply to a hop depends on who calls, by which
method, on which path; so do all their keys but those of headers. What applies is found once and kept as *dues*, of
which the hot path has one ready for each of its tickets: judging a request is then one call (`Levels.take`) for all
limits together, which takes from all or from none.

Limits are asked last, after authentication and authorization: who is refused for another reason takes nothing from
anybody. Who has proved no identity (posture `permissive`) shares one key with all others who have not.

The value of a header may be a credential. It is a key in memory for as long as the limit remembers it, and shows up
nowhere: not in an error, a log, a metric or an explanation. A long one is kept as its digest.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from sidecar.errors import RateLimited
from sidecar.traffic.fields import rate_limit, retry_after
from sidecar.traffic.gcra import Levels, Rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sidecar.config.schema import RateLimit
    from sidecar.hop import Headers, Hop
    from sidecar.traffic.gcra import Refused

NOBODY: Final = "-"  # the key of callers without identity; no SPIFFE ID is so short
ABSENT: Final = ""  # and of requests without the header; a value is never empty where this is not meant
LONGEST: Final = 64  # bytes of a header's value that are kept as they are
MOST_KNOWN: Final = 4096  # callers, and kinds of dues, that are remembered; they can be worked out again at any time

Facts = tuple[object, ...]
Key = tuple[int, str]  # the number of a limit, and the key by which a hop comes under it


class Limit:
    """A limit of the configuration and the rate that stands for it, which outlives this one over a reload."""

    __slots__ = ("callers", "header", "kind", "methods", "paths", "rate", "spec")

    def __init__(self, spec: RateLimit, rate: Rate) -> None:
        self.spec = spec
        self.rate = rate
        self.kind = spec.per.kind
        self.header = spec.per.header.encode("ascii")
        self.callers = spec.callers
        self.methods = frozenset(spec.methods)
        self.paths = spec.paths

    def __str__(self) -> str:
        spec = self.spec
        return f"{spec.name} ({spec.where}: {spec.limit} per {spec.per}, {spec.burst} at once)"

    def is_for(self, hop: Hop) -> bool:
        """Whether it can apply to this caller and protocol at all."""
        if self.spec.http_only and hop.protocol != "http":
            return False
        peer = hop.peer
        return not self.callers or (peer is not None and any(pattern.matches(peer) for pattern in self.callers))

    def key(self, hop: Hop, route: str) -> str | None:
        """By which key a hop on this route of the rules comes under the limit; None where it does not."""
        if self.methods and hop.method not in self.methods:
            return None
        if self.paths:
            path = next((path for path in self.paths if path.matches(hop.segments)), None)
            if path is None:
                return None
            route = path.text
        if self.kind == "listener":
            return hop.listener
        if self.kind == "caller":
            return hop.peer.text if hop.peer is not None else NOBODY
        return f"{hop.listener} {hop.method} {route}" if self.kind == "endpoint" else ABSENT


class Dues:
    """All limits that requests of one kind come under."""

    __slots__ = ("_headers", "_limits", "fixed", "keys", "levels")

    def __init__(self, limits: Sequence[Limit], keys: Sequence[str]) -> None:
        self.levels = Levels([limit.rate for limit in limits])
        self.keys = list(keys)
        self._limits = limits
        self._headers = [(place, limit.header) for place, limit in enumerate(limits) if limit.kind == "header"]
        self.fixed = not self._headers  # whether the keys are the same for each request of the kind

    def keys_of(self, headers: Headers) -> list[str]:
        """The keys of a request with these headers. The list is used again by the next one."""
        for place, name in self._headers:
            self.keys[place] = value_of(headers, name)
        return self.keys

    def take(self, now: float, headers: Headers) -> None:
        """Let a request in at every level, or raise RateLimited and take nothing."""
        keys = self.keys if self.fixed else self.keys_of(headers)
        refused = self.levels.take(now, keys)
        if refused is not None:
            raise self._error(now, refused)

    def _error(self, now: float, refused: Refused) -> RateLimited:
        limit = next(limit for limit in self._limits if limit.rate is refused.level)
        standing = limit.rate.standing(now, refused.key)
        spec = limit.spec
        detail = f"over the limit {limit}, which has room again after {_shown(refused.wait)}"
        told = (retry_after(refused.wait), *rate_limit(limit.rate, standing))
        return RateLimited(detail, limit=spec.name, per=spec.per.kind, wait=refused.wait, told=told)


class RateLimits:
    """The limits of one listener."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._limits = tuple(limits)
        self._by_caller: dict[tuple[str, str], tuple[tuple[int, Limit], ...]] = {}
        self._dues: dict[tuple[Key, ...], Dues] = {}
        self.headers = frozenset(limit.header for limit in self._limits if limit.header)  # that somebody looks at

    def dues(self, hop: Hop, route: str) -> Dues | None:
        """What applies to a hop on this route of the rules, the same object for hops of the same kind; or nothing."""
        who = (hop.protocol, hop.peer.text if hop.peer is not None else NOBODY)
        mine = self._by_caller.get(who)
        if mine is None:
            mine = tuple((number, limit) for number, limit in enumerate(self._limits) if limit.is_for(hop))
            if len(self._by_caller) >= MOST_KNOWN:
                self._by_caller.clear()
            self._by_caller[who] = mine
        kind = tuple((number, key) for number, limit in mine if (key := limit.key(hop, route)) is not None)
        if not kind:
            return None
        found = self._dues.get(kind)
        if found is None:
            if len(self._dues) >= MOST_KNOWN:
                self._dues.clear()
            found = self._dues[kind] = Dues([self._limits[number] for number, _ in kind], [key for _, key in kind])
        return found

    def check(self, hop: Hop, route: str, now: float) -> None:
        """Let a permitted hop in at every limit that it comes under, or raise RateLimited and take nothing."""
        dues = self.dues(hop, route)
        if dues is not None:
            dues.take(now, hop.headers)


class Rates:
    """The rates behind the limits of a service, through all its generations."""

    def __init__(self, specs: Sequence[RateLimit], before: Rates | None = None) -> None:
        self._rates: dict[Facts, Rate] = {}
        for spec in specs:
            facts = _facts(spec)
            kept = before._rates.get(facts) if before is not None else None
            self._rates[facts] = kept or Rate(spec.name, spec.limit.per_second, spec.burst)
        self._specs = specs

    def limits(self, listener: str) -> RateLimits | None:
        """The limits of one listener; None where there is none."""
        ours = [spec for spec in self._specs if not spec.ports or listener in spec.ports]
        return RateLimits(Limit(spec, self._rates[_facts(spec)]) for spec in ours) if ours else None


def _facts(spec: RateLimit) -> Facts:
    """What a rate depends on. Where it stays the same over a reload, so does what everybody has had of it."""
    return spec.name, spec.per, spec.limit, spec.burst


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
