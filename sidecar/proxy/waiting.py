"""What ends an exchange from outside, whatever it waits for at that moment: its time is over, or nobody is left to
answer (semantics S23, pain 33).

Theory of operation. The deadline of a request (`sidecar.traffic.deadline`) is a child of its exchange, and a child's
error is raised in its parent, at the parent's await: while it connects, waits for a place in a pool, sends, pauses
before another try, or sends the answer on. So one timer is enough for both versions of HTTP and for gRPC, and a request
without a deadline has none. A try has such a child too, until its response head has come.

While an answer is read the downstream is in view (`Flow._read_answer`). At the other waits nobody reads it, and the
exchange stands as the `watcher` of its wire: `wake` is called when that hangs up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.errors import DownstreamGone
from sidecar.net.port import Expired, park
from sidecar.proxy.flow import HALF_CLOSE_GRACE
from sidecar.proxy.upload import Upload
from sidecar.traffic.deadline import ENDLESS, FIELDS, LEAST, TOTAL, Deadline, told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from sidecar.hop import Headers
    from sidecar.http.message import ResponseHead
    from sidecar.net.port import Port, Task
    from sidecar.proxy.attempts import Attempts
    from sidecar.proxy.express import Handover

EVENTS = b"text/event-stream"


class Waiting(Upload):
    """An exchange that may be over before it has ended."""

    _attempts: Attempts
    _deadline: Deadline = ENDLESS
    _timer: Task | None = None  # of the deadline
    _trial: Task | None = None  # of the try under way
    _watching: Task | None = None  # whom a downstream that hangs up concerns, at this moment

    def run(self, handover: Handover | None = None) -> Coroutine[Any, Any, bool]:
        """Carry it through, or the rest of one whose request has been sent already; returns whether the downstream
        may ask again on this connection. Raises HopError.
        """
        hop, plan, headers = self._hop, self._plan, self._head.headers
        upstream = plan.upstream
        if upstream.total is None and FIELDS.isdisjoint(dict(headers)):
            return self._carry(handover)
        call = self.may_be_quiet
        self._deadline = deadline = upstream.times.of(
            headers, hop.started, loopback=hop.direction == "outbound", verified=hop.peer is not None,
            lasts=call or plan.lasts, call=call,
        )  # fmt: skip
        return self._carry(handover) if deadline is ENDLESS else self._carry_in_time(handover)

    async def _carry(self, handover: Handover | None) -> bool:
        raise AssertionError

    # ---- its time ----------------------------------------------------------------------------------------------------

    async def _carry_in_time(self, handover: Handover | None) -> bool:
        deadline, upstream = self._deadline, self._plan.upstream
        self._attempts.until = deadline.at
        if handover is None and deadline.left(self._port.now) < LEAST:
            raise upstream.times.nothing_left(deadline, upstream.name)
        self._timer = timer = self._port.spawn(end_in_time(self._port, deadline, upstream))
        try:
            return await self._carry(handover)
        finally:
            timer.cancel()

    def _headers_for_upstream(self) -> Headers:
        """The fields of the request at this attempt: what was spent here, on connecting say, is not given twice.

        Raises HopError where nothing is left; then nobody is asked.
        """
        deadline, upstream = self._deadline, self._plan.upstream
        if deadline is ENDLESS:
            return self._plan.headers
        left = deadline.left(self._port.now)
        if left < LEAST:
            raise upstream.times.nothing_left(deadline, upstream.name)
        return told(self._plan.headers, left, call=self.may_be_quiet, meshed=upstream.meshed)

    def _begin_answer(self, head: ResponseHead) -> None:
        """The final head has come. A stream of events is meant to last, whatever the operator says of requests."""
        timer = self._timer
        if timer is not None and self._deadline.by == TOTAL and is_stream(head.headers):
            timer.cancel()

    # ---- the time of a try -------------------------------------------------------------------------------------------

    def _begin_try(self, began: float, more: int) -> None:
        """Limit a try that began then, where another could follow it. `more` is 1 where it is not counted yet."""
        deadline = self._attempts.try_until(self._deadline, began, more)
        if deadline is not self._deadline:
            self._trial = self._port.spawn(self._end_try(deadline))

    async def _end_try(self, deadline: Deadline) -> None:
        port, upstream = self._port, self._plan.upstream
        await _until(port, deadline.at)
        if self._replayable:
            raise upstream.times.late(deadline, upstream.name)

    def _end_of_try(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.cancel()

    # ---- who waits for it --------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have the current task end with DownstreamGone as soon as the downstream leaves, until `_unwatch`."""
        downstream: Any = self._wire  # a wire of the driver, or a stream on one
        self._watching = self._port.current
        downstream.watcher = self
        if downstream.half_closed:
            self.wake()

    async def _attended(self, waiting: Awaitable[None]) -> None:
        """Wait for this, for as long as there is somebody to wait for. Raises DownstreamGone."""
        self._watch()
        try:
            await waiting
        finally:
            self._unwatch()

    def _unwatch(self) -> None:
        downstream: Any = self._wire
        self._watching = downstream.watcher = None

    def wake(self) -> None:
        """The downstream has hung up. Who has only half-closed gets a moment, as everywhere (`Flow._read_answer`)."""
        downstream: Any = self._wire
        task = self._watching
        if task is None:
            return
        if downstream.reset:
            task.throw(DownstreamGone())
        elif not self._half_closed and self._request_ended:
            self._half_closed = True
            self._port.start(self._let_go(task))

    async def _let_go(self, task: Task) -> None:
        await self._port.sleep(HALF_CLOSE_GRACE)
        if self._watching is task:
            task.throw(DownstreamGone())


async def end_in_time(port: Port, deadline: Deadline, upstream: Any) -> None:
    """Raise, in whoever has spawned this, what a request ends with whose deadline has passed."""
    await _until(port, deadline.at)
    raise upstream.times.late(deadline, upstream.name)


async def _until(port: Port, at: float) -> None:
    port.deadline(at)
    try:
        while True:
            await park()
    except Expired:
        return


def is_stream(headers: Headers) -> bool:
    """Whether an answer is a stream of events (text/event-stream)."""
    return any(name == b"content-type" and value[: len(EVENTS)].lower() == EVENTS for name, value in headers)
