"""Both ends of driven HTTP/2 connections, by hand: callers, and an application, that keep to every rule.

An `End` reads all the time and keeps its own books of both windows, so that whoever overdraws one fails the test. A
`Call` is a request as its caller sees it, an `Asked` is what the application sees of it, perhaps more than once: what
was not begun with is asked again. Frames are cut by hyperframe and heads read by hpack; nothing here is ours.
"""

from __future__ import annotations

from collections.abc import Callable
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
    WindowUpdateFrame,
)

from sidecar.net.port import WireBroken
from tests.kit.h1_line import HungUp, Line
from tests.kit.h2_wire import ACK, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, data, frame, headers, settings, word

FIRST_WINDOW = 65_535
FRAME_BYTES = 16_384
INITIAL_WINDOW = 4  # of SETTINGS

Head = dict[bytes, bytes]


class End:
    """One end of a connection: answers SETTINGS and PING, and tells of everything else."""

    def __init__(self, line: Line, on_frame: Callable[[End, Frame], None]) -> None:
        self.line = line
        self.gone = False  # the other side has ended the connection
        self.leaving = False  # we have said that we leave, or have left
        self.goaways: list[tuple[int, int]] = []  # last stream, code
        self.last = (1 << 31) - 1  # of their streams that we begin with; lower once we have said so
        self.most = 100  # streams that the other side takes at once
        self._on_frame = on_frame
        self._decoder = hpack.Decoder()
        self._initial = self._their_initial = FIRST_WINDOW
        self._announced: list[int] = []  # windows that we have announced and that are not confirmed yet
        self._may_come: dict[int, int] = {0: FIRST_WINDOW}
        self._may_go: dict[int, int] = {0: FIRST_WINDOW}

    # ---- what comes --------------------------------------------------------------------------------------------------

    async def read_on(self) -> None:
        """Read for as long as anything comes."""
        try:
            while True:
                found, size = Frame.parse_frame_header(memoryview(await self.line.hear(9)))
                found.parse_body(memoryview(await self.line.hear(size)))
                await self._take(found)
        except (HungUp, WireBroken):
            self.gone = True

    async def _take(self, found: Frame) -> None:
        if isinstance(found, DataFrame) and found.flow_controlled_length:  # an end needs no room
            for number in (0, found.stream_id):
                self._may_come[number] -= found.flow_controlled_length
                assert self._may_come[number] >= 0, f"more DATA on {found} than we have made room for"
        elif isinstance(found, WindowUpdateFrame):
            if found.stream_id in self._may_go:
                self._may_go[found.stream_id] += found.window_increment
                assert self._may_go[found.stream_id] < 1 << 31
        elif isinstance(found, SettingsFrame):
            await self._settings(found)
        elif isinstance(found, PingFrame) and "ACK" not in found.flags:
            await self.say(frame(PING, ACK, 0, found.opaque_data))
        elif isinstance(found, GoAwayFrame):
            assert not self.goaways or found.last_stream_id <= self.goaways[-1][0], "what was refused is taken back"
            self.goaways.append((found.last_stream_id, found.error_code))
        self._on_frame(self, found)

    async def _settings(self, found: SettingsFrame) -> None:
        if "ACK" in found.flags:
            if self._announced:
                self._adopt(self._announced.pop(0))
            return
        self.most = found.settings.get(3, self.most)
        more = found.settings.get(INITIAL_WINDOW, self._their_initial) - self._their_initial
        self._their_initial += more
        for number in self._may_go.keys() - {0}:
            self._may_go[number] += more
        await self.say(frame(SETTINGS, ACK, 0))

    def _adopt(self, window: int) -> None:
        more, self._initial = window - self._initial, window
        for number in self._may_come.keys() - {0}:
            self._may_come[number] += more

    def head_of(self, found: HeadersFrame) -> Head:
        """The fields in a frame of HEADERS; every such frame must be read, in turn."""
        assert "END_HEADERS" in found.flags
        return dict(self._decoder.decode(found.data, raw=True))

    # ---- what goes ---------------------------------------------------------------------------------------------------

    async def say(self, *pieces: bytes) -> None:
        """Send frames, unless the other side has gone."""
        try:
            await self.line.say(b"".join(pieces))
        except WireBroken:
            self.gone = True

    def open(self, stream: int) -> None:
        """A stream has begun, on either side."""
        self._may_come[stream] = self._initial
        self._may_go[stream] = self._their_initial

    def room(self, stream: int) -> int:
        """How much DATA the other side takes on a stream now."""
        return max(0, min(self._may_go[0], self._may_go.get(stream, 0)))

    async def send(self, stream: int, payload: bytes, *, end: bool = False) -> int:
        """DATA, as much of it as there is room for; `end` where all of it went. Returns how many bytes did."""
        size = min(len(payload), self.room(stream))
        self._may_go[0] -= size
        self._may_go[stream] -= size
        end = end and size == len(payload)
        pieces = [payload[at : min(at + FRAME_BYTES, size)] for at in range(0, size, FRAME_BYTES)] or [b""] * end
        last = len(pieces) - 1
        await self.say(*[data(stream, piece, end=end and at == last) for at, piece in enumerate(pieces)])
        return size

    async def give(self, stream: int, size: int) -> None:
        """Make room for so much more on a stream, or (0) on the connection."""
        if stream in self._may_come and size > 0 and self._may_come[stream] + size < 1 << 31:
            self._may_come[stream] += size
            await self.say(frame(WINDOW_UPDATE, 0, stream, word(size)))

    async def announce(self, window: int, *more: tuple[int, int]) -> None:
        """Give every stream another window. It counts from its confirmation on, before which nobody uses it."""
        self._announced.append(window)
        await self.say(settings((INITIAL_WINDOW, window), *more))

    async def reset(self, stream: int, code: int) -> None:
        """RST_STREAM."""
        await self.say(frame(RST_STREAM, 0, stream, word(code)))


