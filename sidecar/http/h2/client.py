"""Our side toward an upstream: sends requests, reads responses. One connection serves many callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.errors import (
    HopError,
    UpstreamClosed,
    UpstreamIdle,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamReset,
)
from sidecar.http.h2 import frames
from sidecar.http.h2.codes import LAST_STREAM, Abuse, Code, ConnectionFault, StreamFault, code_name
from sidecar.http.h2.events import Leaving
from sidecar.http.h2.heads import length_of, read_response, read_trailers
from sidecar.http.h2.reading import H2Connection
from sidecar.http.h2.stream import H2Stream
from sidecar.http.message import ResponseHead
from sidecar.http.versions import agreed, is_websocket, request_fields

if TYPE_CHECKING:
    from sidecar.hop import Headers
    from sidecar.http.message import RequestHead

_INFORMATIONAL_LIMIT: Final = 32  # 1xx responses to one request that wait to be read


class H2Client(H2Connection):
    """Requests go by `open`; their answers come on the streams that it returns."""

    is_client = True
    going_away = False  # the upstream has said GOAWAY, or we have: no new streams
    _next = 1

    @property
    def room(self) -> int:
        """How many more requests can be sent on this connection at this moment."""
        if self.going_away or self.ended or self.error is not None:
            return 0
        left = min(self.limits.streams_per_connection - self.opened, (LAST_STREAM - self._next) // 2)
        return max(0, min(self.peer_streams - len(self.streams), left))

    def open(self, head: RequestHead, *, scheme: bytes) -> H2Stream:
        """Begin a request, as there is `room`; a WebSocket needs `speaks_connect`. Its body follows on the stream."""
        assert self.room > 0
        tunnel = is_websocket(head) or head.method == b"CONNECT"
        end = not head.body and not tunnel
        stream = self.streams[self._next] = H2Stream(self, self._next)
        self._windows.open(self._next)
        self.highest = self._next
        self._next += 2
        self.opened += 1
        stream.head = head
        stream.end_queued = end
        self._emit(self._engine.send_head(stream.id, request_fields(head, scheme), end=end))
        if end:
            self._we_are_done(stream)
        return stream

    def leave(self) -> None:
        """Open no stream any more, and say so."""
        if not self.going_away and self.error is None:
            self.going_away = True
            self._emit(frames.goaway(0, Code.NO_ERROR))

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of this connection: time to close."""
        return self.going_away and not self.streams

    @property
    def spent(self) -> bool:
        """Whether it has carried as many requests as one connection may."""
        return self.opened >= self.limits.streams_per_connection

    def ping(self, payload: bytes) -> None:
        """Ask whether the other side is there; eight bytes, that come back as `Pong`."""
        if self.error is None:
            self._emit(frames.ping(payload, ack=False))

    # ---- responses ---------------------------------------------------------------------------------------------------

    def _on_head(self, stream_id: int, fields: Headers, *, end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id % 2 == 0 or stream_id > self.highest:
                raise ConnectionFault(Code.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}, which is idle")
            self._late_head(stream_id)
            return
        try:
            if stream.they_are_done:
                raise StreamFault(self._violation("HEADERS after the end of the response"), Code.STREAM_CLOSED)
            if stream.answered:
                self._on_trailers(stream, fields, end=end)
            else:
                self._on_response(stream, fields, end=end)
        except StreamFault as fault:
            self._blame(fault)
            raise
        self._stir(stream)

    def _on_response(self, stream: H2Stream, fields: Headers, *, end: bool) -> None:
        limits, request = self.limits, stream.head
        assert request is not None
        head = read_response(
            fields, self._blocks.size, end=end, head_bytes=limits.head_bytes, head_lines=limits.head_lines
        )
        if head.status < 200:
            self._engine.on_head(stream.id, end=False, informational=True)
            if stream.waiting_heads >= _INFORMATIONAL_LIMIT:
                detail = f"more than {_INFORMATIONAL_LIMIT} informational responses"
                raise StreamFault(self._violation(detail), Code.ENHANCE_YOUR_CALM)
            stream.put(head)
            return
        tunnel = head.status < 300 and (is_websocket(request) or request.method == b"CONNECT")
        if not tunnel:
            stream.expected = _stated_length(head, request)
            self._check_length(stream, 0, end=end)
        self._engine.on_head(stream.id, end=end)
        stream.answered = True
        stream.put(agreed(head) if tunnel and is_websocket(request) else head)
        if end:
            self._end_body(stream, [])

    def _on_trailers(self, stream: H2Stream, fields: Headers, *, end: bool) -> None:
        if not end:
            raise StreamFault(self._violation("trailers that do not end the stream"))
        limits = self.limits
        trailers = read_trailers(
            fields, self._blocks.size, head_bytes=limits.head_bytes, head_lines=limits.head_lines
        )
        self._check_length(stream, stream.received, end=True)
        self._engine.on_head(stream.id, end=True)
        self._end_body(stream, trailers)

    def _blame(self, fault: StreamFault) -> None:
        """What the strict reading says of a request, here it says of a response; nobody answers it."""
        if not isinstance(fault.error, UpstreamProtocolViolation):
            fault.error = self._violation(f"response: {fault.error}")
        fault.code = fault.code if fault.code is not None else Code.PROTOCOL_ERROR

    def _takes_data(self, stream: H2Stream) -> bool:
        return stream.answered

    # ---- the other side ----------------------------------------------------------------------------------------------

    def _on_reset(self, stream: H2Stream, code: int) -> None:
        """After a whole answer it only wants no more of the request (RFC 9113 section 8.1)."""
        detail = f"the upstream reset the stream ({code_name(code)})"
        refused = code == Code.REFUSED_STREAM and not stream.answered
        error = UpstreamRefused(detail) if refused else UpstreamReset(detail)
        error.code = code
        self._drop(stream, error)

    def _on_leaving(self, last_stream: int, code: int) -> None:
        """Streams after the last one were provably not begun (RFC 9113 section 6.8); the others go on."""
        self.going_away = True
        for stream in [found for found in self.streams.values() if found.id > last_stream]:
            self._engine.reset(stream.id, Code.CANCEL)  # they have left: nobody wants to know
            self._remember(stream.id)
            self._drop(stream, UpstreamRefused(f"the upstream leaves before this request ({code_name(code)})"))
        self._events.append(Leaving(last_stream, code))

    def _violation(self, detail: str) -> HopError:
        return UpstreamProtocolViolation(detail)

    def _abuse(self, detail: str, abuse: Abuse) -> HopError:
        """An upstream's doing, and never the caller's."""
        if abuse is Abuse.ZERO_WINDOW:
            return UpstreamIdle(f"the upstream does not read the request: {detail}")
        return UpstreamProtocolViolation(detail)

    def _gone(self) -> HopError:
        return UpstreamClosed("the upstream closed the connection before its answer was complete")


def _stated_length(head: ResponseHead, request: RequestHead) -> int | None:
    """How long the body of an answer must be: none to HEAD, nor in 204 and 304, whatever length they state."""
    if request.method == b"HEAD" or head.status in (204, 304):
        return 0
    return length_of(head.headers)
