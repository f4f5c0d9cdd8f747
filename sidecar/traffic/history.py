"""What a caller usually does in a window of time, learned from what it did: the measure of all detectors.

Theory of operation. Counts come by windows of equal length. Of those that are over we keep two things: mean and
variance, weighted so that a window counts half of what it did after some forty more (exponential smoothing, as RFC 6298
does it with round trips), and the highest count of each of the last 26 hours. *Recent* is whatever stays below the mean
and four deviations. *Usual* is also whatever stays below the height of this hour and the two before it, or of the same
time yesterday: so a job of each full hour, or of each night, is known by the second time. `highest` takes all of the 26
hours, for what comes at its own times.

Who attacks must not make that usual by it. What is judged by is a quarter to half an hour old, so an attack is not
measured by its own beginning, however slowly it rises. On a caller's first day a window counts for at most four times
what was usual, or the detector's own number; later on, what is usual grows by at most a half in an hour. So a caller
that grows is known after some hours, and a flood of ten minutes is as conspicuous when it comes again.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

WEIGHT: Final = 1 / 60  # of the latest window
DEVIATIONS: Final = 4.0
HOURS: Final = 26  # that are remembered
LIKE: Final = (0, 1, 2, 23, 24, 25)  # how many hours ago something like this hour was
YOUNG: Final = 4.0  # times what was usual, for each window
GROWTH: Final = 1.5  # the same, for each hour
LONGEST_SILENCE: Final = 600  # windows, after which nothing is left of mean and variance
HOUR: Final = 3600.0
LAG: Final = 900.0  # seconds that what is judged by is old, at least; twice that at most
Known = tuple[float, float, float, float]  # mean, one deviation, recent, usual
NOTHING: Final[Known] = (0.0, 0.0, 0.0, 0.0)


class History:
    """The past of one count."""

    __slots__ = ("_every", "_highest", "_hour", "_latest", "_mean", "_most", "_next", "_peaks", "_turn",
                 "_variance", "deviation", "mean", "recent", "usual")  # fmt: skip

    def __init__(self, window: float = 60.0, *, highest: bool = False) -> None:
        self._mean = 0.0
        self._variance = 0.0
        self._peaks: dict[int, float] = {}  # hour → the highest window of it
        self._hour = -1
        self._most = 0.0  # that a window of this hour may count for
        self._every, self._turn = int(LAG // window), 0  # windows; when the next is judged by
        self._latest = self._next = NOTHING
        self._highest = highest
        self.mean = self.deviation = self.recent = self.usual = 0.0  # so many in a window are nothing new

    def learn(self, count: float, hour: int, silent: int, now: int, floor: float, *, young: bool) -> None:
        """A window of this hour is over, and `silent` ones without any after it; it is the hour `now`. `floor` is the
        detector's number, `young` whether the caller is in its first day.
        """
        count = min(count, self._ceiling(hour, floor, young=young))
        self._add(count)
        if silent > LONGEST_SILENCE:
            self._mean = self._variance = 0.0
        else:
            for _ in range(silent):
                self._add(0.0)
        peaks = self._peaks
        if count > peaks.get(hour, 0.0):
            peaks[hour] = count
            for old in [each for each in peaks if each <= hour - HOURS]:
                del peaks[old]
        deviation = sqrt(self._variance)
        recent = self._mean + DEVIATIONS * deviation
        like = peaks.values() if self._highest else [peaks.get(now - ago, 0.0) for ago in LIKE]
        self._latest = (self._mean, deviation, recent, max((recent, *like)))
        self._judge_by(1 + silent)

    def _judge_by(self, windows: int) -> None:
        """So many windows later: from now on judge by what was known a while ago."""
        self._turn += windows
        if self._turn < self._every and self._next is not NOTHING:
            return
        before = self._latest if self._next is NOTHING or self._turn >= 2 * self._every else self._next
        self._next, self._turn = self._latest, 0
        self.mean, self.deviation, self.recent, self.usual = before

    def _ceiling(self, hour: int, floor: float, *, young: bool) -> float:
        if young:
            return YOUNG * max(self._latest[3], floor)
        if hour != self._hour:
            self._hour, self._most = hour, GROWTH * max(self._latest[3], floor / 2)
        return self._most

    def _add(self, count: float) -> None:
        off = count - self._mean
        step = WEIGHT * off
        self._mean += step
        self._variance = (1.0 - WEIGHT) * (self._variance + off * step)
