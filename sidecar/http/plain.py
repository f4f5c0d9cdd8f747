"""The plain request heads, read by one regular expression: the fast path in front of `h1`.

Nearly every request between services is plain: a common method, HTTP/1.1, one Host, at most one length. Such a head is
read here in one pass, and what travels on is spliced from the bytes received instead of being built anew. This reader
refuses nothing and consumes nothing. Whatever is not plain is `OTHER`, goes to `sidecar.http.h1` with its bytes, and
is read or refused there. So the grammar below says what is beyond doubt, and never has to say what is wrong.

It is stricter than the strict reading: what is accepted here, that one accepts too and reads alike. Tests hold it to
that (`tests/properties/test_plain.py`). Names keep their capitals and values the blanks around them, and Host stays
where it came; apart from that the bytes that travel on are those that `h1` would write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

from sidecar.errors import HopError
from sidecar.hop import Headers
from sidecar.http.canonical import canonical_host, canonical_target
from sidecar.http.grpc import TIMEOUT_FIELD, timeout_of
from sidecar.http.plain_grammar import LENGTH, PERSISTENCE, VALUE, Known, Take, head

CHUNKED = -1  # in the place of a length

_HOST = rb"[-._:\[\]0-9A-Za-z]++"
_QUERY = rb"\?[\x21\x22\x24-\x7e]*+"
# Groups 2 and 3 of a head. To be judged: the target, and its path. Not to be judged: the target, and its authority.
JUDGED = rb"((/[!$%&-:=@A-Z_a-z~/]*+)(?:" + _QUERY + rb")?)"
OPAQUE = rb"((?:http://(" + _HOST + rb"))?/[\x21\x22\x24-\x7e]*+)"
_KNOWN = (
    Known(b"authorization", VALUE, Take.NOTHING),
    Known(b"host", _HOST, Take.LINE),
    Known(b"content-length", LENGTH, Take.VALUE),
    Known(b"content-type", VALUE, Take.VALUE),
    Known(b"connection", PERSISTENCE, Take.LINE),
    Known(b"transfer-encoding", rb"chunked", Take.NOTHING),
    Known(b"te", VALUE, Take.LINE),
    Known(b"idempotency-key", VALUE, Take.NOTHING),
    Known(b"keep-alive", VALUE, Take.LINE),
    Known(b"mesh-deadline", rb"[0-9]{1,8}[HMSmun]", Take.LINE),
    Known(b"mesh-via", rb"[0-9a-z]++(?:,[0-9a-z]++){0,30}", Take.LINE),  # fewer than sidecar.proxy.forwarding.MAX_VIA
    Known(b"proxy-connection", VALUE, Take.LINE),
)
_EXCLUDED = (
    rb"content_length:", rb"transfer_encoding:",  # some servers read them as framing
    rb"expect:", rb"upgrade:", rb"http2-settings:", rb"proxy-",  # h1 knows what to do about them
    rb"mesh[-_]", rb"x[-_]forwarded[-_]client[-_]cert:",  # what the mesh keeps to itself, in any spelling (D21)
    rb"sec-fetch-site:[ \t]*cross-site",  # refused by an outbound side
)  # fmt: skip
_HOST_LINE, _VIA_LINE = 5, 14
# The lines that belong to one connection or one hop, and mesh-via, which is made anew.
_CUT = (8, 10, 12, 13, 14, 15)
_HOST_AND_CUT = (_HOST_LINE, *_CUT)
# TRACE and CONNECT are not plain.
METHODS = {method.encode(): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
_LINE_END = len(b" HTTP/1.1\r\n")
_INCOMPLETE = 4096  # bytes of a head that may come in pieces here; more is h1's, which reads pieces in linear time
_REMEMBERED_HOSTS = 256
_FIELDS = re.compile(rb"([^:\r\n]++):[ \t]*+([^\r\n]*+)\r\n")


class Unread(Enum):
    """Why there is no plain head."""

    MORE = "more"  # it may become one; ask again with more bytes, or hand it to h1, as at the end of the stream
    OTHER = "other"  # it is for h1


MORE: Literal[Unread.MORE] = Unread.MORE
OTHER: Literal[Unread.OTHER] = Unread.OTHER


class PlainRequest(NamedTuple):
    """A plain request head: what is asked, and the bytes of it that travel on.

    The head to send on is `line`, any lines of ours, `fields`, more lines of ours, an empty line. Host is in `fields`
    where the path is judged (toward the application), and left to the sender where it is not (toward an upstream).
    """

    start: int  # where in the data its first line begins
    end: int  # where its body begins, or the next request
    method: str
    target: str  # as received
    segments: tuple[str, ...]  # of the path (decision D4); () where it is not judged here
    host: str  # as `canonical_host` reads it
    port: int | None
    length: int  # of the body: 0 for none, CHUNKED where only its end will tell
    close: bool  # the caller will ask no more on this connection
    via: list[bytes] | None  # the members of mesh-via, None where it is absent
    content_type: bytes | None  # as received, perhaps with blanks around it
    keyed: bool  # it carries an Idempotency-Key
    within: float | None  # seconds that the sidecar before us has left for it (mesh-deadline)
    line: bytes  # the request line in origin form, with its CRLF
    fields: bytes  # the header lines that travel on, each with its CRLF


@lru_cache(maxsize=16)
def _request_head(target: bytes, lines: int) -> Callable[[bytes, int], re.Match[bytes] | None]:
    """Finds a whole plain head with a target like this and at most so many header lines."""
    return head(rb"([A-Z]{3,7}) " + target + rb" HTTP/1\.1\r\n", _KNOWN, _EXCLUDED, lines).match


class Reader:
    """What both readers share: the limits of a listener, and the hosts that it has been asked for lately."""

    __slots__ = ("_head", "_hosts", "head_bytes")
    target: ClassVar[bytes]

    def __init__(self, head_bytes: int, head_lines: int) -> None:
        self._head = _request_head(self.target, head_lines)
        self.head_bytes = head_bytes  # without the empty line
        self._hosts: dict[bytes, tuple[str, int | None]] = {}

    def _learn_host(self, line: bytes) -> tuple[str, int | None] | None:
        """Read a Host line that has not been seen lately; None where it names no host."""
        try:
            found = canonical_host(line[4:-2].lstrip(b" "))
        except HopError:
            return None
        if len(self._hosts) >= _REMEMBERED_HOSTS:
            self._hosts.clear()
        self._hosts[line] = found
        return found


class JudgedReader(Reader):
    """Reads requests whose path will be judged: those of peers."""

    __slots__ = ()
    target = JUDGED

    def read(self, data: bytes, start: int = 0) -> PlainRequest | Unread:
        """Read the head that begins here.

        Its `segments` are those of `canonical_target` under every leniency: a path that needs one is not plain.
        """
        match = self._head(data, start)
        if match is None:
            return _unread(data, start)
        verb, target, path, _, host, digits, kind, persist, chunked, te, key, alive, till, via, proxy = match.groups()
        method, end = METHODS.get(verb), match.end()
        if host is None or method is None or end - start - 4 > self.head_bytes:
            return OTHER
        named = self._hosts.get(host) or self._learn_host(host)
        asked = target.decode()
        way = asked if path == target else path.decode()
        odd = "%" in way or "//" in way or "/." in way
        segments = carefully(path, method) if odd else tuple(way[1:].split("/"))
        if named is None or segments is None or (chunked is not None and digits is not None):
            return OTHER
        begin = match.end(2) + _LINE_END
        if persist is None and alive is None and te is None and proxy is None and till is None:
            if via is None:
                fields = data[begin : end - 2]
            else:
                cut = match.start(_VIA_LINE) - 1
                fields = data[begin:cut] + data[cut + 1 + len(via) : end - 2]
        else:
            fields = without(data, begin, end - 2, match, _CUT)
        return made(
            PlainRequest,
            (
                start, end, method, asked, segments, named[0], named[1],
                int(digits) if digits is not None else 0 if chunked is None else CHUNKED,
                persist is not None and persist[-7:].lower() == b"close\r\n",
                None if via is None else via[8:-2].lstrip(b" ").split(b","),
                kind, key is not None, till and _seconds(till),
                data[start:begin], fields,
            ),
        )  # fmt: skip


class OpaqueReader(Reader):
    """Reads requests whose path somebody else will judge: those of our own application."""

    __slots__ = ()
    target = OPAQUE

    def read(self, data: bytes, start: int = 0) -> PlainRequest | Unread:
        """Read the head that begins here. A target may have absolute form, as at a forward proxy, where its host is
        spelled as in Host.
        """
        match = self._head(data, start)
        if match is None:
            return _unread(data, start)
        verb, target, authority, _, host, digits, kind, persist, chunked, te, key, alive, till, via, proxy = (
            match.groups()
        )
        method, end = METHODS.get(verb), match.end()
        if host is None or method is None or end - start - 4 > self.head_bytes:
            return OTHER
        named = self._hosts.get(host) or self._learn_host(host)
        if named is None or (chunked is not None and digits is not None) or till is not None:
            return OTHER  # an application has no say in what one sidecar tells the next
        begin = match.end(2) + _LINE_END
        if authority is None:
            line = data[start:begin]
        elif authority == host[4:-2].lstrip(b" "):
            line = verb + b" " + target[len(authority) + 7 :] + b" HTTP/1.1\r\n"
        else:
            return OTHER
        if persist is None and alive is None and te is None and proxy is None and via is None:
            cut = match.start(_HOST_LINE) - 1
            fields = data[begin:cut] + data[cut + 1 + len(host) : end - 2]
        else:
            fields = without(data, begin, end - 2, match, _HOST_AND_CUT)
        return made(
            PlainRequest,
            (
                start, end, method, target.decode(), (), named[0], named[1],
                int(digits) if digits is not None else 0 if chunked is None else CHUNKED,
                persist is not None and persist[-7:].lower() == b"close\r\n",
                None if via is None else via[8:-2].lstrip(b" ").split(b","),
                kind, key is not None, None, line, fields,
            ),
        )  # fmt: skip


made = tuple.__new__  # a named tuple's own constructor costs three times as much


def headers_of(data: bytes, request: PlainRequest) -> Headers:
    """All header fields of a head that has been read: lower-case names, values without blanks around them."""
    begin = data.index(b"\n", request.start) + 1
    return [(name.lower(), value.rstrip(b" \t")) for name, value in _FIELDS.findall(data, begin, request.end - 2)]


def _seconds(line: bytes) -> float | None:
    """What a mesh-deadline says, from its second letter on."""
    return timeout_of([(TIMEOUT_FIELD, line[13:-2].lstrip(b" "))])


def _unread(data: bytes, start: int) -> Unread:
    """Why no plain request head begins here. Says MORE only where h1 would wait, too."""
    method = data[start : start + 8].partition(b" ")[0]
    if method not in METHODS:
        begun = len(data) - start == len(method) and any(known.startswith(method) for known in METHODS)
        return MORE if begun else OTHER
    if data.find(b"\r\n\r\n", start) >= 0:
        return OTHER
    return unread_bytes(data, start)


def unread_bytes(data: bytes, start: int) -> Unread:
    """Whether a head without its end may become a plain one: it is short so far, and its lines end with CRLF."""
    if len(data) - start > _INCOMPLETE:
        return OTHER
    ends = data.count(b"\r\n", start)
    bare = data.count(b"\n", start) > ends or data.count(b"\r", start) > ends + data.endswith(b"\r")
    return OTHER if bare else MORE


def carefully(path: bytes, method: str) -> tuple[str, ...] | None:
    """The segments of a path with escapes or dots in it; None where it is not beyond doubt."""
    try:
        return canonical_target(path, method).segments
    except HopError:
        return None


def without(data: bytes, start: int, end: int, match: re.Match[bytes], groups: tuple[int, ...]) -> bytes:
    """These bytes without the lines of these groups, each of which holds a line from its second letter on."""
    pieces = []
    for begin, after in sorted(map(match.span, groups)):
        if begin >= 0:  # the span of a line that has not come is (-1, -1)
            pieces.append(data[start : begin - 1])
            start = after
    pieces.append(data[start:end])
    return b"".join(pieces)
