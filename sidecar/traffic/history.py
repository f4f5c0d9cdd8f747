"""What a caller usually does in a window of time, learned from what it did: the measure of all detectors.

Theory of operation. Counts come by windows of equal length. Of those that are over we keep two things: mean and
variance, weighted so that a window counts half of what it did after some forty more (exponential smoothing, as RFC 6298
does it with round trips), and the highest count of each of the last 26 hours. *Recent* is whatever stays below the mean
and four deviations. *Usual* is also whatever stays below the height of this hour and the two before it, or of the same
time yesterday: so a job of each full hour, or of each night, is known by the second time.

Who attacks must not make that usual by it. On its first day a window counts for at most twice what was usual, or the
detector's own number where that is more; later on, what is usual grows by at most a half in an hour. So a caller that
grows is known after some hours, and a flood of ten minutes is as conspicuous when it comes again.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

WEIGHT: Final = 1 / 60  # of the latest window
DEVIATIONS: Final = 4.0
HOURS: Final = 26  # that are remembered
LIKE: Final = (0, 1, 2, 23, 24, 25)  # how many hours ago something like this hour was
DAY: Final = 24
YOUNG: Final = 2.0  # times what was usual, for each window
GROWTH: Final = 1.5  # the same, for each hour
LONGEST_SILENCE: Final = 600  # windows, after which nothing is left of mean and variance


class History:
    """The past of one count."""

    __slots__ = ("_began", "_hour", "_mean", "_most", "_peaks", "_variance", "recent", "usual")

    def __init__(self) -> None:
        self._mean = 0.0
        self._variance = 0.0
        self._peaks: dict[int, float] = {}  # hour → the highest window of it
        self._began = self._hour = -1
        self._most = 0.0  # that a window of this hour may count for
        self.recent = self.usual = 0.0  # so many in a window are nothing new

    def learn(self, count: float, hour: int, silent: int, now: int, floor: float) -> None:
        """A window of this hour is over, and `silent` ones without any after it; it is the hour `now`. `floor` is the
        detector's number.
        """
        count = min(count, self._ceiling(hour, floor))
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
        self.recent = self._mean + DEVIATIONS * sqrt(self._variance)
        self.usual = max(self.recent, *[peaks.get(now - ago, 0.0) for ago in LIKE])

    def _ceiling(self, hour: int, floor: float) -> float:
        known = max(self.usual, floor)
        if self._began < 0:
            self._began = hour
        if hour - self._began < DAY:
            return YOUNG * known
        if hour != self._hour:
            self._hour, self._most = hour, GROWTH * known
        return self._most

    def _add(self, count: float) -> None:
        off = count - self._mean
        step = WEIGHT * off
        self._mean += step
        self._variance = (1.0 - WEIGHT) * (self._variance + off * step)
