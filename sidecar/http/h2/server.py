"""Our side toward a downstream: reads requests, sends responses."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sidecar.errors import DownstreamGone, HopError, ProtocolViolation
from sidecar.http.h2 import frames
from sidecar.http.h2.codes import LAST_STREAM, Abuse, Code, ConnectionFault, StreamFault, code_name
from sidecar.http.h2.events import Dismissed, Leaving, Opened
from sidecar.http.h2.heads import read_request, read_trailers
from sidecar.http.h2.limits import RAPID_SECONDS
from sidecar.http.h2.reading import H2Connection
from sidecar.http.h2.stream import H2Stream
from sidecar.http.message import End

if TYPE_CHECKING:
    from sidecar.hop import Headers
    from sidecar.http.h2.limits import H2Limits

_FAREWELL = b"farewell"  # the PING behind our first GOAWAY: when it is back, no request can be on its way unseen
_GRACE_STREAMS = 1000  # that are still taken after the first GOAWAY for too many streams
_GAPS = 16  # in the numbers of streams, that are remembered: nobody who means well leaves any


class H2Server(H2Connection):
    """Requests come as `Opened` streams."""

    is_client = False
    _leaving = False  # the first GOAWAY has been sent
    _last: int | None = None  # and the second one: the last stream that we serve

    def __init__(self, limits: H2Limits | None = None, now: float = 0.0) -> None:
        super().__init__(limits, now)
        self._skipped: deque[range] = deque(maxlen=_GAPS)  # streams that can be opened no more

    # ---- leaving -----------------------------------------------------------------------------------------------------

    def begin_shutdown(self) -> None:
        """Say that we are about to leave (RFC 9113 section 6.8): what is on its way is still served.

        Once everything that was on its way must have come, `finish_shutdown` follows by itself; call it where the other
        side does not answer.
        """
        if not self._leaving and self.error is None:
            self._leaving = True
            self._emit(frames.goaway(LAST_STREAM, Code.NO_ERROR))
            self._emit(frames.ping(_FAREWELL, ack=False))

    def finish_shutdown(self, code: Code = Code.NO_ERROR) -> None:
        """Take no stream any more: those after the last one were provably not served."""
        if self._last is None and self.error is None:
            self._leaving = True
            self._last = self.highest
            self._emit(frames.goaway(self.highest, code))

    def _dismiss(self, detail: str, abuse: Abuse) -> None:
        """The same, for what honest callers may do as well: what is under way may go on, and costs them nothing."""
        if self._last is None:
            self.finish_shutdown(Code.ENHANCE_YOUR_CALM)
            self._events.append(Dismissed(self._abuse(detail, abuse)))

    @property
    def leaving(self) -> bool:
        """Whether we have said that we leave."""
        return self._leaving

    @property
    def finished(self) -> bool:
        """Whether we take no stream any more, and all have come to their end: time to close."""
        return self._last is not None and not self.streams

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _on_head(self, stream_id: int, fields: Headers, *, end: bool) -> None:
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._on_trailers(stream, fields, end=end)
        elif stream_id % 2 == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"a request on stream {stream_id}, which is not a client's")
        elif stream_id <= self.highest:
            if any(stream_id in gap for gap in self._skipped):  # RFC 9113 section 5.1.1: not closed, but never opened
                raise ConnectionFault(Code.PROTOCOL_ERROR, f"a request on stream {stream_id}, which was skipped")
            self._late_head(stream_id)
        elif self._last is not None:  # after our last word: they know that it is not served
            self._forget(stream_id)
        elif len(self.streams) >= self.limits.streams:
            self._refuse(stream_id)
        else:
            self._open(stream_id, fields, end=end)

    def _advance(self, stream_id: int) -> None:
        if stream_id - self.highest > 2:
            self._skipped.append(range(self.highest + 1, stream_id))
        self.highest = stream_id

    def _forget(self, stream_id: int) -> None:
        self._advance(stream_id)
        self._remember(stream_id)
        self._take(Abuse.EXCESS_STREAMS)

    def _refuse(self, stream_id: int) -> None:
        self.refused += 1
        self._forget(stream_id)
        self._emit(frames.rst_stream(stream_id, Code.REFUSED_STREAM))

    def _open(self, stream_id: int, fields: Headers, *, end: bool) -> None:
        self._advance(stream_id)
        self.opened += 1
        stream = self.streams[stream_id] = H2Stream(self, stream_id)
        stream.since = self.now
        self._windows.open(stream_id)
        self._engine.on_head(stream_id, end=end)
        self._events.append(Opened(stream))
        if self.opened >= self.limits.streams_per_connection:
            self.begin_shutdown()
            if self.opened >= self.limits.streams_per_connection + _GRACE_STREAMS:
                self.finish_shutdown()
        limits = self.limits
        try:
            head = read_request(
                fields, self._blocks.size, end=end, head_bytes=limits.head_bytes, head_lines=limits.head_lines,
                extended=True,
            )  # fmt: skip
        except StreamFault:
            if end:
                self._they_are_done(stream)
            raise
        stream.head = head
        stream.asked_continue = head.expects_continue
        stream.put(head)
        if not head.protocol and head.method != b"CONNECT":
            stream.expected = head.length
        if end:
            stream.put(End())
            self._they_are_done(stream)

    def _on_trailers(self, stream: H2Stream, fields: Headers, *, end: bool) -> None:
        if stream.they_are_done:
            raise StreamFault(ProtocolViolation("HEADERS after the end of the request"), Code.STREAM_CLOSED)
        if not end:
            raise StreamFault(ProtocolViolation("trailers that do not end the stream"))
        limits = self.limits
        trailers = read_trailers(
            fields, self._blocks.size, head_bytes=limits.head_bytes, head_lines=limits.head_lines
        )
        if stream.head is not None and (stream.head.protocol or stream.head.method == b"CONNECT"):
            raise StreamFault(ProtocolViolation("trailers in a tunnel"))
        self._check_length(stream, stream.received, end=True)
        self._engine.on_head(stream.id, end=True)
        self._end_body(stream, trailers)
        self._stir(stream)

    def _takes_data(self, stream: H2Stream) -> bool:
        return True

    # ---- the other side ----------------------------------------------------------------------------------------------

    def _on_reset(self, stream: H2Stream, code: int) -> None:
        self._drop(stream, DownstreamGone(f"the caller cancelled the request ({code_name(code)})"))
        if stream.we_are_done:
            return
        if self.now - stream.since < RAPID_SECONDS:
            self._take(Abuse.RAPID_RESET)
        if not self._budgets.take(Abuse.RESET_FLOOD, self.now):
            self._dismiss("too many requests cancelled, and too few that came to their end", Abuse.RESET_FLOOD)

    def _on_pong(self, payload: bytes) -> None:
        if payload == _FAREWELL and self._leaving:
            self.finish_shutdown()
        else:
            super()._on_pong(payload)

    def _on_leaving(self, last_stream: int, code: int) -> None:
        """A client that leaves has nothing more to ask; what it has asked is answered."""
        self._events.append(Leaving(last_stream, code))

    @property
    def _last_served(self) -> int:
        """Never more than we have said before (RFC 9113 section 6.8): they may have asked elsewhere since."""
        return self.highest if self._last is None else self._last

    def _violation(self, detail: str) -> HopError:
        return ProtocolViolation(detail)

    def _gone(self) -> HopError:
        return DownstreamGone("the caller closed the connection before its answer was complete")
