"""What a route changes in a request or an answer: the front of its path, and header fields. By declaration only.

A path is rewritten as bytes: what the route's prefix has matched is cut off, as many segments as it has, however they
were escaped, and the new prefix put in its place. What follows stays byte for byte as it came (decision D4), so only
who declares a rewrite changes what a signature covers.

Fields that frame a message, name its host or belong to one connection or to the mesh cannot be changed: they would mean
something else to the next reader than to us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.errors import ProtocolViolation
from sidecar.http.canonical import canonical_target
from sidecar.http.headers import HOP_BY_HOP, RESERVED
from sidecar.patterns import PathTemplate, PatternError

if TYPE_CHECKING:
    from sidecar.hop import Headers

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 section 5.6.2
_KEPT: Final = HOP_BY_HOP | {
    b"host", b"content-length", b"transfer-encoding", b"trailer", b"expect", b"x-forwarded-client-cert",
    b"grpc-status", b"grpc-message", b"grpc-timeout", b"grpc-encoding", b"sec-websocket-key", b"sec-websocket-accept",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PrefixRewrite:
    """Another front for a path."""

    segments: int  # that are cut off
    front: bytes  # that is put there; empty for none, else without a slash at its end

    @classmethod
    def parse(cls, prefix: str, front: str) -> PrefixRewrite:
        """Of `/old` and `/new`; `/` for nothing at all. Raises PatternError."""
        before, after = _plain(prefix), _plain(front)
        return cls(len([each for each in before.segments if each]), after.text.rstrip("/").encode("ascii"))

    def apply(self, path: bytes) -> bytes:
        """A path as received, without its query, that the prefix has matched."""
        at = 0
        for _ in range(self.segments):
            at = path.find(b"/", at + 1)
            if at < 0:
                return self.front or b"/"
        return self.front + path[at:] or b"/"


def prefix(text: str) -> str:
    """A path that may be cut off or put in front: no placeholders, and one reading alone (decision D4). Raises
    PatternError.
    """
    _plain(text)
    return text


def _plain(text: str) -> PathTemplate:
    template = PathTemplate.parse(text)
    if template.literal is None:
        raise PatternError(f"{text!r}: a prefix to be rewritten has no placeholders")
    if not text.isascii():
        raise PatternError(f"{text!r}: write letters beyond ASCII as %XX here; they are sent as they stand")
    try:
        canonical_target(text.encode("ascii"), "GET")
    except ProtocolViolation as error:
        raise PatternError(f"{text!r}: {error}, and such requests are refused") from None
    return template


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """Fields to be taken away, put in the place of all of their name, and added."""

    remove: frozenset[bytes] = frozenset()
    replace: tuple[tuple[bytes, bytes], ...] = ()
    add: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def parse(cls, remove: Sequence[str], replace: Mapping[str, str], add: Mapping[str, str]) -> HeaderChanges:
        """Read what an operator says. Raises PatternError."""
        return cls(
            frozenset(changeable(each).encode("ascii") for each in remove), tuple(_fields(replace)), tuple(_fields(add))
        )

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return bool(self.remove or self.replace or self.add)

    def apply(self, headers: Headers) -> Headers:
        """The fields as they are sent on; the list that came where nothing is to be changed."""
        if not self:
            return headers
        gone = self.remove | {name for name, _ in self.replace}
        return [field for field in headers if field[0] not in gone] + [*self.replace, *self.add]


def changeable(text: str) -> str:
    """The name of a field that a route may change, lower-case. Raises PatternError."""
    if not _NAME.fullmatch(text):
        raise PatternError(f"{text!r} is not a header name")
    name = text.lower()
    as_read = name.replace("_", "-").encode("ascii")  # CGI and its heirs cannot tell them apart (decision D21)
    if as_read in _KEPT or as_read.startswith(RESERVED):
        raise PatternError(f"{text}: a field of the connection, the framing or the mesh is not for routes to change")
    return name


def field_text(text: str) -> str:
    """What a field may say. Raises PatternError."""
    if text != text.strip(" \t") or any((ch < " " and ch != "\t") or ch == "\x7f" for ch in text):
        raise PatternError(f"{text!r} has control characters, or spaces at its ends")
    return text


def _fields(given: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    for name, text in given.items():
        try:
            yield changeable(name).encode("ascii"), field_text(text).encode("utf-8")
        except PatternError as error:
            raise PatternError(f"header {name}: {error}") from None