@dataclass(eq=False)
class Call:
    """One request, as its caller sees it."""

    number: int
    end: End
    stream: int
    began: float  # monotonic
    sent: bytearray = field(default_factory=bytearray)
    request_ended: bool = False
    come: bytearray = field(default_factory=bytearray)
    attempt: Asked | None = None  # whose answer this is
    informed: int = 0  # 1xx that came
    trailers: Head = field(default_factory=dict)
    status: int = 0
    left: int = 0  # how often the application said that it does not begin with it
    outcome: str = ""  # "answered", "reset", "cancelled" or "gone"
    spoiled: str = ""  # why it may fail; where this is empty, it must not

    def on_frame(self, found: Frame, asked: dict[int, list[Asked]]) -> None:
        """Something has come on our stream."""
        if isinstance(found, HeadersFrame):
            self._on_head(self.end.head_of(found), asked)
        if self.outcome:
            return
        if isinstance(found, DataFrame):
            assert self.status >= 200, "DATA before the head"
            self.come += found.data
            if self.attempt is not None:
                assert self.attempt.told.startswith(self.come), "other bytes than were answered"
        elif isinstance(found, RstStreamFrame):
            self.outcome = "reset"
        if isinstance(found, HeadersFrame | DataFrame) and "END_STREAM" in found.flags:
            assert self.status >= 200
            self.outcome = "answered"

    def _on_head(self, head: Head, asked: dict[int, list[Asked]]) -> None:
        if self.outcome:
            return
        if self.status >= 200:
            assert b":status" not in head
            self.trailers = head
            return
        self.status = int(head[b":status"])
        if b"x-number" in head:  # from the application, and not one of the sidecars' own answers
            assert int(head[b"x-number"]) == self.number, "the answer of another request"
            if self.status >= 200:
                self.attempt = asked[self.number][int(head[b"x-attempt"])]
            else:
                self.informed += 1

    def assert_served(self) -> None:
        """It has the whole answer, and the application has had the whole request where it wanted it."""
        assert self.outcome == "answered", (self.number, self.outcome, self.status)
        assert self.status == 200, (self.number, self.status)
        assert self.attempt is not None
        assert self.come == self.attempt.told, "half an answer"
        assert self.trailers == self.attempt.trailers


@dataclass(eq=False)
class Asked:
    """A request as the application sees it."""

    number: int
    attempt: int
    end: End
    stream: int
    call: Call
    come: bytearray = field(default_factory=bytearray)
    whole: bool = False  # the request
    answering: bool = False
    told: bytearray = field(default_factory=bytearray)
    trailers: Head = field(default_factory=dict)
    over: bool = False  # answered, reset, or left

    def on_frame(self, found: Frame) -> None:
        """Something has come on its stream."""
        if isinstance(found, DataFrame):
            self.come += found.data
            assert self.call.sent.startswith(self.come), "other bytes than were asked"
        elif isinstance(found, RstStreamFrame):
            self.over = True
        if isinstance(found, HeadersFrame | DataFrame) and "END_STREAM" in found.flags:
            assert self.call.request_ended, "an end that nobody has sent"
            assert self.come == self.call.sent, "an end before all of it was there"
            self.whole = True

    async def head(self, status: int, *, end: bool = False) -> None:
        """Say a response head, final or 1xx."""
        self.answering = self.answering or status >= 200
        own = ((b"x-number", b"%d" % self.number), (b"x-attempt", b"%d" % self.attempt))
        self.over = self.over or end
        await self.end.say(headers(self.stream, ((b":status", b"%d" % status), *own), end=end))

    async def body(self, size: int) -> None:
        """Say a piece of a body, as far as there is room for it."""
        payload = (b"[%d.%d]" % (self.number, self.attempt) * (size // 3 + 1))[: min(size, self.end.room(self.stream))]
        self.told += payload
        await self.end.send(self.stream, payload)

    async def finish(self, trailers: Any = ()) -> None:
        """End the answer."""
        self.over = True
        self.trailers = dict(trailers)
        await self.end.say(headers(self.stream, trailers) if trailers else data(self.stream, b"", end=True))
