"""Heads that repeat themselves, read by comparison: a *stencil* is the head of one kind of request with holes in it.

A program sends the same header lines with each of its requests, and perhaps a request id that differs. Two heads that
a plain reader has read, and that differ in nothing but the values of some ordinary lines, make a stencil. A later head
that equals it to the byte outside of the holes, and has nothing but a value in each of them, would be read by that
reader with the same answer; to compare bytes costs half as much. Whatever does not fit is read as before. So a stencil
takes nothing that its reader would not take, which is tested by asking both.

Values that may be secrets are holes from the start, so a stencil never keeps one. A line that says something to us
(length, persistence, host, …) is never a hole.
"""

from __future__ import annotations

import re

from sidecar.http.plain import METHODS, JudgedReader, OpaqueReader, PlainRequest, Unread, carefully, made
from sidecar.http.plain_grammar import VALUE

_VALUE_LINE = re.compile(VALUE + rb"\r\n").match
_SECRET = re.compile(rb"auth|cookie|credential|csrf|jwt|key|passw|secret|session|sign|token").search
_CUT = frozenset((b"connection", b"te", b"keep-alive", b"mesh-deadline", b"mesh-via", b"proxy-connection"))  # by both
# What the readers look into. The two other lines that they know, authorization and idempotency-key, only have to come.
_TELLING = _CUT | {b"host", b"content-length", b"content-type", b"transfer-encoding", b"sec-fetch-site"}
MOST_HOLES = 6  # with more, reading is as fast
LARGEST = 4096  # bytes of a head that may become a stencil
TRIES = 4  # stencils that are made one after the other
PAUSE = 128  # heads that are read without learning from them, after so many, or after two heads that are not alike


class Stencil:
    """One kind of head: what stands before each hole, and what after the last."""

    __slots__ = ("_before", "_drop", "_first_line", "_judged", "_last", "_limit", "_meaning", "_skip")

    def __init__(
        self, before: list[bytes], last: bytes, like: PlainRequest, reader: JudgedReader | OpaqueReader, skip: int,
        drop: int,
    ) -> None:  # fmt: skip
        self._before = before
        self._last = last
        self._meaning = like[5:13]  # all that header lines say
        self._first_line = re.compile(rb"([A-Z]{3,7}) " + reader.target + rb" HTTP/1\.1\r\n").match
        self._judged = isinstance(reader, JudgedReader)
        self._limit = reader.head_bytes + 4
        self._skip = skip  # bytes of lines at the front that do not travel on
        self._drop = drop  # and at the end, the empty line included

    def read(self, data: bytes, start: int) -> PlainRequest | None:
        """Read a head of this kind; None where it is not one."""
        match = self._first_line(data, start)
        if match is None:
            return None
        begin = at = match.end()
        for part in self._before:
            if not data.startswith(part, at):
                return None
            value = _VALUE_LINE(data, at + len(part))
            if value is None:
                return None
            at = value.end()
        if not data.startswith(self._last, at):
            return None
        end = at + len(self._last)
        verb, target, path = match.groups()
        method = METHODS.get(verb)
        if method is None or end - start > self._limit:
            return None
        asked = target.decode()
        segments: tuple[str, ...] | None = ()
        if self._judged:
            way = asked if path == target else path.decode()
            odd = "%" in way or "//" in way or "/." in way
            segments = carefully(path, method) if odd else tuple(way[1:].split("/"))
            if segments is None:
                return None
        elif path is not None:  # absolute form
            return None
        rest = (data[start:begin], data[begin + self._skip : end - self._drop])
        return made(PlainRequest, (start, end, method, asked, segments) + self._meaning + rest)  # noqa: RUF005 - faster


class StencilReader:
    """Reads like the reader that it is given, and by comparison where heads repeat themselves.

    It should see the requests of one caller, because it keeps one stencil at a time: that of the last two heads that it
    had to read and that were of one kind.
    """

    __slots__ = ("_first", "_pause", "_reader", "_stencil", "_tries")

    def __init__(self, reader: JudgedReader | OpaqueReader) -> None:
        self._reader = reader
        self._stencil: Stencil | None = None
        self._first: list[tuple[bytes, bytes]] | None = None  # the outline of the first of two heads
        self._tries = TRIES
        self._pause = 0

    def read(self, data: bytes, start: int = 0) -> PlainRequest | Unread:
        """Read the head that begins here, as the reader does."""
        if self._stencil is not None:
            known = self._stencil.read(data, start)
            if known is not None:
                return known
        found = self._reader.read(data, start)
        if self._pause:
            self._pause -= 1
        elif isinstance(found, PlainRequest):
            self._learn(data, found)
        return found

    def _learn(self, data: bytes, request: PlainRequest) -> None:
        outline = None
        if request.end - request.start <= LARGEST and request.target[:1] == "/":
            outline = _outline(data[request.start + len(request.line) : request.end - 2])
        if self._first is None or outline is None:
            self._first = outline
            return
        self._stencil = _stencil(self._first, outline, request, self._reader)
        self._first = None
        self._tries -= 1
        if self._stencil is None or not self._tries:
            self._pause = PAUSE
            self._tries = TRIES


def _outline(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Names with their colons, and values with their CRLF, but no value that may be a secret."""
    found = []
    for line in lines.splitlines(keepends=True):
        name, colon, value = line.partition(b":")
        found.append((name + colon, b"" if _SECRET(name.lower()) else value))
    return found


def _stencil(
    first: list[tuple[bytes, bytes]], second: list[tuple[bytes, bytes]], like: PlainRequest,
    reader: JudgedReader | OpaqueReader,
) -> Stencil | None:  # fmt: skip
    """What two heads have in common; None where it is too little, or what is cut stands between what travels on."""
    if [name for name, _ in first] != [name for name, _ in second]:
        return None
    cut = _CUT if isinstance(reader, JudgedReader) else _CUT | {b"host"}
    before, part, skip, drop, passed = [], b"", 0, 0, False
    for (name, value), (_, other) in zip(first, second, strict=True):
        plain = name[:-1].lower()
        if value == other and value:
            part += name + value
        elif plain in _TELLING:
            return None
        else:
            before.append(part + name)
            part = b""
        if plain in cut:
            if passed:
                drop += len(name + value)
            else:
                skip += len(name + value)
        elif drop:
            return None
        else:
            passed = True
    if len(before) > MOST_HOLES:
        return None
    return Stencil(before, part + b"\r\n", like, reader, skip, drop + 2)
