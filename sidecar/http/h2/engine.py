"""The engine behind our codec: h2 keeps the books of states and windows. The only file that knows h2.

As with HTTP/1 and h11, there are two readers. Ours stands in front (`frames`, `blocks`, `heads`): it has cut the frame
out, judged it by the rules of RFC 9113 and by our limits, and read its header block. Then h2 is shown the frame, and
both must agree: h2 knows who may send what next, and how much.

What h2 does not do well, it is not given to do. It takes every header list for granted or ends the connection over it;
it answers too many streams, a length that lies and a window update of zero by ending the connection; it cannot say
GOAWAY and go on; it keeps every unknown setting for ever, and a table as large as the peer likes; it limits no flood.
So it never sees a header list, coming or going (a block is shown to it as an empty one; what it takes for HPACK are
stand-ins around our own), nor what is in DATA (which it would print for its log), nor settings that we do not know, nor
PING, GOAWAY, PRIORITY and frames of unknown types; and its limits of streams are ours to check.
"""

from __future__ import annotations

from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, HeadersFrame

from sidecar.hop import Headers
from sidecar.http.h2 import frames
from sidecar.http.h2.codes import (
    FRAME_BYTES,
    LAST_STREAM,
    PREFACE,
    Code,
    ConnectionFault,
    Kind,
)
from sidecar.http.h2.compression import FieldWriter

_SHORT = all(hasattr(H2Connection, name) for name in ("_receive_headers_frame", "_receive_data_frame"))
_REQUEST: Headers = [(b":method", b"GET")]
_FINAL: Headers = [(b":status", b"200")]
_INFORMATIONAL: Headers = [(b":status", b"100")]
_TRAILERS: Headers = []


class _Books(H2Connection):
    MAX_CLOSED_STREAMS = 256  # we know ourselves which streams are closed; 65,536 of them would be 10 MB


class _StandIn:
    """In the place of h2's HPACK decoder: the block has been read already; h2 learns only what kind of head it is."""

    def __init__(self) -> None:
        self.max_header_list_size = self.max_allowed_table_size = 0
        self.kind: Headers = _TRAILERS

    def decode(self, block: bytes, raw: bool = True) -> Headers:
        """What h2 is to believe."""
        return self.kind


class _Written:
    """In the place of h2's HPACK encoder: it is handed the block that we have written."""

    def __init__(self) -> None:
        self.fields = FieldWriter()
        self.block = b""

    def encode(self, fields: object) -> bytes:
        """What h2 is to send."""
        return self.block

    @property
    def header_table_size(self) -> int:
        """How large the peer lets our table be."""
        return 0

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        self.fields.resize(size)


