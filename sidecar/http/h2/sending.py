"""What a connection sends, and the streams on it: half of the connection; `reading` is the other.

`to_send` frames data as late as possible. Streams take turns, a frame each, whenever the wire has room: control frames
and heads never wait behind a body, and a body that the wire does not take stays with whoever sends it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Final

from sidecar.errors import AbusivePeer, HopError, InternalError
from sidecar.http.h2 import frames
from sidecar.http.h2.codes import (
    DEFAULT_WINDOW,
    END_STREAM,
    PREFACE,
    Abuse,
    Code,
    ConnectionFault,
    Kind,
    Setting,
)
from sidecar.http.h2.engine import Engine
from sidecar.http.h2.events import Failed, H2Event, Stirred
from sidecar.http.h2.limits import Budgets, H2Limits
from sidecar.http.h2.windows import CONNECTION, Windows
from sidecar.http.versions import response_fields

if TYPE_CHECKING:
    from sidecar.http.h2.stream import H2Stream
    from sidecar.http.message import ResponseHead

SEND_BYTES: Final = 256 * 1024  # what `to_send` gives at once
_REMEMBERED: Final = 1000  # resets of ours: what was on its way to those streams is not an error


class Sending(ABC):
    """One connection as its streams see it."""

    is_client: bool

    def __init__(self, limits: H2Limits, now: float) -> None:
        self.limits = limits
        self.now = now
        self.error: HopError | None = None  # why the connection has failed
        self.abuse: Abuse | None = None  # and what that was called
        self.streams: dict[int, H2Stream] = {}  # that are neither ended nor reset
        self.opened = 0  # streams so far
        self.refused = 0  # of them, those over the limit
        self.highest = 0  # stream that was opened by whoever opens them
        self._engine = Engine()
        self._windows = Windows(limits.stream_window, limits.connection_window)
        self._budgets = Budgets(limits.rates, now)
        self._events: deque[H2Event] = deque()
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._ready: dict[int, H2Stream] = {}  # have something to send, in the order of their turns
        self._blocked: dict[int, H2Stream] = {}  # have something to send, and no room
        self._reset_by_us: dict[int, None] = {}
        self._greet()

    def _greet(self) -> None:
        limits = self.limits
        values = [
            (Setting.MAX_CONCURRENT_STREAMS, limits.streams),
            (Setting.INITIAL_WINDOW_SIZE, limits.stream_window),
            (Setting.MAX_FRAME_SIZE, limits.frame_bytes),
            (Setting.MAX_HEADER_LIST_SIZE, limits.head_bytes),
        ]
        if self.is_client:
            values[0] = (Setting.ENABLE_PUSH, 0)
            self._emit(PREFACE)
        else:
            values.append((Setting.ENABLE_CONNECT_PROTOCOL, 1))
        self._emit(frames.settings(values))
        if limits.connection_window > DEFAULT_WINDOW:
            self._emit(frames.window_update(CONNECTION, limits.connection_window - DEFAULT_WINDOW))

    # ---- bytes out ---------------------------------------------------------------------------------------------------

    def _emit(self, data: bytes | memoryview) -> None:
        self._out.append(data)
        self._out_bytes += len(data)

    @property
    def wants_write(self) -> bool:
        """Whether there is anything to send at this moment."""
        return bool(self._out or self._ready)

    def to_send(self, now: float, most: int = SEND_BYTES) -> bytes:
        """The next bytes for the wire; a little more than `most` at most, and `b""` where there is nothing."""
        self.now = now
        while self._ready and self._out_bytes < most:
            stream_id = next(iter(self._ready))
            self._turn(self._ready.pop(stream_id), most - self._out_bytes)
        data = b"".join(self._out)
        self._out = []
        self._out_bytes = 0
        return data

    def _turn(self, stream: H2Stream, most: int) -> None:
        """Frame one piece of what a stream has to send; where no other waits for its turn, about `most` bytes of it."""
        engine, end = self._engine, stream.end_queued
        if not stream.unsent and not end:
            return
        if stream.unsent:
            room = engine.room(stream.id)
            if room <= 0:
                if stream.blocked_since is None:
                    stream.blocked_since = self.now
                self._blocked[stream.id] = stream
                return
            end = self._send_pieces(stream, room if not self._ready else min(room, engine.frame_bytes), most)
        elif stream.trailers:
            self._emit(engine.send_head(stream.id, stream.trailers, end=True))
        else:
            engine.send_end(stream.id)
            self._emit(frames.header(Kind.DATA, END_STREAM, stream.id, 0))
        if not stream.unsent:
            stream.blocked_since = None
            self._stir(stream)
        if end:
            self._we_are_done(stream)
        elif stream.unsent or stream.end_queued:
            self._ready[stream.id] = stream

    def _send_pieces(self, stream: H2Stream, room: int, most: int) -> bool:
        """Frame pieces of a body while there is room, until they are `most` bytes; whether that was its end."""
        engine, frame_bytes = self._engine, self._engine.frame_bytes
        size, end = 0, False
        while stream.unsent and size < min(room, most):
            piece = stream.next_piece(min(frame_bytes, room - size))
            size += len(piece)
            end = stream.end_queued and not stream.unsent and not stream.trailers
            self._emit(frames.header(Kind.DATA, END_STREAM if end else 0, stream.id, len(piece)))
            self._emit(piece)
            self._budgets.sent_frames += 1
        engine.spend(stream.id, size)
        if end:
            engine.send_end(stream.id)
        self._budgets.sent_bytes += size
        return end

    def _unblock(self) -> None:
        """There may be room for streams that had none."""
        if self._blocked:
            self._ready.update(self._blocked)
            self._blocked = {}

    # ---- what streams ask for ----------------------------------------------------------------------------------------

    def send_response(self, stream: H2Stream, head: ResponseHead, *, end: bool) -> None:
        """A response head, final or 1xx."""
        informational = head.status < 200
        self._emit(self._engine.send_head(stream.id, response_fields(head), end=end, informational=informational))
        self._budgets.sent_frames += 1
        if end:
            stream.end_queued = True
            self._we_are_done(stream)

    def has_output(self, stream: H2Stream) -> None:
        """A stream has something to send."""
        if stream.id not in self._blocked:
            self._ready[stream.id] = stream

    def give_back(self, stream: H2Stream, size: int) -> None:
        """So many bytes of a stream have been passed on."""
        if self.error is None and size:
            said = self._windows.give_back(stream.id, size)
            if said:
                self._emit(said)

    def reset(self, stream: H2Stream, code: int, error: HopError | None = None, *, spoilt: bool = False) -> None:
        """End a stream in both directions; an error is for whoever serves it. `spoilt`: what has come is not to be
        believed.
        """
        if stream.on_books:
            self._emit(self._engine.reset(stream.id, code))
            self._remember(stream.id)
            self._drop(stream, error or InternalError("the stream was given up"), spoilt=spoilt)

    def finish(self, stream: H2Stream) -> None:
        """Whoever served it is done with it, and reads no more. What it has still to send is sent first."""
        stream.left = True
        self.give_back(stream, stream.forget())
        if not stream.on_books:
            return
        if self.is_client or not stream.end_queued:
            self.reset(stream, Code.CANCEL)
        elif stream.we_are_done:
            self._stop_request(stream)

    def _stop_request(self, stream: H2Stream) -> None:
        """It has its answer, and nobody reads the rest of it; where all of it is here, its end is on the way."""
        if stream.expected is None or stream.received < stream.expected:
            self._budgets.streams += 1
            self.reset(stream, Code.NO_ERROR)

    # ---- the lives of streams ----------------------------------------------------------------------------------------

    def _stir(self, stream: H2Stream) -> None:
        if not stream.stirred:
            stream.stirred = True
            self._events.append(Stirred(stream))

    def next_event(self) -> H2Event | None:
        """What has happened; None where that was all."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, Stirred):
            event.stream.stirred = False
        return event

    def _they_are_done(self, stream: H2Stream) -> None:
        stream.they_are_done = True
        self._windows.close(stream.id)
        if stream.we_are_done:
            self._retire(stream)

    def _we_are_done(self, stream: H2Stream) -> None:
        stream.we_are_done = True
        if stream.they_are_done:
            self._retire(stream)
        elif stream.left:
            self._stop_request(stream)

    def _retire(self, stream: H2Stream) -> None:
        """Both have said all they had to say."""
        stream.on_books = False
        self.streams.pop(stream.id, None)
        self._budgets.streams += 1
        if stream.left:
            self.give_back(stream, stream.forget())
        self._stir(stream)

    def _drop(self, stream: H2Stream, error: HopError, *, spoilt: bool = False) -> None:
        """A stream has failed, and the books know it."""
        self.streams.pop(stream.id, None)
        self._windows.close(stream.id)
        self._ready.pop(stream.id, None)
        self._blocked.pop(stream.id, None)
        if self.is_client and stream.they_are_done and not spoilt:  # a whole answer stays one, whatever comes behind it
            stream.stop_sending()
        else:
            self.give_back(stream, stream.fail(error))
        self._stir(stream)

    def _remember(self, stream_id: int) -> None:
        """What still comes on this stream is no mistake of theirs."""
        self._reset_by_us[stream_id] = None
        if len(self._reset_by_us) > _REMEMBERED:
            del self._reset_by_us[next(iter(self._reset_by_us))]

    # ---- failure -----------------------------------------------------------------------------------------------------

    def _fail(self, fault: ConnectionFault) -> None:
        """End the connection: GOAWAY, and every stream learns why."""
        self.abuse = fault.abuse
        self.error = error = self._error_of(fault)
        self._emit(frames.goaway(self._last_served, fault.code))
        self._end_all(error)
        self._events.append(Failed(error))

    def _end_all(self, error: HopError) -> None:
        for stream in list(self.streams.values()):
            self._drop(stream, error)
        self._ready = {}
        self._blocked = {}

    def _error_of(self, fault: ConnectionFault) -> HopError:
        if fault.abuse is not None:
            return self._abuse(fault.detail, fault.abuse)
        return self._violation(fault.detail)

    def _abuse(self, detail: str, abuse: Abuse) -> HopError:
        """The error of an other side that wastes our time within the letter of the protocol."""
        return AbusivePeer(detail, reason=abuse.value)

    @property
    def _last_served(self) -> int:
        """The last stream of theirs that we have begun with, for GOAWAY; a client allows no streams of theirs."""
        return 0

    @abstractmethod
    def _violation(self, detail: str) -> HopError:
        """The error of an other side that does not keep to the protocol."""
