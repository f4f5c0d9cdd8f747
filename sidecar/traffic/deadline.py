"""Until when a request may take, and who says so.

Up to five have a say, and the earliest wins: the operator (`total`, and `per_try` for one attempt), our own application
by a control header (`mesh-timeout`, honoured on loopback only), gRPC's `grpc-timeout`, and the sidecar before us by a
hop header (`mesh-deadline`, accepted from verified peers only). The headers say how much time is *left*, since clocks
of two machines differ, and can only tighten (decision D21). All are written as gRPC writes its own: up to eight digits
and a unit. One that comes twice, or cannot be read, is refused: who sets a limit means one.

A hop that has nothing left is not begun, and what is sent on says how much is left *then*. So nobody works for a caller
who has given up.

No total by default (D8, S23). A total from the operator does not hold for upgrades, nor for gRPC calls and event
streams, which are meant to last (pain 33); a deadline that the caller itself has set does. A try's own time is not
applied where there would be no other (S12: Linkerd, of the last try): there is nothing to be gained by giving up then.
Each deadline knows where it was set, for the answer and the log to say (pain 33).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.errors import DeadlinePast, HopError, ProtocolViolation, TotalTimeout, TryTimeout
from sidecar.http.grpc import timeout, timeout_of

if TYPE_CHECKING:
    from sidecar.hop import Headers

NEVER: Final = float("inf")
HOP_FIELD: Final = b"mesh-deadline"
CONTROL_FIELD: Final = b"mesh-timeout"
GRPC_FIELD: Final = b"grpc-timeout"
FIELDS: Final = frozenset((HOP_FIELD, CONTROL_FIELD, GRPC_FIELD))
TOTAL: Final = "timeouts.total"
PER_TRY: Final = "timeouts.per_try"
LEAST: Final = 1e-9  # seconds that a field of that form can say: with less, nothing is left
RESPONSE_HEAD: Final = 15.0  # seconds (D8)
_SET_BY: Final = {  # whose word each field is
    "grpc-timeout": ", set by the caller of the call",
    "mesh-timeout": ", set by our own application",
    "mesh-deadline": ", told by the sidecar before us",
}


class Deadline:
    """The end of a request's time (monotonic seconds), and who set it."""

    __slots__ = ("at", "by", "given")

    def __init__(self, at: float = NEVER, by: str = "", given: float = NEVER) -> None:
        self.at = at
        self.by = by  # "timeouts.total", "grpc-timeout", "mesh-deadline", "mesh-timeout", "timeouts.per_try"
        self.given = given  # seconds, as it was set

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
    """What an operator says of one destination, in seconds."""

    total: float | None = None
    per_try: float | None = None
    response_head: float = RESPONSE_HEAD  # from the end of the request; not for gRPC
    where: str = ""  # these were set, where that is not `timeouts` of the service: "services.web.outbound[0]"

    @property
    def patience(self) -> float:
        """Seconds until somebody must look at a request that has no answer."""
        return min(self.response_head, *(each for each in (self.total, self.per_try) if each is not None), NEVER)

    def of(
        self, headers: Headers, started: float, *, loopback: bool, lasts: bool, call: bool = True, verified: bool = True
    ) -> Deadline:
        """The deadline of a request that began then (monotonic). `loopback`: it comes from our own application, else
        from a peer, `verified` or not. `lasts`: it is an upgrade, a tunnel or a stream without end. `call`: it is a
        gRPC call; elsewhere `grpc-timeout` may mean anything.

        Raises ProtocolViolation where a header cannot be read.
        """
        seconds, by = NEVER, ""
        if self.total is not None and not lasts:
            seconds, by = self.total, TOTAL
        said = dict(headers)
        theirs = CONTROL_FIELD if loopback else HOP_FIELD
        if call and GRPC_FIELD in said:
            seconds, by = _earlier(headers, GRPC_FIELD, seconds, by)
        if theirs in said and (loopback or verified):
            seconds, by = _earlier(headers, theirs, seconds, by)
        return Deadline(started + seconds, by, seconds) if by else ENDLESS

    def of_try(self, deadline: Deadline, now: float, *, last: bool) -> Deadline:
        """The deadline of an attempt that begins now; the request's own where that is earlier."""
        if self.per_try is None or last or now + self.per_try >= deadline.at:
            return deadline
        return Deadline(now + self.per_try, PER_TRY, self.per_try)

    def late(self, deadline: Deadline, whom: str) -> HopError:
        """What a request ends with whose time has passed, before it was asked or while it was under way."""
        said = f"{whom} was not done within {deadline.given:g} s ({self._timer(deadline.by)})"
        if deadline.by == TOTAL:
            return TotalTimeout(said)
        return TryTimeout(said) if deadline.by == PER_TRY else DeadlinePast(said)

    def nothing_left(self, deadline: Deadline, whom: str) -> HopError:
        """What a request ends with that is not sent on any more."""
        said = f"of {deadline.given:g} s nothing was left before {whom} was asked ({self._timer(deadline.by)})"
        return TotalTimeout(said) if deadline.by == TOTAL else DeadlinePast(said)

    def no_answer(self, whom: str) -> str:
        """Which timer ended the wait for a response head."""
        return f"{whom} did not answer within {self.response_head:g} s ({self._timer('timeouts.response_head')})"

    def _timer(self, by: str) -> str:
        """The name of a timer, and where it is set."""
        if by in _SET_BY:
            return by + _SET_BY[by]
        return f"{self.where}.{by}" if self.where else by


def told(headers: Headers, left: float, *, call: bool, meshed: bool) -> Headers:
    """The fields of a request as they go on with so many seconds left: a call's own deadline shrinks, and a peer's
    sidecar is told the hop's. Who is no peer is told nothing that it has not been told before.
    """
    value = timeout(left)
    if call and any(name == GRPC_FIELD for name, _ in headers):
        return [(name, value if name == GRPC_FIELD else its) for name, its in headers]
    return [*headers, (HOP_FIELD, value)] if meshed else headers


def seconds_of(headers: Headers, name: bytes) -> float | None:
    """What a field of that form says; None where it is absent. Raises ProtocolViolation."""
    values = [value for field, value in headers if field == name]
    if not values:
        return None
    if len(values) > 1:
        raise ProtocolViolation(f"{name.decode('ascii')} comes {len(values)} times")
    try:
        return timeout_of([(GRPC_FIELD, values[0])])
    except ProtocolViolation as error:
        raise ProtocolViolation(str(error).replace("grpc-timeout", name.decode("ascii"), 1)) from None


def _earlier(headers: Headers, name: bytes, seconds: float, by: str) -> tuple[float, str]:
    theirs = seconds_of(headers, name)
    return (theirs, name.decode("ascii")) if theirs is not None and theirs < seconds else (seconds, by)
