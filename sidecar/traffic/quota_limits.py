"""Which quotas a request comes under, by which keys, and what it is told: of what is left, and where none is.

Theory of operation. As with rate limits (sidecar.traffic.limits), what applies to a request is found once for all
requests of a kind: its *charges*. Quotas are asked last, in two steps. `ready` looks whether every lease has room, and
takes nothing; then whatever else may refuse has its say; then `spend` takes one of each. Where a lease has no room the
request takes the general way, which can wait for the store (sidecar.proxy.charging).

The value of a header or a claim may be a credential, and would come to lie on a disk: only its digest is ever kept.
"""

from __future__ import annotations

from hashlib import blake2b
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol
from zoneinfo import ZoneInfo

from sidecar.errors import QuotaSpent
from sidecar.traffic.claims import claim_key
from sidecar.traffic.fields import named, quota_fields, retry_after
from sidecar.traffic.limits import ABSENT, Kinds, Scope
from sidecar.traffic.quota import Order, Quota, QuotaRules

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sidecar.config.schema_amounts import QuotaLimit
    from sidecar.hop import Headers, Hop
    from sidecar.traffic.quota import Lease
    from sidecar.traffic.windows import Span

LONGEST_WAIT: Final = 86_400.0  # seconds of Retry-After: who is told a month will never see that a quota was raised
SPANS: Final[dict[str, Span]] = {"h": "hour", "d": "day", "month": "month"}

Facts = tuple[object, ...]


class Desk(Protocol):
    """Who carries orders to the store."""

    def ask(self, order: Order) -> None:
        """Carry it there, soon; `settle` or `fail` will be called."""
        ...


class Allotment(Scope):
    """A quota of the configuration and the count that stands for it, which outlives this one over a reload."""

    __slots__ = ("named", "quota", "spec")

    def __init__(self, spec: QuotaLimit, quota: Quota) -> None:
        super().__init__(spec)
        self.spec = spec
        self.quota = quota
        self.named = named(spec.name)

    def __str__(self) -> str:
        spec = self.spec
        return f"{spec.name} ({spec.where}: {spec.limit} per {spec.per}, {spec.time_zone})"


class Charges:
    """All quotas that requests of one kind come under."""

    __slots__ = ("_allotments", "_claims", "_desk", "_facts", "_found", "_headers", "_policy", "_quotas", "_wall",
                 "fixed", "keys")  # fmt: skip

    def __init__(self, allotments: Sequence[Allotment], keys: Sequence[str], desk: Desk) -> None:
        self._allotments = allotments
        self._desk = desk
        self._quotas = [each.quota for each in allotments]
        self.keys = list(keys)
        self._headers = [(place, each.header) for place, each in enumerate(allotments) if each.kind == "header"]
        self._claims = [(place, each.claim) for place, each in enumerate(allotments) if each.kind == "claim"]
        self.fixed = not self._headers and not self._claims  # whether the keys are the same for all of the kind
        self._found: list[Lease] = []  # of the request at hand, between being asked and being taken from
        self._wall = 0.0  # of that moment
        self._facts: list[tuple[int, int]] = []  # that the policy's field was made of
        self._policy = b"", b""

    def _keys_of(self, headers: Headers) -> list[str]:
        for place, name in self._headers:
            self.keys[place] = digest_of(headers, name)
        for place, claim in self._claims:
            self.keys[place] = _digest(claim_key(headers, claim).encode())
        return self.keys

    def ready(self, wall: float, headers: Headers) -> bool:
        """Whether every quota has room for one more without asking anybody."""
        keys = self.keys if self.fixed else self._keys_of(headers)
        found, number = [], 0
        for quota in self._quotas:
            lease = quota.leases.get(keys[number])
            if lease is None or lease.left < 1 or not lease.start <= wall < lease.end:
                return False
            found.append(lease)
            number += 1  # noqa: SIM113 - enumerate would make a pair for every quota
        self._found = found
        self._wall = wall
        return True

    def spend(self) -> None:
        """Take one of each, after `ready` and in the same step."""
        wall, number = self._wall, 0
        for lease in self._found:
            order = self._quotas[number].spend(lease, wall)
            if order is not None:
                self._desk.ask(order)
            number += 1  # noqa: SIM113 - see above

    def check(self, wall: float, headers: Headers) -> None:
        """Raise QuotaSpent where one of them is known to be used up; nothing is taken."""
        keys = self.keys if self.fixed else self._keys_of(headers)
        worst: tuple[float, Allotment] | None = None
        for allotment, key in zip(self._allotments, keys, strict=True):
            wait = allotment.quota.spent(wall, key)
            if wait > 0.0 and (worst is None or wait > worst[0]):
                worst = wait, allotment
        if worst is not None:
            raise self._error(wall, *worst)

    def take(self, wall: float, headers: Headers) -> Order | None:
        """Take one of each and return None; or take nothing, and return the order that has to be waited for. Raises
        QuotaSpent.
        """
        keys = self.keys if self.fixed else self._keys_of(headers)
        waiting: Order | None = None
        found = []
        for allotment, key in zip(self._allotments, keys, strict=True):
            quota = allotment.quota
            if not quota.room(wall, key):
                order = quota.want(wall, key)
                if not isinstance(order, Order):
                    raise self._error(wall, order, allotment)
                self._desk.ask(order)
                waiting = order
            else:
                found.append(quota.lease(wall, key))
        if waiting is None:
            self._found, self._wall = found, wall
            self.spend()
        return waiting

    def told(self, wall: float, headers: Headers) -> Headers:
        """The fields of an answer that was let in: what is left of each quota."""
        keys = self.keys if self.fixed else self._keys_of(headers)
        found, number, facts = [], 0, []
        for allotment in self._allotments:
            quota = allotment.quota
            lease, limit = quota.leases.get(keys[number]) or quota.lease(wall, keys[number]), quota.rules.limit
            left = limit - lease.used + lease.left if lease.known else limit
            found.append(b"%b;r=%d;t=%d" % (allotment.named, left if left > 0 else 0, max(0, ceil(lease.end - wall))))
            facts.append((lease.start, limit))
            number += 1  # noqa: SIM113 - see above
        if facts != self._facts:  # another window has begun, or another limit is in force
            self._facts = facts
            ours = self._allotments
            rows = [(each.spec.name, each.quota.rules.limit, self._window(each, wall), 0, 0) for each in ours]
            self._policy = quota_fields(rows)[0]
        return [self._policy, (b"ratelimit", b", ".join(found))]

    def told_bytes(self, wall: float, headers: Headers) -> bytes:
        """The same as lines."""
        (_, policy), (_, left) = self.told(wall, headers)
        return b"ratelimit-policy: %b\r\nratelimit: %b\r\n" % (policy, left)

    def _error(self, wall: float, wait: float, allotment: Allotment) -> QuotaSpent:
        spec = allotment.spec
        lease_end = wall + wait
        fields = quota_fields([(spec.name, spec.limit.count, self._window(allotment, wall), 0, ceil(wait))])
        shown = min(wait, LONGEST_WAIT)
        return QuotaSpent(
            f"over the quota {allotment}, which is used up until {_shown(lease_end, spec.time_zone)}",
            limit=spec.name, per=spec.per.kind, wait=shown, told=(retry_after(shown), *fields),
        )  # fmt: skip

    @staticmethod
    def _window(allotment: Allotment, wall: float) -> int:
        start, end = allotment.quota.window(wall)
        return end - start


