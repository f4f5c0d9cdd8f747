"""Until when a request may take, and who says so.

Up to four have a say, and the earliest wins: the operator (`total`, and `per_try` for one attempt), our own application
by a control header (`mesh-timeout`, honoured on loopback only), gRPC's `grpc-timeout`, and the sidecar before us by a
hop header (`mesh-deadline`, accepted from verified peers only). The headers say how much time is *left*, since clocks
of two machines differ, and can only tighten (decision D21). All are written as gRPC writes its own: up to eight digits
and a unit.

A hop that has nothing left is not begun, and what is sent on says how much is left *then*. So nobody works for a caller
who has given up.

No total by default (D8, S23). A total from the operator does not hold for upgrades and streams that are meant to last
(pain 33); a deadline that the caller itself has set does. A try's own time is not applied to the last try (S12:
Linkerd): there is nothing to be gained by giving up then. Each deadline knows where it was set, for the answer and the
log to say (pain 33).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.errors import ProtocolViolation
from sidecar.http.grpc import timeout, timeout_of
from sidecar.http.headers import first

if TYPE_CHECKING:
    from sidecar.hop import Headers

NEVER: Final = float("inf")
HOP_FIELD: Final = b"mesh-deadline"
CONTROL_FIELD: Final = b"mesh-timeout"
GRPC_FIELD: Final = b"grpc-timeout"


class Deadline:
    """The end of a request's time (monotonic seconds), and who set it."""

    __slots__ = ("at", "by")

    def __init__(self, at: float = NEVER, by: str = "") -> None:
        self.at = at
        self.by = by  # "timeouts.total", "grpc-timeout", "mesh-deadline", "mesh-timeout", "timeouts.per_try"

    def left(self, now: float) -> float:
        """Seconds left; 0 where none are."""
        return max(0.0, self.at - now)

    def passed(self, now: float) -> bool:
        """Whether it is too late."""
        return now >= self.at

    def field(self, now: float) -> tuple[bytes, bytes] | None:
        """What the next sidecar is told; None where there is no end."""
        return None if self.at == NEVER else (HOP_FIELD, timeout(self.at - now))


ENDLESS: Final = Deadline()


@dataclass(frozen=True, slots=True)
class DeadlineRules:
    """What an operator says, in seconds."""

    total: float | None = None
    per_try: float | None = None

    def of(self, headers: Headers, started: float, *, loopback: bool, lasts: bool) -> Deadline:
        """The deadline of a request that began then (monotonic). `loopback`: it comes from our own application, else
        from a verified peer. `lasts`: it is an upgrade, a tunnel or a stream without end.

        Raises ProtocolViolation where a header cannot be read: who sets a limit means one.
        """
        seconds, by = NEVER, ""
        if self.total is not None and not lasts:
            seconds, by = self.total, "timeouts.total"
        for name in (GRPC_FIELD, CONTROL_FIELD if loopback else HOP_FIELD):
            theirs = seconds_of(headers, name)
            if theirs is not None and theirs < seconds:
                seconds, by = theirs, name.decode("ascii")
        return Deadline(started + seconds, by) if by else ENDLESS

    def of_try(self, deadline: Deadline, now: float, *, last: bool) -> Deadline:
        """The deadline of an attempt that begins now; the request's own where that is earlier."""
        if self.per_try is None or last or now + self.per_try >= deadline.at:
            return deadline
        return Deadline(now + self.per_try, "timeouts.per_try")


def seconds_of(headers: Headers, name: bytes) -> float | None:
    """What a field of that form says; None where it is absent. Raises ProtocolViolation."""
    value = first(headers, name)
    if value is None:
        return None
    try:
        return timeout_of([(GRPC_FIELD, value)])
    except ProtocolViolation as error:
        raise ProtocolViolation(str(error).replace("grpc-timeout", name.decode("ascii"), 1)) from None
