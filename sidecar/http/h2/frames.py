"""Frames off the wire, each looked at before the engine sees it, and those frames that we write ourselves.

The header of a frame is nine bytes (RFC 9113 section 4.1). Its length is judged as soon as they are here: what is too
large is never buffered. The preface is judged byte by byte, so that half a wrong one is refused at once.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from sidecar.http.h2.codes import END_HEADERS, PADDED, PREFACE, PRIORITY, Code, ConnectionFault, Kind

_HEADER = struct.Struct("!HBBBL")  # length in two parts, type, flags, stream
_SETTING = struct.Struct("!HL")
_WORD = struct.Struct("!L")
_ID = 0x7FFFFFFF  # the first bit is reserved and ignored


class Frame(NamedTuple):
    """One frame, whole."""

    kind: int
    flags: int
    stream: int
    raw: bytes  # with its header

    @property
    def payload(self) -> bytes:
        """What follows the header."""
        return self.raw[9:]

    def unpadded(self) -> bytes:
        """The payload of DATA or HEADERS without padding, and without the priority of HEADERS, which is ignored.

        Raises ConnectionFault.
        """
        start, end = 9, len(self.raw)
        if self.flags & PADDED:
            if end == 9:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a padded frame without the length of its padding")
            start, end = 10, end - self.raw[9]
        if self.kind == Kind.HEADERS and self.flags & PRIORITY:
            start += 5
            if start > len(self.raw):
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS too short for the priority that they announce")
        if start > end:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "more padding than the frame has room for")
        return self.raw[start:end]


class FrameReader:
    """Cuts bytes into frames, after the preface where one is due."""

    __slots__ = ("_at", "_data", "_left_of_preface", "_max")

    def __init__(self, *, preface: bool, max_bytes: int) -> None:
        self._data = b""
        self._at = 0
        self._left_of_preface = PREFACE if preface else b""
        self._max = max_bytes

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises ConnectionFault where they are not the preface."""
        due = self._left_of_preface
        if due:
            size = min(len(due), len(data))
            if data[:size] != due[:size]:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "this does not begin as HTTP/2 does")
            self._left_of_preface = due[size:]
            data = data[size:]
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> Frame | None:
        """The next whole frame. Raises ConnectionFault for one that is too large."""
        data, at = self._data, self._at
        have = len(data) - at
        if have < 9:
            return None
        high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
        size = (high << 8 | low) + 9
        if size - 9 > self._max:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {size - 9} bytes; at most {self._max}")
        if have < size:
            return None
        self._at = at + size
        return Frame(kind, flags, stream & _ID, data[at : at + size])

    @property
    def in_preface(self) -> bool:
        """Whether the preface is not whole yet."""
        return bool(self._left_of_preface)

    @property
    def rest(self) -> bool:
        """Whether a frame has begun and is not whole."""
        return self._at < len(self._data) or 0 < len(self._left_of_preface) < len(PREFACE)


def word(payload: bytes) -> int:
    """Four bytes as a number, without the reserved bit."""
    found: int = _WORD.unpack(payload)[0]
    return found & _ID


def error_code(payload: bytes) -> int:
    """Four bytes as an error code."""
    found: int = _WORD.unpack(payload)[0]
    return found


def settings_of(payload: bytes) -> list[tuple[int, int]]:
    """The settings in a frame, in their order."""
    return list(_SETTING.iter_unpack(payload))


def header(kind: int, flags: int, stream: int, size: int) -> bytes:
    """What stands before so many bytes of payload."""
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    size = len(payload)
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def head(stream: int, block: bytes, flags: int, most: int) -> bytes:
    """A header block as HEADERS, with as many CONTINUATION frames as it needs (RFC 9113 section 4.3)."""
    size = len(block)
    if size <= most:
        return _HEADER.pack(size >> 8, size & 0xFF, Kind.HEADERS, flags | END_HEADERS, stream) + block
    pieces = [block[at : at + most] for at in range(0, size, most)]
    kinds = [Kind.HEADERS, *[Kind.CONTINUATION] * (len(pieces) - 1)]
    ends = [flags, *[0] * (len(pieces) - 2), END_HEADERS]
    return b"".join(frame(kind, end, stream, piece) for kind, end, piece in zip(kinds, ends, pieces, strict=True))


def settings(values: Sequence[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values))


def ping(payload: bytes, *, ack: bool) -> bytes:
    """A PING frame; its payload has eight bytes."""
    return frame(Kind.PING, 1 if ack else 0, 0, payload)


def goaway(last_stream: int, code: int) -> bytes:
    """A GOAWAY frame, without debug data: reasons never leave the machine (decision D7)."""
    return frame(Kind.GOAWAY, 0, 0, struct.pack("!LL", last_stream, code))


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream, _WORD.pack(code))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, _WORD.pack(increment))
