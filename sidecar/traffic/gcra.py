"""Rate limits: the generic cell rate algorithm (ITU-T I.371), one number for each key.

Theory of operation. For each key we keep the *theoretical arrival time* (TAT): when the next request would be due, if
they came evenly. A request moves it on by one interval; it may run ahead of the clock by as much as the burst allows.
That is exactly a token bucket, without a timer and with a single float.

*Several levels, one decision* (semantics S19): listener, caller, endpoint, and whatever header or claim is limited, in
this order. All levels are asked before anything is written: a request that one level refuses costs nothing at the
others. Where several refuse, the one that takes longest is told, so that who obeys it is not refused again.

*Bounded, and nobody limited is forgotten.* A key whose TAT is past is as good as new. So keys live in two tables, and
from time to time, no sooner than a full bucket takes to refill, the older one is dropped and the younger takes its
place: whoever was in it has not been seen for so long that forgetting it gives it nothing. When both are full, whoever
is new shares *one* allowance with all the others who are new. A flood of invented keys so limits itself, and whoever
comes for the first time during it, but not those who are known; and it is never a way out of a limit. (To drop keys at
need, as a cache does, would let a flood wash out its own; to let the new ones in unlimited would be open; to refuse
them all would be a switch for whoever can invent names. A level whose keys a stranger can invent is best accompanied by
one of its caller or listener.)

Time is monotonic seconds. Where it goes back, keys are limited for longer, by as much. A thousandth of an interval
forgives the rounding of floats.
"""

from __future__ import annotations

from hashlib import blake2b
from heapq import nlargest
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_KEYS: Final = 65_536  # of one level; about 150 bytes each
OTHERS: Final = "(others)"  # the key of all who came when there was no room; who is really called so shares with them
LONGEST_KEY: Final = 64  # bytes of a value that is kept as it is
_ROUNDING: Final = 1e-3


def key_of(value: bytes) -> str:
    """The key of a header's or claim's value: itself, or its hash where it is long, so that 65,536 of them are not
    2 GiB.
    """
    if len(value) <= LONGEST_KEY:
        return value.decode("latin-1")
    return "blake2b:" + blake2b(value, digest_size=24).hexdigest()


class Standing(NamedTuple):
    """How a key stands."""

    limit: int  # requests of a full bucket
    remaining: int
    reset: float  # seconds until the bucket is full again
    wait: float  # seconds until the next request is let in; 0.0 where it would be now


class Refused(NamedTuple):
    """Which level has refused, for which key, and when to come again."""

    level: Rate
    key: str
    wait: float  # seconds


