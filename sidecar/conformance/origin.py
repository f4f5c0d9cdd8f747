"""The origin: a server that reads HTTP/1 by the letter, answers everything alike, and remembers what it understood.

It stands behind the proxy under test. Whatever it cannot read in exactly one way it remembers as *malformed*, with
the reason: the proxy has passed on what a less careful origin would have read somehow. Each whole request is one
`Seen`; a smuggled one is one more. One thread a connection, blocking sockets, nothing clever.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) (HTTP/1\.[01])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t \x21-\x7e\x80-\xff]*?)[ \t]*")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t \x21-\x7e\x80-\xff]*)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_MOST = 4 << 20  # bytes of one line, or of a whole body
_IDLE_SECONDS = 60.0
EARLY = b"/early"  # targets that begin so get a 103 first
_PATIENCE = 0.7  # seconds without a byte in the middle of a message


class Malformed(Exception):
    """These bytes have no one reading."""


class Cut(Exception):
    """The connection ended, or fell silent, in the middle of a message."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the origin understood: one whole request, or one message that it refused to understand."""

    connection: int
    method: bytes = b""
    target: bytes = b""
    version: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()  # names in lower case
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    malformed: str = ""  # why; empty for a request that was read

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this name, in order."""
        return [value for found, value in self.fields if found == name]


@dataclass
class _Reader:
    """Bytes of one connection, by line and by count."""

    sock: socket.socket
    touched: Callable[[], None] = lambda: None
    buffer: bytearray = field(default_factory=bytearray)

    def _more(self) -> None:
        self.sock.settimeout(_PATIENCE if self.buffer else _IDLE_SECONDS)
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            raise Cut
        self.touched()
        self.buffer += data

    def begin(self) -> None:
        """Wait for the first byte of a message, for as long as a pool may keep the connection."""
        while not self.buffer:
            self._more()

    def line(self) -> bytes:
        """One line without its CRLF; a bare CR or LF in it is an error."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > _MOST:
                raise Malformed("a line without end")
            self._more()
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise Malformed(f"a bare CR or LF in {line[:60]!r}")
        return line[:-2]

    def take(self, count: int) -> bytes:
        """Exactly so many bytes. More than anybody sends here will never come whole."""
        if count > _MOST:
            raise Cut
        while len(self.buffer) < count:
            self._more()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data


def read_request(reader: _Reader, connection: int) -> Seen:
    """One whole request. Raises Malformed, Cut."""
    match = _REQUEST_LINE.fullmatch(line := reader.line())
    if match is None:
        raise Malformed(f"request line {line[:60]!r}")
    fields = _fields(reader)
    if any(name == b"expect" and value.lower() == b"100-continue" for name, value in fields) and not reader.buffer:
        reader.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body, trailers = _body(reader, fields)
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and match[3] == b"HTTP/1.1"):
        raise Malformed(f"{len(hosts)} Host lines")
    return Seen(connection, match[1], match[2], match[3], fields, body, trailers)


def _fields(reader: _Reader) -> tuple[tuple[bytes, bytes], ...]:
    fields = []
    while line := reader.line():
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Malformed(f"field line {line[:60]!r}")
        fields.append((match[1].lower(), match[2]))
    return tuple(fields)


def _body(
    reader: _Reader, fields: tuple[tuple[bytes, bytes], ...]
) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Malformed(f"framing by {lengths + codings}")
    if codings:
        if codings[0].lower() != b"chunked":
            raise Malformed(f"Transfer-Encoding {codings[0][:40]!r}")
        return _chunks(reader)
    if not lengths:
        return b"", ()
    if not _LENGTH.fullmatch(lengths[0]):
        raise Malformed(f"Content-Length {lengths[0][:40]!r}")
    return reader.take(int(lengths[0])), ()


def _chunks(reader: _Reader) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    body = b""
    while True:
        match = _SIZE.fullmatch(line := reader.line())
        if match is None:
            raise Malformed(f"chunk size {line[:40]!r}")
        size = int(match[1], 16)
        if not size:
            return body, _fields(reader)
        body += reader.take(size)
        if reader.take(2) != b"\r\n":
            raise Malformed("chunk data that does not end where its size says")


class Origin:
    """Listens, answers, remembers. `with Origin() as origin:`; `address` is where it listens."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = socket.create_server((host, port), backlog=256)
        self.address: tuple[str, int] = self._server.getsockname()[:2]
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._open: set[socket.socket] = set()
        self._closed = False
        self._touched = 0

    def __enter__(self) -> Origin:
        threading.Thread(target=self._accept, name="origin", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with self._lock:
            ends = [self._server, *self._open]
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def take(self) -> list[Seen]:
        """What was understood since the last call."""
        with self._lock:
            seen, self._seen = self._seen, []
        return seen

    @property
    def touched(self) -> int:
        """How often bytes have arrived, on any connection: the same number twice means that nothing came between."""
        return self._touched

    def _touch(self) -> None:
        with self._lock:
            self._touched += 1

    def _remember(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)

    def _accept(self) -> None:
        number = 0
        while not self._closed:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            number += 1
            with self._lock:
                self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock, number), name=f"origin-{number}", daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        reader = _Reader(sock, self._touch)
        try:
            while True:
                reader.begin()
                seen = read_request(reader, number)
                self._remember(seen)
                if seen.target.startswith(EARLY):
                    sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </help>; rel=help\r\n\r\n")
                sock.sendall(_answer(seen))
                if _last(seen):
                    return
        except Malformed as reason:
            self._remember(Seen(number, malformed=str(reason)))
            _try_to_send(sock, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        except (Cut, OSError):
            pass  # what never came whole was never a request
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()


def _last(seen: Seen) -> bool:
    options = b",".join(seen.values(b"connection")).lower()
    return b"close" in options or (seen.version == b"HTTP/1.0" and b"keep-alive" not in options)


def _answer(seen: Seen) -> bytes:
    """200 with the target as body, so that an answer to somebody else's request shows."""
    body = b"" if seen.method == b"HEAD" else seen.target
    end = b"Connection: close\r\n" if _last(seen) else b""
    size = b"Content-Length: %d\r\n" % len(seen.target)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + size + end + b"\r\n" + body


def _try_to_send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError:
        pass
