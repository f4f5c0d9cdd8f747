"""What a request has to do before it goes on, where its limits want more than a yes or no: whose turn it is, after how
long, and what is given back if it does not go on after all.

Theory of operation. All limits of a request are asked together, as always (`Levels.take`), and a limit with
`over: delay` is one of them: where everybody says yes, that is the end of it. Otherwise those that only refuse are
asked first; if one of them has no room the request is refused, and has taken nothing from anybody. Only then does each
of the others find it a place in its line, or refuses, and what was taken before is given back.

A request waits for the longest of its turns, once. What it has taken is paid at the moment it was asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.traffic.gcra import Refused
from sidecar.traffic.throttle import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.traffic.limits import Dues, Limit
    from sidecar.traffic.throttle import Throttle


class Turn:
    """A request that was let in, perhaps after a wait."""

    __slots__ = ("_dues", "_keys", "_paid", "_places", "limit", "wait")

    def __init__(self, dues: Dues, keys: Sequence[str]) -> None:
        self._dues = dues
        self._keys = keys
        self._paid = True
        self._places: list[tuple[Throttle, str]] = []  # where it waits
        self.wait = 0.0  # seconds, from the moment it was asked
        self.limit = ""  # that makes it wait longest

    def join(self, limit: Limit, key: str, wait: float) -> None:
        """It has a place in this limit's line."""
        assert limit.throttle is not None
        self._places.append((limit.throttle, key))
        if wait > self.wait:
            self.wait, self.limit = wait, limit.spec.name

    def count(self) -> None:
        """It has had its turn, after a wait."""
        for throttle, _ in self._places:
            throttle.pace.delayed += 1

    def leave(self) -> None:
        """It waits no longer. May be called twice."""
        places, self._places = self._places, []
        for throttle, key in places:
            throttle.leave(key)

    def give_back(self) -> None:
        """It does not go on: nobody has let it in. May be called twice."""
        self.leave()
        if self._paid:
            self._paid = False
            self._dues.levels.give_back(self._keys)


def turn_of(dues: Dues, now: float, keys: Sequence[str]) -> Turn:
    """Let a request in at each of its limits, or find it a place in their lines; or raise RateLimited, and take nothing
    from any of them.
    """
    turn = Turn(dues, keys)
    if dues.levels.take(now, keys) is None:
        return turn
    refused = _refused(dues, now, keys)
    if refused is not None:
        raise dues.error(now, refused)
    taken: list[tuple[Limit, str]] = []
    for limit, key in zip(dues.limits, keys, strict=True):
        if limit.throttle is None:
            limit.rate.take(now, key)
        else:
            ruling = limit.throttle.check(now, key)
            if ruling.stage in (Stage.REFUSED, Stage.BLOCKED):
                turn.leave()
                for other, its in taken:
                    other.rate.give_back(its)
                raise dues.error(now, Refused(limit.rate, key, ruling.wait))
            if ruling.stage == Stage.DELAYED:
                turn.join(limit, key, ruling.wait)
        taken.append((limit, key))
    return turn


def _refused(dues: Dues, now: float, keys: Sequence[str]) -> Refused | None:
    """Of the limits that only refuse, the one that takes longest; None where all of them have room."""
    waits = [
        Refused(limit.rate, key, limit.rate.standing(now, key).wait)
        for limit, key in zip(dues.limits, keys, strict=True)
        if limit.throttle is None
    ]
    worst = max(waits, key=lambda each: each.wait, default=None)
    return worst if worst is not None and worst.wait > 0.0 else None
