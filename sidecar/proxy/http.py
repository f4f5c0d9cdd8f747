"""Drives one downstream HTTP/1 connection: a head, a verdict, an exchange, and again.

Whatever happens to a request ends in exactly one place, `_finish`: the hop is recorded once, and the caller has its
answer or a connection that plainly broke.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import (
    DownstreamGone,
    Draining,
    HopError,
    IdentityRefused,
    InternalError,
    ProtocolViolation,
    RequestTimeout,
)
from sidecar.http.h1 import H1Server
from sidecar.http.h2.codes import PREFACE
from sidecar.http.message import CLOSED, NEED_DATA, Data, End, RequestHead
from sidecar.net.port import Cancelled, Expired, WireBroken
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.express import Express, Way
from sidecar.proxy.flow import close_in_stages
from sidecar.proxy.pace import Pace
from sidecar.proxy.respond import refusal, status_of
from sidecar.proxy.side import DRAIN_GRACE, with_head

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.net.port import Port, Task, Wire
    from sidecar.proxy.express import Handover
    from sidecar.proxy.flow import Flow
    from sidecar.proxy.http2 import Http2Connection
    from sidecar.proxy.side import Caller, Door, HttpSide, Plan

DRAIN_BYTES = 64 * 1024  # of a refused request's body, to keep the connection: a refusal must not cost a handshake
DRAIN_SECONDS = 1.0
STREAM_SECONDS = 30.0  # of a request: from then on it counts as a connection (decision D25)


class HttpConnection:
    """One downstream connection and the exchanges on it."""

    def __init__(self, port: Port, wire: Wire, side: HttpSide, caller: Caller, early: bytes = b"") -> None:
        self._port = port
        self._wire = wire
        self.side = side
        self._door = side.door
        self._caller = caller
        self.codec = H1Server(side.limits.head_bytes, side.limits.head_lines)
        self._task: Task | None = None
        self.direction = side.direction
        self.idle = True  # between requests
        self.exchange: Flow | None = None  # under way
        self._connected = False  # a CONNECT has taken the connection over
        self._pace: Pace | None = None
        if early:
            self.codec.receive(early)

    async def serve(self) -> Http2Connection | None:
        """Serve requests until either side has had enough; where it begins as HTTP/2 does, return who serves that."""
        self._task = self._port.current
        express = Express(self, self._port, self._wire, self._caller)
        heir = None
        try:
            first = True
            while True:
                if self.codec.idle and await express.run(first) is Way.END:
                    return None
                if first and self._caller.peer is None:  # over mTLS it is for ALPN to say
                    heir = await self._heir()
                    if heir is not None:
                        return heir
                handover, express.handover = express.handover, None
                drawn, express.drawn = express.drawn, None
                if not await self._serve_one(first, handover, drawn):
                    return None
                first = False
        finally:
            if heir is None:
                self._wire.close()

    async def _heir(self) -> Http2Connection | None:
        """Prior knowledge (RFC 9113 section 3.3): a preface instead of a request."""
        from sidecar.proxy.http2 import Http2Connection

        port, codec = self._port, self.codec
        port.deadline(port.now + self._door.side.timeouts.request_head)
        try:
            while PREFACE.startswith(early := codec.beginning[: len(PREFACE)]):
                if early == PREFACE:
                    self.idle = False
                    return Http2Connection(port, self._wire, self._door.side, self._caller, codec.beginning)
                data = await self._wire.read()
                codec.receive(data)
                if not data:
                    break
        except (Expired, WireBroken):
            pass
        return None

    def drain(self) -> None:
        """Come to an end: the next answer, or the one in flight, will say `Connection: close`.

        An idle connection has a moment left: a peer may be writing to it just now.
        """
        if self.idle and self.codec.idle and self._task is not None:
            self._task.deadline = min(self._task.deadline, self._port.now + DRAIN_GRACE)

    def end(self) -> None:
        """End now, whatever is under way."""
        if self._task is not None:
            self._task.cancel()

    def evict(self, error: HopError) -> None:
        """Let what is under way end with this error, unanswered; whoever calls cuts the wire, which ends the rest."""
        if self._task is not None and not self.idle:
            self._task.throw(error)

    @property
    def caller(self) -> Caller:
        """Who is at the other end."""
        return self._caller

    @property
    def door(self) -> Door:
        """The listener that it came in by."""
        return self._door

    # ---- what a look from outside finds (decision D25) -----------------------------------------------------------

    def is_in_flight(self, now: float) -> bool:
        """Whether a request is under way that counts as one: not a tunnel, and not older than 30 s."""
        exchange = self.exchange
        if exchange is None:  # one that is being refused, or answered to its end
            return not self.idle and not self._connected
        return not exchange.switched and now - exchange.began <= STREAM_SECONDS

    def is_old(self, now: float) -> bool:
        """Whether a request is under way that has become a stream."""
        exchange = self.exchange
        return exchange is not None and not exchange.switched and now - exchange.began > STREAM_SECONDS

    def look(self, now: float) -> None:
        """End the request under way where its caller, a peer, is too slow (sidecar.proxy.pace)."""
        exchange = self.exchange
        if exchange is None or exchange.switched:
            return
        if now - exchange.began > STREAM_SECONDS:
            exchange.become_stream()
        if self.direction == "outbound":
            return
        pace = self._pace
        if pace is None or pace.exchange is not exchange:
            self._pace = Pace(exchange, self._wire, now)
            return
        slow = pace.look(self._wire, now, self.side.limits, self.side.timeouts)
        if slow is not None and self._task is not None:
            self._task.throw(slow)

    # ---- one request -----------------------------------------------------------------------------------------------

    async def _serve_one(self, first: bool, handover: Handover | None, drawn: object) -> bool:
        self.idle = True
        port = self._port
        try:
            head = await self._read_head(first)
            side = self.side = self._door.side  # as of now, and to the end of this request
        except HopError as error:
            side = self.side = self._door.side
            self.idle = False
            await self.refuse(side.open_hop(self._caller, None, port.now), error, None)
            return False
        except WireBroken:
            return False
        if head is None:
            return False
        self.idle = False
        if handover is not None:
            side, hop = handover.side, with_head(handover.hop, head)
        else:
            hop = side.open_hop(self._caller, head, port.now)
        hop.drawn = drawn
        exchange: Exchange | None = None
        try:
            if handover is None:
                side.check_peer(self._caller, self._wire, port.wall())
                first_of_all = side.before(hop, self._caller, head)
                if first_of_all is not None:
                    await first_of_all(port)
            plan = side.admit(hop, self._caller, head, port.wall())
            if side.tunnels.full and plan.lasts:
                side.tunnels.check_place()
            if not head.body:
                self.codec.next_event()  # its End, which h11 wants to have said
            if plan.connect is None:
                self.exchange = exchange = Exchange(
                    port, side, hop, head, plan, self._wire, self.codec, self._caller
                )
                again = await exchange.run(handover)
                self._record(hop)
        except HopError as error:
            if handover is not None and exchange is None:
                handover.give_up()
            return await self.refuse(hop, error, head, answered=exchange is not None and exchange.answered)
        except Cancelled:
            self.ended(hop, Draining("the sidecar has ended"))
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours ends this connection, not the sidecar
            fault = InternalError(f"{type(error).__name__}: {error}")
            return await self.refuse(hop, fault, head, answered=exchange is not None and exchange.answered)
        if plan.connect is not None:
            return await self._connect(hop, plan)
        if not again or side.draining:
            await close_in_stages(self._port, self._wire)
            return False
        self.codec.next_exchange()
        return True

    async def _read_head(self, first: bool) -> RequestHead | None:
        """The next request head; None where the caller has no more. Raises HopError, WireBroken."""
        port, codec, timeouts = self._port, self.codec, self._door.side.timeouts
        silent = codec.idle
        patience = timeouts.keep_alive if silent and not first else timeouts.request_head
        port.deadline(port.now + (min(patience, DRAIN_GRACE) if silent and self._door.draining else patience))
        try:
            while True:
                event = codec.next_event()
                if isinstance(event, RequestHead):
                    return event
                if event is CLOSED:
                    return None
                if event is not NEED_DATA:
                    raise ProtocolViolation("not a request")
                codec.receive(await self._wire.read())
                if silent and not codec.idle:
                    silent = False
                    port.deadline(port.now + timeouts.request_head)
        except Expired:
            if silent:
                return None  # it never began to ask, so there is nothing to answer
            raise RequestTimeout(
                f"no whole request head within {timeouts.request_head:g} s (timeouts.request_head)"
            ) from None

    async def _connect(self, hop: Hop, plan: Plan) -> bool:
        """CONNECT through the forward proxy: the rest of the connection belongs to that upstream.

        What then crosses is recorded, as the hops of that upstream's protocol; the CONNECT itself only where it fails.
        """
        assert plan.connect is not None
        self._connected = True
        try:
            await self._wire.write(b"HTTP/1.1 200 OK\r\n\r\n")
        except WireBroken:
            return await self.refuse(hop, DownstreamGone(), None)
        await plan.connect(self._port, self._wire, self._caller, hop, self.codec.trailing())
        return False

    # ---- the end of a hop ------------------------------------------------------------------------------------------

    def _record(self, hop: Hop) -> None:
        self.exchange = self._pace = None
        hop.ended = self._port.read_clock()
        self.side.recorder.observe(hop)

    def ended(self, hop: Hop, error: HopError) -> None:
        """Record a hop that ends without an answer."""
        hop.error = error
        hop.decision_id = hop.decision_id or self.side.recorder.decision_id()
        self._record(hop)

    async def refuse(self, hop: Hop, error: HopError, head: RequestHead | None, *, answered: bool = False) -> bool:
        """Answer with an error, or break the connection where an answer has begun; returns whether it may be
        used again.
        """
        hop.error = error
        hop.decision_id = hop.decision_id or self.side.recorder.decision_id()
        status = status_of(error)
        if not answered:
            hop.status = status
        self._record(hop)
        if answered or not status:
            self._wire.abort()
            return False
        try:
            return await self._answer(hop, error, head)
        except (WireBroken, Expired, HopError):
            return False
        except Exception:  # noqa: BLE001 - no answer can be made any more, and the hop has been recorded
            self._wire.abort()
            return False

    async def _answer(self, hop: Hop, error: HopError, head: RequestHead | None) -> bool:
        show_id, show_why = self.side.explain_refusal(hop, error)
        answer = refusal(hop, error, show_id=show_id, show_why=show_why)
        codec = self.codec
        keep = (
            head is not None and not self.side.draining and not isinstance(error, (ProtocolViolation, IdentityRefused))
        )
        # What follows a CONNECT was meant for the tunnel; read as a request, it would be one that nobody made.
        keep = keep and hop.method != "CONNECT" and await self._drain_request(head)
        codec.refuse_next()
        if not keep:
            answer.head.headers.append((b"connection", b"close"))
        data = codec.send_head(answer.head)
        if answer.body:
            data += codec.send_data(answer.body)
        data += codec.send_end()
        self._port.deadline(self._port.now + self.side.timeouts.request_head)
        await self._wire.write(data)
        if keep and codec.reusable:
            codec.next_exchange()
            return True
        await close_in_stages(self._port, self._wire)
        return False

    async def _drain_request(self, head: RequestHead | None) -> bool:
        """Read what is left of a small request body, so that the connection can go on."""
        assert head is not None
        if head.body and (head.expects_continue or head.length is None or head.length > DRAIN_BYTES):
            return False
        codec, port = self.codec, self._port
        port.deadline(port.now + DRAIN_SECONDS)
        try:
            while not codec.they_are_done:
                event = codec.next_event()
                if isinstance(event, End):
                    break
                if event is NEED_DATA:
                    codec.receive(await self._wire.read())
                elif not isinstance(event, Data):
                    return False
        except (Expired, HopError):
            return False
        return True
