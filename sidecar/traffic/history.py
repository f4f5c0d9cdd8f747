"""What a caller usually does in a window of time, learned from what it did: the measure of all detectors.

Theory of operation. Counts come by windows of equal length. Of those that are over we keep two things: mean and
variance, weighted so that a window counts half of what it did after some forty more (exponential smoothing, as the
smoothed round trip of RFC 6298 and its variance do it), and the highest count of each of the last 26 hours. Usual is
whatever stays below the mean and four deviations, or below one of those heights: so who does much once an hour, or
every night, is known by the second time. A window counts for at most twice what was usual, or the detector's own
number where that is more: one attack does not make the next one usual, and a caller that grows is known after a few
windows.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

WEIGHT: Final = 1 / 60  # of the latest window
DEVIATIONS: Final = 4.0
HOURS: Final = 26  # a day, and room for a job that comes late
LONGEST_SILENCE: Final = 600  # windows, after which nothing is left of mean and variance


class History:
    """The past of one count."""

    __slots__ = ("_mean", "_peaks", "_variance", "usual")

    def __init__(self) -> None:
        self._mean = 0.0
        self._variance = 0.0
        self._peaks: dict[int, float] = {}  # hour → the highest window of it
        self.usual = 0.0  # so many in a window are nothing new

    def learn(self, count: float, hour: int, silent: int, floor: float) -> None:
        """A window of this hour is over, and `silent` ones without any after it; `floor` is the detector's number."""
        count = min(count, 2.0 * max(self.usual, floor))
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
        self.usual = max(self._mean + DEVIATIONS * sqrt(self._variance), max(peaks.values(), default=0.0))

    def _add(self, count: float) -> None:
        off = count - self._mean
        step = WEIGHT * off
        self._mean += step
        self._variance = (1.0 - WEIGHT) * (self._variance + off * step)
