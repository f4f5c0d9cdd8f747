"""Quotas: so many requests in an hour, a day or a month of the calendar, counted across restarts.

Theory of operation. What has been used is kept in a store. To ask it for every request would put a disk or a network
into each of them, so requests are taken out of the store in *leases* of a hundredth of the quota, written down as used
before the first of them is let in. A sidecar that dies leaves at most one lease for each key counted and not used, and
never the other way round: a restart gives nobody anything. One that ends in order gives back what it has not used.
Several processes can share a store.

Where the store fails, a key whose use we know goes on, in memory, to its limit; one that we know nothing of is refused,
as it may have used up its quota (fail closed). `failures` counts, for an alarm.

A clock that goes back into an earlier window finds that window's use in the store; windows are kept there for a while
after their end (`KEPT`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from certs.errors import MeshError
from sidecar.traffic.gcra import MOST_KEYS, OTHERS
from sidecar.traffic.windows import Span, window_of

if TYPE_CHECKING:
    from datetime import tzinfo

LEASE: Final = 0.01  # of the limit
KEPT: Final = 2 * 86_400.0  # seconds after its end that a window is kept


class QuotaStoreFailed(MeshError):
    """The store of quotas cannot be read or written. The message says which and why."""

    name = "quota_store"


class Use(NamedTuple):
    """One row of a store: what a key has used in a window."""

    quota: str
    key: str
    start: int  # seconds since the epoch
    end: int
    used: int


class QuotaStore(Protocol):
    """Where use is kept. Every method raises QuotaStoreFailed, and has then done nothing."""

    def reserve(self, quota: str, key: str, window: tuple[int, int], amount: int, limit: int) -> tuple[int, int]:
        """Add to a key's use as much of `amount` as fits below `limit`, in one step; returns how much that was (also 0)
        and what is used now, with it.
        """
        ...

    def give_back(self, quota: str, key: str, start: int, amount: int) -> None:
        """Take so much off again."""
        ...

    def uses(self, quota: str) -> list[Use]:
        """All that is known of a quota, for `mesh quota show`."""
        ...

    def reset(self, quota: str, key: str) -> None:
        """Forget what a key has used."""
        ...

    def forget(self, ended_before: float) -> None:
        """Forget windows that ended before then."""
        ...


@dataclass(frozen=True, slots=True)
class QuotaRules:
    """One quota, as an operator says it."""

    name: str
    limit: int
    span: Span
    zone: tzinfo

    def __post_init__(self) -> None:
        """Raise ValueError for what is no quota."""
        if self.limit < 1:
            raise ValueError(f"{self.name}: a quota is at least 1, not {self.limit}")


class Remaining(NamedTuple):
    """How a key stands."""

    limit: int
    remaining: int
    resets_at: int  # seconds since the epoch


class _Lease:
    """What we may still hand out to a key without asking."""

    __slots__ = ("end", "left", "start", "used")

    def __init__(self, window: tuple[int, int]) -> None:
        self.start, self.end = window
        self.left = 0
        self.used = 0  # by the store, what is left here included


class Quota:
    """One quota, for all keys."""

    __slots__ = ("_leases", "_most", "_portion", "_store", "failures", "rules")

    def __init__(self, rules: QuotaRules, store: QuotaStore, *, most_keys: int = MOST_KEYS) -> None:
        self.rules = rules
        self.failures = 0  # of the store
        self._store = store
        self._most = most_keys
        self._portion = max(1, int(rules.limit * LEASE))
        self._leases: dict[str, _Lease] = {}

    def take(self, wall: float, key: str, cost: int = 1) -> float:
        """Let in a request of this cost (0.0), or say in how many seconds the next window begins."""
        lease = self._leases.get(key)
        if lease is not None and lease.start <= wall < lease.end and lease.left >= cost:
            lease.left -= cost
            return 0.0
        lease = self._renew(wall, key, cost)
        if lease is None:
            return window_of(self.rules.span, self.rules.zone, wall)[1] - wall
        if lease.left < cost:
            return lease.end - wall
        lease.left -= cost
        return 0.0

    def remaining(self, wall: float, key: str) -> Remaining:
        """How a key stands, as far as we know; nothing is taken."""
        limit = self.rules.limit
        lease = self._leases.get(key)
        if lease is None or not lease.start <= wall < lease.end:
            window = window_of(self.rules.span, self.rules.zone, wall)
            used = next((use.used for use in self._uses() if use.key == key and use.start == window[0]), 0)
            return Remaining(limit, limit - used, window[1])
        return Remaining(limit, limit - lease.used + lease.left, lease.end)

    def reset(self, key: str) -> None:
        """Give a key its quota anew. Raises QuotaStoreFailed."""
        self._store.reset(self.rules.name, key)
        self._leases.pop(key, None)

    def close(self) -> None:
        """Give back what has been leased and not used. Raises QuotaStoreFailed."""
        leases, self._leases = self._leases, {}
        for key, lease in leases.items():
            if lease.left:
                self._store.give_back(self.rules.name, key, lease.start, lease.left)

    def _uses(self) -> list[Use]:
        try:
            return self._store.uses(self.rules.name)
        except QuotaStoreFailed:
            self.failures += 1
            return []

    def _renew(self, wall: float, key: str, cost: int) -> _Lease | None:
        """The key's lease of this window, with enough in it if there is enough; None where we cannot know."""
        lease = self._leases.get(key)
        if lease is None and len(self._leases) >= self._most:
            self._forget(wall)
            if len(self._leases) >= self._most:
                if key == OTHERS:
                    return None
                return self._renew(wall, OTHERS, cost)
        if lease is None or not lease.start <= wall < lease.end:
            fresh = _Lease(window_of(self.rules.span, self.rules.zone, wall))
            if not self._fill(fresh, key, cost, known=False):
                return None
            self._leases[key] = fresh
            return fresh
        self._fill(lease, key, cost, known=True)
        return lease

    def _fill(self, lease: _Lease, key: str, cost: int, *, known: bool) -> bool:
        amount, limit = max(self._portion, cost - lease.left), self.rules.limit
        try:
            granted, lease.used = self._store.reserve(self.rules.name, key, (lease.start, lease.end), amount, limit)
        except QuotaStoreFailed:
            self.failures += 1
            if not known:
                return False
            granted = max(0, min(amount, limit - lease.used))
            lease.used += granted
        lease.left += granted
        return True

    def _forget(self, wall: float) -> None:
        for key in [key for key, lease in self._leases.items() if lease.end <= wall]:
            del self._leases[key]