class Rate:
    """One level: `rate` requests a second for each key, `burst` of them at once."""

    __slots__ = (
        "_edge", "_interval", "_lead", "_most", "_old", "_period", "_slack", "_young", "burst", "delayed", "name",
        "rate", "refused",
    )  # fmt: skip

    def __init__(self, name: str, rate: float, burst: int = 1, *, most_keys: int = MOST_KEYS) -> None:
        """Raises ValueError for what is no rate."""
        if not (0.0 < rate < float("inf")) or burst < 1 or most_keys < 1:
            raise ValueError(f"{name}: no rate: {rate} a second, {burst} at once, {most_keys} keys")
        self.name = name  # as the operator wrote it
        self.rate = rate
        self.burst = burst
        self.refused = self.delayed = 0  # requests, as whoever acts on it has counted them
        self._interval = 1.0 / rate
        self._slack = self._interval * _ROUNDING
        self._lead = self._interval * (burst - 1) + self._slack  # how far ahead of the clock the TAT may be
        self._period = max(1.0, 2.0 * self._interval * (burst + 1))
        self._most = most_keys
        self._young: dict[str, float] = {}  # key → TAT
        self._old: dict[str, float] = {}
        self._edge = float("-inf")  # when the tables change places

    def take(self, now: float, key: str = "") -> float:
        """Let one request in (0.0), or say in how many seconds to come again."""
        young = self._young
        tat = young.get(key)
        if tat is None or now >= self._edge:
            key, tat = self._find(now, key)
            young = self._young
        if tat <= now:
            young[key] = now + self._interval
            return 0.0
        over = tat - now - self._lead
        if over > 0.0:
            return over + self._slack  # so that who waits so long is let in, rounding or not
        young[key] = tat + self._interval
        return 0.0

    def spend(self, now: float, key: str, amount: float) -> float:
        """Take so much whatever the limit says, and return the seconds to wait before the next of it: what paces bytes.

        Who waits as told and takes no more than `burst` each time owes less than two buckets; more is not kept.
        """
        key, tat = self._find(now, key)
        self._young[key] = tat = min(max(tat, now) + amount * self._interval, now + self._period)
        return max(0.0, tat - now - self._lead - self._interval)

    def take_many(self, now: float, key: str, count: int) -> int:
        """How many of so many requests, all of this moment, are let in."""
        key, tat = self._find(now, key)
        start = max(tat, now)
        fits = min(count, max(0, int((now + self._lead - start) / self._interval + 1.0)))
        if fits:
            self._young[key] = start + fits * self._interval
        return fits

    def standing(self, now: float, key: str = "") -> Standing:
        """How this key stands; changes nothing."""
        tat = self._young.get(key, self._old.get(key, now))
        ahead = max(0.0, tat - now)
        wait = ahead - self._lead + self._slack if ahead > self._lead else 0.0
        remaining = 0 if wait else min(self.burst, int((self._lead - ahead) / self._interval + 1.0))
        return Standing(self.burst, remaining, ahead, wait)

    def give_back(self, key: str) -> None:
        """Undo one `take` of this key: what it was for did not happen."""
        for table in (self._young, self._old):
            if key in table:
                table[key] -= self._interval
                return

    def learn(self, now: float, key: str, ahead: float) -> None:
        """Others have let in so much for this key that it is `ahead` of the clock by so many seconds: it is here too.

        It never goes back by that, and never by more than a full bucket ahead.
        """
        key, tat = self._find(now, key)
        self._young[key] = max(tat, now + min(ahead, self._lead + self._interval))

    def hottest(self, now: float, most: int) -> list[tuple[str, Standing]]:
        """The keys that have the least left, and how they stand; those that are as good as new are none of them.

        Looks at every key, so for somebody who asks and not for a hot path.
        """
        tats = ((tat, key) for table in (self._young, self._old) for key, tat in table.items() if tat > now)
        return [(key, self.standing(now, key)) for _, key in nlargest(most, tats)]

    def reset(self, key: str) -> None:
        """Forget what this key has had."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    @property
    def keys(self) -> int:
        """How many are kept."""
        return len(self._young) + len(self._old)

    def _find(self, now: float, key: str) -> tuple[str, float]:
        """The key that counts, now in the younger table or about to be, and its TAT."""
        if now >= self._edge:
            self._turn(now)
        tat = self._young.get(key)
        if tat is not None:
            return key, tat
        tat = self._old.pop(key, None)
        if tat is not None:
            self._young[key] = tat
            return key, tat
        if len(self._young) + len(self._old) < self._most:
            return key, now
        if key == OTHERS:
            return key, now
        return self._find(now, OTHERS)

    def _turn(self, now: float) -> None:
        long_ago = now >= self._edge + self._period  # then the younger one has not been touched for long, either
        self._old = {} if long_ago else self._young
        self._young = {}
        self._edge = now + self._period


class Levels:
    """Several rates that a request has to meet together."""

    __slots__ = ("_keys", "_tats", "rates")

    def __init__(self, rates: Sequence[Rate]) -> None:
        self.rates = tuple(rates)  # in the order in which they are asked
        self._keys = [""] * len(self.rates)  # of the request at hand, between being asked and being written
        self._tats = [0.0] * len(self.rates)

    def take(self, now: float, keys: Sequence[str]) -> Refused | None:
        """Let a request in at every level (None), or at none. One key for each level, in their order."""
        found, tats, number = self._keys, self._tats, 0
        worst: Refused | None = None
        for rate in self.rates:
            key = keys[number]
            tat = rate._young.get(key)
            if tat is None or now >= rate._edge:
                key, tat = rate._find(now, key)
            over = tat - now - rate._lead
            if over > 0.0 and (worst is None or over + rate._slack > worst.wait):
                worst = Refused(rate, key, over + rate._slack)
            found[number] = key
            tats[number] = (tat if tat > now else now) + rate._interval
            number += 1  # noqa: SIM113 - enumerate would make a pair for every level
        if worst is not None:
            return worst
        number = 0
        for rate in self.rates:
            rate._young[found[number]] = tats[number]
            number += 1  # noqa: SIM113 - see above
        return None

    def give_back(self, keys: Sequence[str]) -> None:
        """Undo what the last `take` with these keys has taken."""
        for rate, key in zip(self.rates, keys, strict=True):
            rate.give_back(key)

    def nearest(self, now: float, keys: Sequence[str]) -> tuple[Rate, Standing] | None:
        """The level with the least left, for the answer's header fields; None where there is no level."""
        found = [(rate, rate.standing(now, key)) for rate, key in zip(self.rates, keys, strict=True)]
        return min(found, key=lambda each: (each[1].remaining, -each[1].wait), default=None)
