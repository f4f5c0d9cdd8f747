"""A strict look at the framing of a chunked body, in front of h11 (RFC 9112 section 7.1).

h11 forgives, in this one place, what two readers can read differently: lines of the trailer section that end with a
bare LF or are folded, bare CR and control characters in chunk extensions, blanks after a chunk size. Nothing of that is
passed on, because a body is framed anew for the next hop; but where a request *ends* must be beyond doubt too, or a
careless proxy in front of us can be made to see one request where we see two.

`ChunkGuard` only looks. It says how many of the bytes may be shown to h11, line by line, and what is wrong with the
rest. So the answer is the same wherever the network happened to cut the stream.
"""

from __future__ import annotations

import re
from enum import Enum

from sidecar.errors import HeadTooLarge, HopError, ProtocolViolation
from sidecar.http.message import quoted

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*)\Z")
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[ \t]*" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + _QUOTED + rb"))?)*\Z")
SIZE_LINE_BYTES = 1024  # a size is at most 15 digits; extensions, which nobody uses, get the rest


class _At(Enum):
    SIZE = 1
    DATA = 2
    AFTER_DATA = 3
    TRAILERS = 4
    DONE = 5


class ChunkGuard:
    """Follows one chunked body. `error` is what is wrong with it, None while nothing is."""

    def __init__(self, trailer_bytes: int, trailer_lines: int) -> None:
        self.error: HopError | None = None
        self._trailer_bytes = trailer_bytes
        self._trailer_lines = trailer_lines
        self._at = _At.SIZE
        self._left = 0  # bytes of the current chunk still to come
        self._line = bytearray()  # the line that has begun
        self._lines = 0
        self._bytes = 0

    @property
    def owed(self) -> bool:
        """Whether the rest of something that has begun is missing: of a line, a chunk, or the trailers."""
        return self._at is not _At.SIZE or bool(self._line)

    def check(self, data: bytes) -> int:
        """How many of these bytes hold; fewer than all only where `error` says why."""
        position, size = 0, len(data)
        while position < size and self._at is not _At.DONE:
            if self._at is _At.DATA:
                position += self._skip(size - position)
                continue
            end = data.find(b"\n", position) + 1
            self._line += data[position : end or size]
            problem = self._judge_line() if end else self._judge_beginning()
            if problem is not None:
                self.error = problem
                return position
            position = end or size
        return size

    def _skip(self, available: int) -> int:
        step = min(self._left, available)
        self._left -= step
        if not self._left:
            self._at = _At.AFTER_DATA
        return step

    def _judge_line(self) -> HopError | None:
        line = bytes(self._line)
        self._line.clear()
        if len(line) > self._line_limit():
            return self._too_long()
        if line[-2:] != b"\r\n":
            return ProtocolViolation("chunked body: a line ends with a bare LF")
        if self._at is _At.SIZE:
            return self._size(line[:-2])
        if self._at is _At.TRAILERS:
            return self._trailer(line[:-2])
        self._at = _At.SIZE
        return None

    def _judge_beginning(self) -> HopError | None:
        return self._too_long() if len(self._line) >= self._line_limit() else None

    def _size(self, line: bytes) -> HopError | None:
        match = _SIZE.match(line)
        if match is None:
            return ProtocolViolation(f"chunked body: not a chunk size: {quoted(line, 40)}")
        self._left = int(match[1], 16)
        self._at = _At.DATA if self._left else _At.TRAILERS
        return None

    def _trailer(self, line: bytes) -> HopError | None:
        if not line:
            self._at = _At.DONE
            return None
        self._lines += 1
        self._bytes += len(line) + 2
        if FIELD.match(line) is None:
            return ProtocolViolation(f"not a trailer field: {quoted(line)}")
        if self._lines > self._trailer_lines or self._bytes > self._trailer_bytes:
            return HeadTooLarge(f"trailers are over {self._trailer_lines} lines or {self._trailer_bytes} bytes")
        return None

    def _line_limit(self) -> int:
        if self._at is _At.TRAILERS:
            return self._trailer_bytes
        return 2 if self._at is _At.AFTER_DATA else SIZE_LINE_BYTES

    def _too_long(self) -> HopError:
        if self._at is _At.TRAILERS:
            return HeadTooLarge(f"a trailer is over {self._trailer_bytes} bytes")
        if self._at is _At.AFTER_DATA:
            return ProtocolViolation("chunked body: a chunk is longer than its size says")
        return ProtocolViolation(f"chunked body: a chunk size line is over {SIZE_LINE_BYTES} bytes")
