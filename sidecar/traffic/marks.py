"""Which of our failing answers had retries spent on them further on, so that nobody before us tries again.

Only the hop nearest to a failure should retry: over three hops, two re-sends each make 27 requests of one. A sidecar
whose outbound side has judged a retry during an exchange (`Enough.settled` or `Again`) marks its own inbound 5xx, and
the sidecar before it reads the mark (a hop header, decision D21) as `elsewhere`. But the two halves of one exchange are
joined only by the application, which may pass on no header at all. So:

- by trace id, where both halves have the same;
- else by time: a retry that was judged while the inbound request was under way may have been its own. That holds for a
  half without a trace id, and for all as long as this application has never been seen to pass one on.

Joining by time can mark too much, never too little: the price is a retry not made, where others fail at that moment
anyway. Everything here happens only when something fails, so the ordinary request pays nothing.
"""

from __future__ import annotations

from typing import Final

MOST: Final = 4096  # trace ids in a generation
KEPT: Final = 60.0  # seconds at least that one is remembered
_LONG_AGO: Final = float("-inf")


class Marks:
    """The retries that one sidecar's outbound side has judged lately."""

    __slots__ = ("_any", "_edge", "_old", "_untraced", "_young", "joins")

    def __init__(self) -> None:
        self.joins = False  # whether the application has been seen to pass trace ids on
        self._young: dict[str, float] = {}  # trace id → when
        self._old: dict[str, float] = {}
        self._edge = _LONG_AGO
        self._any = _LONG_AGO  # when the last of all was
        self._untraced = _LONG_AGO  # when the last was that cannot be joined by its trace id

    def settled(self, trace_id: str, now: float) -> None:
        """A retry was made, or refused for good, on an outbound exchange of this trace; empty for none."""
        self._any = max(self._any, now)
        if now >= self._edge:
            self._old, self._young = self._young, {}
            self._edge = now + KEPT
        if trace_id and (trace_id in self._young or len(self._young) < MOST):
            self._young[trace_id] = now
        else:
            self._untraced = max(self._untraced, now)

    def marks(self, trace_id: str, began: float) -> bool:
        """Whether a failing answer to an inbound request of this trace, which began then, is to be marked."""
        if trace_id and max(self._young.get(trace_id, _LONG_AGO), self._old.get(trace_id, _LONG_AGO)) >= began:
            self.joins = True
            return True
        if trace_id and self.joins:
            return self._untraced >= began
        return self._any >= began
