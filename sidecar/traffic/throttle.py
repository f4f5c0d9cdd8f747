"""Slower before no: who asks for more than its share is first kept waiting, then refused, then shut out for a time.

Each identity has a rate of its own, and its requests run through four stages:

    free      within rate and burst
    delayed   the next free place in its line: each waits one interval longer than the one before, up to `longest`
    refused   429, when its wait would be longer, or there is no place to wait in
    blocked   429 at once for `block` seconds, when it goes on: refused more often than `strikes` times in `block`
              seconds, as a bucket of so many counts them. What comes meanwhile changes nothing, so it does end; then
              its bucket fills from empty

The line itself is a rate (`pace`). Whoever only wants to know whether a request is free asks that, together with other
rates: it is not for who is blocked or would have to wait.

What one identity has to wait depends on its own rate alone, so the line of one is never the wait of another. What they
do share is the memory of those who wait, `places`: an identity may hold as many as are *left* (dynamic thresholds,
Choudhury and Hahne 1998, with a factor of one). One alone can take half of them; whoever comes next still finds half of
the rest. So nobody can fill the room, and nobody has to be sent away to make some.

A refused request takes nothing from the rate. One that waits has its place in the line paid for, also when it leaves
early; `leave` gives back its place in the room. All times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from sidecar.traffic.gcra import MOST_KEYS, Rate


class Stage(IntEnum):
    """How far it has gone."""

    FREE = 0
    DELAYED = 1
    REFUSED = 2
    BLOCKED = 3


class Ruling(NamedTuple):
    """What becomes of a request."""

    stage: Stage
    wait: float  # seconds: DELAYED, before it goes on; REFUSED and BLOCKED, before it makes sense to come again


FREE = Ruling(Stage.FREE, 0.0)


@dataclass(frozen=True, slots=True)
class ThrottleRules:
    """What an operator says."""

    rate: float  # requests a second of one identity
    burst: int = 1
    longest: float = 5.0  # seconds that a request is kept waiting at most (S19: Kong's interval)
    places: int = 256  # requests that wait at once, of all identities
    strikes: int = 100
    block: float = 60.0  # seconds

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot work."""
        if self.longest < 0.0 or self.places < 1 or self.strikes < 1 or self.block <= 0.0:
            raise ValueError(f"no throttle: {self}")


class Throttle:
    """The lines of all identities of one listener."""

    __slots__ = ("_blocked", "_most", "_strikes", "_waiting", "pace", "rules", "waiting")

    def __init__(self, rules: ThrottleRules, *, name: str = "throttle", most_keys: int = MOST_KEYS) -> None:
        """Raises ValueError for what is no rate."""
        self.rules = rules
        self.pace = Line(name, rules, most_keys)  # a rate as others: where it lets in, nobody has to wait
        self._strikes = Rate("throttle.strikes", rules.strikes / rules.block, rules.strikes, most_keys=most_keys)
        self._most = most_keys
        self._blocked: dict[str, float] = {}  # identity → until when
        self._waiting: dict[str, int] = {}  # identity → how many of its requests
        self.waiting = 0

    def check(self, now: float, identity: str) -> Ruling:
        """Judge a request. Whoever is told to wait says `leave` when it goes on, or goes."""
        if self._blocked and (until := self._blocked.get(identity)) is not None:
            if now < until:
                return Ruling(Stage.BLOCKED, until - now)
            del self._blocked[identity]
        own = self._waiting.get(identity, 0)
        room = own < self.rules.places - self.waiting
        wait = self.pace.join(now, identity, waits=room)
        if wait == 0.0:
            return FREE
        if wait < 0.0:
            return self._refuse(now, identity, -wait)
        self._waiting[identity] = own + 1
        self.waiting += 1
        return Ruling(Stage.DELAYED, wait)

    @property
    def blocked(self) -> int:
        """How many identities are, or were lately."""
        return len(self._blocked)

    def leave(self, identity: str) -> None:
        """A request of this identity waits no longer."""
        self.waiting -= 1
        left = self._waiting[identity] - 1
        if left:
            self._waiting[identity] = left
        else:
            del self._waiting[identity]

    def _refuse(self, now: float, identity: str, wait: float) -> Ruling:
        if self._strikes.take(now, identity) == 0.0:
            return Ruling(Stage.REFUSED, wait)
        self._forget(now)
        if len(self._blocked) >= self._most:
            return Ruling(Stage.REFUSED, wait)  # as before, and no better
        self._blocked[identity] = now + self.rules.block
        self._strikes.reset(identity)
        self.pace.shut(now, identity, self.rules.block)
        return Ruling(Stage.BLOCKED, self.rules.block)

    def _forget(self, now: float) -> None:
        for identity in [each for each, until in self._blocked.items() if until <= now]:
            del self._blocked[identity]


class Line(Rate):
    """A rate at which one may also wait for one's turn."""

    __slots__ = ("_longest",)

    def __init__(self, name: str, rules: ThrottleRules, most_keys: int) -> None:
        super().__init__(name, rules.rate, rules.burst, most_keys=most_keys)
        self._longest = rules.longest
        self._period += rules.longest + rules.block  # the TAT runs ahead by so much more

    def join(self, now: float, key: str, *, waits: bool) -> float:
        """The seconds to wait for one's turn, 0.0 for none; or as a negative number the seconds after which there may
        be a turn again. Whoever may not wait (`waits`) has only what is free.
        """
        key, tat = self._find(now, key)
        wait = tat - now - self._lead
        if wait > 0.0 and (not waits or wait > self._longest):
            return -(wait - self._longest if waits else wait)
        self._young[key] = max(tat, now) + self._interval
        return max(0.0, wait)

    def shut(self, now: float, key: str, seconds: float) -> None:
        """Nothing is free for this key for so long; then it begins with one request, and no burst."""
        found, tat = self._find(now, key)
        if found == key:  # not where it shares one allowance with others who have done nothing
            self._young[key] = max(tat, now + self._lead - self._slack + seconds)
