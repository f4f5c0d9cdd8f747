"""What active health checks have found of an endpoint, and when that takes it out or lets it in again.

Until its first check an endpoint counts as well (HAProxy and nginx do so; Envoy waits): otherwise every start and every
new list would refuse requests until somebody has answered. The first check that says anything decides at once; after
that so many in a row are needed either way, or one lost packet would move the traffic of all callers. A check that
passes also ends an ejection (semantics S16).

A check may say *nothing*: it was refused by the rules of a peer's sidecar, or we had no place, no identity. That is no
failure of the endpoint (decision D24); it is told, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from sidecar.traffic.endpoints import Endpoint

JITTER = 0.1  # of the time between two checks, either way: or all that began together would meet for ever
SPREAD = 0.02  # seconds for each endpoint of a new list, over which its first checks are spread
FEW = 0.5  # seconds of that which are not worth waiting for

Word = Literal["passed", "failed", "timed_out", "unreachable", "refused", "skipped"]


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When to ask, and how many answers count. Times are seconds."""

    every: float = 10.0
    healthy: int = 2
    unhealthy: int = 3


class Result(NamedTuple):
    """What one check has found. `why` is for people, empty where it passed."""

    word: Word
    why: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the endpoint is well; None where that is not known."""
        if self.word == "passed":
            return True
        return None if self.word in ("refused", "skipped") else False


class Health:
    """What was found of one endpoint. Times are monotonic seconds."""

    __slots__ = ("at", "due", "in_a_row", "judged", "last", "since")

    def __init__(self, due: float) -> None:
        self.due = due  # the next check
        self.last: Result | None = None
        self.at = 0.0  # of the last check
        self.since = 0.0  # when it became what it is, healthy or not
        self.judged = False  # whether any check has said something
        self.in_a_row = 0  # that said the opposite of what it is


def first_due(now: float, count: int, rules: HealthRules, dice: float) -> float:
    """When an endpoint of a new list of so many is checked first; of a few, all at once."""
    spread = min(rules.every, SPREAD * count)
    return now + dice * spread if spread >= FEW else now


def next_due(now: float, rules: HealthRules, dice: float) -> float:
    """When it is checked again."""
    return now + rules.every * (1.0 + JITTER * (2.0 * dice - 1.0))


def observe(endpoint: Endpoint, health: Health, result: Result, now: float, rules: HealthRules) -> bool:
    """Take note of a check; returns whether the endpoint was taken out for it, or let in again."""
    health.last, health.at = result, now
    passed = result.passed
    if passed is None:
        return False
    first, health.judged = not health.judged, True
    if first:
        health.since = now
    if passed == endpoint.healthy:
        health.in_a_row = 0
        endpoint.mark(now, healthy=passed)  # a good one ends an ejection
        return False
    health.in_a_row += 1
    if not first and health.in_a_row < (rules.healthy if passed else rules.unhealthy):
        return False
    health.in_a_row, health.since = 0, now
    endpoint.mark(now, healthy=passed)
    return True
