"""What came back over HTTP/2: a reader of answers, for their status codes, and for which streams were reset."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.conformance.answers import Answer
from sidecar.http.h2 import frames
from sidecar.http.h2.codes import ACK, END_HEADERS, END_STREAM, Kind, code_name
from sidecar.http.h2.compression import FieldReader

_MOST = 1 << 20  # bytes of one frame, and of one list of fields
_SETTINGS_ACK = frames.frame(Kind.SETTINGS, ACK, 0)


@dataclass
class _Stream:
    status: int = 0
    body: bytes = b""
    ended: bool = False
    reset: str = ""


@dataclass
class Conversation:
    """Our side of one connection. `feed` what comes, and send what it returns.

    A server that cannot be understood is one that has answered nothing: this reader raises ConnectionFault, NotHpack or
    TooMuch then.
    """

    wanted: tuple[int, ...]
    goaway: str = ""  # its code; empty where there was none
    _reader: frames.FrameReader = field(default_factory=lambda: frames.FrameReader(preface=False, max_bytes=_MOST))
    _fields: FieldReader = field(default_factory=lambda: FieldReader(_MOST))
    _streams: dict[int, _Stream] = field(default_factory=dict)
    _block: bytes = b""
    _block_ends: bool = False

    def feed(self, received: bytes) -> bytes:
        """Take bytes from the wire; what is to be sent because of them."""
        self._reader.feed(received)
        reply = b""
        while (frame := self._reader.next()) is not None:
            if frame.kind == Kind.SETTINGS and not frame.flags & ACK:
                reply += _SETTINGS_ACK
            elif frame.kind == Kind.PING and not frame.flags & ACK:
                reply += frames.ping(frame.payload, ack=True)
            elif frame.kind == Kind.GOAWAY:
                self.goaway = code_name(frames.error_code(frame.payload[4:8]))
            elif frame.stream:
                self._on_stream(frame)
        return reply

    def _on_stream(self, frame: frames.Frame) -> None:
        stream = self._streams.setdefault(frame.stream, _Stream())
        if frame.kind == Kind.HEADERS:
            self._block, self._block_ends = frame.unpadded(), bool(frame.flags & END_STREAM)
        elif frame.kind == Kind.CONTINUATION:
            self._block += frame.payload
        elif frame.kind == Kind.RST_STREAM:
            stream.reset = code_name(frames.error_code(frame.payload))
        elif frame.kind == Kind.DATA:
            stream.body += frame.unpadded()
            stream.ended = stream.ended or bool(frame.flags & END_STREAM)
        if frame.kind in (Kind.HEADERS, Kind.CONTINUATION) and frame.flags & END_HEADERS:
            status = int(dict(self._fields.read(self._block)).get(b":status", b"0"))
            stream.status = stream.status or (status if status >= 200 else 0)
            stream.ended = stream.ended or self._block_ends

    @property
    def failed(self) -> bool:
        """Whether the connection ended by an error, whenever it may be closed (RFC 9113 section 5.4.1)."""
        return self.goaway not in ("", "NO_ERROR")

    @property
    def done(self) -> bool:
        """Whether everything that was asked has been answered to its end, or reset."""
        found = [self._streams.get(number) for number in self.wanted]
        return bool(found) and all(one is not None and (one.ended or one.reset) for one in found)

    @property
    def answers(self) -> list[Answer]:
        """The final answers, in the order of the streams on which was asked."""
        found = [self._streams[number] for number in self.wanted if number in self._streams]
        return [Answer(one.status, one.body, one.ended) for one in found if one.status]

    @property
    def reset(self) -> str:
        """The code of the first stream that was reset without an answer; empty where none was."""
        found = [one for number in self.wanted if (one := self._streams.get(number)) is not None]
        return next((one.reset for one in found if one.reset and not one.status), "")
