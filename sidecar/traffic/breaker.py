"""The breaker of one endpoint, where a destination has fewer than five of them. Closed means passing.

Outlier detection compares an endpoint with the others; with three there is nobody to compare with, and taking out a
tenth of them takes out none. So each has a breaker (Linkerd's `unified`, semantics S17), which two things open:

- seven failures in a row, or
- fewer than 80 % of at least five answers good within 10 s.

It then refuses everything for a second, lets one real request through, and closes when that is answered well; otherwise
it waits twice as long each time, up to a minute, up to half as long again by chance. All breakers of a destination may
be open; the answer then is an immediate 503 that says when to come again (decision D24).

The application's own 429 counts in the ratio and for the probe, not in the row: who refuses some is busy, who refuses
most is of no use. What a peer's sidecar refuses counts for nothing (D24; S17 has PERMISSION_DENIED as a failure).

The window is ten counts of a second each, exact: a moving average would forgive a short total outage (S17).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.traffic.outcome import Outcome

if TYPE_CHECKING:
    from sidecar.traffic.endpoints import Endpoint

IN_A_ROW: Final = 7
LEAST_RATIO: Final = 0.8
LEAST_ANSWERS: Final = 5
BUCKETS: Final = 10  # of a second each
FIRST_WAIT: Final = 1.0  # seconds
LONGEST_WAIT: Final = 60.0  # seconds
JITTER: Final = 0.5  # of the wait, on top of it
_GOOD: Final = Outcome.GOOD  # a class's attribute costs a look-up each time
_DOUBLINGS: Final = 6  # 2**6 is over the longest wait


class Breaker:
    """What one endpoint has answered lately, and whether that will do."""

    __slots__ = ("_bad", "_before", "_good", "_second", "_until", "bad", "good", "in_a_row", "open", "times")

    def __init__(self) -> None:
        self.open = False
        self.times = 0  # opened since it was closed last
        self.in_a_row = 0
        self.good = self.bad = 0  # in the window
        self._before = 0  # of the good ones, in earlier seconds than this: the rest are this second's
        self._good = [0] * BUCKETS  # of earlier seconds
        self._bad = [0] * BUCKETS
        self._second = 0
        self._until = 1  # the end of that second

    def observe(self, outcome: Outcome, now: float) -> bool:
        """Count an answer; returns whether the breaker has to open. Not to be asked while it is open."""
        if outcome == _GOOD:
            self.well(now)
            return False
        if now >= self._until:
            self._pass_to(int(now))
        if outcome == Outcome.NEUTRAL:
            return False
        self._bad[self._second % BUCKETS] += 1
        self.bad += 1
        if outcome != Outcome.LIMITED:
            self.in_a_row += 1
        answers = self.good + self.bad
        return self.in_a_row >= IN_A_ROW or (answers >= LEAST_ANSWERS and self.good < LEAST_RATIO * answers)

    def well(self, now: float) -> None:
        """Count a good answer; all that is done for most requests."""
        if now >= self._until:
            self._pass_to(int(now))
        self.good += 1
        self.in_a_row = 0

    def trip(self, endpoint: Endpoint, now: float, dice: float) -> None:
        """Open, or stay open for longer after a probe that failed."""
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self.times, _DOUBLINGS))
        self.open = True
        self.times += 1
        endpoint.eject(now + wait * (1.0 + JITTER * dice))

    def close(self, endpoint: Endpoint, now: float) -> None:
        """A probe was answered well: pass everything, and hold nothing of the past against it."""
        self.__init__()  # type: ignore[misc]
        endpoint.readmit(now)

    def _pass_to(self, second: int) -> None:
        gone = second - self._second  # more than none: a clock that goes back adds to the second that it was
        self._good[self._second % BUCKETS] = self.good - self._before
        for step in range(1, min(gone, BUCKETS) + 1):
            slot = (self._second + step) % BUCKETS
            self.good -= self._good[slot]
            self.bad -= self._bad[slot]
            self._good[slot] = self._bad[slot] = 0
        self._before = self.good
        self._second = second
        self._until = second + 1
