"""One request and its answer, from the verdict to the last byte.

Theory of operation. The coroutine of the downstream connection drives the exchange. It sends the request head
upstream and then waits for the answer; a request body is moved by a child, so that both directions flow at once, an
early answer is seen while the body still comes, and a slow reader holds back only its own side. While no body moves,
the wait for the answer also watches the downstream: nobody works for a caller who has left.

A connection taken from the pool may be dead without our knowing (decision D22). It shows as a close or a reset before
the first byte of the answer. Then, once, on a new connection, the request is sent again, if that cannot do harm: the
method is idempotent or carries an Idempotency-Key (what was sent of the body is still here, up to 64 KiB), or not one
byte was written. Requests that may not be sent twice ask the pool for a connection that was busy less than 500 ms
ago.

An alert in place of the first byte on a new connection is the peer's verdict on our certificate, which TLS 1.3 delivers
after the handshake: flag ID, and nothing is sent again (decision D18).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sidecar.errors import (
    DownstreamGone,
    HandshakeFailed,
    HopError,
    PeerIdentityMismatch,
    ProtocolViolation,
    ResponseTimeout,
    UpstreamClosed,
    UpstreamIdle,
    UpstreamProtocolViolation,
    UpstreamReset,
)
from sidecar.http.headers import first, tokens, without_reserved
from sidecar.http.message import NEED_DATA, Data, End, RequestHead, ResponseHead
from sidecar.http.versions import answer_to_key, check_accept
from sidecar.net.pool import FRESH, YOUNG
from sidecar.net.port import NEVER, Expired, PeerGone, WireBroken, WireCut
from sidecar.net.tls import AlertReceived
from sidecar.proxy.attempts import Attempts
from sidecar.proxy.evicting import revoked_upstream
from sidecar.proxy.injected import suffer
from sidecar.proxy.lease import lease_of
from sidecar.proxy.respond import delayed
from sidecar.proxy.streams import StreamEnd
from sidecar.proxy.tcp import tunnel
from sidecar.proxy.upload import FLUSH_BYTES, REPLAY_BYTES
from sidecar.proxy.waiting import Waiting
from sidecar.traffic.outcome import Outcome

if TYPE_CHECKING:
    from sidecar.hop import Headers, Hop
    from sidecar.http.h1 import H1Server
    from sidecar.net.pool import Connection, Pool
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.express import Handover
    from sidecar.proxy.places import Place
    from sidecar.proxy.side import Caller, HttpSide, Plan
    from sidecar.proxy.sockets import SocketRoad
    from sidecar.proxy.streams import ServedStream
    from sidecar.proxy.trunks import Trunks

UNAUTHORIZED = 401
INFORMATIONAL_LIMIT = 32  # 1xx responses to one request; Go's client stops at 5, nobody is known to send more than 2


class Exchange(Waiting):
    """The state of one request on its way."""

    def __init__(
        self, port: Port, side: HttpSide, hop: Hop, head: RequestHead, plan: Plan, wire: Wire,
        codec: H1Server | ServedStream, caller: Caller,
    ) -> None:  # fmt: skip
        super().__init__(port, side, hop, head, plan, wire, codec)
        self._caller = caller
        self._way = plan.upstream.way(head)
        self._h2 = self._way == "trunks"
        self._attempts = Attempts(port, hop, head, plan.upstream, plan.route.retries if plan.route else None)
        self._road: Pool | Trunks | SocketRoad | None = None  # where the connection of the attempt under way belongs
        self._wrote = False  # whether any byte of the request may have reached the upstream

    async def _carry(self, handover: Handover | None) -> bool:
        """The exchange itself; see `run`."""
        plan = self._plan
        try:
            if plan.checked is not None and handover is None:
                await plan.checked.take_body(self)
            if plan.ask is not None:
                await self._attended(plan.ask(self._port))
            if plan.hold is not None:
                await plan.hold(self._port, self._wire, self._deadline.at)
            if plan.charge is not None:
                await self._attended(plan.charge(self._port))
            if plan.injected is not None:
                await suffer(self._pause, self._hop, plan.injected, plan.course)
            connection, response = await self._ask(handover)
            if self._borrowed and (self._pump is None or self._pump.happened):
                self._forget()
            return await self._give_answer(connection, response)
        finally:
            if self._borrowed:
                self._forget()
            if plan.checked is not None:
                plan.checked.let_go()

    async def _give_answer(self, connection: Connection, response: ResponseHead) -> bool:
        pool = self._road
        assert pool is not None
        try:
            if response.status == 101:
                await self._switch(connection, response)
                pool.discard(connection)
                return False
            relay = self.relay if self._plan.checked is None else partial(self._plan.checked.relay, self)
            await relay(connection, response)
        except BaseException as error:
            self._give_up(connection)
            self._attempts.failed(error)
            raise
        self._attempts.answered(response)
        early = not self._request_ended
        whole = not early and not self._upload_failed and (self._pump is None or self._pump.happened)
        self._stop_pump()
        if connection.codec.clean and whole:  # a request that is still on its way would be read as the next one's head
            pool.give(connection)
        else:
            pool.discard(connection)
        return self._codec.reusable and not early

    def become_stream(self) -> None:
        """An answer that lasts is no request under way."""
        if self.answered:
            self._attempts.end(Outcome.GOOD)

    # ---- asking ----------------------------------------------------------------------------------------------------

    async def _ask(self, handover: Handover | None) -> tuple[Connection, ResponseHead]:
        """Send the request and wait for the final response head, more than once where that may be. Raises HopError."""
        attempts = self._attempts
        resendable = attempts.resendable if self._head.body or not self._h2 else False
        attempts.max_idle = self._choose_age(resendable=resendable)
        if self._head.body and self._replay is None and (self._h2 or resendable or self._plan.upstream.guarded):
            self._replay = []
        while True:
            connection = None
            try:
                if handover is not None:
                    connection = self._take_over(handover)
                    response = await self._go_on(handover)
                else:
                    if self._plan.upstream.hurried:
                        self._begin_try(self._port.now, 1)
                    connection = await self._take()
                    response = await self._ask_once(connection)
                wait = attempts.after_answer(response, replayable=self._replayable)
                if wait is None and self._plan.renew is not None and await self._renewed(response):
                    attempts.once_more(response)
                    wait = 0.0
                if wait is None:
                    return connection, response
                self._give_up(connection)
            except HopError as error:
                stale = connection is not None and isinstance(error, UpstreamClosed) and _was_stale(connection)
                if connection is not None:
                    self._give_up(connection)
                again = attempts.after(error, stale=stale, wrote=self._wrote, replayable=self._replayable)
                if again is None:
                    attempts.failed(error)
                    raise
                wait = again
            except BaseException as error:
                if connection is not None:
                    self._give_up(connection)
                attempts.failed(error)
                raise
            finally:
                if self._trial is not None:
                    self._end_of_try()
            handover = None
            if wait:
                await self._pause(wait)

    async def _renewed(self, response: ResponseHead) -> bool:
        """Whether there is another token for a request whose own was refused, and it may be sent again."""
        plan, renew, head = self._plan, self._plan.renew, self._head
        if renew is None or response.status != UNAUTHORIZED:
            return False
        if not self._attempts.resendable or not self._replayable or head.protocol:
            return False
        plan.renew, before = None, plan.headers
        await self._attended(renew(self._port))
        return plan.headers is not before

    async def _take(self) -> Connection:
        """A connection for the next attempt. Raises HopError."""
        self._wrote = False
        place = self._attempts.begin()
        try:
            connection = await self._take_at(place)
        except HandshakeFailed:
            way = self._plan.upstream.way(self._head)
            if way == self._way:
                raise
            self._way, self._h2 = way, way == "trunks"  # a host outside has just told which version it speaks
            self._attempts.max_idle = self._choose_age(resendable=self._attempts.resendable)
            connection = await self._take_at(place)
        self._hop.endpoint = connection.endpoint
        if connection.peer is not None:
            self._hop.tls = connection.peer.tls
        return connection

    async def _take_at(self, place: Place) -> Connection:
        self._road = road = place.road(self._way)
        self._watch()
        try:
            return await road.take(self._attempts.max_idle)
        finally:
            self._unwatch()

    def _take_over(self, handover: Handover) -> Connection:
        self._attempts.adopt(handover.place, self._hop.started)
        self._road = handover.place.pool
        return handover.connection

    async def _pause(self, seconds: float) -> None:
        """Wait before an attempt, for as long as there is somebody to wait for. Raises DownstreamGone."""
        self._watch()
        try:
            await self._port.sleep(seconds)
        except BaseException as error:
            self._attempts.failed(error)
            raise
        finally:
            self._unwatch()

    def _choose_age(self, *, resendable: bool) -> float:
        if self._h2:
            return NEVER
        if not resendable:
            return YOUNG
        if self._head.body and (self._head.length is None or self._head.length > REPLAY_BYTES):
            return FRESH  # perhaps it could not be replayed whole
        return NEVER

    async def _ask_once(self, connection: Connection) -> ResponseHead:
        port, codec, wire = self._port, connection.codec, connection.wire
        plan = self._plan
        head = self._head
        headers = self._headers_for_upstream()
        asked = RequestHead(head.method, plan.target, headers, body=head.body, protocol=head.protocol)
        data = codec.begin(asked)
        if not head.body and not head.protocol:
            data += codec.send_end()
        self._wrote = self._upload_failed = False
        sent_before = wire.sent
        port.deadline(port.now + self._side.timeouts.idle)
        try:
            await wire.write(data)
        except WireBroken as error:
            self._wrote = wire.sent > sent_before
            raise self._upstream_broke(error, connection) from None
        except Expired:
            raise UpstreamIdle(f"{plan.upstream.name} does not read the request") from None
        self._wrote = True
        if head.body and not (self._h2 and self._send_at_hand(connection)):
            port.deadline(NEVER)  # the pump has a deadline of its own, and sets ours when the request has ended
            waiting = port.current
            assert waiting is not None
            self._pump = port.spawn(self._pump_request(connection, waiting, begun=self._h2))
        else:
            port.deadline(port.now + self._patience())
        return await self._head_in_time(connection, wire.received)

    async def _go_on(self, handover: Handover) -> ResponseHead:
        """Wait for the answer to a request that the express has sent whole, or has failed to send."""
        port, connection, problem = self._port, handover.connection, handover.problem
        codec = connection.codec
        codec.begin(RequestHead(self._head.method, self._plan.target, self._plan.headers))  # for the books of h11
        if self._head.body:
            self._replay = []
        while not self._request_ended:
            event = self._codec.next_event()
            if isinstance(event, Data):
                self._count(event.data)
                self._keep(event.data)
                codec.send_data(event.data)
            else:
                self._request_ended = True
        codec.send_end()
        self._wrote = handover.wrote
        if isinstance(problem, WireBroken):
            raise self._upstream_broke(problem, connection)
        if isinstance(problem, Expired) and not handover.sent:
            raise UpstreamIdle(f"{self._plan.upstream.name} does not read the request")
        times = self._plan.upstream.times
        if isinstance(problem, Expired):
            self._out_of_patience(handover)
            port.deadline(self._hop.started + times.response_head)
            return await self._head_in_time(connection, connection.wire.received)
        port.deadline(handover.deadline + times.response_head - times.patience)
        if self._plan.upstream.hurried:
            self._begin_try(self._hop.started, 0)
        if isinstance(problem, PeerGone):
            if problem.reset:
                raise DownstreamGone
            self._half_closed = True
        else:
            codec.receive(handover.received)
        return await self._head_in_time(connection, connection.wire.received - len(handover.received))

    async def _head_in_time(self, connection: Connection, received_before: int) -> ResponseHead:
        wire = connection.wire
        try:
            return await self._final_head(connection)
        except Expired:
            raise self._no_answer() from None
        except UpstreamClosed:
            if wire.received > received_before:
                raise UpstreamProtocolViolation("the upstream closed in the middle of its response head") from None
            raise

    def _out_of_patience(self, handover: Handover) -> None:
        """The express has waited until somebody must look. Raises HopError where the request is over."""
        now, began, upstream = self._port.now, self._hop.started, self._plan.upstream
        end = self._attempts.try_until(self._deadline, began, 0)
        if end.passed(now):
            raise upstream.times.late(end, upstream.name)
        if now >= began + upstream.times.response_head:
            raise self._no_answer()

    def _no_answer(self) -> HopError:
        upstream = self._plan.upstream
        if self._deadline.passed(self._port.now):
            return upstream.times.late(self._deadline, upstream.name)
        return ResponseTimeout(upstream.times.no_answer(upstream.name))

    async def _final_head(self, connection: Connection) -> ResponseHead:
        codec = connection.codec
        informational = 0
        while True:
            event = codec.next_event()
            if isinstance(event, ResponseHead):
                if event.status == 101:
                    self._check_switch(event)
                    return event
                if event.status >= 200:
                    return event
                informational += 1
                if informational > INFORMATIONAL_LIMIT:
                    raise UpstreamProtocolViolation(f"more than {INFORMATIONAL_LIMIT} informational responses")
                await self._relay_informational(event)
            elif event is NEED_DATA:
                try:
                    codec.receive(bytes(await self._read_answer(connection.wire)))
                except WireBroken as error:
                    raise self._upstream_broke(error, connection) from None
            else:
                raise UpstreamProtocolViolation("the upstream ended its answer without a head")

    async def _relay_informational(self, head: ResponseHead) -> None:
        if self._head.version == b"1.0":
            return  # RFC 9110 section 15.2
        if head.status == 100 and not self._codec.wants_continue:
            return
        headers = self._headers_for_downstream(head)
        try:
            await self._wire.write(self._codec.send_head(ResponseHead(head.status, headers, head.reason)))
        except WireBroken:
            raise DownstreamGone from None

    def _upstream_broke(self, error: WireBroken, connection: Connection) -> HopError:
        name = self._plan.upstream.name
        if isinstance(error, WireCut):
            return revoked_upstream(name, error)
        if isinstance(error, AlertReceived):
            if not connection.reused:
                return PeerIdentityMismatch(f"alert_{error.reason}", f"{name}: {error.detail}")
            return UpstreamReset(f"{name} ended the connection: {error.detail}", reused=True)
        return UpstreamReset(f"{name}: {error}", reused=connection.reused)

    def _give_up(self, connection: Connection) -> None:
        """End an exchange half-way: the upstream must not take what it has for the whole, and can stop working now."""
        self._stop_pump()
        connection.wire.abort()
        assert self._road is not None
        self._road.discard(connection)

    # ---- the answer ------------------------------------------------------------------------------------------------

    async def read_more(self, connection: Connection, response: ResponseHead) -> None:
        """Wait for more of an answer that has begun. Raises HopError."""
        lease = self._rests_on(endless=first(response.headers, b"content-length") is None)
        connection.codec.receive(bytes(await self._read_body(connection.wire, lease)))

    async def relay(self, connection: Connection, response: ResponseHead) -> None:
        """Send the answer on, from its head to its end. Raises HopError."""
        port, side, hop, codec = self._port, self._side, self._hop, connection.codec
        if self._head.protocol and response.status < 300:  # by HTTP/2 any 2xx would say that the tunnel stands
            raise UpstreamProtocolViolation(f"the upstream answers {response.status} to a WebSocket, and no 101")
        headers = self._headers_for_downstream(response)
        if side.draining:
            headers.append((b"connection", b"close"))
        hop.status = response.status
        hop.first_byte = port.read_clock()
        self._begin_answer(response)
        head, early = ResponseHead(response.status, headers, response.reason), None
        if isinstance(self._codec, StreamEnd):
            early = codec.next_event()
            if isinstance(early, End) and not early.trailers:  # a head that is all stays one: gRPC's trailers-only
                self.answered = True
                await self._send([self._codec.send_head(head, end=True)])
                return
        pieces = [self._codec.send_head(head)]
        self.answered = True
        size = 0
        while True:
            event, early = early or codec.next_event(), None
            if isinstance(event, Data):
                self._pass_on(event.data)
                pieces.append(self._codec.send_data(event.data))
                hop.sent_bytes += len(event.data)
                size += len(event.data)
                if size < FLUSH_BYTES:
                    continue
            elif isinstance(event, End):
                pieces.append(self._codec.send_end(self._end_answer(event.trailers)))
                await self._send(pieces)
                return
            elif event is not NEED_DATA:
                raise UpstreamProtocolViolation("the upstream's answer has no end")
            if pieces:
                await self._send(pieces)
                pieces, size = [], 0
            if event is NEED_DATA:
                await self.read_more(connection, response)

    def _pass_on(self, data: bytes) -> None:
        """A piece of the answer's body is about to be sent on."""

    def _end_answer(self, trailers: Headers) -> Headers:
        """The answer has ended; what of its trailers travels on."""
        return without_reserved(trailers)

    def _headers_for_downstream(self, head: ResponseHead) -> Headers:
        """What the downstream may see of a response head. Raises UpstreamProtocolViolation."""
        try:
            headers = self._side.response_headers(self._hop, head, self._plan.upstream)
        except ProtocolViolation as error:
            raise UpstreamProtocolViolation(f"response: {error}") from None
        if head.status < 200 or head.status == 204:  # RFC 9110 section 8.6: they have no content, and no length of it
            headers = [field for field in headers if field[0] != b"content-length"]
        route = self._plan.route
        if route is not None and (head.status == 101 or head.status >= 200):
            headers = route.response.apply(headers)
            if self._hop.delayed:
                headers.append((b"proxy-status", delayed(self._hop)))
        return headers

    # ---- upgrades --------------------------------------------------------------------------------------------------

    def _check_switch(self, response: ResponseHead) -> None:
        asked = tokens(self._plan.headers, b"upgrade")
        given = tokens(response.headers, b"upgrade")
        if not asked or not given or not set(given) <= set(asked):
            raise UpstreamProtocolViolation("the upstream switches to a protocol that nobody asked for")
        if self._head.protocol and response.version != b"2":  # the key was ours
            check_accept(RequestHead(b"GET", b"", self._plan.headers), response)

    async def _switch(self, connection: Connection, response: ResponseHead) -> None:
        """The upstream agrees to another protocol: from here on bytes are moved, not read."""
        self._side.tunnels.check_place()
        headers = self._headers_for_downstream(response)
        upgrade = first(response.headers, b"upgrade") or b""
        headers += [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
        if response.version == b"2":
            headers += answer_to_key(self._head)
        self._hop.status = 101
        self._hop.first_byte = self._port.now
        self.answered = True
        head, said = self._codec.send_head(ResponseHead(101, headers, response.reason)), connection.codec.trailing()
        self._hop.sent_bytes = len(said)
        await self._send([head + said])
        port, hop, side, wire, early = self._port, self._hop, self._side, self._wire, self._codec.trailing()
        upstream, whole, other = self._plan.upstream, wire, connection.wire
        if isinstance(wire, StreamEnd):
            whole, wire = wire.carrier.wire, wire.raw()
        if isinstance(other, StreamEnd):
            other = other.raw()

        def judge() -> None:
            side.door.side.judge_again(port, hop, self._caller, whole, upstream, connection)

        self.switched = True
        self._attempts.answered(response)  # a tunnel is no request under way (decision D25)
        with side.tunnels.open(port.current, judge):
            await tunnel(port, wire, other, hop, idle=NEVER, lease=lease_of(hop, port), early=early)


def _was_stale(connection: Connection) -> bool:
    """Whether a connection that failed may have been dead when it was taken. One that has only reset our stream lives,
    and the upstream has seen the request.
    """
    wire = connection.wire
    return connection.reused and (not isinstance(wire, StreamEnd) or wire.carrier.codec.ended)