class QuotaLimits:
    """The quotas of one listener."""

    def __init__(self, allotments: Iterable[Allotment], desk: Desk) -> None:
        whole = tuple(allotments)
        self._kinds = Kinds(whole, lambda found, keys: Charges(found, keys, desk))
        self.headers = frozenset(each.header for each in whole if each.header)  # that somebody looks at

    def charges(self, hop: Hop, route: str) -> Charges | None:
        """What a hop on this route of the rules comes under, the same object for hops of the same kind; or nothing."""
        return self._kinds.find(hop, route)


class Quotas:
    """The counts behind the quotas of a service, through all its generations."""

    def __init__(self, specs: Sequence[QuotaLimit], desk: Desk, before: Quotas | None = None) -> None:
        self._desk = desk
        self.specs = specs
        self.by_name: dict[str, Quota] = {}
        kept = before._by_facts if before is not None else {}
        self._by_facts: dict[Facts, Quota] = {}
        for spec in specs:
            facts, rules = _facts(spec), rules_of(spec)
            quota = kept.get(facts)
            if quota is None:
                quota = Quota(rules)
            self._by_facts[facts] = self.by_name[spec.name] = quota
        self._rules = {spec.name: rules_of(spec) for spec in specs}

    def put_in_force(self) -> None:
        """From now on the limits are those of this generation; what has been used stays used."""
        for name, quota in self.by_name.items():
            if quota.rules != self._rules[name]:
                quota.adopt(self._rules[name])

    def limits(self, listener: str) -> QuotaLimits | None:
        """The quotas of one listener; None where there is none."""
        ours = [spec for spec in self.specs if not spec.ports or listener in spec.ports]
        return QuotaLimits([Allotment(spec, self.by_name[spec.name]) for spec in ours], self._desk) if ours else None


def rules_of(spec: QuotaLimit) -> QuotaRules:
    """A quota in the words of `sidecar.traffic.quota`. The window is part of its name in the store: a day and an hour
    may begin at the same moment.
    """
    zone, shared = ZoneInfo(spec.time_zone), spec.shared == "redis"
    return QuotaRules(stored_as(spec), spec.limit.count, SPANS[spec.limit.window], zone, shared)


def stored_as(spec: QuotaLimit) -> str:
    """The quota's name in the store."""
    return f"{spec.name}/{SPANS[spec.limit.window]}"


def _facts(spec: QuotaLimit) -> Facts:
    """What a count depends on. Where it stays the same over a reload, so does what everybody has had."""
    return spec.name, spec.limit.window, spec.time_zone, spec.shared


def digest_of(headers: Headers, name: bytes) -> str:
    """The key that stands for the value of a header: all its lines, in their order."""
    values = [value for each, value in headers if each == name]
    return _digest(b", ".join(values)) if values else ABSENT


def _digest(value: bytes) -> str:
    return "#" + blake2b(value, digest_size=20).hexdigest()


def _shown(moment: float, zone: str) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(ceil(moment - 1e-6), ZoneInfo(zone)).isoformat()
