"""Drives one downstream HTTP/2 connection: each stream is a request with a task, a verdict and an exchange of its own.

What holds for a connection holds for each request: who calls is judged again at every one, and whatever happens to it
ends in exactly one place, `_record`. A connection that has lost its right (certificate, roots, posture) serves what it
has begun and takes no more. One that breaks the rules of HTTP/2, or floods us within them, fails as a whole: its
streams are recorded with that error, and where it had none, the failure is a hop of its own.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sidecar.errors import (
    AbusivePeer,
    DownstreamGone,
    DownstreamIdle,
    Draining,
    Fault,
    HopError,
    IdentityRefused,
    InternalError,
    ProtocolViolation,
)
from sidecar.http import grpc
from sidecar.http.h2 import Abuse, Code, Dismissed, Failed, H2Server, Opened
from sidecar.http.message import Data, RequestHead, ResponseHead
from sidecar.net.port import NEVER, Cancelled, Expired, WireBroken
from sidecar.proxy.call import Call
from sidecar.proxy.carrier import Carrier
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.flow import close_in_stages
from sidecar.proxy.http import DRAIN_BYTES, STREAM_SECONDS
from sidecar.proxy.pace import Pace
from sidecar.proxy.respond import refusal, status_of
from sidecar.proxy.rooms import narrow
from sidecar.proxy.side import DRAIN_GRACE
from sidecar.proxy.streams import ServedStream
from sidecar.proxy.trunks import h2_limits

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.http.h2 import H2Event, H2Stream
    from sidecar.net.port import Port, Task, Wire
    from sidecar.proxy.side import Caller, Door, HttpSide, Plan


class _Over(Exception):
    """The last byte has been sent."""


class _Serving:
    """A request under way."""

    __slots__ = ("connected", "exchange", "pace", "recorded", "task")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.exchange: Exchange | None = None
        self.pace: Pace | None = None
        self.connected = False  # a CONNECT has become a tunnel
        self.recorded = False


class Http2Connection:
    """One downstream connection and the requests on it."""

    idle = False  # somebody must look at its times, whatever goes on

    def __init__(self, port: Port, wire: Wire, side: HttpSide, caller: Caller, early: bytes = b"") -> None:
        self._port = port
        self._wire = wire
        self._door = side.door
        self._caller = caller
        self._early = early
        self.direction = side.direction
        limits = h2_limits(side.limits, side.timeouts)
        self._who = caller.peer.id.text if caller.peer is not None else ""  # those without identity share one's room
        self._wide = side.door.rooms.enter(self._who, port.now)
        self.codec = H2Server(limits if self._wide else narrow(limits), port.now)
        self._carrier = Carrier(port, wire, self.codec, idle=side.timeouts.idle, on_event=self._on_event)
        self._serving: dict[H2Stream, _Serving] = {}
        self._task: Task | None = None
        self._reading = False
        self._written = False  # all that we had to say has been sent
        self._leave_by = NEVER  # when no stream is taken any more

    @property
    def door(self) -> Door:
        """The listener that it came in by."""
        return self._door

    async def serve(self) -> None:
        """Serve requests until either side has had enough."""
        port = self._port
        self._task = port.current
        try:
            port.spawn(self._write())
            if self._early:
                self._carrier.take(self._early)
                self._early = b""
            if self._door.draining:
                self.drain()
            await self._read_on()
            await self._let_end()
            if self._written:
                await close_in_stages(port, self._wire)
        finally:
            self._wire.close()
            if self._wide:
                self._door.rooms.leave(self._who)

    async def _read_on(self) -> None:
        """Until the other side has gone, or we have said all that we had to say."""
        task, carrier = self._task, self._carrier
        assert task is not None
        self._reading = True
        try:
            while not self._written:
                task.deadline = self._patience()
                try:
                    if not await carrier.read():
                        return
                except Expired:
                    self._lose_patience()
        except _Over:
            pass
        except WireBroken:
            carrier.take(b"")
        finally:
            self._reading = False

    async def _let_end(self) -> None:
        """Requests whose caller has gone find that out by themselves."""
        port = self._port
        port.deadline(NEVER)
        while self._serving:
            with suppress(_Over, WireBroken):  # of the writer; what could not be sent is nobody's loss any more
                await port.wait(*[serving.task for serving in self._serving.values()])

    async def _write(self) -> None:
        await self._carrier.write()
        self._written = True
        assert self._task is not None
        self._task.throw(_Over())

    def _patience(self) -> float:
        if self._serving:
            return self._leave_by
        return min(self._leave_by, self._port.now + self._door.side.timeouts.keep_alive)

    def _lose_patience(self) -> None:
        """Nobody has asked for too long, or it is time to close."""
        self.codec.begin_shutdown()
        self.codec.finish_shutdown()
        self._leave_by = NEVER
        self._carrier.tell()
        self._carrier.kick()

    def drain(self) -> None:
        """Come to an end: say so, take what is on its way, and close with the last answer."""
        self.codec.begin_shutdown()
        self._leave_by = self._port.now + DRAIN_GRACE
        if self._reading and self._task is not None:
            self._task.deadline = min(self._task.deadline, self._leave_by)
        self._carrier.kick()

    def end(self) -> None:
        """End now, whatever is under way."""
        if self._task is not None:
            self._task.cancel()

    def evict(self, error: HopError) -> None:
        """Let each request under way end with this error; whoever calls cuts the wire, which ends the connection."""
        for serving in self._serving.values():
            serving.task.throw(error)

    @property
    def caller(self) -> Caller:
        """Who is at the other end."""
        return self._caller

    # ---- what a look from outside finds (decision D25) -----------------------------------------------------------

    def is_in_flight(self, now: float) -> int:
        """How many requests are under way that count as such: no tunnels, and none older than 30 s."""
        return sum(
            serving.exchange is None
            or (not serving.exchange.switched and now - serving.exchange.began <= STREAM_SECONDS)
            for serving in self._serving.values()
            if not serving.connected
        )

    def is_old(self, now: float) -> int:
        """How many requests under way have become streams of their own."""
        return sum(
            serving.exchange is not None
            and not serving.exchange.switched
            and now - serving.exchange.began > STREAM_SECONDS
            for serving in self._serving.values()
        )

    def look(self, now: float) -> None:
        """End what waits too long for the other side, and requests whose caller, a peer, is too slow."""
        self.codec.check_time(now)
        for serving in self._serving.values():
            if serving.exchange is not None and now - serving.exchange.began > STREAM_SECONDS:
                serving.exchange.become_stream()
        if self.direction == "inbound":
            for stream, serving in list(self._serving.items()):
                self._look_at(stream.tag, serving, now)
        self._carrier.tell()
        self._carrier.kick()

    def _look_at(self, end: ServedStream | None, serving: _Serving, now: float) -> None:
        exchange = serving.exchange
        if exchange is None or end is None or exchange.switched:
            return
        if serving.pace is None:
            serving.pace = Pace(exchange, end, now)
            return
        side = self._door.side
        slow = serving.pace.look(end, now, side.limits, side.timeouts)
        if slow is not None:
            serving.task.throw(slow)

    # ---- events ------------------------------------------------------------------------------------------------------

    def _on_event(self, event: H2Event) -> None:
        if isinstance(event, Opened):
            end = ServedStream(self._carrier, event.stream)
            task = self._port.spawn(self._serve_stream(event.stream, end))
            self._serving[event.stream] = _Serving(task)
        elif isinstance(event, Failed):
            self._fail(event.error)
        elif isinstance(event, Dismissed):
            self._count_failure(event.error)
            if self.direction == "inbound":  # a channel of our own application would stay narrow for its whole life
                self._door.rooms.confine(self._who, self._port.now)

    def _fail(self, error: HopError) -> None:
        """Count what ended the connection, and record it where no request is about to be recorded with it."""
        side = self._door.side
        self._count_failure(error)
        if any(stream.error is error and not serving.recorded for stream, serving in self._serving.items()):
            return
        self._ended(side, self._headless(side, None), error)

    def _count_failure(self, error: HopError) -> None:
        side = self._door.side
        reason = error.reason if isinstance(error, AbusivePeer) else "protocol"
        side.recorder.metrics.counter("mesh_protocol_failures_total").add((self.direction, side.name, reason))

    # ---- one request -------------------------------------------------------------------------------------------------

    async def _serve_stream(self, stream: H2Stream, end: ServedStream) -> None:
        try:
            await self._serve_one(stream, end)
        finally:
            end.close()
            self._serving.pop(stream, None)
            if not self._serving and self._reading and self._task is not None:
                self._task.deadline = self._patience()

    async def _serve_one(self, stream: H2Stream, end: ServedStream) -> None:
        port, caller, serving = self._port, self._caller, self._serving[stream]
        side = self._door.side  # as of now, and to the end of this request
        head: RequestHead | None = None
        hop = None
        try:
            event = end.next_event()
            if not isinstance(event, RequestHead):
                raise ProtocolViolation("not a request")
            head = event
            hop = side.open_hop(caller, head, port.now)
            side.check_peer(caller, self._wire, port.wall())
            first_of_all = side.before(hop, caller, head)
            if first_of_all is not None:
                await first_of_all(port)
            plan = side.admit(hop, caller, head, port.wall())
            if side.tunnels.full and plan.lasts:
                side.tunnels.check_place()
            if plan.connect is not None:
                await self._connect(serving, plan, hop, end)
                return
            if grpc.is_grpc(head.headers):
                serving.exchange = Call(port, side, hop, head, plan, end, caller)
            else:
                serving.exchange = Exchange(port, side, hop, head, plan, end, end, caller)
            await serving.exchange.run()
            serving.recorded = True
            self._record(side, hop)
        except HopError as error:
            hop = hop or self._headless(side, stream.head)
            await self._refuse(side, hop, self._why(stream, error), head, end)
        except Cancelled:
            if not serving.connected:
                self._ended(side, hop or self._headless(side, head), Draining("the sidecar has ended"))
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours ends this request, not the sidecar
            fault = InternalError(f"{type(error).__name__}: {error}")
            await self._refuse(side, hop or self._headless(side, head), fault, head, end)

    async def _connect(self, serving: _Serving, plan: Plan, hop: Hop, end: ServedStream) -> None:
        """CONNECT: the stream is the tunnel (RFC 9113 section 8.5), and belongs to that upstream from here on.

        What then crosses is recorded, as the hops of that upstream's protocol; the CONNECT itself only where it fails.
        """
        end.send_head(ResponseHead(200, []))
        try:
            await end.write(b"")
        except WireBroken:
            raise DownstreamGone from None
        serving.connected = serving.recorded = True
        assert plan.connect is not None
        await plan.connect(self._port, end.raw(Code.CONNECT_ERROR), self._caller, hop, b"")

    def _headless(self, side: HttpSide, head: RequestHead | None) -> Hop:
        """A hop for what could not be read as a request."""
        hop = side.open_hop(self._caller, head, self._port.now)
        hop.version = "2"
        return hop

    def _why(self, stream: H2Stream, error: HopError) -> HopError:
        """The error that a request ended with. Whoever finds the stream gone asks the stream."""
        if isinstance(error, DownstreamGone) and stream.error is not None:
            error = stream.error
        elif isinstance(error, DownstreamIdle) and stream.blocked_since is not None:
            error = AbusivePeer(f"{error}; it leaves no window for it", reason=Abuse.ZERO_WINDOW.value)
        if isinstance(error, AbusivePeer) and error is not self.codec.error:
            self._count_failure(error)  # of this stream only
        return error

    # ---- the end of a hop ------------------------------------------------------------------------------------------

    def _record(self, side: HttpSide, hop: Hop) -> None:
        hop.ended = self._port.read_clock()
        side.recorder.observe(hop)

    def _ended(self, side: HttpSide, hop: Hop, error: HopError) -> None:
        """Record a hop that ends without an answer."""
        hop.error = error
        if grpc.is_grpc(hop.headers):
            hop.grpc_status = grpc.status_of(error).name
        hop.decision_id = hop.decision_id or side.recorder.decision_id()
        self._record(side, hop)

    async def _refuse(
        self, side: HttpSide, hop: Hop, error: HopError, head: RequestHead | None, end: ServedStream
    ) -> None:
        """Answer with an error, or reset the stream where an answer has begun, or none can be made."""
        serving = self._serving[end.stream]
        exchange, status = serving.exchange, status_of(error)
        answered = serving.connected or (exchange is not None and exchange.answered)
        call = head is not None and grpc.is_grpc(head.headers)
        if not answered:
            hop.status = 200 if call and status else status
        serving.recorded = True
        self._ended(side, hop, error)
        if isinstance(error, IdentityRefused):  # it has lost its right: nothing more is taken from it
            self._lose_patience()
        told = not answered or (isinstance(exchange, Call) and exchange.takes_trailers)
        if told and status and not end.gone and not end.stream.end_queued:
            try:
                await self._answer(side, hop, error, end, call=call, answered=answered)
                return
            except (WireBroken, Expired, HopError):
                pass
            except Exception:  # noqa: BLE001, S110 - no answer can be made any more, and the hop has been recorded
                pass
        tunnel = exchange is not None and exchange.switched  # a reset in it is CANCEL (RFC 8441 section 5)
        end.abort(Code.CANCEL if tunnel or error.fault is Fault.DOWNSTREAM else Code.INTERNAL_ERROR)

    async def _answer(
        self, side: HttpSide, hop: Hop, error: HopError, end: ServedStream, *, call: bool, answered: bool
    ) -> None:
        show_id, show_why = side.explain_refusal(hop, error)
        answer = refusal(hop, error, show_id=show_id, show_why=show_why)
        self._port.deadline(self._port.now + side.timeouts.request_head)
        if call:
            extra = [field for field in answer.head.headers if not field[0].startswith(b"content-")]
            title = answer.head.reason.decode("ascii")
            if answered:
                end.send_end(grpc.last_words(error, title, extra))
            else:
                end.send_head(grpc.refusal(error, title, extra), end=True)
        else:
            end.send_head(answer.head)
            end.send_data(answer.body)
            end.send_end()
        await end.write(b"")
        left = DRAIN_BYTES
        while left > 0 and end.stream.error is None and not end.they_are_done:  # a little more: no need to reset it
            event = end.next_event()
            if not isinstance(event, Data):
                return
            left -= len(event.data)
