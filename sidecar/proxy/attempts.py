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

from sidecar.errors import ConnectFailed, HandshakeFailed, HopError, NoHealthyUpstream, UpstreamClosed, UpstreamRefused
from sidecar.http.grpc import Status
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
    from sidecar.traffic.endpoints import Endpoint

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"))  # RFC 9110 section 9.2.2
LONG: Final = 1.0  # seconds: what took longer and brought nothing is tried again at another endpoint, or not at all
RETRIED: Final = (b"mesh-retried", b"1")  # on a failing answer that had retries spent on it (D21: a hop header)
RENEWALS: Final = 2  # other connections for a request whose connections end under it
WORDS: Final[dict[str, str]] = {  # why there is no further attempt, in a log and in `mesh explain`
    "elsewhere": "not tried again: a sidecar nearer to the failure has tried already",
    "pushed_back": "not tried again: it asks for more time than a request is held here",
    "tries": "not tried again: as often as retries.resends lets it",
    "replay": "not tried again: too much of its body has been passed on",
    "deadline": "not tried again: the answer would come too late",
    "budget": "not tried again: the budget for retries is spent (retries.budget)",
}


class Attempts:
    """What was tried for one request."""

    __slots__ = (
        "_began", "_excluded", "_head", "_hop", "_place", "_port", "_renewals", "_upstream", "max_idle", "until",
    )  # fmt: skip

    def __init__(self, port: Port, hop: Hop, head: RequestHead, upstream: Upstream) -> None:
        self._port = port
        self._hop = hop
        self._head = head
        self._upstream = upstream
        self._place: Place | None = None  # of the attempt under way
        self._began = 0.0
        self._excluded: list[Endpoint] = []  # where it has failed
        self._renewals = 0
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
        self._place = place = self._upstream.begin(now, self._excluded)
        return place

    def adopt(self, place: Place, began: float) -> None:
        """An attempt that the express has begun."""
        self._place, self._began = place, began

    def end(self, outcome: Outcome, hint: float | None = None) -> None:
        """The attempt under way has ended, if there is one."""
        place, self._place = self._place, None
        if place is not None:
            self._upstream.end(place, outcome, self._began, self._hop.first_byte or self._port.now, hint)

    def answered(self, response: ResponseHead) -> None:
        """The attempt has brought the answer that was sent on, whole."""
        by_mesh = self._upstream.meshed and bool(self._hop.decision_id)
        if by_mesh and self._heard(response) is not None:
            self.end(Outcome.LOCAL)
            return
        if self._hop.grpc_status:
            self.end(of_grpc(Status.__members__.get(self._hop.grpc_status, Status.UNKNOWN), by_mesh=by_mesh))
            return
        outcome = of_status(response.status, by_mesh=by_mesh)
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
        self.end(of_error(error))
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
            return None  # who speaks no TLS, or another one, does not a moment later
        if not self._upstream.guarded and not isinstance(error, UpstreamRefused):
            return None
        if self._port.now - self._began > LONG and len(self._upstream.places) == 1:
            return None
        return self._judge(kind_of(error, wrote=wrote), place, replayable=replayable)

    def after_answer(self, response: ResponseHead, *, replayable: bool) -> float | None:
        """The same, after an answer that the operator wants to be tried again by its status, or that a peer's sidecar
        gave because it could not reach its application; that goes to another endpoint, where there is one.
        """
        if not self._upstream.guarded:
            return None
        said = self._heard(response)
        kind = self._upstream.destination.rules.retries.kind_of_status(response.status)
        if kind == Kind.FINAL and said != UNSENT:
            return None
        place, hint, tried = self._place, self._hint(response), self._tried_elsewhere(response)
        away = said == UNSENT and replayable and not tried and place is not None and self._goes_elsewhere(place)
        if not away and kind == Kind.FINAL:
            return None
        self._note(f"answered {response.status}", "status" if said is None else "application_failed")
        wait: float | None = 0.0
        if not away:
            wait = self._judge(kind, place, replayable=replayable, hint=hint, elsewhere=tried)
        if wait is not None:
            self.end(of_status(response.status) if said is None else Outcome.LOCAL, hint)
        return wait

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
        tries = self._hop.attempts - self._renewals
        decision = destination.rules.retries.check(
            kind, tries, self._port.now, self._upstream.dice(), destination.budget, repeatable=self.resendable,
            replayable=replayable, deadline=self.until, hint=hint, elsewhere=elsewhere,
        )  # fmt: skip
        if not isinstance(decision, Again):
            if decision.why != "kind":
                self._upstream.on_retry(self._upstream.name, decision.why)
                self._hop.tried += (WORDS[decision.why],)
            if decision.settled:
                self._mark()
            return None
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
        self._hop.tried += (f"{where}{redact.text(what.removeprefix(where))} ({name}, {took:.0f} ms)",)

    def _tried_elsewhere(self, response: ResponseHead) -> bool:
        """Whether a sidecar nearer to the failure says that it has spent retries on it."""
        return self._upstream.meshed and RETRIED in response.headers

    def _hint(self, response: ResponseHead) -> float | None:
        asked = push_back(response.headers)
        return asked if asked is not None else retry_after(response.headers, self._port.wall())
