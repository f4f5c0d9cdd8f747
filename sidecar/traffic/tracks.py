"""What detectors keep of a caller: counts of the window that is open, with the history of those before.

`Track` is one caller on one route, `Volume` one caller on all of them, `Place` the ids in one place of its paths.
"""

from __future__ import annotations

from typing import Final

from sidecar.traffic.history import HOUR, History
from sidecar.traffic.ids import Distinct

MINUTE: Final = 60.0
FIVE: Final = 300.0
DAY: Final = 86_400.0
PER_MINUTE: Final = 1 / 60  # weight of a minute in what is usually answered well
FEW: Final = 2.0  # good answers a minute, below which their absence says nothing
GAPS: Final = 5.0  # usual times between two good answers, after which there are none any more


class Window:
    """A count of the minute that is open, and the history of those before."""

    __slots__ = ("count", "history", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0.0
        self.history = History(MINUTE)

    def move(self, number: int, floor: float, *, young: bool) -> None:
        """Another minute has begun: learn the last, and what was silence between."""
        hour, now = int(self.number * MINUTE // HOUR), int(number * MINUTE // HOUR)
        self.history.learn(self.count, hour, number - self.number - 1, now, floor, young=young)
        self.number, self.count = number, 0.0


class Volume:
    """One caller, all its routes together."""

    __slots__ = ("asked", "since")

    def __init__(self, minute: int, now: float) -> None:
        self.asked = Window(minute)
        self.since = now

    def young(self, now: float) -> bool:
        """Whether this caller is in its first day."""
        return now - self.since < DAY


class Place:
    """The ids in one place of a path, of five minutes and of those before."""

    __slots__ = ("distinct", "ids", "number", "walk")

    def __init__(self, number: int) -> None:
        self.number = number
        self.distinct = Distinct()
        self.ids = History(FIVE, highest=True)  # different ones
        self.walk = History(FIVE, highest=True)  # pairs of them side by side

    def move(self, number: int, ids: float, sequential: float, *, young: bool) -> None:
        """Another window has begun; the detector's numbers are these."""
        hour, now, silent = int(self.number * FIVE // HOUR), int(number * FIVE // HOUR), number - self.number - 1
        self.ids.learn(self.weight, hour, silent, now, ids, young=young)
        self.walk.learn(max(0.0, self.distinct.sequential), hour, silent, now, sequential, young=young)
        self.distinct.turn(next_one=not silent)
        self.number = number

    @property
    def weight(self) -> float:
        """Different ids; those that were refused or are not there count three times."""
        return self.distinct.count + 2.0 * self.distinct.missing


class Track:
    """One caller on one route."""

    __slots__ = ("_good", "_good_at", "_well", "asked", "places", "refused", "tried", "volume")

    def __init__(self, minute: int, volume: Volume) -> None:
        self.asked = Window(minute)
        self.refused = 0  # of this minute
        self.tried = 0.0  # refusals beyond what is usual, of the minutes before
        self.places: dict[tuple[str, ...], Place] = {}
        self.volume = volume
        self._good = 0  # answers of this minute that are none
        self._good_at = 0.0  # the last one
        self._well = 0.0  # so many in a minute, usually

    def move(self, minute: int, now: float, allowance: float, floor: float) -> None:
        """Another minute has begun."""
        silent = minute - self.asked.number - 1
        history = self.asked.history
        slack = allowance + history.deviation
        self.tried = min(floor, max(0.0, self.tried + self.beyond(allowance) - silent * slack))
        self._well += PER_MINUTE * (self._good - self._well)
        self._well *= (1.0 - PER_MINUTE) ** silent
        self.asked.move(minute, floor, young=self.volume.young(now))
        self.refused = self._good = 0

    def beyond(self, allowance: float) -> float:
        """How many refusals of this minute come on top of the requests that are usual; fewer than none where there are
        fewer.
        """
        history = self.asked.history
        return min(self.refused, self.asked.count - history.mean - history.deviation) - allowance

    def good(self, now: float) -> None:
        """An answer that refuses nothing."""
        self._good += 1
        self._good_at = now

    def fails(self, now: float) -> bool:
        """Whether good answers, which are usual here, have ceased: then it is not one in many that is refused."""
        return self._well >= FEW and now - self._good_at > GAPS * MINUTE / self._well
