"""The attempts of one request: where each of them goes, what has come of it, and whether there is another.

Two kinds of second attempts are told apart. Connections end, as connections do: a pooled one was dead without our
knowing (decision D22), or an upstream leaves with GOAWAY before it has begun. And an endpoint that cannot be connected
to has had nothing of the request. Then it is asked again at once, on another connection or at another endpoint, twice
at most, and no budget is charged: nobody does more work for it. Everything else is a *retry*: judged by the rules of
the destination (`sidecar.traffic.retry`), paid from its budget, after a wait, and at another endpoint where there is
one.

The application behind us is asked by its own sidecar alone, and nobody stands between them: what fails there is told to
the caller, whose sidecar knows other endpoints, and is not tried again here: `sidecar.proxy.behind` has the words. An
application that its sidecar could not connect to is, for us, an endpoint that cannot be connected to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.errors import (
    ConnectFailed,
    HandshakeFailed,
    HopError,
    NoHealthyUpstream,
    TryTimeout,
    UpstreamClosed,
    UpstreamRefused,
)
from sidecar.http.grpc import STATUS_FIELD, Status, is_grpc
from sidecar.http.headers import first
from sidecar.http.trace import trace_of
from sidecar.net.pool import FRESH
from sidecar.net.port import NEVER
from sidecar.proxy.behind import UNSENT, heard_in
from sidecar.telemetry import redact
from sidecar.traffic.hints import push_back, retry_after
from sidecar.traffic.outcome import Outcome, of_error, of_grpc, of_status
from sidecar.traffic.retry import Again, Kind, kind_of

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.http.message import RequestHead, ResponseHead
    from sidecar.net.port import Port
    from sidecar.proxy.places import Place
    from sidecar.proxy.upstream import Upstream
    from sidecar.traffic.deadline import Deadline
    from sidecar.traffic.endpoints import Endpoint
    from sidecar.traffic.retry import RetryRules

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"))  # RFC 9110 section 9.2.2
LONG: Final = 1.0  # seconds: what took longer and brought nothing is tried again at another endpoint, or not at all
RETRIED: Final = (b"mesh-retried", b"1")  # on a failing answer that had retries spent on it (D21: a hop header)
BAD: Final = (Outcome.FAILED, Outcome.GATEWAY)
RENEWALS: Final = 2  # other connections for a request whose connections end under it
WORDS: Final[dict[str, str]] = {  # why there is no further attempt, in a log and in `mesh explain`
    "elsewhere": "not tried again: a sidecar nearer to the failure has tried already",
    "pushed_back": "not tried again: it asks for more time than a request is held here",
    "tries": "not tried again: as often as retries.resends lets it",
    "replay": "not tried again: too much of its body has been passed on",
    "deadline": "not tried again: the answer would come too late",
    "ceiling": "not tried again: as many retries as may be are under way (limits.retries)",
    "budget": "not tried again: the budget for retries is spent (retries.budget)",
}


class Attempts:
    """What was tried for one request."""

    __slots__ = (
        "_began", "_excluded", "_head", "_hop", "_key", "_place", "_port", "_renewals", "_retrying", "_rules",
        "_upstream", "max_idle",
        "until",
    )  # fmt: skip

    def __init__(
        self, port: Port, hop: Hop, head: RequestHead, upstream: Upstream, rules: RetryRules | None = None
    ) -> None:
        self._port = port
        self._hop = hop
        self._head = head
        self._upstream = upstream
        self._rules = rules or upstream.destination.rules.retries  # those of its route, or of the upstream
        self._place: Place | None = None  # of the attempt under way
        self._began = 0.0
        key_of = upstream.key_of
        self._key = b"" if key_of is None else key_of(head.headers)  # what it sticks to an endpoint by
        self._excluded: list[Endpoint] = []  # where it has failed
        self._renewals = 0
        self._retrying = False  # it is one of those that limits.retries counts
        self.max_idle = NEVER  # seconds that the next connection may have been idle
        self.until = NEVER  # monotonic: when nobody waits for an answer any more

    @property
    def resendable(self) -> bool:
        """Whether the request may be sent again although an upstream may have seen it."""
        return self._head.method in IDEMPOTENT or first(self._head.headers, b"idempotency-key") is not None

    def begin(self) -> Place:
        """Where the next attempt goes. Raises NoHealthyUpstream."""
        self._began = now = self._port.now
        self._hop.attempts += 1
        self._place = place = self._upstream.begin(now, self._excluded, self._key)
        return place

    def adopt(self, place: Place, began: float) -> None:
        """An attempt that the express has begun."""
        self._place, self._began = place, began

    def try_until(self, whole: Deadline, began: float, more: int) -> Deadline:
        """Until when a try may take that began then: the whole request's time where no other can follow it. `more` is 1
        where it is not counted yet.
        """
        upstream = self._upstream
        tries = self._hop.attempts - self._renewals + more
        last = tries >= self._rules.tries or not upstream.guarded or not self.resendable
        return upstream.times.of_try(whole, began, last=last)

    def end(self, outcome: Outcome, hint: float | None = None) -> None:
        """The attempt under way has ended, if there is one, and no other follows it."""
        if self._retrying:
            self._leave()
        self._end(outcome, hint)

    def _leave(self) -> None:
        self._retrying = False
        self._upstream.destination.ceilings.retries.leave()

    def _end(self, outcome: Outcome, hint: float | None = None) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._upstream.end(place, outcome, self._began, self._hop.first_byte or self._port.now, hint)

    def answered(self, response: ResponseHead) -> None:
        """The attempt has brought the answer that was sent on, whole. Where a sidecar nearer to the failure has had its
        chance, it is that one's to leave the failing endpoint alone, and says nothing of the one that we asked: else a
        dead leaf would open the breakers of all hops before it, each of which would then wait for its own.
        """
        by_mesh = self._upstream.meshed and (bool(self._hop.decision_id) or self._tried_elsewhere(response))
        if by_mesh and self._heard(response) is not None:
            self.end(Outcome.LOCAL)
            return
        if self._hop.grpc_status:
            status = Status.__members__.get(self._hop.grpc_status, Status.UNKNOWN)
            self.end(of_grpc(status, by_mesh=by_mesh, late=self._port.now >= self.until))
            return
        outcome = of_status(response.status, by_mesh=by_mesh)
        if outcome in BAD and self._place is not None:
            self._place.endpoint.why = f"answered {response.status}"
        self.end(outcome, self._hint(response) if outcome == Outcome.LIMITED else None)

    def failed(self, error: BaseException) -> None:
        """The attempt has ended with this, and there is no other."""
        self.end(of_error(error) if isinstance(error, HopError) else Outcome.NEUTRAL)

    # ---- another one -----------------------------------------------------------------------------------------------

    def after(self, error: HopError, *, stale: bool, wrote: bool, replayable: bool) -> float | None:
        """Seconds before the next attempt after one that brought no answer; None where there is none.

        `stale`: its connection may have been dead when it was taken; `wrote`: the upstream may have seen a byte of it;
        `replayable`: all that was sent of its body is still here.
        """
        place = self._place
        if stale and isinstance(error, UpstreamClosed):
            error.reused = True
        self._note(error.detail, error.name)
        self._end(of_error(error))
        if isinstance(error, ConnectFailed) and place is not None and self._goes_elsewhere(place):
            return 0.0
        leaves = isinstance(error, UpstreamRefused) and error.code is None
        if stale or leaves:
            if self._renewals >= RENEWALS or not replayable or not (leaves or not wrote or self.resendable):
                return None
            self._renewals += 1
            self._upstream.on_retry(self._upstream.name, "renewed")
            if stale:
                self.max_idle = FRESH
            return 0.0
        if isinstance(error, NoHealthyUpstream | HandshakeFailed):
            self._mark()  # nor is it better for whoever asks us again
            return None  # who speaks no TLS, or another one, does not a moment later
        if not self._upstream.guarded and not isinstance(error, UpstreamRefused):
            return None
        slow = self._port.now - self._began > LONG and not isinstance(error, TryTimeout)
        if slow and len(self._upstream.places) == 1:
            return None
        return self._judge(kind_of(error, wrote=wrote), place, replayable=replayable)

    def after_answer(self, response: ResponseHead, *, replayable: bool) -> float | None:
        """The same, after an answer that the operator wants to be tried again by its status (that of HTTP or, where the
        answer is nothing else, of gRPC), or that a peer's sidecar gave because it could not reach its application; that
        goes to another endpoint, where there is one.
        """
        if not self._upstream.guarded:
            return None
        rules, said = self._rules, self._heard(response)
        what, outcome = f"answered {response.status}", of_status(response.status)
        kind = rules.kind_of_status(response.status)
        status = _grpc_status(response) if rules.grpc and kind != Kind.STATUS else None
        if status is not None:
            what, outcome, kind = f"answered {status.name}", of_grpc(status), rules.kind_of_grpc(status)
        if kind != Kind.STATUS and said != UNSENT:
            return None
        place, hint, tried = self._place, self._hint(response), self._tried_elsewhere(response)
        away = said == UNSENT and replayable and not tried and place is not None and self._goes_elsewhere(place)
        if not away and kind != Kind.STATUS:
            return None
        self._note(what, "status" if said is None else "application_failed")
        wait: float | None = 0.0
        if not away:
            wait = self._judge(kind, place, replayable=replayable, hint=hint, elsewhere=tried)
        if wait is not None:
            self._end(outcome if said is None else Outcome.LOCAL, hint)
        return wait

    def once_more(self, response: ResponseHead) -> None:
        """The same request goes there again, with another token: nobody's failure, and no retry."""
        self._renewals += 1
        self._note(f"answered {response.status}", "token_renewed")
        self._end(Outcome.NEUTRAL)

    def _heard(self, response: ResponseHead) -> bytes | None:
        """What a peer's sidecar says of the application behind it."""
        return heard_in(response.headers) if self._upstream.meshed else None

    def _goes_elsewhere(self, place: Place) -> bool:
        """Whether a request that could not even be sent there goes to another endpoint."""
        if self._renewals >= RENEWALS or len(self._upstream.places) <= len(self._excluded) + 1:
            return False
        self._renewals += 1
        self._excluded.append(place.endpoint)
        self._upstream.on_retry(self._upstream.name, "renewed")
        return True

    def _judge(
        self, kind: Kind, place: Place | None, *, replayable: bool, hint: float | None = None, elsewhere: bool = False
    ) -> float | None:
        destination = self._upstream.destination
        ceiling = destination.ceilings.retries
        if self._retrying:  # the last one is over, and the next one is judged like any other
            self._leave()
        tries = self._hop.attempts - self._renewals
        decision = self._rules.check(
            kind, tries, self._port.now, self._upstream.dice(), destination.budget, repeatable=self.resendable,
            replayable=replayable, deadline=self.until, hint=hint, elsewhere=elsewhere,
            room=ceiling.count < ceiling.most,
        )  # fmt: skip
        if not isinstance(decision, Again):
            if decision.why != "kind":
                self._upstream.on_retry(self._upstream.name, decision.why)
                self._hop.tried += (WORDS[decision.why],)
                self._hop.exhausted = decision.why == "tries" and tries > 1
            if decision.settled:
                self._mark()
            return None
        ceiling.enter()
        self._retrying = True
        self._upstream.on_retry(self._upstream.name, "sent")
        self._mark()
        if place is not None:
            self._excluded.append(place.endpoint)
        return decision.wait

    def _mark(self) -> None:
        """It was ours to try again: nobody farther from the failure should."""
        if self._upstream.guarded:
            self._upstream.marks.settled(trace_of(self._head.headers), self._port.now)

    def _note(self, what: str, name: str) -> None:
        where = f"{self._place.endpoint.name}: " if self._place is not None else ""
        took = (self._port.now - self._began) * 1e3
        what = redact.text(what.removeprefix(where))
        if self._place is not None:
            self._place.endpoint.why = what
        self._hop.tried += (f"{where}{what} ({name}, {took:.0f} ms)",)

    def _tried_elsewhere(self, response: ResponseHead) -> bool:
        """Whether a sidecar nearer to the failure says that it has spent retries on it."""
        return self._upstream.meshed and RETRIED in response.headers

    def _hint(self, response: ResponseHead) -> float | None:
        asked = push_back(response.headers)
        return asked if asked is not None else retry_after(response.headers, self._port.wall())


def _grpc_status(response: ResponseHead) -> Status | None:
    """The status of a call that has no other answer (trailers-only)."""
    value = first(response.headers, STATUS_FIELD)
    if value is None or not value.isdigit() or len(value) > 2 or not is_grpc(response.headers):
        return None
    return Status(int(value)) if int(value) in Status._value2member_map_ else None