class Engine:
    """The books of one connection. Whatever they do not agree with raises ConnectionFault."""

    __slots__ = ("_books", "_client", "_end", "_first_head", "_head", "_last_head", "_written")

    def __init__(self, *, client: bool) -> None:
        self._client = client
        config = H2Configuration(
            client_side=client, header_encoding=None, validate_inbound_headers=False, normalize_inbound_headers=False,
            validate_outbound_headers=False, normalize_outbound_headers=False,
        )  # fmt: skip
        books = self._books = _Books(config)
        values = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_CONCURRENT_STREAMS: LAST_STREAM,
        }
        books.local_settings = Settings(client=client, initial_values=values)
        self._head, self._written = _StandIn(), _Written()
        self._first_head = HeadersFrame(1, flags=["END_HEADERS"])  # used again and again
        self._last_head = HeadersFrame(1, flags=["END_HEADERS", "END_STREAM"])
        self._end = DataFrame(1, flags=["END_STREAM"])
        books.encoder = cast(Any, self._written)
        books.decoder = cast(Any, self._head)
        books.initiate_connection()
        books.clear_outbound_data_buffer()  # preface and SETTINGS are written by our codec,
        if not client:
            books.receive_data(PREFACE)  # and read by it

    def _meet(self, frame: HeadersFrame | DataFrame) -> None:
        """Show a frame of DATA or HEADERS, which come so often that what h2 spends on reading and printing them counts.

        It is handed to what h2 itself calls with a frame that it has read; without that, it reads it from bytes.
        """
        books = self._books
        try:
            if not _SHORT:
                books.receive_data(frame.serialize())
            elif isinstance(frame, HeadersFrame):
                books._receive_headers_frame(frame)
            else:
                books._receive_data_frame(frame)
        except ProtocolError as error:
            books.clear_outbound_data_buffer()
            raise ConnectionFault(_code(error.error_code), str(error)) from None

    def output(self) -> bytes:
        """The frames that the last call has made."""
        return self._books.data_to_send()

    # ---- what came in ------------------------------------------------------------------------------------------------

    def _show(self, frame: bytes) -> list[Any]:
        try:
            return self._books.receive_data(frame)
        except ProtocolError as error:
            self._books.clear_outbound_data_buffer()  # its own GOAWAY
            raise ConnectionFault(_code(error.error_code), str(error)) from None

    def on_settings(self, values: list[tuple[int, int]]) -> None:
        """The peer's SETTINGS, only those that we know; it gets its ACK."""
        self._show(frames.settings(values))

    def on_settings_ack(self) -> None:
        """The peer has taken note of ours."""
        self._show(frames.frame(Kind.SETTINGS, 1, 0))

    def on_head(self, stream: int, *, end: bool, informational: bool = False, trailers: bool = False) -> None:
        """A header block, that has been read."""
        if trailers:
            self._head.kind = _TRAILERS
        elif not self._client:
            self._head.kind = _REQUEST
        else:
            self._head.kind = _INFORMATIONAL if informational else _FINAL
        frame = self._last_head if end else self._first_head
        frame.stream_id = stream
        self._meet(frame)

    def on_end(self, stream: int) -> None:
        """The last frame of DATA; the others need not be shown, since our windows are kept by `windows`."""
        self._end.stream_id = stream
        self._meet(self._end)

    def on_reset(self, stream: int, code: int) -> None:
        """The peer has reset a stream."""
        self._show(frames.rst_stream(stream, code))

    def on_window(self, stream: int, increment: int) -> bool:
        """The peer gives us more window, of a stream or (0) of the connection; false where the stream has now too
        much, and was reset for it.
        """
        events = self._show(frames.window_update(stream, increment))
        return not any(isinstance(event, StreamReset) for event in events)

    # ---- what goes out -----------------------------------------------------------------------------------------------

    def send_head(self, stream: int, fields: Headers, *, end: bool) -> None:
        """A head, or trailers."""
        written = self._written
        written.block = written.fields.write(fields)
        self._books.send_headers(stream, fields[:1] if fields[0][0] == b":status" else _TRAILERS, end_stream=end)

    def spend(self, stream: int, size: int) -> None:
        """So many bytes of DATA are sent, within `room`. Its frames are made by our codec, since h2 would copy them
        four times; for its books they change nothing but the windows.
        """
        self._books.outbound_flow_control_window -= size
        self._books.streams[stream].outbound_flow_control_window -= size

    def send_end(self, stream: int) -> None:
        """The last frame of DATA is sent; `output` has an empty one."""
        self._books.send_data(stream, b"", end_stream=True)

    def reset(self, stream: int, code: int) -> None:
        """Reset a stream that is open."""
        self._books.reset_stream(stream, code)

    def room(self, stream: int) -> int:
        """How many bytes of DATA the peer takes on a stream at this moment; may be negative."""
        return self._books.local_flow_control_window(stream)

    @property
    def frame_bytes(self) -> int:
        """The largest frame that we send: not more than others have to take, so that streams take turns."""
        return min(self._books.max_outbound_frame_size, FRAME_BYTES)


def _code(code: ErrorCodes | int | None) -> Code:
    try:
        return Code(int(code if code is not None else Code.PROTOCOL_ERROR))
    except ValueError:
        return Code.PROTOCOL_ERROR
