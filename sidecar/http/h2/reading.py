"""What a connection reads. Frames are taken in turn; each is first held to the rules that end a connection, then to
those that end a stream, then to the budgets (`limits`). Only what is left reaches the engine and its stream.

The first frame must be SETTINGS. A connection that has failed reads nothing more. Frames on a stream that we have reset
are ignored, since they may have been on their way; on any other stream that has ended, DATA and HEADERS end the
connection (RFC 9113 section 5.1).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.errors import HopError
from sidecar.http.h2 import frames
from sidecar.http.h2.blocks import HeaderBlocks
from sidecar.http.h2.codes import ACK, END_STREAM, Abuse, Code, ConnectionFault, Kind, StreamFault
from sidecar.http.h2.control import Control
from sidecar.http.h2.events import Ended
from sidecar.http.h2.limits import H2Limits
from sidecar.http.h2.windows import CONNECTION
from sidecar.http.message import Data, End

if TYPE_CHECKING:
    from sidecar.hop import Headers
    from sidecar.http.h2.frames import Frame
    from sidecar.http.h2.stream import H2Stream


class H2Connection(Control):
    """One connection, of either role."""

    def __init__(self, limits: H2Limits | None = None, now: float = 0.0) -> None:
        super().__init__(limits or H2Limits(), now)
        self.ended = False  # the other side has closed
        self._reader = frames.FrameReader(preface=not self.is_client, max_bytes=self.limits.frame_bytes)
        self._blocks = HeaderBlocks(self.limits)
        self._waiting_since: float | None = now  # for the rest of the preface, or of a header block
        self._handlers: tuple[Callable[[Frame], None], ...] = (
            self._on_data, self._on_headers, self._on_priority, self._on_rst_stream, self._on_settings, self._on_push,
            self._on_ping, self._on_goaway, self._on_window_update, self._on_continuation,
        )  # fmt: skip

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the wire; `b""` is its end. What they mean is in `next_event`, `to_send` and `error`."""
        self.now = now
        if self.error is not None or self.ended:
            return
        try:
            if not data:
                self._on_end()
                return
            self._check_unread()
            self._reader.feed(data)
            while (frame := self._reader.next()) is not None:
                self._on_frame(frame)
        except ConnectionFault as fault:
            self._fail(fault)
        if self._greeted and not self._blocks.stream:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now

    def _check_unread(self) -> None:
        """Bodies wait with whoever sends them; heads and answers to control frames wait here, and not without limit."""
        if self._out_bytes > self.limits.unread_bytes:
            detail = f"{self._out_bytes} bytes of heads and control frames wait, and it sends on without reading them"
            self._out, self._out_bytes = [], 0
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, detail, Abuse.UNREAD_ANSWERS)

    def _on_end(self) -> None:
        self.lose(None, self.now)

    def lose(self, error: HopError | None, now: float) -> None:
        """The connection has gone; whatever is not whole fails with this error, or with the usual one."""
        self.now = now
        if self.error is None and not self.ended:
            self.ended = True
            self._end_all(error or self._gone())
            self._events.append(Ended())

    # ---- time --------------------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `check_time` may have something to do; monotonic."""
        found = [
            stream.blocked_since
            for stream in self._blocked.values()
            if stream.blocked_since is not None and not stream.is_tunnel
        ]
        soonest = min(found) + self.limits.stall_seconds if found else None
        if self._waiting_since is not None and self.error is None:
            head = self._waiting_since + self.limits.head_seconds
            return head if soonest is None else min(head, soonest)
        return soonest

    def check_time(self, now: float) -> None:
        """End what has waited too long for the other side: a connection that is half a head, a stream without room."""
        self.now = now
        if self.error is not None or self.ended:
            return
        if self._waiting_since is not None and now - self._waiting_since >= self.limits.head_seconds:
            what = "a header block" if self._greeted else "the preface and SETTINGS"
            detail = f"{what} not whole within {self.limits.head_seconds:g} s"
            self._fail(ConnectionFault(Code.ENHANCE_YOUR_CALM, detail, Abuse.SLOW_HEAD))
            return
        for stream in list(self._blocked.values()):
            since = stream.blocked_since
            if since is not None and now - since >= self.limits.stall_seconds and not stream.is_tunnel:
                detail = f"{stream.unsent} bytes not taken within {self.limits.stall_seconds:g} s, for lack of window"
                self.reset(stream, Code.CANCEL, self._abuse(detail, Abuse.ZERO_WINDOW))

    # ---- frames ------------------------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        kind = frame.kind
        if not self._greeted and (kind != Kind.SETTINGS or frame.flags & ACK):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        expected = self._blocks.stream
        if expected and (kind != Kind.CONTINUATION or frame.stream != expected):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "another frame within a header block")
        if kind >= len(self._handlers):
            self._take(Abuse.UNKNOWN_FRAME_FLOOD)
            return
        try:
            self._handlers[kind](frame)
        except StreamFault as fault:
            self._fail_stream(self.streams[frame.stream], fault)

    def _fail_stream(self, stream: H2Stream, fault: StreamFault) -> None:
        """The other side has made a mistake on one stream."""
        if fault.code is None:
            stream.error = fault.error  # an answer can still be sent
            self._stir(stream)
            return
        self.reset(stream, fault.code, fault.error, spoilt=True)
        self._take(Abuse.RAPID_RESET)  # resets that it makes us do cost it as much as its own (CVE-2025-8671)

    # ---- heads and bodies --------------------------------------------------------------------------------------------

    def _on_headers(self, frame: Frame) -> None:
        if not frame.stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "HEADERS on stream 0")
        block = self._blocks.begin(frame)
        if block is not None:
            self._on_head(frame.stream, self._blocks.read(block), end=bool(frame.flags & END_STREAM))

    def _on_continuation(self, frame: Frame) -> None:
        if not self._blocks.stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        found = self._blocks.go_on(frame)
        if found is not None:
            self._on_head(frame.stream, self._blocks.read(found[0]), end=found[1])

    def _late_head(self, stream_id: int) -> None:
        """A header block on a stream that has ended."""
        if stream_id not in self._reset_by_us:
            raise ConnectionFault(Code.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which has ended")

    def _on_data(self, frame: Frame) -> None:
        stream = self.streams.get(frame.stream)
        size = len(frame.raw) - 9
        if size > self._windows.room:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more DATA than the connection's window has room for")
        if stream is None:
            self._check_not_idle(frame)
            if frame.stream not in self._reset_by_us:
                raise ConnectionFault(Code.STREAM_CLOSED, f"DATA on stream {frame.stream}, which has ended")
            self._unwanted(size)
            return
        data, end = frame.unpadded(), bool(frame.flags & END_STREAM)
        try:
            self._check_data(stream, size, len(data), end)
        except StreamFault:
            self._unwanted(size)
            raise
        self._windows.take(stream.id, size)
        if end:
            self._engine.on_end(stream.id)
        self.give_back(stream, size - len(data))
        if not data and not end:
            self._take(Abuse.EMPTY_FRAME_FLOOD)
        stream.received += len(data)
        if stream.error is not None:
            self.give_back(stream, len(data))
        elif data:
            stream.put(Data(data))
        if end:
            self._end_body(stream, [])
        self._stir(stream)

    def _check_data(self, stream: H2Stream, size: int, data: int, end: bool) -> None:
        if stream.they_are_done:
            raise StreamFault(self._violation("DATA after the end of the message"), Code.STREAM_CLOSED)
        if not self._takes_data(stream):
            raise StreamFault(self._violation("DATA before the head"))
        if size > self._windows.room_of(stream.id):
            error = self._violation("more DATA than the stream's window has room for")
            raise StreamFault(error, Code.FLOW_CONTROL_ERROR)
        self._check_length(stream, stream.received + data, end=end)

    def _check_length(self, stream: H2Stream, received: int, *, end: bool) -> None:
        """Hold a body to the length that its head has stated. Raises StreamFault."""
        stated = stream.expected
        if stated is not None and (received > stated or (end and received != stated)):
            detail = f"a content-length of {stated}, and {received} bytes{'' if end else ' so far'}"
            raise StreamFault(self._violation(detail))

    def _end_body(self, stream: H2Stream, trailers: Headers) -> None:
        if stream.error is None:
            stream.put(End(trailers))
        self._they_are_done(stream)

    def _unwanted(self, size: int) -> None:
        """Data that belongs to no stream any more: its room on the connection is given back, or that would run dry."""
        self._windows.take(CONNECTION, size)
        said = self._windows.give_back(CONNECTION, size)
        if said:
            self._emit(said)

    def _on_rst_stream(self, frame: Frame) -> None:
        self._check_size(frame, 4)
        self._check_not_idle(frame)
        stream = self.streams.get(frame.stream)
        if stream is None:
            self._take(Abuse.RAPID_RESET)
            return
        self._engine.on_reset(stream.id)
        self._on_reset(stream, frames.error_code(frame.payload))

    # ---- what the roles know -----------------------------------------------------------------------------------------

    @abstractmethod
    def _on_head(self, stream_id: int, fields: Headers, *, end: bool) -> None:
        """A header block has come, on whatever stream. Raises StreamFault only for a stream that is open."""

    @abstractmethod
    def _on_reset(self, stream: H2Stream, code: int) -> None:
        """The other side has reset a stream, and the engine knows."""

    @abstractmethod
    def _takes_data(self, stream: H2Stream) -> bool:
        """Whether a body may come on a stream now."""

    @abstractmethod
    def _gone(self) -> HopError:
        """What streams fail with when the other side closes."""
