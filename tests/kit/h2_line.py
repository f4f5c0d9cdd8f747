"""HTTP/2 by hand over a memory wire: a caller, or an application, in the scenes of tests/kit/play.py.

    web = await h2_call(stage)
    await web.say(headers(1, GET))
    assert (await web.answer(1)).status == 200
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from sidecar.net.port import WireBroken
from tests.kit.h1_line import HungUp, Line
from tests.kit.h2_wire import ACK, GREETING, HELLO, OK, PING, PREFACE, SETTINGS, Fields, data, frame, headers
from tests.kit.hops import WEB
from tests.kit.play import Serve, Stage

ORDERS_GET: Fields = (
    (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"orders"), (b":path", b"/"),
)  # fmt: skip
ORDERS_POST: Fields = ((b":method", b"POST"), *ORDERS_GET[1:])


@dataclass
class H2Answer:
    """What came on one stream until it ended."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None  # the code of a RST_STREAM; None where it came to its own end
    ended: bool = False


class H2Line:
    """One end of an HTTP/2 connection. Answers PING and SETTINGS as everybody must, unless told not to."""

    def __init__(self, line: Line, *, polite: bool = True) -> None:
        self.line = line
        self.polite = polite
        self.answers: dict[int, H2Answer] = {}
        self.frames: list[Frame] = []
        self.goaways: list[GoAwayFrame] = []
        self.settings: dict[int, int] = {}
        self._decoder = hpack.Decoder()

    async def say(self, *pieces: bytes) -> None:
        """Send frames."""
        await self.line.say(b"".join(pieces))

    async def next(self) -> Frame:
        """The next frame, with what it means noted. Raises HungUp."""
        head = await self.line.hear(9)
        found, size = Frame.parse_frame_header(memoryview(head))
        found.parse_body(memoryview(await self.line.hear(size)))
        self.frames.append(found)
        await self._note(found)
        return found

    async def _note(self, found: Frame) -> None:
        answer = self.answers.setdefault(found.stream_id, H2Answer())
        if isinstance(found, HeadersFrame):
            fields = dict(self._decoder.decode(found.data, raw=True))
            answer.headers |= fields
            answer.status = int(fields.get(b":status", answer.status or b"0"))
        elif isinstance(found, DataFrame):
            answer.body += found.data
        elif isinstance(found, RstStreamFrame):
            if not answer.ended:
                answer.reset = found.error_code
            answer.ended = True
        elif isinstance(found, GoAwayFrame):
            self.goaways.append(found)
        elif isinstance(found, SettingsFrame) and "ACK" not in found.flags:
            self.settings |= found.settings
            if self.polite:
                await self.say(frame(SETTINGS, ACK, 0))
        elif isinstance(found, PingFrame) and "ACK" not in found.flags and self.polite:
            await self.say(frame(PING, ACK, 0, found.opaque_data))
        if isinstance(found, HeadersFrame | DataFrame) and "END_STREAM" in found.flags:
            answer.ended = True

    async def until(self, done: Callable[[], object]) -> None:
        """Read frames until this is true."""
        while not done():
            await self.next()

    async def answer(self, stream: int) -> H2Answer:
        """What comes on a stream, up to its end."""
        await self.until(lambda: self.answers.get(stream, H2Answer()).ended)
        return self.answers[stream]

    async def last_word(self) -> GoAwayFrame:
        """The last GOAWAY before the other side ends the connection."""
        try:
            while True:
                await self.next()
        except (HungUp, WireBroken):
            return self.goaways[-1]


async def h2_call(stage: Stage, *more: bytes, port: int = 9001, polite: bool = True) -> H2Line:
    """As the application web, by prior knowledge."""
    line = H2Line(await stage.call(port), polite=polite)
    await line.say(HELLO, *more)
    return line


async def h2_peer(stage: Stage, *more: bytes, who: Any = WEB, polite: bool = True) -> H2Line:
    """As a peer without a sidecar, by ALPN, straight to the sidecar of orders."""
    line = H2Line(await stage.peer(who, h2=True), polite=polite)
    await line.say(HELLO, *more)
    return line


Requests = Callable[[H2Line, int], Coroutine[Any, Any, None]]


def h2_app(on_request: Requests, *, greeting: bytes = GREETING) -> Serve:
    """An application that speaks HTTP/2: `on_request(line, stream)` for each request that has ended."""

    async def serve(raw: Line) -> None:
        line = H2Line(raw)
        assert await raw.hear(len(PREFACE)) == PREFACE
        await line.say(greeting)
        while True:
            found = await line.next()
            if isinstance(found, HeadersFrame | DataFrame) and "END_STREAM" in found.flags:
                await on_request(line, found.stream_id)

    return serve


async def answer_ok(line: H2Line, stream: int) -> None:
    """200, and "ok"."""
    await line.say(headers(stream, OK, end=False), data(stream, b"ok", end=True))
