"""HTTP/2 by hand: frames and header blocks as bytes, right or wrong, and the frames in what somebody sent.

Built with hyperframe and hpack, and with nothing of ours, so that both ends cannot share a mistake.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hpack
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from sidecar.http.h2 import Abuse, H2Client, H2Event, H2Limits, H2Server, H2Stream, Opened, Stirred
from sidecar.http.message import CLOSED, NEED_DATA, Data, End, RequestHead, ResponseHead

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
Fields = Sequence[tuple[bytes, bytes]]
GET: Fields = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"orders"), (b":path", b"/x"))
POST: Fields = ((b":method", b"POST"), *GET[1:])
OK: Fields = ((b":status", b"200"),)
CONNECT: Fields = ((b":method", b"CONNECT"), (b":authority", b"orders:443"))
WEBSOCKET: Fields = (
    (b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:], (b"sec-websocket-version", b"13"),
)  # fmt: skip


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, size: int | None = None) -> bytes:
    """Any frame, with a length that may lie."""
    length = len(payload) if size is None else size
    return struct.pack("!HBBBL", length >> 8, length & 0xFF, kind, flags, stream) + payload


def literal(fields: Fields) -> bytes:
    """A header block that touches no table: each field a literal, never indexed, no Huffman."""
    block = b""
    for name, value in fields:
        block += b"\x10" + integer(len(name)) + name + integer(len(value)) + value
    return block


def integer(value: int, prefix: int = 7, first: int = 0) -> bytes:
    """A number as HPACK writes it (RFC 7541 section 5.1)."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((first | value,))
    found, value = [first | most], value - most
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))


def headers(stream: int, fields: Fields, *, end: bool = True, flags: int = END_HEADERS) -> bytes:
    """HEADERS with these fields."""
    return frame(HEADERS, flags | (END_STREAM if end else 0), stream, literal(fields))


def data(stream: int, payload: bytes, *, end: bool = False, padding: int | None = None) -> bytes:
    """DATA, padded where asked for."""
    flags = END_STREAM if end else 0
    if padding is None:
        return frame(DATA, flags, stream, payload)
    return frame(DATA, flags | PADDED, stream, bytes((padding,)) + payload + bytes(padding))


def settings(*values: tuple[int, int]) -> bytes:
    """SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HL", key, value) for key, value in values))


def word(value: int) -> bytes:
    """Four bytes."""
    return struct.pack("!L", value)


HELLO = PREFACE + settings()  # what a client begins with
GREETING = settings()  # and a server


def frames_of(sent: bytes) -> list[Frame]:
    """What somebody sent, after the preface where there is one; it must be whole frames."""
    at, found = len(PREFACE) if sent.startswith(PREFACE) else 0, []
    while at < len(sent):
        parsed, size = Frame.parse_frame_header(memoryview(sent[at : at + 9]))
        parsed.parse_body(memoryview(sent[at + 9 : at + 9 + size]))
        assert at + 9 + size <= len(sent), "half a frame"
        found.append(parsed)
        at += 9 + size
    return found


@dataclass
class Seen:
    """What a connection made of some bytes."""

    resets: dict[int, int] = field(default_factory=dict)  # stream → code
    goaway: GoAwayFrame | None = None
    acks: int = 0
    frames: list[Frame] = field(default_factory=list)
    opened: list[H2Stream] = field(default_factory=list)

    @property
    def code(self) -> int | None:
        """The code of a GOAWAY; None where the connection lives."""
        return None if self.goaway is None else self.goaway.error_code


class Bench:
    """One connection of ours, and whoever tries it by hand."""

    def __init__(self, codec: H2Server | H2Client, *, greet: bool = True) -> None:
        self.codec = codec
        self.now = 0.0
        self.decoder = hpack.Decoder()
        self.events: list[H2Event] = []  # all but those of streams
        self.greeting = self.codec.to_send(self.now)
        if greet:
            self.say(HELLO if isinstance(codec, H2Server) else GREETING)

    def say(self, *pieces: bytes) -> Seen:
        """Send these bytes to it; what it did."""
        for piece in pieces:
            self.codec.receive(piece, self.now)
        return self.look()

    def look(self) -> Seen:
        """What it has sent, and which streams it has opened, since the last look."""
        seen = Seen()
        while (event := self.codec.next_event()) is not None:
            if isinstance(event, Opened):
                seen.opened.append(event.stream)
            elif not isinstance(event, Stirred):
                self.events.append(event)
        sent = b""
        while piece := self.codec.to_send(self.now):
            sent += piece
        for found in frames_of(sent):
            seen.frames.append(found)
            if isinstance(found, RstStreamFrame):
                seen.resets[found.stream_id] = found.error_code
            elif isinstance(found, GoAwayFrame):
                seen.goaway = found
            elif isinstance(found, SettingsFrame):
                seen.acks += "ACK" in found.flags
        return seen

    def answers(self, seen: Seen) -> list[tuple[int, dict[bytes, bytes]]]:
        """The heads in what it sent, in order, each with its stream."""
        return [
            (found.stream_id, dict(self.decoder.decode(found.data, raw=True)))
            for found in seen.frames
            if isinstance(found, HeadersFrame)
        ]


def a_server(**limits: Any) -> Bench:
    """A server of ours, greeted."""
    return Bench(H2Server(H2Limits(**limits)))


def a_client(**limits: Any) -> Bench:
    """A client of ours, greeted."""
    return Bench(H2Client(H2Limits(**limits)))


def events_of(stream: H2Stream) -> list[object]:
    """All that waits on a stream, bodies joined."""
    found: list[object] = []
    while (event := stream.next_event()) not in (NEED_DATA, CLOSED):
        if isinstance(event, Data) and found and isinstance(found[-1], Data):
            found[-1] = Data(found[-1].data + event.data)
        else:
            found.append(event)
    return found


def exchange(first: H2Server | H2Client, second: H2Server | H2Client, now: float = 0.0) -> list[H2Stream]:
    """Let two connections talk until both are silent; the streams that were opened, or stirred."""
    touched: dict[H2Stream, None] = {}
    while True:
        sent = [(first.to_send(now), second), (second.to_send(now), first)]
        for data, other in sent:
            if data:
                other.receive(data, now)
        for codec in (first, second):
            while (event := codec.next_event()) is not None:
                if isinstance(event, (Opened, Stirred)):
                    touched[event.stream] = None
        if not any(data for data, _ in sent):
            return list(touched)


__all__ = ["Abuse", "Data", "End", "RequestHead", "ResponseHead"]
