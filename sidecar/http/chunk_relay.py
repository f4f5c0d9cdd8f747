"""Chunked bodies passed on as they came, by the same strict look as `chunks`, without being framed anew.

`ChunkGuard` judges every line that is not the plainest of its kind, so there is one rule for what a chunked body may
be. Whole chunks whose size line is nothing but digits travel on in one piece with their framing. What an odd line says
is written in its plain form instead: extensions are dropped, as RFC 9112 section 7.1.1 allows, and so are trailers
that only the mesh may send.
"""

from __future__ import annotations

import re

from sidecar.errors import HopError, ProtocolViolation
from sidecar.http.chunks import FIELD, ChunkGuard, _At
from sidecar.http.headers import FORBIDDEN_TRAILERS, is_reserved

_SIZE, _DATA, _AFTER_DATA, _TRAILERS, _DONE = _At
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n").match


class ChunkRelay(ChunkGuard):
    """Follows one chunked body on its way. `payload` is how many bytes it has brought, without framing."""

    def __init__(self, trailer_bytes: int, trailer_lines: int) -> None:
        super().__init__(trailer_bytes, trailer_lines)
        self.payload = 0
        self._kept: list[bytes] = []  # trailers that travel on

    @property
    def done(self) -> bool:
        """Whether the body has come whole, its trailers included."""
        return self._at is _DONE

    def pass_on(self, data: bytes, out: list[bytes], start: int = 0) -> int:
        """Add to `out` what of these bytes may be sent on by now; the beginning of a line waits for its end.

        Returns where the body ends, or how many bytes there are. Raises ProtocolViolation or HeadTooLarge, after which
        the body must not be ended: what has been sent on is not the whole.
        """
        position = copied = start
        size = len(data)
        while position < size and self._at is not _DONE:
            if self._at is _SIZE and not self._line and (match := _PLAIN_SIZE(data, position)) is not None:
                length, body = int(match[1], 16), match.end()
                after = body + length
                if data[after : after + 2] == b"\r\n":
                    position = after + 2
                    self.payload += length
                    if not length:
                        self._at = _DONE
                    continue
                if length:
                    self._left, self._at, position = length, _DATA, body
            if self._at is _DATA:
                step = self._skip(size - position)
                self.payload += step
                position += step
                continue
            if position > copied:
                out.append(data[copied:position])
            end = data.find(b"\n", position) + 1
            self._line += data[position : end or size]
            position = copied = end or size
            self._finish_line(out) if end else self._check(self._judge_beginning())
        if position > copied:
            out.append(data[copied:position])
        return position

    def _finish_line(self, out: list[bytes]) -> None:
        at, line = self._at, bytes(self._line)
        self._check(self._judge_line())
        if at is _AFTER_DATA:
            out.append(b"\r\n")
        elif at is _SIZE:
            if self._left:  # what ends the body is written with its trailers
                out.append(b"%x\r\n" % self._left)
        elif self._at is _DONE:
            out.append(b"0\r\n%b\r\n" % b"".join(self._kept))
        else:
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        match = FIELD.match(line[:-2])
        assert match is not None, "ChunkGuard has judged it"
        name = match[1].lower()
        if name in FORBIDDEN_TRAILERS:
            self._check(ProtocolViolation(f"the trailer {name.decode()} is not allowed"))
        if not is_reserved(name):
            self._kept.append(line)

    def _check(self, problem: HopError | None) -> None:
        if problem is not None:
            self.error = problem
            raise problem
