"""How many of a destination's requests may be sent again: a fifth of them, in the last ten seconds.

Retries mend what fails by chance; when a destination is down they only multiply what it has to refuse. So they are paid
from a budget, always (semantics S14, pain 7): within 10 s no more than 20 % of the requests that were sent for the
first time, or 1 a second, whichever is *more*. The floor is for the quiet ones, of whose single request a fifth would
be none. Two things differ from Linkerd, whose numbers S14 takes:

- It adds floor and share. Then 200 requests a second may become 240 and some more, and the promise of at most 1.2
  attempts for each would be broken by the floor.
- Its floor is 10 a second. Each sidecar has a budget of its own, and most send less than 50 requests a second to one
  destination: for them that floor *is* the budget, and it bounds nothing. In tests/sim ten sidecars that send 7 a
  second each hold a destination down for good with a floor of 10, and it recovers with 1.

Time is cut into seconds. A request counts in its own and the nine that follow; a retry in one more, so that cutting
errs on the side of fewer. And of the whole allowance no more than a quarter is spent in one second (the floor can be):
a destination that dies would else be asked three times as much for a second, every ten seconds.
"""

from __future__ import annotations

from typing import Final

RATIO: Final = 0.2
FLOOR: Final = 1.0  # retries a second
WINDOW: Final = 10  # seconds
AT_ONCE: Final = 0.25  # of the allowance, in one second


class Budget:
    """The retries of one destination."""

    __slots__ = (
        "_before", "_floor", "_ratio", "_requests", "_retries", "_second", "_until", "_window", "requests", "retries",
        "spent",
    )  # fmt: skip

    def __init__(self, ratio: float = RATIO, floor: float = FLOOR, window: int = WINDOW) -> None:
        """`floor` is in retries a second, `window` in seconds. Raises ValueError for what is no budget."""
        if not (0.0 <= ratio <= 1.0 and floor >= 0.0 and window >= 1):
            raise ValueError(f"no budget: ratio {ratio}, floor {floor} a second, window {window} s")
        self._ratio = ratio
        self._floor = floor * window
        self._window = window
        self._requests = [0] * window  # of earlier seconds
        self._retries = [0] * (window + 1)
        self._second = 0
        self._until = 1  # the end of that second
        self._before = 0  # of the requests that count, in earlier seconds than this
        self.requests = 0  # that count
        self.retries = 0
        self.spent = 0  # retries that were refused, ever

    def request(self, now: float) -> None:
        """A request is sent for the first time."""
        if now >= self._until:
            self._pass_to(int(now))
        self.requests += 1

    def undo(self) -> None:
        """The request that was counted last, at this moment, is not sent after all."""
        self._requests[self._second % self._window] -= 1
        self.requests -= 1

    def take(self, now: float) -> bool:
        """One retry, if there is one left."""
        if self.left(now) < 1:
            self.spent += 1
            return False
        self._retries[self._second % (self._window + 1)] += 1
        self.retries += 1
        return True

    def left(self, now: float) -> int:
        """How many retries there are at this moment."""
        if now >= self._until:
            self._pass_to(int(now))
        allowance = max(self._ratio * self.requests, self._floor)
        at_once = max(1.0, AT_ONCE * allowance, self._floor) - self._retries[self._second % (self._window + 1)]
        return max(0, int(min(allowance - self.retries, at_once)))

    def _pass_to(self, second: int) -> None:
        window = self._window
        self._requests[self._second % window] = self.requests - self._before
        for passed in range(self._second + 1, self._second + 1 + min(second - self._second, window + 1)):
            self.requests -= self._requests[passed % window]
            self.retries -= self._retries[passed % (window + 1)]
            self._requests[passed % window] = self._retries[passed % (window + 1)] = 0
        self._before = self.requests
        self._second = second
        self._until = second + 1
