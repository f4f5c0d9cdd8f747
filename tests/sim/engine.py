"""Time that goes on when nothing is left to do in the present."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

Event = Callable[[], None]


class Engine:
    """A heap of what happens next; what falls on one moment happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0  # seconds
        self.events = 0
        self._queue: list[tuple[float, int, Event]] = []
        self._number = count()

    def after(self, seconds: float, event: Event) -> None:
        """Let it happen so many seconds from now."""
        heappush(self._queue, (self.now + seconds, next(self._number), event))

    def every(self, seconds: float, event: Event) -> None:
        """Let it happen again and again."""

        def again() -> None:
            event()
            self.after(seconds, again)

        self.after(seconds, again)

    def run(self, until: float) -> None:
        """Let everything happen that does until then."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, event = heappop(queue)
            self.events += 1
            event()
        self.now = until
