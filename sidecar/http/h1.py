"""HTTP/1 in our tongue: a strict reading of each head, in front of h11, which keeps the books of framing.

h11 is the authority on states: who may send what next, when a connection may be used again, how a body ends. It also
forgives some things that a proxy in front of a policy must not (bare LF, lists of lengths, both framings at once,
control characters in values). So a head is first cut out at its empty line, read strictly by the rules below, and
only then shown to h11. What we refuse is refused; what we accept, h11 reads too, and both must agree.

Each exchange has an h11 connection of its own. That keeps pipelined bytes out of h11's buffer, so that every head
passes the strict reading, and costs 6 µs.
"""

from __future__ import annotations

import re

import h11

from sidecar.errors import (
    DownstreamGone,
    HeadTooLarge,
    HostMismatch,
    ProtocolViolation,
    UnsupportedFeature,
    UpstreamClosed,
    UpstreamProtocolViolation,
)
from sidecar.hop import Headers
from sidecar.http.chunks import FIELD as _FIELD
from sidecar.http.chunks import TOKEN as _TOKEN
from sidecar.http.chunks import ChunkGuard
from sidecar.http.headers import FORBIDDEN_TRAILERS, LOOKALIKES, SINGLETONS, first, tokens
from sidecar.http.message import CLOSED, NEED_DATA, SWITCHED, Data, End, HttpEvent, RequestHead, ResponseHead, quoted

_TOKEN_START = re.compile(_TOKEN)
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/(1\.[01])\Z")
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\Z")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r[^\n]")
_END_OF_HEAD = b"\r\n\r\n"
_LINE_LIMIT = 24 * 1024  # h11 must be able to take a whole head; ours is limited before it gets there


def _fields(lines: list[bytes], limit: int) -> Headers:
    """Read header lines. Raises ProtocolViolation or HeadTooLarge."""
    if len(lines) > limit:
        raise HeadTooLarge(f"{len(lines)} header lines; at most {limit} are allowed")
    headers: Headers = []
    seen: set[bytes] = set()
    for line in lines:
        match = _FIELD.match(line)
        if match is None:
            raise ProtocolViolation(_what_is_wrong(line))
        name = match[1].lower()
        if name in SINGLETONS:
            if name in seen:
                raise ProtocolViolation(f"the field {name.decode()} is repeated")
            seen.add(name)
        elif name in LOOKALIKES:
            raise ProtocolViolation(f"the field {name.decode()}, which some servers read as a framing field")
        headers.append((name, match[2].rstrip(b" \t")))
    return headers


def _what_is_wrong(line: bytes) -> str:
    shown = quoted(line)
    if line[:1] in (b" ", b"\t"):
        return f"a folded header line (obsolete line folding): {shown}"
    if b"\n" in line or b"\r" in line:
        return f"a bare CR or LF in a header: {shown}"
    if b":" not in line:
        return f"a header line without a colon: {shown}"
    name = line.partition(b":")[0]
    if not re.fullmatch(_TOKEN, name):
        return f"a header name that is no token: {quoted(name)}"
    return f"a control character in a header value: {shown}"


def _cut_head(raw: bytearray, limit: int, looked: int) -> list[bytes] | None:
    """Take a whole head off the front, as lines without their CRLF; None while it is not complete.

    The first `looked` bytes have been looked at before. Without that a head that comes byte by byte would cost its
    square.
    """
    end = raw.find(_END_OF_HEAD, max(0, looked - 3))
    if end < 0:
        if len(raw) > limit + 3:  # three bytes of the empty line may be here already
            raise HeadTooLarge(f"the head is over {limit} bytes")
        _no_bare_line_end(raw, max(0, looked - 1))
        return None
    if end > limit:
        raise HeadTooLarge(f"the head is over {limit} bytes")
    return bytes(raw[:end]).split(b"\r\n")


def _no_bare_line_end(raw: bytearray, start: int) -> None:
    """Refuse at once what would otherwise wait for an empty line of another kind until the time-out."""
    if _BARE_LINE_END.search(raw, start):
        raise ProtocolViolation("a bare CR or LF in the head")


def _length(headers: Headers) -> int | None:
    value = first(headers, b"content-length")
    if value is None:
        return None
    if not _DIGITS.match(value):
        raise ProtocolViolation(f"Content-Length {quoted(value, 30)} is not a plain number")
    return int(value)


