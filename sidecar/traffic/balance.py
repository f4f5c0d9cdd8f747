"""Which endpoint a request goes to. One object for each destination; it picks, and leaves the rest to others.

- `LeastLoaded`, the default: of two endpoints taken by chance the one with less load, where load is peak-EWMA latency
  times requests under way (`sidecar.traffic.endpoints`, semantics S18). Two choices are nearly as good as looking at
  all of them (Mitzenmacher 2001), and many sidecars do not run to the same one.
- `RoundRobin`: one after the other, beginning anywhere.
- `Weighted`: by declared weights, earliest deadline first: an endpoint of weight w is due every 1/w, so turns are
  spread as evenly as can be, at O(log n). Each begins at a random phase, else every change would send the next request
  of every sidecar to the heaviest.
- `sidecar.traffic.maglev.Affine`: the same caller to the same endpoint.

All of them take a probe first where a breaker has one due, keep to their zone as `sidecar.traffic.view` says, start new
endpoints slowly, and avoid `excluded` ones (those that a request has failed on) as long as there is another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, ClassVar, Final

from sidecar.traffic.view import PANIC, View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.traffic.endpoints import Endpoint, EndpointSet

_Turns = tuple[tuple["Endpoint", ...], list[tuple[float, int]]]
RAMP: Final = 10.0  # seconds of slow start: as long as the memory of the average that it protects


class Balancer(ABC):
    """What all of them share: whom to choose from. Subclasses choose (`_choose`)."""

    takes_turns: ClassVar[bool] = False  # and does not choose by what it sees

    def __init__(
        self, endpoints: EndpointSet, dice: Callable[[], float], now: float, *,
        zone: str = "", ramp: float = RAMP, panic: float = PANIC,
    ) -> None:  # fmt: skip
        self.endpoints = endpoints
        self._dice = dice
        self._zone = zone
        self._ramp = ramp
        self._panic = panic
        self._changes = endpoints.changes
        self._owed: Endpoint | None = None  # whose turn it is, because it was picked and not asked
        self._until = 0.0  # of the view, while somebody is owed
        self.view = View(endpoints, now, zone=zone, panic=panic)

    def replace(self, endpoints: EndpointSet) -> None:
        """Another generation of the list, made of this one (`EndpointSet.replaced_by`)."""
        self.endpoints = endpoints

    def pick(self, now: float, excluded: Sequence[Endpoint] = (), key: bytes = b"") -> Endpoint | None:
        """Where to send a request; None where nobody may be asked. `key` is what affinity goes by.

        The caller says `begin` to the endpoint, then how it ended. An endpoint that is returned with its breaker open
        is being probed.
        """
        view = self.view
        if now >= view.until or self._changes.count != view.version:
            owed, self._owed = self._owed, None
            if owed is not None:
                view.until = self._until
                if not excluded and view.holds(self.endpoints, now):
                    return owed
            view = self.look(now)
        if view.probes and not (excluded and view.available):  # who has failed already is not sent to find out
            return view.probes[0]
        among = view.local
        if view.stays < 1.0 and self._dice() >= view.stays:
            among = view.remote
        if excluded:
            among = _without(among, excluded) or _without(view.available, excluded) or among
        return self._choose(among, now, key)

    def undo(self, endpoint: Endpoint) -> None:
        """What was picked last is not sent after all: where turns are taken, the next request that may go there does,
        and whose turn it would be is not asked again. Where load decides, it is better asked again: who has no free
        connection may be busier than is known yet, or frozen. Kept where `pick` looks only once something has changed,
        so nobody else pays for it.
        """
        if not self.takes_turns:
            return
        if self._owed is None:
            self._until = self.view.until
        self._owed, self.view.until = endpoint, float("-inf")

    def look(self, now: float) -> View:
        """Work out anew who may be picked."""
        self._owed = None
        self.view = View(self.endpoints, now, zone=self._zone, panic=self._panic)
        return self.view

    @abstractmethod
    def _choose(self, among: tuple[Endpoint, ...], now: float, key: bytes) -> Endpoint | None:
        """One of them; None where there is none."""


def _without(among: tuple[Endpoint, ...], excluded: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(each for each in among if each not in excluded)


class LeastLoaded(Balancer):
    """The power of two choices over peak EWMA."""

    def _choose(self, among: tuple[Endpoint, ...], now: float, key: bytes) -> Endpoint | None:
        count = len(among)
        if count > 2:
            pair = int(self._dice() * (count * (count - 1)))  # one throw for two different ones
            first, second = pair // (count - 1), pair % (count - 1)
            one, other = among[first], among[second + (second >= first)]
        elif count == 2:
            one, other = among
            if self._dice() < 0.5:  # the first of equals must not have all
                one, other = other, one
        else:
            return among[0] if count else None
        load, others = one.load(now), other.load(now)
        ramp = self._ramp
        newest = now - ramp
        if one.ramp_from > newest:
            load /= one.share(now, ramp)
        if other.ramp_from > newest:
            others /= other.share(now, ramp)
        return one if load <= others else other


class RoundRobin(Balancer):
    """One after the other. An endpoint in slow start passes most of its turns on."""

    takes_turns = True

    _turn = -1

    def _choose(self, among: tuple[Endpoint, ...], now: float, key: bytes) -> Endpoint | None:
        count = len(among)
        if not count:
            return None
        if self._turn < 0:
            self._turn = int(self._dice() * count)
        for _ in range(count):
            self._turn += 1
            endpoint = among[self._turn % count]
            if endpoint.ramp_from <= now - self._ramp or self._dice() < endpoint.share(now, self._ramp):
                break
        return endpoint


class Weighted(Balancer):
    """By weight, evenly spread; see above."""

    takes_turns = True

    # of our zone and of the others: whom among, and a heap of whose turn is when, in a time that only turns move
    _turns: tuple[_Turns, ...] = ()

    def _choose(self, among: tuple[Endpoint, ...], now: float, key: bytes) -> Endpoint | None:
        if not among:
            return None
        for kept, heap in self._turns:
            if kept is among:
                due = heap
                break
        else:
            due = self._begin(among, now)
        at, number = due[0]
        endpoint = among[number]
        heapreplace(due, (at + 1.0 / self._weight(endpoint, now), number))
        return endpoint

    def _begin(self, among: tuple[Endpoint, ...], now: float) -> list[tuple[float, int]]:
        dice, view = self._dice, self.view
        due = [(dice() / self._weight(each, now), number) for number, each in enumerate(among)]
        heapify(due)
        if among is view.local or among is view.remote:  # and not what is left for one request to be tried again
            current = tuple(each for each in self._turns if each[0] is view.local or each[0] is view.remote)
            self._turns = (*current, (among, due))
        return due

    def _weight(self, endpoint: Endpoint, now: float) -> float:
        if endpoint.ramp_from <= now - self._ramp:
            return endpoint.weight
        return endpoint.weight * endpoint.share(now, self._ramp)
