"""The plain response heads, most of them remembered: the fast path in front of `h1`, toward upstreams.

An application answers many requests with the same head, to the byte, for as long as its clock shows the same second.
So a head that has been read is kept with its reading: the same bytes have the same one. What is read here, and what is
`OTHER` and goes to `sidecar.http.h1`, follows the rules of `sidecar.http.plain`: a final status, HTTP/1.1, and one way
to tell where the body ends that is not the end of the connection.

Heads that may hold a secret of one caller are not kept beyond their exchange.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from sidecar.http.plain import CHUNKED, OTHER, Unread, unread_bytes, without
from sidecar.http.plain_grammar import LENGTH, PERSISTENCE, VALUE, Known, Take, head

_STATUS_LINE = rb"HTTP/1\.1 ([2-5][0-9][0-9]) " + VALUE + rb"\r\n"
_KNOWN = (
    Known(b"content-length", LENGTH, Take.VALUE),
    Known(b"content-type", VALUE, Take.NOTHING),
    Known(b"connection", PERSISTENCE, Take.LINE),
    Known(b"transfer-encoding", rb"chunked", Take.NOTHING),
    Known(b"keep-alive", VALUE, Take.LINE),
)
_EXCLUDED = (
    rb"content_length:", rb"transfer_encoding:",  # some readers take them for framing
    rb"upgrade:", rb"te:", rb"http2-settings:", rb"proxy-",  # h1 knows what to do about them
    rb"host:", rb"authorization:", rb"expect:",  # these have no place in an answer
    rb"mesh[-_]", rb"x[-_]forwarded[-_]client[-_]cert:",  # what the mesh keeps to itself, in any spelling (D21)
)  # fmt: skip
_CUT = (4, 6)
_SECRET = (b"\r\nset-cookie:", b"\r\nlocation:", b"\r\nwww-authenticate:", b"\r\nauthentication-info:")
_REMEMBERED = 256
_REMEMBERED_BYTES = 1024  # of one head; so all of them, as received and as sent on, are half a mebibyte at most


class PlainResponse(NamedTuple):
    """A plain response head: where its body ends, and the bytes of it that travel on."""

    size: int  # of the head with its empty line
    status: int
    length: int  # of the body that follows: 0 for none, also to HEAD, CHUNKED where only its end will tell
    close: bool  # the upstream will take no more on this connection
    lines: bytes  # the status line and the header lines that travel on; ours and an empty line may follow


@lru_cache(maxsize=4)
def _response_head(lines: int) -> Callable[[bytes], re.Match[bytes] | None]:
    """Finds a whole plain head of at most so many header lines."""
    return head(_STATUS_LINE, _KNOWN, _EXCLUDED, lines).match


class AnswerReader:
    """Reads the heads of answers, with the limits and the memory of one upstream."""

    __slots__ = ("_head", "_head_bytes", "_known", "_known_to_head")

    def __init__(self, head_bytes: int, head_lines: int) -> None:
        self._head = _response_head(head_lines)
        self._head_bytes = head_bytes  # without the empty line
        self._known: dict[bytes, PlainResponse] = {}
        self._known_to_head: dict[bytes, PlainResponse] = {}

    @property
    def remembered(self) -> int:
        """How many heads are kept."""
        return len(self._known) + len(self._known_to_head)

    def read(self, data: bytes, start: int = 0, *, to_head: bool = False) -> PlainResponse | Unread:
        """Read the head that begins here; `to_head`: it answers a HEAD request."""
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            return unread_bytes(data, start)
        raw = data[start : end + 4]
        known = self._known_to_head if to_head else self._known
        return known.get(raw) or self._learn(raw, known, to_head)

    def _learn(self, raw: bytes, known: dict[bytes, PlainResponse], to_head: bool) -> PlainResponse | Unread:
        match = self._head(raw)
        if match is None or len(raw) - 4 > self._head_bytes:
            return OTHER
        status, digits, _, persist, chunked, _ = match.groups()
        if status in (b"204", b"304"):  # they have no body, and 204 has no length of it either (RFC 9110 section 8.6)
            if chunked is not None or (digits is not None and status == b"204"):
                return OTHER
            length = 0
        elif (digits is None) is (chunked is None):
            return OTHER
        else:
            length = 0 if to_head else int(digits) if digits is not None else CHUNKED
        close = persist is not None and persist[-7:].lower() == b"close\r\n"
        found = PlainResponse(len(raw), int(status), length, close, without(raw, 0, len(raw) - 2, match, _CUT))
        if len(raw) <= _REMEMBERED_BYTES and not _may_be_secret(raw.lower()):
            if len(known) >= _REMEMBERED:
                known.clear()
            known[raw] = found
        return found


def _may_be_secret(lower: bytes) -> bool:
    return any(name in lower for name in _SECRET)
