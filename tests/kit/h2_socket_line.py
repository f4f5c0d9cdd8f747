"""A connection of HTTP/2 by hand over a real socket: bytes out, and what the other side made of them.

Frames are cut by hyperframe and heads read by hpack, so nothing here shares a mistake with our own code.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import hpack
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from tests.kit.h2_wire import ACK, HELLO, PING, SETTINGS, frame

PATIENCE = 10.0


class Line:
    """One connection, greeted; a `mute` one says nothing of its own accord.

    What has come is in `heads`, `bodies`, `ended`, `resets` and `goaway`.
    """

    def __init__(self, sock: socket.socket, hello: bytes = HELLO, *, mute: bool = False) -> None:
        self.sock = sock
        self._mute = mute
        self.heads: dict[int, list[dict[bytes, bytes]]] = {}  # of each stream, 1xx and trailers included
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.settings: dict[int, int] = {}
        self.goaway: int | None = None
        self.pongs = 0
        self.closed = False
        self._buffer = b""
        self._decoder = hpack.Decoder()
        sock.sendall(hello)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, *pieces: bytes) -> None:
        """Send bytes; whether the other side still wants them or not."""
        try:
            self.sock.sendall(b"".join(pieces))
        except OSError:
            self.closed = True

    def status(self, stream: int) -> int:
        """The status of the final answer on a stream, once its end or a reset is here; 0 where there was none."""
        self.until(lambda: stream in self.ended or stream in self.resets or self.goaway is not None)
        return next((code for head in self.heads.get(stream, []) if (code := int(head.get(b":status", b"0"))) > 199), 0)

    def reset(self, stream: int) -> int | None:
        """The code with which a stream was reset; None where the connection ended instead, or the stream well."""
        self.until(lambda: stream in self.resets or stream in self.ended or self.goaway is not None)
        return self.resets.get(stream)

    def last_word(self) -> int | None:
        """The code of GOAWAY, once the connection has ended."""
        self.until(lambda: self.closed)
        return self.goaway

    def until(self, done: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Read until this is so, or the connection ends. Fails after so many seconds."""
        deadline = time.monotonic() + seconds
        while not done() and not self.closed:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                received = self.sock.recv(65_536)
            except TimeoutError:
                raise AssertionError(f"nothing within {seconds:g} s; so far {vars(self)}") from None
            except OSError:
                received = b""
            self.closed = not received
            self._buffer += received
            self._read()

    def _read(self) -> None:
        while len(self._buffer) >= 9:
            found, size = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + size:
                return
            found.parse_body(memoryview(self._buffer[9 : 9 + size]))
            self._buffer = self._buffer[9 + size :]
            self._take(found)

    def _take(self, found: Frame) -> None:
        stream = found.stream_id
        if isinstance(found, SettingsFrame) and "ACK" not in found.flags:
            self.settings.update(found.settings)
            self._reply(frame(SETTINGS, ACK, 0))
        elif isinstance(found, PingFrame):
            if "ACK" in found.flags:
                self.pongs += 1
            else:
                self._reply(frame(PING, ACK, 0, found.opaque_data))
        elif isinstance(found, GoAwayFrame):
            self.goaway = found.error_code
        elif isinstance(found, RstStreamFrame):
            self.resets[stream] = found.error_code
        elif isinstance(found, HeadersFrame):
            assert "END_HEADERS" in found.flags
            head = dict(self._decoder.decode(found.data, raw=True))
            self.heads.setdefault(stream, []).append(head)
        elif isinstance(found, DataFrame):
            self.bodies[stream] = self.bodies.get(stream, b"") + found.data
        if isinstance(found, (HeadersFrame, DataFrame)) and "END_STREAM" in found.flags:
            self.ended.add(stream)

    def _reply(self, piece: bytes) -> None:
        if not self._mute:
            self.say(piece)
