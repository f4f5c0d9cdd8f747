"""Quotas: so many requests in an hour, a day or a month of the calendar, counted across restarts.

Theory of operation. What has been used is kept in a store. To ask it for every request would put a disk or a network
into each of them, so requests are taken out of the store in *leases* of a hundredth of the quota, written down as used
before the first of them is let in. A sidecar that dies leaves at most one lease for each key counted and not used, and
never the other way round: a restart gives nobody anything. One that ends in order gives back what it has not used.
Several processes can share a store.

Who may not wait for the store (a proxy between two requests) asks for `room`, takes by `spend` what a lease has, and
has somebody else carry the *orders* to the store: the next part of a lease is ordered when half of it has gone, and
`settle` or `fail` says what came of it. `take` does both steps at once, for those who may wait. A lease is never more
than a hundredth, whichever way it was filled.

Where the store fails, a key whose use we know goes on, in memory, to its limit; one that we know nothing of is refused,
as it may have used up its quota (fail closed). `failures` counts, for an alarm. What a key was let have meanwhile is a
*debt*, which the next order pays first.

That a quota is used up is believed for a few seconds (`BELIEVED`), and then asked again: somebody else may have reset
it.

A clock that goes back into an earlier window finds that window's use in the store; windows are kept there for a while
after their end (`KEPT`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.traffic.gcra import MOST_KEYS, OTHERS
from sidecar.traffic.quota_store import QuotaStoreFailed
from sidecar.traffic.windows import Span, window_of

if TYPE_CHECKING:
    from datetime import tzinfo

    from sidecar.traffic.quota_store import QuotaStore, Use

LEASE: Final = 0.01  # of the limit
KEPT: Final = 2 * 86_400.0  # seconds after its end that a window is kept
BELIEVED: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class QuotaRules:
    """One quota, as an operator says it."""

    name: str
    limit: int
    span: Span
    zone: tzinfo
    shared: bool = False  # with other sidecars: nobody goes on by its own count while the store is away

    def __post_init__(self) -> None:
        """Raise ValueError for what is no quota."""
        if self.limit < 1:
            raise ValueError(f"{self.name}: a quota is at least 1, not {self.limit}")


class Remaining(NamedTuple):
    """How a key stands."""

    limit: int
    remaining: int
    resets_at: int  # seconds since the epoch


class Lease:
    """What we may still hand out to a key without asking, in one window."""

    __slots__ = ("debt", "end", "key", "known", "left", "order", "spent_at", "start", "used")

    def __init__(self, key: str, window: tuple[int, int]) -> None:
        self.key = key
        self.start, self.end = window
        self.left = 0
        self.used = 0  # by the store, what is left here included; and the debt
        self.debt = 0  # let have while the store was away
        self.known = False  # whether the store has ever said anything of it
        self.order: Order | None = None  # under way
        self.spent_at = -inf  # wall: when the store had no more to give


class Order:
    """What is to be reserved for a lease. It may grow until it is `sent`."""

    __slots__ = ("amount", "at", "failed", "lease", "quota", "sent")

    def __init__(self, quota: Quota, lease: Lease, amount: int, at: float) -> None:
        self.quota = quota
        self.lease = lease
        self.amount = amount
        self.at = at  # wall
        self.sent = False
        self.failed = False

    def place(self, store: QuotaStore) -> tuple[int, int]:
        """Reserve it, and return what that came to, for `settle`. Raises QuotaStoreFailed."""
        lease, rules = self.lease, self.quota.rules
        return store.reserve(rules.name, lease.key, (lease.start, lease.end), self.amount, rules.limit)


class Quota:
    """One quota, for all keys."""

    __slots__ = ("_looked_at", "_most", "_portion", "_store", "failures", "leases", "low", "rules")

    def __init__(self, rules: QuotaRules, store: QuotaStore | None = None, *, most_keys: int = MOST_KEYS) -> None:
        self.failures = 0  # of the store
        self.leases: dict[str, Lease] = {}
        self._store = store
        self._most = most_keys
        self._looked_at = -inf  # wall: when we looked last which leases have ended
        self._set(rules)

    def _set(self, rules: QuotaRules) -> None:
        self.rules = rules
        self._portion = max(1, int(rules.limit * LEASE))
        self.low = self._portion // 2  # where the next part is ordered

    # ---- for those who may wait --------------------------------------------------------------------------------------

    def take(self, wall: float, key: str, cost: int = 1) -> float:
        """Let in a request of this cost (0.0), or say in how many seconds the next window begins."""
        if not self.room(wall, key, cost):
            order = self.want(wall, key, cost)
            if not isinstance(order, Order):
                return order
            self._carry(order)
            if not self.room(wall, key, cost):
                return order.lease.end - wall
        self.lease(wall, key).left -= cost
        return 0.0

    def _carry(self, order: Order) -> None:
        assert self._store is not None
        try:
            self.settle(order, *order.place(self._store))
        except QuotaStoreFailed:
            self.fail(order)

    # ---- for those who may not ---------------------------------------------------------------------------------------

    def room(self, wall: float, key: str, cost: int = 1) -> bool:
        """Whether a request of this cost can be let in without asking the store."""
        lease = self.lease(wall, key)
        return lease.left >= cost and lease.start <= wall < lease.end

    def spend(self, lease: Lease, wall: float) -> Order | None:
        """Let in a request for which there is room. What comes back is to be ordered, soon; nobody waits for it."""
        lease.left -= 1
        if lease.left > self.low or lease.order is not None or 0.0 <= wall - lease.spent_at < BELIEVED:
            return None
        return self._order(lease, self._portion - lease.left, wall)

    def want(self, wall: float, key: str, cost: int = 1) -> Order | float:
        """What has to be ordered before a request of this cost can be let in, perhaps by somebody else already; or in
        how many seconds the next window begins, where all is used up.
        """
        lease = self.lease(wall, key)
        if not lease.start <= wall < lease.end:
            lease = self._open(wall, key)
        if lease.order is not None:
            if not lease.order.sent:
                lease.order.amount += cost
            return lease.order
        if 0.0 <= wall - lease.spent_at < BELIEVED:
            return lease.end - wall
        return self._order(lease, max(self._portion, cost) - lease.left, wall)

    def spent(self, wall: float, key: str) -> float:
        """Seconds until the next window where all is known to be used up; 0.0 elsewhere. Nothing is changed."""
        lease = self.lease(wall, key)
        if lease.left > 0 or not lease.start <= wall < lease.end or not 0.0 <= wall - lease.spent_at < BELIEVED:
            return 0.0
        return lease.end - wall

    def settle(self, order: Order, granted: int, used: int) -> None:
        """The store has reserved this much, and says what is used now."""
        lease = order.lease
        lease.order = None
        lease.known = True
        paid = min(lease.debt, granted)
        lease.debt -= paid
        lease.left += granted - paid
        lease.used = used + lease.debt
        if granted < order.amount:
            lease.spent_at = order.at
        self._clip(lease)

    def fail(self, order: Order) -> None:
        """The store could not be asked: who is known goes on, in memory, and who is not has nothing."""
        lease = order.lease
        lease.order = None
        order.failed = True
        self.failures += 1
        if self.rules.shared and lease.known:
            return
        if not lease.known:
            if self.leases.get(lease.key) is lease:
                del self.leases[lease.key]
            return
        granted = max(0, min(order.amount - lease.debt, self.rules.limit - lease.used))
        lease.used += granted
        lease.left += granted
        lease.debt += granted
        if not granted:
            lease.spent_at = order.at

    def _order(self, lease: Lease, amount: int, wall: float) -> Order:
        order = lease.order = Order(self, lease, amount + lease.debt, wall)
        return order

    def window(self, wall: float) -> tuple[int, int]:
        """The window of this moment, in seconds since the epoch."""
        return window_of(self.rules.span, self.rules.zone, wall)

    def lease(self, wall: float, key: str) -> Lease:
        """The lease that counts for this key, of whatever window; a new one is empty, and kept."""
        return self.leases.get(key) or self._open(wall, key)

    def _open(self, wall: float, key: str) -> Lease:
        if key not in self.leases and len(self.leases) >= self._most:
            self._forget(wall)
            if len(self.leases) >= self._most and key != OTHERS:
                others = self.leases.get(OTHERS)
                return others if others and others.start <= wall < others.end else self._open(wall, OTHERS)
        lease = self.leases[key] = Lease(key, self.window(wall))
        return lease

    def _forget(self, wall: float) -> None:
        """Make room, where windows have ended; it goes through all of them, so a flood of keys must not make us."""
        if 0.0 <= wall - self._looked_at < BELIEVED:
            return
        self._looked_at = wall
        for key in [key for key, lease in self.leases.items() if lease.end <= wall and lease.order is None]:
            del self.leases[key]

    def _clip(self, lease: Lease) -> None:
        """Keep no more than the limit allows that is in force now."""
        lease.left = min(lease.left, max(0, self.rules.limit - (lease.used - lease.left)))

    # ---- for people --------------------------------------------------------------------------------------------------

    def adopt(self, rules: QuotaRules) -> None:
        """Go on under another limit, from now on: by the same counts."""
        self._set(rules)
        for lease in self.leases.values():
            lease.spent_at = -inf
            self._clip(lease)

    def remaining(self, wall: float, key: str) -> Remaining:
        """How a key stands, as far as we know; nothing is taken."""
        limit = self.rules.limit
        lease = self.leases.get(key)
        if lease is None or not lease.start <= wall < lease.end or not lease.known:
            window = self.window(wall)
            used = next((use.used for use in self._uses() if use.key == key and use.start == window[0]), 0)
            return Remaining(limit, max(0, limit - used), window[1])
        return Remaining(limit, max(0, limit - lease.used + lease.left), lease.end)

    def reset(self, key: str) -> None:
        """Give a key its quota anew. Raises QuotaStoreFailed."""
        if self._store is not None:
            self._store.reset(self.rules.name, key)
        self.forgive(key)

    def forgive(self, key: str) -> None:
        """The store has forgotten what this key has used, and so do we."""
        lease = self.leases.get(key)
        if lease is not None:
            lease.left = lease.used = lease.debt = 0
            lease.spent_at = -inf

    def leftovers(self) -> list[Lease]:
        """What has been leased and not used, to be given back; from now on there are no leases."""
        leases, self.leases = self.leases, {}
        return [lease for lease in leases.values() if lease.left > lease.debt]

    def close(self) -> None:
        """Give back what has been leased and not used. Raises QuotaStoreFailed."""
        assert self._store is not None
        for lease in self.leftovers():
            self._store.give_back(self.rules.name, lease.key, lease.start, lease.left - lease.debt)

    def _uses(self) -> list[Use]:
        if self._store is None:
            return []
        try:
            return self._store.uses(self.rules.name)
        except QuotaStoreFailed:
            self.failures += 1
            return []
