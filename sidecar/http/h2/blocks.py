"""Header blocks: put together from HEADERS and CONTINUATION, and read by HPACK within bounds.

HPACK has one state for the whole connection (RFC 7541 section 2.2), so every block is read, also those of streams that
are refused or long gone. A block that cannot be read ends the connection. What a block may cost is bounded before and
while it is read: its bytes, its frames, the size of the list that it means, the updates of its table.
"""

from __future__ import annotations

from collections.abc import Iterable

import hpack
from hpack.exceptions import HPACKError, OversizedHeaderListError

from sidecar.hop import Headers
from sidecar.http.h2.codes import END_HEADERS, END_STREAM, Abuse, Code, ConnectionFault
from sidecar.http.h2.frames import Frame
from sidecar.http.h2.limits import H2Limits

TABLE_BYTES = 4096  # of both dynamic tables (RFC 7541 section 4.2), whatever the other side would grant our encoder
_TABLE_UPDATE = 0b0010_0000  # RFC 7541 section 6.3
_MAX_TABLE_UPDATES = 2  # RFC 7541 section 4.2: two can be needed, more never


class HeaderBlocks:
    """What arrives as header blocks on one connection."""

    __slots__ = ("_bytes", "_decoder", "_end", "_frames", "_limits", "_pieces", "stream")

    def __init__(self, limits: H2Limits) -> None:
        self._limits = limits
        self._decoder = hpack.Decoder(max_header_list_size=limits.bomb_bytes)
        self._pieces: list[bytes] = []
        self._bytes = self._frames = 0
        self._end = False
        self.stream = 0  # whose block is under way; 0 between blocks

    def begin(self, frame: Frame) -> bytes | None:
        """HEADERS: the whole block, or None while CONTINUATION is due. Raises ConnectionFault."""
        block = frame.unpadded()
        if frame.flags & END_HEADERS:
            self._check_size(len(block))
            return block
        self.stream = frame.stream
        self._end = bool(frame.flags & END_STREAM)
        self._pieces, self._bytes, self._frames = [block], len(block), 0
        return None

    def go_on(self, frame: Frame) -> tuple[bytes, bool] | None:
        """CONTINUATION: the whole block and whether it ends its stream, or None. Raises ConnectionFault."""
        self._frames += 1
        if self._frames > self._limits.continuations:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                f"a header block in more than {self._limits.continuations} CONTINUATION frames",
                Abuse.CONTINUATION_FLOOD,
            )
        self._pieces.append(frame.raw[9:])
        self._bytes += len(frame.raw) - 9
        self._check_size(self._bytes)
        if not frame.flags & END_HEADERS:
            return None
        block, self._pieces, self.stream = b"".join(self._pieces), [], 0
        return block, self._end

    def _check_size(self, size: int) -> None:
        if size > self._limits.block_bytes:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                f"a header block of more than {self._limits.block_bytes} bytes",
                Abuse.CONTINUATION_FLOOD,
            )

    def read(self, block: bytes) -> Headers:
        """The fields that a block means. Raises ConnectionFault."""
        if block[:1] and block[0] & 0xE0 == _TABLE_UPDATE:
            _check_updates(block)
        try:
            return list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                f"{len(block)} bytes of HPACK that mean more than {self._limits.bomb_bytes}",
                Abuse.HPACK_BOMB,
            ) from None
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"not HPACK: {type(error).__name__}") from None


def _check_updates(block: bytes) -> None:
    at = updates = 0
    while at < len(block) and block[at] & 0xE0 == _TABLE_UPDATE:
        updates += 1
        if updates > _MAX_TABLE_UPDATES:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "more than two updates of the HPACK table in one block")
        at += 1
        if block[at - 1] & 0x1F == 0x1F:
            while at < len(block) and block[at] & 0x80:
                at += 1
            at += 1


class FieldWriter(hpack.Encoder):
    """Our side of HPACK. Its table never grows over the usual 4 KiB: it would be our memory, at the peer's wish."""

    @property
    def header_table_size(self) -> int:
        """Bytes of our dynamic table."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, TABLE_BYTES)
        self.header_table.maxsize = size
        if self.header_table.resized:
            self.table_size_changes.append(size)


# Values that must not enter a table that is shared by all requests of a connection: with them there, their guessing
# becomes a game of lengths (RFC 7541 section 7.1.3). Short cookies are guessed most easily; Firefox and nghttp2 say 20.
_SECRET = frozenset((b"authorization", b"proxy-authorization"))
_SHORT_COOKIE = 20


def guarded(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The fields, with those marked as never indexed that carry secrets; a mark that was received is kept."""
    return [
        hpack.NeverIndexedHeaderTuple(name, value)
        if name in _SECRET or (name == b"cookie" and len(value) < _SHORT_COOKIE)
        else field
        for field in fields
        for name, value in (field,)
    ]
