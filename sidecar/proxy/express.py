"""The express: a plain request and its answer, without a codec, a task or a copy that is not needed.

Theory of operation. Between its requests a connection waits here. A request that is plain (`sidecar.http.plain`) and
whole, permitted by a ticket of its caller's lane, and for which a pooled connection is at hand, is spliced and sent at
once; its answer, where that is plain too, is spliced and sent on. Nothing is refused here and nothing is repaired.
Whatever is not so goes the general way (`sidecar.proxy.http`, `sidecar.proxy.exchange`) with its bytes, at one of two
points:

- before anything was sent: the connection reads the same bytes again, by h11;
- after the request was sent: a `Handover` says to whom, and what came back. The general way reads the request again,
  comes to the same plan, and goes on from there: with a 1xx, an upgrade, a stale connection, a caller who has left.

So an exchange has one set of rules, and this is a short cut through the middle of it.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from sidecar.errors import DownstreamGone, DownstreamIdle, Draining, HopError, InternalError
from sidecar.http.grpc import timeout
from sidecar.http.plain import CHUNKED, OTHER, PlainRequest, headers_of
from sidecar.http.plain_answers import PlainResponse
from sidecar.net.pool import YOUNG
from sidecar.net.port import NEVER, Cancelled, Expired, PeerGone, WireBroken
from sidecar.proxy.attempts import IDEMPOTENT
from sidecar.proxy.flow import PlainAnswer, close_in_stages
from sidecar.proxy.side import DRAIN_GRACE
from sidecar.proxy.upload import REPLAY_BYTES
from sidecar.proxy.waiting import EVENTS, end_in_time
from sidecar.traffic.deadline import HOP_FIELD, LEAST
from sidecar.traffic.outcome import Outcome, of_error

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sidecar.hop import Hop
    from sidecar.net.pool import Connection, Pool
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.http import HttpConnection
    from sidecar.proxy.lane import Lane
    from sidecar.proxy.places import Place
    from sidecar.proxy.side import Caller, HttpSide
    from sidecar.proxy.upstream import Upstream

GOOD = Outcome.GOOD  # a class's attribute costs a look-up each time
REPEATABLE = frozenset(method.decode() for method in IDEMPOTENT)
CLOSE = b"connection: close\r\n\r\n"


class Way(Enum):
    """How a connection goes on."""

    END = "end"
    GENERAL = "general"  # the next request, or the rest of this one, is for the general way


class Handover:
    """An exchange whose request has been sent, wholly or in part, and whose answer is for the general way."""

    __slots__ = ("connection", "deadline", "hop", "place", "problem", "received", "sent", "side", "upstream", "wrote")

    def __init__(
        self, hop: Hop, side: HttpSide, upstream: Upstream, place: Place, connection: Connection, received: bytes,
        problem: Exception | None, deadline: float, *, wrote: bool, sent: bool,
    ) -> None:  # fmt: skip
        self.hop = hop
        self.side = side
        self.upstream = upstream
        self.place = place
        self.connection = connection
        self.received = received  # of the answer; empty without a problem: the upstream has closed
        self.problem = problem  # WireBroken, PeerGone or Expired: what ended the writing, or the wait for an answer
        self.deadline = deadline  # of the wait for an answer
        self.wrote = wrote  # whether any byte of the request may have reached the upstream
        self.sent = sent  # whether all of it was written

    def give_up(self) -> None:
        """Nobody wants the answer any more."""
        self.connection.wire.abort()
        self.place.pool.discard(self.connection)
        self.upstream.end(self.place, Outcome.NEUTRAL, self.hop.started, self.hop.started)


class Express:
    """The plain requests of one downstream connection."""

    __slots__ = (
        "_caller", "_connection", "_hop", "_lane", "_owner", "_place", "_pool", "_port", "_side", "_upstream", "_wire",
        "drawn", "handover",
    )  # fmt: skip

    def __init__(self, owner: HttpConnection, port: Port, wire: Wire, caller: Caller) -> None:
        self._owner = owner
        self._port = port
        self._wire = wire
        self._caller = caller
        self._side: HttpSide | None = None
        self._lane: Lane | None = None
        self._hop: Hop | None = None  # used again for each request: nobody keeps the hop of one that ended well
        self._connection: Connection | None = None  # taken, while a request is under way
        self._pool: Pool | None = None  # where that belongs
        self._place: Place | None = None  # of the attempt under way
        self._upstream: Upstream | None = None
        self.handover: Handover | None = None  # for the general way
        self.drawn: object = None  # likewise: what dice have decided of the request that it gets

    async def run(self, first: bool) -> Way:
        """Serve requests for as long as they are plain. Never raises but Cancelled."""
        try:
            return await self._serve(first)
        except HopError as error:
            return await self._fail(error)
        except Cancelled:
            await self._fail(Draining("the sidecar has ended"), cancelled=True)
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours ends this connection, not the sidecar
            return await self._fail(InternalError(f"{type(error).__name__}: {error}"))

    async def _serve(self, first: bool) -> Way:
        """One function on purpose, long as it is: in the hot path a call costs as much as what it would do."""
        owner, port, wire, caller = self._owner, self._port, self._wire, self._caller
        door, task = owner.door, port.current
        assert task is not None
        data, at = b"", 0  # what has been read, and where in it the next request begins
        while True:
            if at == len(data):
                owner.idle = True
                patience = door.side.timeouts.request_head if first else door.side.timeouts.keep_alive
                task.deadline = port.now + (min(patience, DRAIN_GRACE) if door.draining else patience)
                try:
                    data = bytes(await wire.read_shared())
                except (Expired, WireBroken):
                    return Way.END
                if not data:
                    return Way.END
                at = 0
                owner.idle = first = False
            side = door.side  # as of now, and to the end of this request
            if side is not self._side:
                self._side, self._lane, self._hop = side, side.lane(caller), None
            lane = self._lane
            request = lane.read(data, at) if lane is not None else OTHER
            if lane is None or not isinstance(request, PlainRequest):
                return self._general(data[at:])
            end = request.end + request.length
            if request.length and (
                not 0 < request.length <= REPLAY_BYTES or len(data) < end or lane.limits_bodies
            ):
                return self._general(data[at:])

            # who asks, and whether it may
            hop = self._hop
            if hop is None:
                hop = self._hop = side.plain_hop(caller, port.now)
            else:
                hop.started = port.now
                hop.status = hop.received_bytes = hop.sent_bytes = 0
            hop.method = method = request.method
            hop.target = request.target
            hop.segments = request.segments
            hop.host = request.host
            if lane.wants_headers:
                hop.headers = headers_of(data, request)
            key = (method, request.target, request.host, request.port)
            ticket = lane.tickets.get(key) or lane.judge(hop, request, key)
            if ticket is None or not side.may_go_on(caller, ticket.upstream, port.wall()):
                return self._general(data[at:], hop.drawn if ticket is None else ticket.upstream)
            within = request.within
            if within is not None and within < LEAST:
                return self._general(data[at:], ticket.upstream)
            via = request.via
            tail = ticket.tail if via == ticket.via else lane.direct(ticket, via)
            whom = ticket.upstream
            if not tail:
                return self._general(data[at:], whom)
            if whom.key_of is None:
                place = whom.pick(port.now)
            else:
                place = whom.pick(port.now, (), whom.key_of(headers_of(data, request)))
            if place is None:
                return self._general(data[at:], whom)
            pool = place.pool
            connection = pool.reuse(NEVER if request.keyed or method in REPEATABLE else YOUNG)
            if connection is None:
                whom.undo(place, port.now)
                return self._general(data[at:], whom)
            dues = ticket.dues
            if dues is not None:  # the last that can turn it away: what is taken here goes out, and is taken once
                keys = dues.keys if dues.fixed else dues.keys_of(hop.headers)
                charges = dues.charges
                if (charges is not None and not charges.ready(port.wall(), hop.headers)) or (
                    dues.levels.take(port.now, keys) is not None
                ):
                    pool.give(connection)
                    whom.undo(place, port.now)
                    return self._general(data[at:], whom)
                if dues.shared:
                    self._connection, self._pool, self._place, self._upstream = connection, pool, place, whom
                    if not await side.let_in(port, wire, dues, list(keys)):
                        pool.give(connection)
                        whom.undo(place, port.now)
                        self._connection = self._place = None
                        return self._general(data[at:], whom)
                elif charges is not None:
                    charges.spend()

            # ask
            self._connection, self._pool, self._place, self._upstream = connection, pool, place, whom
            hop.rule, hop.route = ticket.permit.rule, ticket.permit.route
            hop.endpoint = connection.endpoint
            if side.direction == "outbound":
                hop.listener, hop.destination = ticket.upstream.name, ticket.upstream.identity
                hop.tls = connection.peer.tls if connection.peer is not None else None
            upstream, timeouts = connection.wire, side.timeouts
            body = data[request.end : end] if request.length else b""
            already, sent, answer, problem = upstream.sent, False, b"", None
            task.deadline = port.now + timeouts.idle
            try:
                await upstream.write(b"".join((request.line, ticket.lines, request.fields, tail, body)))
                sent = True
                task.deadline = port.now + whom.patience if within is None else hop.started + min(within, whom.patience)
                answer = bytes(await upstream.read_shared(wire))
            except (WireBroken, PeerGone, Expired) as error:
                problem = error
            response = whom.answers.read(answer, to_head=method == "HEAD")
            if not isinstance(response, PlainResponse) or response.status in whom.telling:
                hop.first_byte = 0.0  # of the request before this one
                self.handover = Handover(
                    hop, side, whom, place, connection, answer, problem, task.deadline,
                    wrote=upstream.sent > already, sent=sent,
                )  # fmt: skip
                self._connection = self._place = None
                return self._general(data[at:], whom)

            # answer
            hop.first_byte = now = port.read_clock()
            hop.status = status = response.status
            hop.received_bytes = request.length
            if dues is not None and dues.charges is not None:
                told = dues.charges.told_bytes(port.wall(), hop.headers)
                response = PlainResponse(
                    response.size, response.status, response.length, response.close, response.lines + told
                )
            close = request.close or side.draining
            size, length = response.size, response.length
            if length == CHUNKED or len(answer) < size + length:
                streamed = self._stream(pool, connection, response, answer, close=close)
                if within is not None or whom.total is not None:
                    streamed = self._in_time(streamed, response, whom, within)
                answer = b""  # a stream may last, and nobody needs its beginning
                await streamed
            else:
                hop.sent_bytes = length
                self._connection = None
                if len(answer) > size + length or response.close:
                    pool.discard(connection)
                    answer = answer[: size + length]  # what follows the answer belongs to none that we asked for
                else:
                    pool.give(connection)
                if close:
                    answer = b"".join((response.lines, CLOSE, answer[size:]))
                elif len(response.lines) != size - 2:  # a line of it stays here
                    answer = b"".join((response.lines, b"\r\n", answer[size:]))
                task.deadline = now + timeouts.idle
                try:
                    await wire.write(answer)
                except WireBroken:
                    raise DownstreamGone from None
                except Expired:
                    raise DownstreamIdle("the downstream does not read its answer (timeouts.idle)") from None
            if whom.guarded and self._place is not None:  # else the beginning of a stream has let go
                self._place = None
                whom.end(place, GOOD, hop.started, hop.first_byte)
            hop.ended = port.read_clock()
            tallies, kind = ticket.tallies, status // 100
            tallies[kind] = side.recorder.observe_plain(hop, tallies.get(kind))
            if close:
                await close_in_stages(port, wire)
                return Way.END
            at = end

    def _let_go(self) -> None:
        """The attempt has brought its answer; what is left of that is no request under way."""
        place, self._place, hop = self._place, None, self._hop
        if place is not None and self._upstream is not None and hop is not None:
            self._upstream.end(place, Outcome.GOOD, hop.started, hop.first_byte)

    def _general(self, data: bytes, drawn: object = None) -> Way:
        """Leave the request that begins here, and all that follows, to the general way."""
        self._hop = None
        self.drawn = drawn
        self._owner.codec.receive(data)
        return Way.GENERAL

    async def _stream(
        self, pool: Pool, connection: Connection, response: PlainResponse, answer: bytes, *, close: bool
    ) -> None:
        """An answer that is chunked, or has not come whole with its head."""
        owner, side, hop = self._owner, self._side, self._hop
        assert side is not None
        assert hop is not None
        owner.exchange = flow = PlainAnswer(self._port, side, hop, self._wire, self._let_go)
        end = CLOSE if close else b"\r\n"
        body = answer[response.size :]
        answer = b""
        if response.length == CHUNKED:
            relayed = flow.chunked(connection.wire, [response.lines, end], body)
        else:
            begun = b"".join((response.lines, end, body))
            relayed = flow.counted(connection.wire, begun, len(body), response.length)
            begun = b""
        body = b""
        clean = await relayed
        owner.exchange = self._connection = None
        if clean and not response.close:
            pool.give(connection)
        else:
            pool.discard(connection)

    async def _in_time(
        self, streamed: Awaitable[None], response: PlainResponse, upstream: Upstream, within: float | None
    ) -> None:
        """End an answer with the request's time; with the operator's only where it is no stream of events."""
        hop = self._hop
        assert hop is not None
        told = [(HOP_FIELD, timeout(within))] if within is not None else []
        lasts = EVENTS in response.lines.lower()
        deadline = upstream.times.of(told, hop.started, loopback=False, lasts=lasts)
        timer = self._port.spawn(end_in_time(self._port, deadline, upstream))
        try:
            await streamed
        finally:
            timer.cancel()

    async def _fail(self, error: HopError, *, cancelled: bool = False) -> Way:
        """The end of a request that was under way, and of its connections."""
        owner, side, hop, connection, place = self._owner, self._side, self._hop, self._connection, self._place
        self._hop = self._connection = self._place = None
        if owner.idle:
            return Way.END
        if connection is not None and self._pool is not None:
            connection.wire.abort()
            self._pool.discard(connection)
        if place is not None and self._upstream is not None:
            self._upstream.end(place, of_error(error), hop.started if hop else 0.0, self._port.now)
        if side is None or hop is None:
            side = owner.door.side
            hop = side.open_hop(self._caller, None, self._port.now)
        elif not hop.status:
            hop.first_byte = 0.0  # of the request before this one
        owner.side = side
        if cancelled:
            owner.ended(hop, error)
        else:
            await owner.refuse(hop, error, None, answered=hop.status != 0)
        return Way.END
