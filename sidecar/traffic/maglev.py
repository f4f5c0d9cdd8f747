"""Affinity: the same key (a header, a cookie, a caller) to the same endpoint, on every sidecar, with no talk between
them.

Maglev's consistent hashing (Eisenbud and others, NSDI 2016, section 3.4): each endpoint has an order of preference over
the slots of a table, made of two hashes of its name, and they take slots in turn until all are taken. Shares then
differ by less than 1 %, and when one of n endpoints goes, little more than its 1/n of the keys move. With weights, an
endpoint takes its turns as often as its weight says.

The table is made of *all* endpoints that are declared, and only when they change. One that is ejected or unhealthy is
stepped over: its keys alone go elsewhere, each to its own second choice, and come back with it. Affinity goes before
zones; a request without a key is balanced by load.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from sidecar.traffic.balance import LeastLoaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.traffic.endpoints import Endpoint, EndpointSet

SLOTS: Final = 65537  # a prime, more than a hundred for each of 600 endpoints (the paper's and Envoy's size)
CHOICES: Final = 8  # of a key, before it is balanced by load; half of all endpoints would have to be gone
_EMPTY: Final = 0xFFFF
_MASK: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15  # odd, so that steps reach everywhere: 2**64 by the golden ratio


def key_hash(key: bytes) -> int:
    """64 bits of a key, the same on every machine."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


def table(endpoints: Sequence[Endpoint], slots: int = SLOTS) -> array[int]:
    """For each slot the number of the endpoint whose it is. Empty where there is none. `slots` is a prime.

    Depends on names and weights only, and not on their order. Not to be changed: others may have the same one.
    """
    return _table(tuple((endpoint.name, endpoint.weight) for endpoint in endpoints), slots)


@lru_cache(maxsize=8)  # a reload asks for the same one again
def _table(endpoints: tuple[tuple[str, int], ...], slots: int) -> array[int]:
    found = array("H", [_EMPTY]) * slots if endpoints else array("H")
    order = sorted(range(len(endpoints)), key=lambda number: endpoints[number][0])
    heaviest = max((weight for _, weight in endpoints), default=1)
    state = []
    for number in order:
        digest = blake2b(endpoints[number][0].encode(), digest_size=16).digest()
        offset = int.from_bytes(digest[:8], "little") % slots
        skip = int.from_bytes(digest[8:], "little") % (slots - 1) + 1
        state.append([offset, skip, number, endpoints[number][1], 0])
    left = slots if state else 0
    while True:
        for each in state:
            at, skip, number, weight, credit = each
            credit += weight
            if credit < heaviest:
                each[4] = credit
                continue
            each[4] = credit - heaviest
            if not left:
                return found
            while found[at] != _EMPTY:
                at += skip
                if at >= slots:
                    at -= slots
            found[at] = number
            each[0] = at
            left -= 1
        if not left:
            return found


class Affine(LeastLoaded):
    """Picks by key."""

    own = b""  # of requests that bring none

    def __init__(
        self, endpoints: EndpointSet, dice: Callable[[], float], now: float, *, slots: int = SLOTS, **options: float
    ) -> None:
        super().__init__(endpoints, dice, now, **options)  # type: ignore[arg-type]
        self._slots = slots
        self._table = table(endpoints.all, slots)
        self._of = endpoints.all

    def replace(self, endpoints: EndpointSet, prepared: array[int] | None = None) -> None:
        """Another generation. Making its table takes 20 to 60 ms; `prepared` is what `table` has made of it
        beforehand, in a thread.
        """
        super().replace(endpoints)
        self._table = table(endpoints.all, self._slots) if prepared is None else prepared
        self._of = endpoints.all

    def pick(self, now: float, excluded: Sequence[Endpoint] = (), key: bytes = b"") -> Endpoint | None:
        """The endpoint of this key; its next choice where that one may not be picked."""
        key = key or self.own
        if not key or not self._of:
            return super().pick(now, excluded)
        if not self.view.holds(self.endpoints, now):
            self.look(now)
        view, slots, found = self.view, self._slots, key_hash(key)
        for _ in range(CHOICES):
            endpoint = self._of[self._table[found % slots]]
            if view.panic or (endpoint.healthy and endpoint.ejected_until <= now):
                breaker = endpoint.breaker
                if endpoint not in excluded and (breaker is None or not breaker.open or not endpoint.probing):
                    return endpoint
            found = (found * _STEP + 1) & _MASK
        return super().pick(now, excluded)
