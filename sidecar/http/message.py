"""One tongue for all versions of HTTP: heads, data and ends, as plain values.

Names of header fields are lower-case bytes, values are as received. Codecs (`h1`, `h2`) turn bytes into these and
back; nothing above them knows how a version frames its messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from sidecar.hop import Headers


@dataclass(slots=True)
class RequestHead:
    """Method, target and header fields of a request."""

    method: bytes
    target: bytes
    headers: Headers
    version: bytes = b"1.1"
    expects_continue: bool = False
    body: bool = False  # a body, or a chunked one of unknown length, follows
    length: int | None = None  # its Content-Length; None where chunked
    protocol: bytes = b""  # HTTP/2: what an extended CONNECT asks for (RFC 8441), here read as GET with Upgrade


@dataclass(slots=True)
class ResponseHead:
    """Status and header fields of a response; 1xx are responses too, which others follow."""

    status: int
    headers: Headers
    reason: bytes = b""
    version: bytes = b"1.1"


@dataclass(slots=True)
class Data:
    """A piece of a body."""

    data: bytes


@dataclass(slots=True)
class End:
    """The end of a message, with its trailers."""

    trailers: Headers = field(default_factory=list)


class Pause(Enum):
    """Why a codec has no event to give."""

    NEED_DATA = "need data"
    CLOSED = "closed"  # the other side has ended the connection, between messages
    SWITCHED = "switched"  # no longer HTTP: see `trailing`


NEED_DATA = Pause.NEED_DATA
CLOSED = Pause.CLOSED
SWITCHED = Pause.SWITCHED
HttpEvent = RequestHead | ResponseHead | Data | End | Pause


def quoted(data: bytes, most: int = 60) -> str:
    """Bytes of a message as a person may read them: the first `most`, in quotes, visible ASCII only.

    Whatever else there is becomes an escape (`\\r`, `\\x01`), so nothing in them can act on a terminal or a log.
    """
    return "'" + "".join(map(_READABLE.__getitem__, data[:most])) + "'"


def _readable(char: str) -> str:
    known = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\", "'": "\\'"}.get(char)
    return known or (char if " " <= char <= "~" else f"\\x{ord(char):02x}")


_READABLE = [_readable(chr(code)) for code in range(256)]
