"""The engine behind our codec: h2 keeps the books of what may happen on a stream. The only file that knows h2.

As with HTTP/1 and h11, there are two readers. Ours stands in front (`frames`, `blocks`, `heads`): it has cut the frame
out, judged it by the rules of RFC 9113 and by our limits, and read its header block. Then h2's state machine of the
stream is told what has come, or is about to be sent, and both must agree.

Only its states are used, and not its connection. That takes every header list for granted or ends the connection over
it; it answers too many streams, a length that lies and a window update of zero by ending the connection; it cannot say
GOAWAY and go on; it keeps every unknown setting for ever; it limits no flood; it copies each frame of DATA three times
and prints it for a log; and for each request it looks at all streams that are open. What it would still do for us,
windows and frames, is a page of arithmetic, which is here.
"""

from __future__ import annotations

from h2.exceptions import ProtocolError
from h2.stream import H2StreamStateMachine, StreamInputs, StreamState

from sidecar.hop import Headers
from sidecar.http.h2 import frames
from sidecar.http.h2.codes import (
    DEFAULT_WINDOW,
    END_STREAM,
    FRAME_BYTES,
    MAX_WINDOW,
    Code,
    ConnectionFault,
    Kind,
    Setting,
)
from sidecar.http.h2.compression import FieldWriter

_RECV_HEAD, _RECV_INFORMATIONAL = StreamInputs.RECV_HEADERS, StreamInputs.RECV_INFORMATIONAL_HEADERS
_RECV_END, _RECV_RESET = StreamInputs.RECV_END_STREAM, StreamInputs.RECV_RST_STREAM
_SEND_HEAD, _SEND_INFORMATIONAL = StreamInputs.SEND_HEADERS, StreamInputs.SEND_INFORMATIONAL_HEADERS
_SEND_END, _SEND_RESET = StreamInputs.SEND_END_STREAM, StreamInputs.SEND_RST_STREAM
_CLOSED = StreamState.CLOSED


class _Book(H2StreamStateMachine):
    """One stream's state, and how much of our body the other side takes."""

    room: int


class Engine:
    """The books of one connection, and the frames that are made by them. What they do not agree with raises
    ConnectionFault.
    """

    __slots__ = ("_books", "_first_room", "_room", "fields", "frame_bytes")

    def __init__(self) -> None:
        self._books: dict[int, _Book] = {}  # of the streams that have not ended
        self._room = DEFAULT_WINDOW  # what the other side takes on all streams together
        self._first_room = DEFAULT_WINDOW  # and on a new one
        self.fields = FieldWriter()
        self.frame_bytes = FRAME_BYTES  # the largest that we send, whatever they would take: so streams take turns

    def _book(self, stream: int) -> _Book:
        """The book of a stream, which begins with the first look at it."""
        book = self._books.get(stream)
        if book is None:
            book = self._books[stream] = _Book(stream)
            book.room = self._first_room
        return book

    def _enter(self, book: _Book, *inputs: StreamInputs) -> None:
        try:
            for each in inputs:
                book.process_input(each)
        except ProtocolError as error:
            raise ConnectionFault(_code(error), str(error)) from None
        finally:
            if book.state is _CLOSED:
                del self._books[book.stream_id]

    # ---- what came in ------------------------------------------------------------------------------------------------

    def on_settings(self, values: list[tuple[int, int]]) -> bytes:
        """The peer's SETTINGS, in their order, each within its range; returns its ACK."""
        for key, value in values:
            if key == Setting.HEADER_TABLE_SIZE:
                self.fields.resize(value)
            elif key == Setting.INITIAL_WINDOW_SIZE:
                self._resize(value)
        return _ACK

    def _resize(self, room: int) -> None:
        """Streams that are open gain or lose the difference (RFC 9113 section 6.9.2); they may come to owe some."""
        gained, self._first_room = room - self._first_room, room
        for book in self._books.values():
            book.room += gained
            if book.room > MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window of more than 2^31 - 1 bytes, by SETTINGS")

    def on_head(self, stream: int, *, end: bool, informational: bool = False) -> None:
        """A header block, that has been read."""
        first = _RECV_INFORMATIONAL if informational else _RECV_HEAD
        if end:
            self._enter(self._book(stream), first, _RECV_END)
        else:
            self._enter(self._book(stream), first)

    def on_end(self, stream: int) -> None:
        """The last frame of DATA; the others need not be shown, since our windows are kept by `windows`."""
        self._enter(self._book(stream), _RECV_END)

    def on_reset(self, stream: int) -> None:
        """The peer has reset a stream."""
        self._enter(self._book(stream), _RECV_RESET)

    def on_window(self, stream: int, increment: int) -> bool:
        """The peer gives us more window, of a stream or (0) of the connection; false where a stream has now too much,
        and is to be reset for it (RFC 9113 section 6.9.1).
        """
        if stream:
            book = self._book(stream)
            book.room += increment
            return book.room <= MAX_WINDOW
        self._room += increment
        if self._room > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window of more than 2^31 - 1 bytes")
        return True

    # ---- what goes out -----------------------------------------------------------------------------------------------

    def send_head(self, stream: int, fields: Headers, *, end: bool, informational: bool = False) -> bytes:
        """A head, or trailers, as frames."""
        first = _SEND_INFORMATIONAL if informational else _SEND_HEAD
        if end:
            self._enter(self._book(stream), first, _SEND_END)
        else:
            self._enter(self._book(stream), first)
        return frames.head(stream, self.fields.write(fields), END_STREAM if end else 0, self.frame_bytes)

    def spend(self, stream: int, size: int) -> None:
        """So many bytes of DATA are sent, within `room`."""
        self._room -= size
        self._books[stream].room -= size

    def send_end(self, stream: int) -> None:
        """The last frame of DATA is sent."""
        self._enter(self._book(stream), _SEND_END)

    def reset(self, stream: int, code: int) -> bytes:
        """Reset a stream that is open."""
        self._enter(self._book(stream), _SEND_RESET)
        return frames.rst_stream(stream, code)

    def room(self, stream: int) -> int:
        """How many bytes of DATA the peer takes on a stream at this moment; may be negative."""
        return min(self._room, self._books[stream].room)


def _code(error: ProtocolError) -> Code:
    try:
        return Code(int(error.error_code))
    except ValueError:
        return Code.PROTOCOL_ERROR


_ACK = frames.frame(Kind.SETTINGS, 1, 0)
