"""A mesh whose callers and application are played by hand over HTTP/2, one action at a time: see `World`.

For tests/properties/test_h2_driven.py, which picks the actions. Everybody here keeps to the rules. An action may spoil
calls: note on them why they may fail. Calls that nothing has spoiled must be answered.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any
from unittest.mock import patch

from hyperframe.frame import Frame, HeadersFrame

from sidecar.http.h2 import H2Client, H2Limits, H2Server
from sidecar.proxy.http2 import Http2Connection
from tests.kit.h1_line import Line
from tests.kit.h2_ends import Asked, Call, End
from tests.kit.h2_wire import GOAWAY, PREFACE, Fields, frame, headers, word
from tests.kit.hops import WEB
from tests.kit.play import MemoryProxy, Stage

PATIENT = "    timeouts: {idle: 20s, response_head: 10s, drain: 30s}"
PROMPT = 9.0  # seconds that a request may take without any time-out
MAX_STREAMS = 3  # of SETTINGS
REPLAY = 64 * 1024  # bytes of a body that are kept to be sent again
STREAM_WINDOW, CONNECTION_WINDOW = 30_000, 100_000  # of the sidecars: small, so that it shows
INBOUND = ("10.0.0.2", 17443)


class World:
    """Two sidecars, their callers and an application."""

    def __init__(self) -> None:
        self.small = patch("sidecar.proxy.trunks.H2Limits", partial(H2Limits, stream_window=STREAM_WINDOW,
                                                                    connection_window=CONNECTION_WINDOW))  # fmt: skip
        self.small.start()
        # No breaker: whoever asks after a minute of time-outs would be refused for a second.
        self.stage = Stage(http=", app_http: http2", orders=PATIENT, web=PATIENT, upstream=", breaker: off")
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

    def proxies(self) -> tuple[MemoryProxy, MemoryProxy]:
        """Both sidecars."""
        return self.stage.web, self.stage.orders

    def codecs(self) -> list[H2Client | H2Server]:
        """Every HTTP/2 connection of theirs, both ways."""
        found: list[H2Client | H2Server] = []
        for proxy in self.proxies():
            served = proxy._reception.http
            found += [connection.codec for connection in served if isinstance(connection, Http2Connection)]
            upstreams = [*proxy.upstreams, *proxy.left]
            places = [place for upstream in upstreams for place in upstream.places.values()]
            found += [trunk.codec for place in places for trunk in place.trunks._trunks]
        return found

    async def pass_time(self, seconds: float) -> None:
        """As a worker sees it pass."""
        until = self.stage.now + seconds
        while (left := until - self.stage.now) > 0:
            await self.stage.sleep(min(left, 0.5))
            self.stage.sweep()

    # ---- who and what there is ---------------------------------------------------------------------------------------

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
        """Connections on which callers may still ask."""
        return [end for end in self.lines if not (end.gone or end.goaways or end.leaving)]

    def unfinished(self) -> list[Call]:
        """Calls whose request goes on."""
        return [call for call in self.live() if not call.request_ended and not call.end.gone]

    # ---- callers -----------------------------------------------------------------------------------------------------

    def connect_one(self, peer: bool, window: int) -> None:
        """A caller connects: a peer, or the application web."""
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

    async def read_on(self, end: End) -> None:
        """Be a caller, until its connection ends."""
        await end.read_on()
        for call in self.live():
            if call.end is end:
                call.outcome = "gone"

    def on_caller_frame(self, end: End, found: Frame) -> None:
        """What a caller hears."""
        if not found.stream_id:
            for call in self.live():
                if call.end is end and end.goaways and call.stream > end.goaways[-1][0]:
                    call.outcome = "gone"
            return
        call = self.of_stream[id(end), found.stream_id]
        assert isinstance(call, Call)
        call.on_frame(found, self.asked)

    async def open(self, line: End, *, post: bool, size: int, end: bool) -> None:
        """Ask something."""
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
        """Send a piece of a request, as far as there is room for it; with `end` that was its last."""
        size = min(size, call.end.room(call.stream))
        payload = (b"<%d:%d>" % (call.number, len(call.sent)) * (size // 4 + 1))[:size]
        call.sent += payload
        call.request_ended = end
        await call.end.send(call.stream, payload, end=end)

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

    async def serve(self, line: Line) -> None:
        """Be the application, on one connection."""
        assert await line.hear(len(PREFACE)) == PREFACE
        end = End(line, self.on_app_frame)
        self.apps.append(end)
        await end.announce(self.window, (MAX_STREAMS, self.most))
        await end.read_on()
        for found in self.pending(end):
            found.over = True

    def on_app_frame(self, end: End, found: Frame) -> None:
        """What the application hears."""
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

    async def tell(
        self, asked: Asked, size: int, *, inform: bool = False, finish: bool = True, trailers: Fields = ()
    ) -> None:
        """Say a piece of an answer."""
        if not asked.answering:
            if inform:
                await asked.head(103)
            await asked.head(200, end=finish and not size and not trailers)
        if not asked.over and size:
            await asked.body(size)
        if not asked.over and finish:
            await asked.finish(trailers)

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
                if any(asked.answering for asked in self.asked.get(call.number, ())):
                    call.spoiled = call.spoiled or "the application took back what it had begun to say"
                if how != "goaway" or call.left > 1 or len(call.sent) > REPLAY or self.most < 100:
                    call.spoiled = call.spoiled or f"the application left: {how}"
        for asked in mine:
            asked.over = asked.over or asked not in kept
        self.do(leaving(), settle=settle)

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

    # ---- the mesh ----------------------------------------------------------------------------------------------------

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
