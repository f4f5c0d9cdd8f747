"""What a case is: bytes, and the readings of them that a careful proxy may pass on.

A proxy may always refuse, unless a case says `must_pass` (the controls: a proxy that refuses everything is safe and
useless). If it forwards, the origin must see exactly one of `accept`: these requests, in this order, and no others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HOST = b"{host}"  # replaced by the host of the URL under test
_SIZE = re.compile(rb"\{size:(\d+)\+(\d+)\}")  # see `size_of`
SPOOF = b"spoofed"  # a value that only a stranger claims; see `Wanted.clean`
GET = b"GET"
POST = b"POST"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request as the origin must have understood it."""

    method: bytes = GET
    target: bytes = b"/c"
    body: bytes = b""
    host: bytes | None = None  # exactly this; None where the case is not about hosts
    without: tuple[bytes, ...] = ()  # fields that must not arrive, in any spelling with `_` for `-`
    once: tuple[bytes, ...] = ()  # fields that may arrive at most once
    fields: tuple[tuple[bytes, bytes], ...] = ()  # fields that must arrive with this value, exactly once
    clean: bool = True  # nothing that arrives, head or trailer, holds the value SPOOF


Reading = tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One message that two servers could read as two."""

    name: str  # group/short-name
    section: str  # of an RFC, or one of our decisions
    why: str
    raw: bytes
    accept: tuple[Reading, ...] = ()  # none: it must not pass at all
    must_pass: bool = False
    ours: bool = False  # holds a promise that only this mesh makes; other proxies need not

    @property
    def group(self) -> str:
        """The subject: the part of the name before the slash."""
        return self.name.partition("/")[0]

    def bytes_for(self, host: bytes) -> bytes:
        """What is sent to a proxy that is asked for this host."""
        return fill(self.raw, host)

    def sent_target(self, host: bytes) -> bytes:
        """The request target that was sent, as far as it can be told from bytes that may be anything."""
        return b" ".join(self.bytes_for(host).partition(b"\r\n")[0].split(b" ")[1:2])

    @property
    def answers(self) -> int:
        """How many responses the longest acceptable reading has, at least one."""
        return max((len(reading) for reading in self.accept), default=1) or 1


def fill(data: bytes, host: bytes) -> bytes:
    """Put the host in its places, and lengths that depend on it."""
    data = _SIZE.sub(lambda match: b"%d" % (int(match[1]) + int(match[2]) * len(host)), data)
    return data.replace(HOST, host)


def size_of(data: bytes) -> bytes:
    """The length of these bytes once they name the host, for a line that is made before."""
    count = data.count(HOST)
    return b"{size:%d+%d}" % (len(data) - count * len(HOST), count)


def head(*lines: bytes, method: bytes = GET, target: bytes = b"/c", version: bytes = b"HTTP/1.1") -> bytes:
    """A request head with a good Host line in front of these lines."""
    return b"\r\n".join((method + b" " + target + b" " + version, b"Host: " + HOST, *lines, b"", b""))


def bare(*lines: bytes) -> bytes:
    """A head of exactly these lines."""
    return b"\r\n".join((*lines, b"", b""))


def post(*lines: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    """A POST with these framing lines and these bytes after the head."""
    return head(*lines, method=POST, version=version) + body


def chunked(body: bytes, *lines: bytes) -> bytes:
    """A POST whose chunked body is spelled out."""
    return post(b"Transfer-Encoding: chunked", *lines, body=body)


def one(wanted: Wanted) -> tuple[Reading, ...]:
    """Exactly this one request, or a refusal."""
    return ((wanted,),)


def posted(
    body: bytes = b"hello", *, without: tuple[bytes, ...] = (), once: tuple[bytes, ...] = ()
) -> tuple[Reading, ...]:
    """Exactly one POST /c with this body, or a refusal."""
    return one(Wanted(POST, body=body, without=without, once=once))


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"  # a good chunked body
NOTHING: tuple[Reading, ...] = ()