class _H1:
    """What both roles share: the bytes of the next head, and the h11 connection of this exchange."""

    def __init__(self, head_bytes: int, head_lines: int) -> None:
        self._head_bytes = head_bytes
        self._head_lines = head_lines
        self._raw = bytearray()
        self._looked = 0  # how much of it holds no end of a head
        self._eof = False
        self._h11: h11.Connection | None = None
        self._guard: ChunkGuard | None = None  # of the chunked body that is being read
        self._takes_trailers = False  # whether the framing of our own message has room for them

    @property
    def _connection(self) -> h11.Connection:
        assert self._h11 is not None
        return self._h11

    def _new_h11(self, role: type[h11.CLIENT] | type[h11.SERVER]) -> h11.Connection:
        return h11.Connection(role, max_incomplete_event_size=max(self._head_bytes, _LINE_LIMIT) + 4)

    def _send(
        self, event: h11.Request | h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage
    ) -> bytes:
        return self._connection.send(event) or b""

    def send_data(self, data: bytes) -> bytes:
        """Frame a piece of our body."""
        return self._send(h11.Data(data=data))

    def send_end(self, trailers: Headers | tuple[()] = ()) -> bytes:
        """End our message. Trailers are dropped where the framing has no room for them."""
        return self._send(h11.EndOfMessage(headers=list(trailers) if self._takes_trailers else []))

    def _show(self, data: bytes) -> None:
        """Show body bytes to h11, as far as they are beyond doubt."""
        if self._guard is None:
            self._connection.receive_data(data)
        elif self._guard.error is None:
            good = self._guard.check(data)
            if good or not data:
                self._connection.receive_data(data[:good])

    def _begin_body(self, chunked: bool) -> None:
        self._guard = ChunkGuard(self._head_bytes, self._head_lines) if chunked else None

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow on this connection."""
        connection = self._connection
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    @property
    def they_are_done(self) -> bool:
        """Whether the other side's message has been read whole."""
        return self._connection.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)

    def trailing(self) -> bytes:
        """Bytes that came after the message: a pipelined request, or the first of another protocol."""
        if self._h11 is None:
            return bytes(self._raw)
        return self._h11.trailing_data[0]

    def _body_event(self, event: object) -> HttpEvent:
        if isinstance(event, h11.Data):
            return Data(bytes(event.data))
        if isinstance(event, h11.EndOfMessage):
            trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
            for name, value in trailers:
                if name in FORBIDDEN_TRAILERS or not _FIELD.match(name + b":" + value):
                    raise ProtocolViolation(f"the trailer {name.decode('latin-1')} is not allowed")
            return End(trailers)
        if event is h11.NEED_DATA:
            if self._guard is not None and self._guard.error is not None:
                raise self._guard.error
            return NEED_DATA
        if event is h11.PAUSED:
            return SWITCHED
        return CLOSED