class MemoryStore:
    """A store for tests, and for those who do not mind that a restart forgets."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str, int], tuple[int, int]] = {}  # quota, key, start → end, used

    def reserve(self, quota: str, key: str, window: tuple[int, int], amount: int, limit: int) -> tuple[int, int]:
        """See QuotaStore."""
        start, end = window
        used = self._uses.get((quota, key, start), (end, 0))[1]
        granted = max(0, min(amount, limit - used))
        self._uses[quota, key, start] = end, used + granted
        return granted, used + granted

    def give_back(self, quota: str, key: str, start: int, amount: int) -> None:
        """See QuotaStore."""
        if (quota, key, start) in self._uses:
            end, used = self._uses[quota, key, start]
            self._uses[quota, key, start] = end, max(0, used - amount)

    def uses(self, quota: str) -> list[Use]:
        """See QuotaStore."""
        return [Use(*name, end, used) for name, (end, used) in sorted(self._uses.items()) if name[0] == quota]

    def reset(self, quota: str, key: str) -> None:
        """See QuotaStore."""
        for name in [name for name in self._uses if name[:2] == (quota, key)]:
            del self._uses[name]

    def forget(self, ended_before: float) -> None:
        """See QuotaStore."""
        for name in [name for name, (end, _) in self._uses.items() if end < ended_before]:
            del self._uses[name]
