"""The states of a signing key, and when an issuing CA moves from one to the next: a table and arithmetic, pure.

    state      it signs   in the bundle (a root)   it ends as
    prepared   no         yes                      active, retired, revoked     known to all before it signs anything
    active     yes        yes                      retiring                     exactly one of each kind
    retiring   no         yes                      retired, revoked, active     what it signed still holds
    retired    never      no                       -                            past its end; its key is destroyed
    revoked    never      no                       -                            what it signed holds no more

`active → retiring` happens in the moment in which its successor becomes active; `retiring → active` is a rollback.

Times (S6; SPIRE's ratios): the next issuing CA is *prepared* when half of the active one's life is left, but not more
than 30 days before its end; it is *activated* when a sixth is left, but not more than 7 days before the end; the old
one is *retired* at its end, since no leaf outlives its issuer. A sixth of the shortest life (`MIN_ISSUER_TTL`) still
holds the shortest leaf, so that nobody is refused in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ca.durations import DAY

SlotKind = Literal["root", "issuer"]
SlotState = Literal["prepared", "active", "retiring", "retired", "revoked"]
MOVES: dict[SlotState, frozenset[SlotState]] = {
    "prepared": frozenset({"active", "retired", "revoked"}),
    "active": frozenset({"retiring"}),
    "retiring": frozenset({"active", "retired", "revoked"}),
    "retired": frozenset(),
    "revoked": frozenset(),
}
IN_BUNDLE: frozenset[SlotState] = frozenset({"prepared", "active", "retiring"})

PREPARE_PART, PREPARE_CAP = 1 / 2, 30 * DAY
ACTIVATE_PART, ACTIVATE_CAP = 1 / 6, 7 * DAY
MIN_ISSUER_TTL = 150.0  # seconds; a sixth of it is 25, a little more than ca.entries.MIN_TTL


@dataclass(frozen=True, slots=True)
class Life:
    """An issuing CA as the schedule sees it, in seconds since the epoch.

    `made` is where its life is measured from; `begins`, its notBefore, lies a little earlier, for slow clocks.
    """

    sha256: str
    state: SlotState
    made: float
    begins: float
    ends: float

    @property
    def prepare_at(self) -> float:
        """When its successor is prepared."""
        return self.ends - min(PREPARE_PART * (self.ends - self.made), PREPARE_CAP)

    @property
    def activate_at(self) -> float:
        """When its successor takes over."""
        return self.ends - min(ACTIVATE_PART * (self.ends - self.made), ACTIVATE_CAP)

    def can_sign(self, now: float) -> bool:
        """Whether its certificate is valid now, with more than its last sixth to come."""
        return self.begins <= now < self.activate_at


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make a successor: key, certificate, slot."""


@dataclass(frozen=True, slots=True)
class Activate:
    """Let this prepared one take over."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Retire:
    """This one is past its end."""

    sha256: str


Step = Prepare | Activate | Retire


def next_step(lives: Sequence[Life], now: float) -> Step | None:
    """The one thing that the schedule asks for now; None until the next date. Ask again after each step.

    The same rules heal what the schedule missed: a CA that was off for months, or whose clock jumped, prepares and
    activates at once whatever can sign now.
    """
    for life in lives:
        if life.state in ("prepared", "retiring") and life.ends <= now:
            return Retire(life.sha256)
    active, prepared = _one(lives, "active"), _one(lives, "prepared")
    if prepared is not None and not prepared.begins <= now:
        return None if active is not None and active.begins <= now < active.ends else Retire(prepared.sha256)
    if active is not None and active.can_sign(now):
        return Prepare() if now >= active.prepare_at and prepared is None else None
    if prepared is None:
        return Prepare()
    if active is None or prepared.ends > active.ends or not active.begins <= now:
        return Activate(prepared.sha256)
    return None


def next_date(lives: Sequence[Life], now: float) -> float | None:
    """When the schedule will next ask for something, seconds since the epoch; None where nothing is planned."""
    active = _one(lives, "active")
    dates = [life.ends for life in lives if life.state == "retiring"]
    if active is not None:
        dates += [active.activate_at] if _one(lives, "prepared") else [active.prepare_at, active.activate_at]
    return min((date for date in dates if date > now), default=None)


def _one(lives: Iterable[Life], state: SlotState) -> Life | None:
    return next((life for life in lives if life.state == state), None)