class H1Server(_H1):
    """Reads requests and writes responses: our side toward a downstream."""

    def __init__(self, head_bytes: int, head_lines: int) -> None:
        super().__init__(head_bytes, head_lines)
        self._skipped = False  # the one empty line before a request
        self._method = b""

    def receive(self, data: bytes) -> None:
        """Take bytes from the wire; `b""` is the end of the stream."""
        if self._h11 is not None:
            self._show(data)
        elif data:
            self._raw += data
        else:
            self._eof = True

    @property
    def beginning(self) -> bytes:
        """What is here of the next request, before it is read."""
        return bytes(self._raw)

    @property
    def idle(self) -> bool:
        """Whether not a single byte of the next request is here."""
        return self._h11 is None and not self._raw

    def next_event(self) -> HttpEvent:
        """The next event. Raises ProtocolViolation and its kind, HeadTooLarge, DownstreamGone."""
        if self._h11 is None:
            return self._next_head()
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if "unexpectedly closed" in str(error) or "closed connection without" in str(error):
                raise DownstreamGone("the downstream left in the middle of its request body") from None
            raise ProtocolViolation(f"request body: {error}") from None
        return self._body_event(event)

    def _next_head(self) -> HttpEvent:
        lines = None
        if self._raw != b"\r":
            if self._raw[:2] == b"\r\n" and not self._skipped:  # RFC 9112 section 2.2: one empty line is forgiven
                del self._raw[:2]
                self._skipped = True
                self._looked = 0
            if self._raw and not _TOKEN_START.match(self._raw):
                raise _not_http(self._raw)
            lines = _cut_head(self._raw, self._head_bytes, self._looked)
        if lines is None:
            self._looked = len(self._raw)
            if not self._eof:
                return NEED_DATA
            if not self._raw:
                return CLOSED
            raise DownstreamGone("the downstream left in the middle of a request head")
        head = self._read_request(lines)
        size = sum(map(len, lines)) + 2 * len(lines) + 2
        connection = self._h11 = self._new_h11(h11.SERVER)
        try:
            connection.receive_data(bytes(self._raw[:size]))
            request = connection.next_event()
            self._begin_body(head.body and head.length is None)
            rest = bytes(self._raw[size:])
            if rest:
                self._show(rest)
            if self._eof:
                self._show(b"")
        except h11.RemoteProtocolError as error:
            raise ProtocolViolation(str(error)) from None
        self._raw = bytearray()
        self._looked = 0
        if not isinstance(request, h11.Request):
            raise ProtocolViolation("the request head cannot be read")
        return head

    def _read_request(self, lines: list[bytes]) -> RequestHead:
        match = _REQUEST_LINE.match(lines[0])
        if match is None:
            raise ProtocolViolation(f"not a request line of HTTP/1: {quoted(lines[0])}")
        method, target, version = match.groups()
        headers = _fields(lines[1:], self._head_lines)
        if version == b"1.1" and first(headers, b"host") is None:
            raise HostMismatch("the Host header is missing")
        head = RequestHead(method, target, headers, version)
        _read_framing(head)
        self._method = method
        return head

    def refuse_next(self) -> None:
        """Get ready to answer although no request could be read."""
        if self._h11 is None:
            self._h11 = self._new_h11(h11.SERVER)

    def send_head(self, head: ResponseHead) -> bytes:
        """Serialise a response head, final or 1xx."""
        if head.status < 200:
            return self._send(
                h11.InformationalResponse(status_code=head.status, headers=head.headers, reason=head.reason)
            )
        data = self._send(h11.Response(status_code=head.status, headers=head.headers, reason=head.reason))
        self._takes_trailers = (
            self._method != b"HEAD" and head.status not in (204, 304) and b"\r\nTransfer-Encoding: chunked\r\n" in data
        )
        return data

    @property
    def wants_continue(self) -> bool:
        """Whether the downstream still waits for our 100 before it sends its body."""
        return self._h11 is not None and self._h11.they_are_waiting_for_100_continue

    @property
    def owed(self) -> bool:
        """Whether promised bytes of the request body are missing, and nothing keeps the downstream from sending them.

        Promised is what a Content-Length says, and what a chunk's size does; between two chunks nothing is.
        """
        if self.they_are_done or self.wants_continue:
            return False
        return self._guard is None or self._guard.owed

    def next_exchange(self) -> None:
        """Get ready for the next request on this connection."""
        self._raw = bytearray(self.trailing())
        self._eof = self._eof or self._connection.trailing_data[1]
        self._h11 = self._guard = None
        self._skipped = self._takes_trailers = False
        self._method = b""


def _not_http(raw: bytearray) -> ProtocolViolation:
    if raw[:1] != b"\x16":  # the content type of a TLS handshake record
        return ProtocolViolation("this is not HTTP/1")
    error = ProtocolViolation("this is TLS where plain HTTP is spoken")
    error.hint = "speak plain HTTP to the proxy (http://, not https://); the sidecar adds the TLS"
    return error


def _read_framing(head: RequestHead) -> None:
    """Decide where the body ends; whatever leaves room for doubt is refused (RFC 9112 sections 6.1 to 6.3)."""
    headers = head.headers
    head.length = _length(headers)
    codings = tokens(headers, b"transfer-encoding")
    if first(headers, b"transfer-encoding") is not None:
        if head.length is not None:
            raise ProtocolViolation("both Content-Length and Transfer-Encoding")
        if head.version == b"1.0":
            raise ProtocolViolation("Transfer-Encoding in HTTP/1.0")
        if codings != [b"chunked"]:
            raise UnsupportedFeature(f"Transfer-Encoding {quoted(b', '.join(codings))}; only chunked is supported")
        head.body = True
    elif head.length:
        head.body = True
    expectations = tokens(headers, b"expect")
    if expectations:
        if expectations != [b"100-continue"]:
            raise UnsupportedFeature(f"Expect: {quoted(b', '.join(expectations))}")
        head.expects_continue = head.body and head.version != b"1.0"


