"""Whether a request that failed may be sent again, and when.

Theory of operation (semantics S12, decisions D21 and D22, pain 6). By default only a failure that *provably* left the
request unprocessed leads to another try: no connection could be made, the upstream said that it had not begun
(REFUSED_STREAM, a GOAWAY that leaves it out), or a kept connection was dead before a byte was written. Nobody is paid
twice by that. A kept connection that died after bytes were written is tried again for idempotent requests and those
with an `Idempotency-Key`. Statuses are tried again only where the operator lists them, and for those requests only.

Whatever would otherwise be tried again is not, for these reasons, asked in this order, each with a name for the log:

    kind          the failure is none of those above
    elsewhere     a sidecar nearer to the failure has tried already and says so: only the nearest hop does
    pushed_back   the server asks us not to come again, or to come later than we would wait
    tries         it has been sent three times in all
    replay        its body is no longer here
    deadline      the answer would come too late
    ceiling       as many retries as may be are under way, or wait (`sidecar.traffic.ceilings`)
    budget        too many retries lately (`sidecar.traffic.budget`)

The budget is asked last, so that nothing is taken from it in vain.

A wait is `dice` times 25, 75, 175, 250 ms (full jitter below (2**n - 1) * 25 ms, at most 250; S13). Where the server
named a time, that is the least, and up to half of it on top (S13), so that all whom it sent away do not come back at
once. A time of more than 5 s is never waited for here: the answer is passed on, and its Retry-After with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sidecar.errors import HopError, Retry, TryTimeout, UpstreamClosed

if TYPE_CHECKING:
    from sidecar.traffic.budget import Budget

TRIES: Final = 3  # of a request in all: two re-sends
BASE: Final = 0.025  # seconds
LONGEST: Final = 0.250  # seconds
HINT_JITTER: Final = 0.5  # of what the server asks for, on top of it
LONGEST_HINT: Final = 5.0  # seconds that a request is held here because its upstream asks for it
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # S12; TRACE is refused anyway
REPLAY_BYTES: Final = 64 * 1024  # of a request body that are kept to be sent again (S12: Linkerd)

Why = Literal["kind", "elsewhere", "pushed_back", "tries", "replay", "deadline", "ceiling", "budget"]


class Kind(IntEnum):
    """What kind of failure it is."""

    UNPROCESSED = 0  # provably
    STALE = 1  # a kept connection died under it; bytes had been written
    STATUS = 2  # an HTTP or gRPC status that the operator lists
    FINAL = 3  # anything else
    LATE = 4  # its own time (timeouts.per_try) was over; the upstream may be at work on it


class Again(NamedTuple):
    """Send it again, after so many seconds."""

    wait: float


class Enough(NamedTuple):
    """Leave it at that."""

    why: Why

    @property
    def settled(self) -> bool:
        """Whether it was ours to try again and we have had our chance, so that nobody before us should: the answer is
        marked as retried. A retry that the budget has refused must count as well, or each hop would add its own fifth
        to what the one behind it had already refused (1.2 * 1.2 * 1.2 = 1.73 over three hops).
        """
        return self.why not in ("kind", "replay")


def kind_of(error: HopError, *, wrote: bool) -> Kind:
    """The kind of an attempt that brought no answer. `wrote`: a byte of it may have reached the upstream."""
    if error.retry is Retry.YES or (error.retry is Retry.IF_UNSENT and not wrote):
        return Kind.UNPROCESSED
    if isinstance(error, TryTimeout):
        return Kind.LATE if wrote else Kind.UNPROCESSED
    if isinstance(error, UpstreamClosed) and error.reused:
        return Kind.STALE
    return Kind.FINAL


@dataclass(frozen=True, slots=True)
class RetryRules:
    """What an operator can say."""

    tries: int = TRIES
    base: float = BASE  # seconds
    longest: float = LONGEST  # seconds
    statuses: frozenset[int] = frozenset()  # HTTP
    grpc: frozenset[int] = frozenset()  # gRPC, where the answer is nothing else (trailers-only)

    def kind_of_status(self, status: int) -> Kind:
        """The kind of an HTTP answer."""
        return Kind.STATUS if status in self.statuses else Kind.FINAL

    def kind_of_grpc(self, status: int) -> Kind:
        """The kind of a gRPC answer that is a status and nothing else."""
        return Kind.STATUS if status in self.grpc else Kind.FINAL

    def check(
        self, kind: Kind, tries: int, now: float, dice: float, budget: Budget, *, repeatable: bool, replayable: bool,
        deadline: float, hint: float | None = None, elsewhere: bool = False, least: float = 0.0,
        room: bool = True,
    ) -> Again | Enough:  # fmt: skip
        """Judge a failure; a yes has been paid for.

        `tries` have been made; `repeatable`: its method is idempotent, or it carries an Idempotency-Key; `replayable`:
        all that was sent of it is still here, or nothing was; `deadline` is monotonic; `hint` seconds are what the
        server asked for; `elsewhere`: the answer says that retries were spent on it; `least` is how long an answer
        takes at the very least, seconds; `room`: not as many are under way as may be.
        """
        if kind == Kind.FINAL or (kind != Kind.UNPROCESSED and not repeatable):
            return _KIND
        if elsewhere:
            return _ELSEWHERE
        if hint is not None and hint > LONGEST_HINT:
            return _PUSHED_BACK
        if tries >= self.tries:
            return _TRIES
        if not replayable:
            return _REPLAY
        wait = self.wait(tries, dice, hint)
        if now + wait + least >= deadline:
            return _DEADLINE
        if not room:
            return _CEILING
        return Again(wait) if budget.take(now) else _BUDGET

    def wait(self, tries: int, dice: float, hint: float | None = None) -> float:
        """Seconds before the next try, after so many."""
        if hint is not None and hint > 0.0:
            return hint * (1.0 + HINT_JITTER * dice)
        return dice * min(self.longest, self.base * (2.0 ** min(tries, 16) - 1.0))


_KIND: Final = Enough("kind")
_ELSEWHERE: Final = Enough("elsewhere")
_PUSHED_BACK: Final = Enough("pushed_back")
_TRIES: Final = Enough("tries")
_REPLAY: Final = Enough("replay")
_DEADLINE: Final = Enough("deadline")
_CEILING: Final = Enough("ceiling")
_BUDGET: Final = Enough("budget")
