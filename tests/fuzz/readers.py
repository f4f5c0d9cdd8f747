"""Two readers of HTTP/1 that share nothing with ours: one careless, one pedantic. They exist to disagree.

Careless is what lenient servers do: bare LF ends a line, blanks around names vanish, the first length counts unless a
Transfer-Encoding mentions chunked somewhere, a chunk size is whatever stands before the first odd byte. Pedantic is
RFC 9112 with every MAY refused. Bytes which both read alike have one meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


class Unreadable(Exception):
    """This reader cannot make sense of it, or not yet: it ends too early."""


@dataclass(frozen=True)
class Message:
    """First line, the body, and where the next message begins."""

    line: bytes
    body: bytes
    end: int


_SIZE = re.compile(rb"[0-9a-fA-F]+")


class Careless:
    """Reads what it can."""

    def head(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        while data[at : at + 2] == b"\r\n" or data[at : at + 1] == b"\n":
            at += 2 if data[at : at + 1] == b"\r" else 1
        lines = []
        while True:
            end = data.find(b"\n", at)
            if end < 0:
                raise Unreadable("no end of the head")
            line, at = data[at:end].rstrip(b"\r"), end + 1
            if not line:
                return lines, at
            lines.append(line)

    def fields(self, lines: list[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for line in lines:
            name, _, value = line.partition(b":")
            found.setdefault(name.strip().lower().replace(b"_", b"-"), value.strip())
        return found

    def size(self, line: bytes) -> int:
        match = _SIZE.match(line.strip())
        if match is None:
            raise Unreadable("no size")
        return int(match[0], 16)

    def line(self, data: bytes, at: int) -> tuple[bytes, int]:
        end = data.find(b"\n", at)
        if end < 0:
            raise Unreadable("no end of line")
        return data[at:end].rstrip(b"\r"), end + 1

    def chunked(self, data: bytes, at: int) -> tuple[bytes, int]:
        body = b""
        while True:
            line, at = self.line(data, at)
            size = self.size(line)
            if size == 0:
                while line:
                    line, at = self.line(data, at)
                return body, at
            body, at = body + self.take(data, at, size), at + size
            line, at = self.line(data, at)
            if line:
                raise Unreadable("a chunk that goes on")

    def take(self, data: bytes, at: int, size: int) -> bytes:
        if len(data) - at < size:
            raise Unreadable("the body is not whole")
        return data[at : at + size]

    def is_chunked(self, fields: dict[bytes, bytes]) -> bool:
        return b"chunked" in fields.get(b"transfer-encoding", b"").lower()

    def length(self, fields: dict[bytes, bytes]) -> int | None:
        value = fields.get(b"content-length")
        if value is None:
            return None
        try:
            return int(value)  # takes +5, 5_0 and blanks, as some do
        except ValueError:
            raise Unreadable("no length") from None

    def request(self, data: bytes, at: int = 0) -> Message:
        """The request that begins here. Raises Unreadable."""
        lines, at = self.head(data, at)
        fields = self.fields(lines[1:])
        if self.is_chunked(fields):
            body, at = self.chunked(data, at)
        else:
            size = self.length(fields) or 0
            body, at = self.take(data, at, size), at + size
        return Message(lines[0], body, at)

    def response(self, data: bytes, *, to_head: bool) -> Message:
        """The final response in here, after any 1xx. Raises Unreadable."""
        at = 0
        while True:
            lines, at = self.head(data, at)
            status = int(lines[0].split(b" ")[1])
            if status >= 200 or status == 101:
                break
        fields = self.fields(lines[1:])
        if to_head or status in (204, 304, 101):
            return Message(lines[0], b"", at)
        if self.is_chunked(fields):
            body, at = self.chunked(data, at)
        elif (size := self.length(fields)) is not None:
            body, at = self.take(data, at, size), at + size
        else:
            body, at = data[at:], len(data)
        return Message(lines[0], body, at)


class Pedantic(Careless):
    """Reads only what every grammar rule allows."""

    _FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[ \t]*[\x21-\x7e\x80-\xff]?[\x20-\x7e\x80-\xff\t]*\Z")
    _CHUNK = re.compile(rb"[0-9a-fA-F]{1,16}\Z")

    def head(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            raise Unreadable("no end of the head")
        lines = data[at:end].split(b"\r\n")
        if any(b"\n" in line or b"\r" in line for line in lines):
            raise Unreadable("a bare line end")
        if not all(self._FIELD.match(line) for line in lines[1:]):
            raise Unreadable("not a field")
        return lines, end + 4

    def fields(self, lines: list[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for line in lines:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in found and name in (b"content-length", b"transfer-encoding", b"host"):
                raise Unreadable("twice")
            found.setdefault(name, value.strip(b" \t"))
        if b"content-length" in found and b"transfer-encoding" in found:
            raise Unreadable("both framings")
        return found

    def length(self, fields: dict[bytes, bytes]) -> int | None:
        value = fields.get(b"content-length")
        if value is not None and not re.fullmatch(rb"[0-9]+", value):
            raise Unreadable("no length")
        return None if value is None else int(value)

    def is_chunked(self, fields: dict[bytes, bytes]) -> bool:
        value = fields.get(b"transfer-encoding")
        if value is not None and value.lower() != b"chunked":
            raise Unreadable("another coding")
        return value is not None

    def size(self, line: bytes) -> int:
        if not self._CHUNK.match(line):
            raise Unreadable("not a size")
        return int(line, 16)

    def line(self, data: bytes, at: int) -> tuple[bytes, int]:
        end = data.find(b"\r\n", at)
        if end < 0 or b"\n" in data[at:end]:
            raise Unreadable("no end of line")
        return data[at:end], end + 2