class H1Client(_H1):
    """Writes requests and reads responses: our side toward an upstream."""

    def __init__(self, head_bytes: int, head_lines: int) -> None:
        super().__init__(head_bytes, head_lines)
        self._in_head = True
        self._to_head = False  # whether the request is a HEAD

    def begin(self, head: RequestHead) -> bytes:
        """Start an exchange and serialise its request head."""
        self._h11 = self._new_h11(h11.CLIENT)
        self._in_head = True
        self._eof = False
        self._guard = None
        self._to_head = head.method == b"HEAD"
        self._takes_trailers = first(head.headers, b"transfer-encoding") is not None
        return self._send(h11.Request(method=head.method, target=head.target, headers=head.headers))

    def receive(self, data: bytes) -> None:
        """Take bytes from the wire; `b""` is the end of the stream."""
        if self._in_head:
            if data:
                self._raw += data
            else:
                self._eof = True
        else:
            self._show(data)

    def next_event(self) -> HttpEvent:
        """The next event. Raises UpstreamProtocolViolation or UpstreamClosed."""
        try:
            if self._in_head:
                return self._next_head()
            return self._body_event(self._connection.next_event())
        except h11.RemoteProtocolError as error:
            if "unexpectedly closed" in str(error) or "closed connection without" in str(error):
                raise UpstreamClosed("the upstream closed in the middle of its answer") from None
            raise UpstreamProtocolViolation(f"response: {error}") from None
        except (ProtocolViolation, HeadTooLarge) as error:
            raise UpstreamProtocolViolation(f"response: {error}") from None

    def _next_head(self) -> HttpEvent:
        lines = _cut_head(self._raw, self._head_bytes, self._looked)
        if lines is None:
            self._looked = len(self._raw)
            if self._eof:
                raise UpstreamClosed(
                    "the upstream closed before it answered" if not self._raw else "closed in its head"
                )
            return NEED_DATA
        head = self._read_response(lines)
        size = sum(map(len, lines)) + 2 * len(lines) + 2
        connection = self._connection
        connection.receive_data(bytes(self._raw[:size]))
        event = connection.next_event()
        del self._raw[:size]
        self._looked = 0
        if isinstance(event, h11.Response) or head.status == 101:
            self._in_head = False
            self._begin_body(self._is_chunked(head))
            rest, self._raw = bytes(self._raw), bytearray()
            if rest:
                self._show(rest)
            if self._eof:
                self._show(b"")
        elif not isinstance(event, h11.InformationalResponse):
            raise UpstreamProtocolViolation("the response head cannot be read")
        return head

    def _is_chunked(self, head: ResponseHead) -> bool:
        """Whether a chunked body follows this response head; to HEAD, and after 204 and 304, none does."""
        return (
            head.status >= 200
            and head.status not in (204, 304)
            and self._connection.their_state is h11.SEND_BODY
            and first(head.headers, b"transfer-encoding") is not None
            and not self._to_head
        )

    def _read_response(self, lines: list[bytes]) -> ResponseHead:
        match = _STATUS_LINE.match(lines[0])
        if match is None:
            raise UpstreamProtocolViolation(f"not a status line: {quoted(lines[0])}")
        headers = _fields(lines[1:], self._head_lines)
        length = _length(headers)
        codings = tokens(headers, b"transfer-encoding")
        if codings and (length is not None or codings != [b"chunked"] or match[1] == b"1.0"):
            raise UpstreamProtocolViolation(
                "ambiguous framing: Transfer-Encoding with Content-Length, or not just chunked"
            )
        return ResponseHead(int(match[2]), headers, match[3] or b"", match[1])

    @property
    def clean(self) -> bool:
        """Whether the connection may go back to its pool: nothing left over, and both sides done."""
        return self.reusable and not self._raw and self._connection.trailing_data == (b"", False)
