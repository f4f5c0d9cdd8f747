"""A case in HTTP/2: frames, right or wrong, and the one HTTP/1 reading that the origin behind may see of them.

Frames and header blocks are made by `sidecar.http.h2`, which writes whatever it is told to; what is right or wrong
about them stands in the case. A case is sent behind a good preface and good SETTINGS, all at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.conformance.case import HOST, POST, Case, Reading, fill
from sidecar.http.h2 import frames
from sidecar.http.h2.codes import END_HEADERS, END_STREAM, PADDED, PREFACE, PRIORITY, Kind
from sidecar.http.h2.compression import FieldWriter

Fields = tuple[tuple[bytes, bytes], ...]
WINDOW = 1 << 20  # bytes that an answer may have before we give room: no answer here is that long
GREETING = PREFACE + frames.settings(((4, WINDOW),))  # SETTINGS_INITIAL_WINDOW_SIZE


@dataclass(frozen=True, slots=True)
class Head:
    """HEADERS with these fields, and CONTINUATION frames where the block is cut."""

    fields: Fields
    stream: int = 1
    end: bool = True  # END_STREAM
    cuts: tuple[int, ...] = ()  # bytes of the block before each CONTINUATION
    padding: int = -1  # bytes; below 0 there is none
    priority: bool = False

    def write(self, writer: FieldWriter, host: bytes) -> bytes:
        """The frames, for this host."""
        block = writer.write([(fill(name, host), fill(value, host)) for name, value in self.fields])
        ends = (*self.cuts, len(block))
        pieces = [block[start:end] for start, end in zip((0, *self.cuts), ends, strict=True)]
        flags = (END_STREAM if self.end else 0) | (0 if self.cuts else END_HEADERS)
        first = pieces[0]
        if self.priority:
            flags, first = flags | PRIORITY, bytes(4) + b"\x0f" + first
        if self.padding >= 0:
            flags, first = flags | PADDED, bytes((self.padding,)) + first + bytes(self.padding)
        out = frames.frame(Kind.HEADERS, flags, self.stream, first)
        for number, piece in enumerate(pieces[1:], 1):
            last = END_HEADERS if number == len(self.cuts) else 0
            out += frames.frame(Kind.CONTINUATION, last, self.stream, piece)
        return out


@dataclass(frozen=True, slots=True)
class Raw:
    """Any frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes = b""

    def write(self, writer: FieldWriter, host: bytes) -> bytes:
        """The frame, for this host."""
        return frames.frame(self.kind, self.flags, self.stream, fill(self.payload, host))


@dataclass(frozen=True, slots=True)
class Octets:
    """Bytes that are no frame."""

    payload: bytes

    def write(self, writer: FieldWriter, host: bytes) -> bytes:
        """They themselves, for this host."""
        return fill(self.payload, host)


Piece = Head | Raw | Octets


@dataclass(frozen=True, slots=True)
class H2Case(Case):
    """See `Case`; `raw` stays empty."""

    pieces: tuple[Piece, ...] = ()

    def bytes_for(self, host: bytes) -> bytes:
        """What is sent behind the greeting to a proxy that is asked for this host."""
        writer = FieldWriter()
        return b"".join([piece.write(writer, host) for piece in self.pieces])

    def sent_target(self, host: bytes) -> bytes:
        """The first `:path`."""
        heads = [piece for piece in self.pieces if isinstance(piece, Head)]
        return fill(dict(heads[0].fields).get(b":path", b""), host) if heads else b""

    @property
    def streams(self) -> tuple[int, ...]:
        """The streams on which something is asked, in their order."""
        return tuple(dict.fromkeys(piece.stream for piece in self.pieces if isinstance(piece, Head)))


def case(
    name: str, section: str, why: str, *pieces: Piece, accept: tuple[Reading, ...] = (), must_pass: bool = False,
    ours: bool = False,
) -> H2Case:  # fmt: skip
    """A case of these frames."""
    return H2Case(f"h2-{name}", section, why, b"", accept, must_pass, ours, pieces)


def fields(
    *more: tuple[bytes, bytes], method: bytes = b"GET", scheme: bytes = b"http", authority: bytes = HOST,
    path: bytes = b"/c",
) -> Fields:  # fmt: skip
    """A good request's pseudo-headers in front of these fields."""
    return (
        (b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path), *more,
    )  # fmt: skip


def data(payload: bytes = b"", *, end: bool = True, stream: int = 1, padding: int = -1) -> Raw:
    """DATA."""
    flags = END_STREAM if end else 0
    if padding >= 0:
        return Raw(Kind.DATA, flags | PADDED, stream, bytes((padding,)) + payload + bytes(padding))
    return Raw(Kind.DATA, flags, stream, payload)


def posted_in(*bodies: bytes, more: Fields = (), end: bool = True) -> tuple[Piece, ...]:
    """A POST with these fields and a frame of DATA for each of these pieces."""
    last = len(bodies) - 1
    return (
        Head(fields(*more, method=POST), end=False),
        *(data(body, end=end and number == last) for number, body in enumerate(bodies)),
    )
