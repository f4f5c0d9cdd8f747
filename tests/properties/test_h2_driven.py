"""The whole proxy over driven HTTP/2 connections, at random: no answer crosses, none is lost, all books balance.

Callers (as the application web, and as a peer without a sidecar) and an application keep to the rules, by hand; between
them are two sidecars on the memory driver. What happens is what happens to a mesh: windows that are withheld, resets
from either side, early answers, 1xx, trailers, GOAWAY, half-closes, connections that end or break, drain, reload,
renewal, and time. After every step nothing has crossed, no window is overdrawn, nothing piles up, and nobody who kept
to the rules is blamed. In the end every request has an outcome within a bounded time, and those that nothing befell are
answered whole.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from hyperframe.frame import Frame, HeadersFrame
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sidecar.errors import AbusivePeer, InternalError, ProtocolViolation, UpstreamProtocolViolation
from sidecar.http.h2 import Code, H2Client, H2Limits, H2Server
from sidecar.net.memory_gate import DAY
from sidecar.proxy.http2 import Http2Connection
from tests.kit.h1_line import Line
from tests.kit.h2_ends import Asked, Call, End
from tests.kit.h2_wire import GOAWAY, PREFACE, Fields, frame, headers, word
from tests.kit.hops import ORDERS, WEB
from tests.kit.play import MemoryProxy, Stage

PATIENT = "    timeouts: {idle: 20s, response_head: 10s, drain: 30s}"
BOUND = 60.0  # seconds within which every request has come to an end: three times the longest of these but drain
PROMPT = 9.0  # seconds that a request may take without any time-out
MAX_STREAMS = 3  # of SETTINGS
REPLAY = 64 * 1024  # bytes of a body that are kept to be sent again
STREAM_WINDOW, CONNECTION_WINDOW = 30_000, 100_000  # of the sidecars: small, so that it shows
UNSENT = 256 * 1024  # bytes of one body that wait for a window: what was read at once, and what may wait beside it
CODES = [Code.CANCEL, Code.INTERNAL_ERROR, Code.REFUSED_STREAM, Code.NO_ERROR]
WINDOWS = st.sampled_from([0, 10, 65_535, 1 << 20])  # that callers announce
SIZES = st.sampled_from([0, 1, 700, 16_384, 50_000, 200_000])
PICK = st.integers(0, 99)
INBOUND = ("10.0.0.2", 17443)
MISHAPS = [
    "caller finish", "caller close", "caller abort", "caller goaway", "app goaway", "app goaway", "app polite",
    "app finish", "app close", "app abort", "silence", "a long time", "drain", "drain",
]  # fmt: skip


class Mesh(RuleBasedStateMachine):
    """Two sidecars, their callers and an application."""

    def __init__(self) -> None:
        super().__init__()
        self.small = patch("sidecar.proxy.trunks.H2Limits", partial(H2Limits, stream_window=STREAM_WINDOW,
                                                                    connection_window=CONNECTION_WINDOW))  # fmt: skip
        self.small.start()
        self.stage = Stage(http=", app_http: http2", orders=PATIENT, web=PATIENT)
        self.lines: list[End] = []  # of callers
        self.calls: list[Call] = []
        self.of_stream: dict[tuple[int, int], Call | Asked] = {}  # (id of an End, stream) -> what is on it
        self.asked: dict[int, list[Asked]] = {}  # by number of the call
        self.apps: list[End] = []
        self.window = 65_535  # that new connections of the application announce,
        self.most = 100  # and how many streams they take at once
        self.drained = False
        self.silent = False  # nobody answers any more, not even in the end
        self.reloads = 0
        self.stage.app(self.serve)

    def do(self, action: Coroutine[Any, Any, object], *, settle: bool = True) -> None:
        """Do something, and let everybody come to rest, or not yet."""

        async def both() -> None:
            await action
            if settle:
                await self.stage.quiet()

        self.stage.port.run(both())

    # ---- the two ends ------------------------------------------------------------------------------------------------

    async def serve(self, line: Line) -> None:
        assert await line.hear(len(PREFACE)) == PREFACE
        end = End(line, self.on_app_frame)
        self.apps.append(end)
        await end.announce(self.window, (MAX_STREAMS, self.most))
        await end.read_on()
        for found in self.pending(end):
            found.over = True

    def on_app_frame(self, end: End, found: Frame) -> None:
        if not found.stream_id:
            return
        asked = self.of_stream.get((id(end), found.stream_id))
        if asked is None:
            if not isinstance(found, HeadersFrame):
                return
            head = end.head_of(found)
            if found.stream_id > end.last:
                return  # we have said that we do not begin with it
            end.open(found.stream_id)
            number = int(head[b"x-number"])
            attempts = self.asked.setdefault(number, [])
            asked = Asked(number, len(attempts), end, found.stream_id, self.calls[number])
            attempts.append(asked)
            self.of_stream[id(end), found.stream_id] = asked
            assert len(self.pending(end)) <= self.most, "more streams than may be"
        elif isinstance(found, HeadersFrame):
            end.head_of(found)
        assert isinstance(asked, Asked)
        asked.on_frame(found)

    def on_caller_frame(self, end: End, found: Frame) -> None:
        if not found.stream_id:
            for call in self.live():
                if call.end is end and end.goaways and call.stream > end.goaways[-1][0]:
                    call.outcome = "gone"
            return
        call = self.of_stream[id(end), found.stream_id]
        assert isinstance(call, Call)
        call.on_frame(found, self.asked)

    async def read_on(self, end: End) -> None:
        await end.read_on()
        for call in self.live():
            if call.end is end:
                call.outcome = "gone"

    def live(self) -> list[Call]:
        """Calls without an outcome."""
        return [call for call in self.calls if not call.outcome]

    def pending(self, end: End | None = None) -> list[Asked]:
        """What the application may still say something to."""
        return [
            asked for attempts in self.asked.values() for asked in attempts
            if not asked.over and not asked.end.gone and end in (None, asked.end)
        ]  # fmt: skip

    def usable(self) -> list[End]:
        return [end for end in self.lines if not (end.gone or end.goaways or end.leaving)]

    # ---- callers -----------------------------------------------------------------------------------------------------

    @initialize(peer=st.booleans(), window=WINDOWS, most=st.sampled_from([2, 100]))
    def begin(self, peer: bool, window: int, most: int) -> None:
        self.most = most
        self.connect_one(peer, window)

    @precondition(lambda self: len(self.usable()) < 3)
    @rule(peer=st.booleans(), window=WINDOWS)
    def connect(self, peer: bool, window: int) -> None:
        self.connect_one(peer, window)

    def connect_one(self, peer: bool, window: int) -> None:
        if peer and self.drained:
            return

        async def connecting() -> None:
            line = await (self.stage.peer(WEB, h2=True) if peer else self.stage.call())
            end = End(line, self.on_caller_frame)
            self.lines.append(end)
            await end.say(PREFACE)
            await end.announce(window)
            self.stage.port.start(self.read_on(end))

        self.do(connecting())

    @precondition(lambda self: self.usable())
    @rule(pick=PICK, post=st.booleans(), size=SIZES, end=st.booleans(), settle=st.booleans(), many=st.integers(1, 8))
    def ask(self, pick: int, post: bool, size: int, end: bool, settle: bool, many: int) -> None:
        line = self.usable()[pick % len(self.usable())]

        async def asking() -> None:
            for _ in range(many):
                await self.open(line, post=post, size=size, end=end)

        self.do(asking(), settle=settle)

    async def open(self, line: End, *, post: bool, size: int, end: bool) -> None:
        mine = [call for call in self.calls if call.end is line]
        if sum(not call.outcome for call in mine) >= line.most:
            return
        number, stream = len(self.calls), 2 * len(mine) + 1
        call = Call(number, line, stream, self.stage.now)
        if self.drained:
            call.spoiled = "it was asked of a sidecar that drains"
        self.calls.append(call)
        self.of_stream[id(line), stream] = call
        line.open(stream)
        method = b"POST" if post else b"GET"
        fields: Fields = (
            (b":method", method), (b":scheme", b"http"), (b":authority", b"orders"), (b":path", b"/%d" % number),
            (b"x-number", b"%d" % number),
        )  # fmt: skip
        call.request_ended = not post
        await line.say(headers(stream, fields, end=not post))
        if post:
            await self.send_body(call, size, end=end)

    async def send_body(self, call: Call, size: int, *, end: bool) -> None:
        size = min(size, call.end.room(call.stream))
        payload = (b"<%d:%d>" % (call.number, len(call.sent)) * (size // 4 + 1))[:size]
        call.sent += payload
        call.request_ended = end
        await call.end.send(call.stream, payload, end=end)

    def unfinished(self) -> list[Call]:
        return [call for call in self.live() if not call.request_ended and not call.end.gone]

    @precondition(lambda self: self.unfinished())
    @rule(pick=PICK, size=SIZES, end=st.booleans(), settle=st.booleans())
    def send_more(self, pick: int, size: int, end: bool, settle: bool) -> None:
        calls = self.unfinished()
        self.do(self.send_body(calls[pick % len(calls)], size, end=end), settle=settle)

    @precondition(lambda self: self.live())
    @rule(pick=PICK, code=st.sampled_from(CODES), settle=st.booleans())
    def cancel(self, pick: int, code: Code, settle: bool) -> None:
        call = self.live()[pick % len(self.live())]
        call.outcome = "cancelled"
        self.do(call.end.reset(call.stream, code), settle=settle)

    @precondition(lambda self: self.lines)
    @rule(pick=PICK, size=st.sampled_from([1, 100, 20_000, 1 << 20]), whole=st.booleans(), widen=st.booleans())
    def make_room(self, pick: int, size: int, whole: bool, widen: bool) -> None:
        """For answers: on a connection, on all its streams, or on one."""
        line = self.lines[pick % len(self.lines)]
        mine = [call for call in self.live() if call.end is line]
        if widen:
            self.do(line.announce(size))
        elif whole or not mine:
            self.do(line.give(0, size))
        else:
            self.do(line.give(mine[pick % len(mine)].stream, size))

    def leave(self, pick: int, how: str) -> None:
        """A caller half-closes, or goes altogether, or says that it will ask no more."""
        if not self.usable():
            return
        line = self.usable()[pick % len(self.usable())]

        async def leaving() -> None:
            if how == "goaway":
                line.leaving = True
                await line.say(frame(GOAWAY, 0, 0, word(0) + word(0)))
                return
            line.leaving = True
            for call in self.live():
                if call.end is line:
                    call.spoiled = f"its caller left: {how}"
            if how == "finish":
                await line.line.finish()
            elif how == "close":
                line.line.close()
            else:
                line.line.wire.abort()

        self.do(leaving())

    # ---- the application ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.pending())
    @rule(
        pick=PICK, size=SIZES, inform=st.booleans(), finish=st.booleans(), settle=st.booleans(),
        trailers=st.sampled_from([(), ((b"x-sum", b"1"),)]),
    )  # fmt: skip
    def answer(self, pick: int, size: int, inform: bool, finish: bool, settle: bool, trailers: Fields) -> None:
        """A piece of an answer, or the rest of one; perhaps before its request has come whole."""
        asked = self.pending()[pick % len(self.pending())]
        self.do(self.tell(asked, size, inform=inform, finish=finish, trailers=trailers), settle=settle)

    async def tell(
        self, asked: Asked, size: int, *, inform: bool = False, finish: bool = True, trailers: Fields = ()
    ) -> None:
        if not asked.answering:
            if inform:
                await asked.head(103)
            await asked.head(200, end=finish and not size and not trailers)
        if not asked.over and size:
            await asked.body(size)
        if not asked.over and finish:
            await asked.finish(trailers)

    @precondition(lambda self: len(self.pending()) > 1)
    @rule(pick=PICK, code=st.sampled_from(CODES))
    def give_up(self, pick: int, code: Code) -> None:
        """The application resets a stream; it also does where it has answered before a request was whole."""
        asked = self.pending()[pick % len(self.pending())]
        asked.over = True
        asked.call.spoiled = asked.call.spoiled or "the application gave it up"
        self.do(asked.end.reset(asked.stream, code))

    @precondition(lambda self: any(not end.gone for end in self.apps))
    @rule(pick=PICK, size=st.sampled_from([1, 100, 20_000, 1 << 20]), whole=st.booleans(), widen=st.booleans())
    def take_more(self, pick: int, size: int, whole: bool, widen: bool) -> None:
        """Room for requests."""
        ends = [end for end in self.apps if not end.gone]
        end = ends[pick % len(ends)]
        asked = self.pending(end)
        if widen:
            self.window = size
            self.do(end.announce(size))
        elif whole or not asked:
            self.do(end.give(0, size))
        else:
            self.do(end.give(asked[pick % len(asked)].stream, size))

    def go_away(self, pick: int, how: str, settle: bool) -> None:
        """The application leaves: with a word about what it has not begun, or without one."""
        ends = [end for end in self.apps if not end.gone]
        if not ends:
            return
        end = ends[pick % len(ends)]
        mine = sorted(self.pending(end), key=lambda asked: asked.stream)
        kept = mine[: pick % (len(mine) + 1)] if how == "goaway" else mine if how == "polite" else []

        async def leaving() -> None:
            if how in ("goaway", "polite"):
                end.last = (kept[-1].stream if kept else 0) if how == "goaway" else end.last
                await end.say(frame(GOAWAY, 0, 0, word(end.last) + word(0)))
            elif how == "finish":
                await end.line.finish()
            elif how == "close":
                end.line.close()
            else:
                end.line.wire.abort()

        stay = {asked.number for asked in kept}
        for call in self.live():  # those that it has not seen yet may be among them
            if call.number not in stay:
                call.left += 1  # three times is too often
                if how != "goaway" or call.left > 1 or len(call.sent) > REPLAY or self.most < 100:
                    call.spoiled = call.spoiled or f"the application left: {how}"
        for asked in mine:
            asked.over = asked.over or asked not in kept
        self.do(leaving(), settle=settle)

    # ---- the mesh ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.calls) > 3)
    @rule(pick=PICK, what=st.sampled_from(MISHAPS), settle=st.booleans())
    def befall(self, pick: int, what: str, settle: bool) -> None:
        """One of many things, so that all of them together are not more often than an answer."""
        who, _, how = what.partition(" ")
        if who == "caller":
            self.leave(pick, how)
        elif who == "app":
            self.go_away(pick, how, settle)
        elif what == "silence":
            self.silent = True
        elif what == "a long time":
            self.wait(25.0)
        elif self.drained:
            self.come_back()
        else:
            self.drain()

    def drain(self) -> None:
        """What has reached the application comes to its end."""
        self.drained = True
        begun = {asked.number for asked in self.pending()}
        for call in self.live():
            if call.number not in begun:
                call.spoiled = call.spoiled or "a drain came before it was begun"
        self.listening = self.stage.port._listening.pop(INBOUND)
        self.do(self._draining(True))

    def come_back(self) -> None:
        """As another process would, at the same address."""
        self.drained = False
        self.stage.port._listening[INBOUND] = self.listening
        self.do(self._draining(False))

    async def _draining(self, draining: bool) -> None:
        if draining:
            self.stage.orders.drain()
        for _, side in self.stage.orders._inbound:
            side.door.draining = draining
        self.stage.orders.draining = draining

    @precondition(lambda self: self.reloads < 4 and self.calls)
    @rule(upstreams=st.booleans(), settle=st.booleans())
    def reload(self, upstreams: bool, settle: bool) -> None:
        """The same rules under another name, or also other upstreams in the places of the old ones."""
        self.reloads += 1

        async def reloading() -> None:
            seconds = 20 + self.reloads if upstreams else 20
            changed = PATIENT.replace("idle: 20s", f"idle: {seconds}s")
            self.stage.reload(orders=changed, web=changed)

        self.do(reloading(), settle=settle)

    @precondition(lambda self: self.calls)
    @rule(orders=st.booleans(), settle=st.booleans())
    def renew(self, orders: bool, settle: bool) -> None:
        """A sidecar has a new certificate."""

        async def renewing() -> None:
            gate = self.stage.gates[ORDERS if orders else WEB]
            gate.renew(self.stage.port.wall() + DAY)
            (self.stage.orders if orders else self.stage.web).renew()

        self.do(renewing(), settle=settle)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0]))
    def wait(self, seconds: float) -> None:
        for call in self.live():
            if self.stage.now + seconds - call.began > PROMPT or (self.most < 100 and call.number not in self.asked):
                call.spoiled = call.spoiled or "it took too long"
        self.do(self.pass_time(seconds))

    async def pass_time(self, seconds: float) -> None:
        """As a worker sees it pass."""
        until = self.stage.now + seconds
        while (left := until - self.stage.now) > 0:
            await self.stage.sleep(min(left, 0.5))
            self.stage.sweep()

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def proxies(self) -> tuple[MemoryProxy, MemoryProxy]:
        return self.stage.web, self.stage.orders

    def codecs(self) -> list[H2Client | H2Server]:
        found: list[H2Client | H2Server] = []
        for proxy in self.proxies():
            found += [connection.codec for connection in proxy._http if isinstance(connection, Http2Connection)]
            upstreams = [*proxy._upstreams, *proxy.left]
            found += [trunk.codec for upstream in upstreams for trunk in upstream.trunks._trunks]
        return found

    @invariant()
    def nothing_piles_up(self) -> None:
        for codec in self.codecs():
            limits, windows = codec.limits, codec._windows
            assert 0 <= windows.room <= limits.connection_window
            assert sum(stream.buffered for stream in codec.streams.values()) <= limits.connection_window
            for stream in codec.streams.values():
                assert 0 <= stream.buffered <= limits.stream_window
                assert 0 <= stream.unsent <= UNSENT, stream.unsent
            assert len(codec._reset_by_us) <= 1000

    @invariant()
    def every_request_under_way_has_one_open_hop(self) -> None:
        for proxy in self.proxies():
            serving = sum(len(found._serving) for found in proxy._http if isinstance(found, Http2Connection))
            under_way = proxy.books.opened - len(proxy.books.hops)
            assert 0 <= under_way <= serving, (under_way, serving)

    @invariant()
    def nobody_is_blamed(self) -> None:
        for proxy in self.proxies():
            for hop in proxy.books.hops:
                error = hop.error
                if not isinstance(error, AbusivePeer) or error.reason != "zero_window":  # whoever leaves no window may
                    assert not isinstance(error, (InternalError, ProtocolViolation, UpstreamProtocolViolation)), error

    # ---- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if not self.silent:
                self.do(self.finish_all())
                for call in self.calls:
                    if not call.spoiled and call.outcome != "cancelled":
                        call.assert_served()
                for codec in self.codecs():
                    assert codec.streams or codec._windows.room >= CONNECTION_WINDOW * 3 // 4, "room was lost"
            self.do(self.pass_time(BOUND))
            assert not [(call.number, call.spoiled) for call in self.live()], "requests without an end"
            self.every_request_under_way_has_one_open_hop()
            self.nobody_is_blamed()
            assert all(proxy.books.opened == len(proxy.books.hops) for proxy in self.proxies())
            self.stage.end()
        finally:
            self.stage.port.close()
            self.small.stop()

    async def finish_all(self) -> None:
        """Everybody has room for everything, and says what is still to be said."""
        for end in (*self.lines, *self.apps):
            if not end.gone and not end.line.wire.finished:
                await end.announce(1 << 24, *([(MAX_STREAMS, 100)] if end in self.apps else []))
                await end.give(0, 1 << 24)
        self.window, self.most = 1 << 24, 100
        for _ in range(20):
            await self.stage.quiet()
            for end in self.apps:
                await end.give(0, 1 << 20)  # of those that have come meanwhile
            for call in self.unfinished():
                await self.send_body(call, 0, end=True)
            for asked in self.pending():
                await self.tell(asked, 100)
        await self.stage.quiet()


DEPTHS = [pytest.param(100, 40, id="brief"), pytest.param(3000, 80, id="long", marks=pytest.mark.deep)]


@pytest.mark.parametrize(("examples", "steps"), DEPTHS)
def test_whatever_happens_no_answer_crosses_none_is_lost_and_the_books_balance(examples: int, steps: int) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    depth = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(Mesh, settings=depth)
