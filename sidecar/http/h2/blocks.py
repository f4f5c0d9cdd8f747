"""Header blocks: put together from HEADERS and CONTINUATION, and read within bounds.

HPACK has one state for the whole connection (RFC 7541 section 2.2), so every block is read, also those of streams that
are refused or long gone. A block that cannot be read ends the connection. What a block may cost is bounded before it is
read, by its bytes and its frames, and while it is read, by the size of the list that it means.
"""

from __future__ import annotations

from sidecar.hop import Headers
from sidecar.http.h2.codes import END_HEADERS, END_STREAM, Abuse, Code, ConnectionFault
from sidecar.http.h2.compression import FieldReader, NotHpack, TooMuch
from sidecar.http.h2.frames import Frame
from sidecar.http.h2.limits import H2Limits


class HeaderBlocks:
    """What arrives as header blocks on one connection."""

    __slots__ = ("_bytes", "_end", "_fields", "_frames", "_limits", "_pieces", "stream")

    def __init__(self, limits: H2Limits) -> None:
        self._limits = limits
        self._fields = FieldReader(limits.bomb_bytes)
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

    @property
    def size(self) -> int:
        """What the list that was read last counts (RFC 9113 section 6.5.2)."""
        return self._fields.list_size

    def read(self, block: bytes) -> Headers:
        """The fields that a block means. Raises ConnectionFault."""
        try:
            return self._fields.read(block)
        except TooMuch:
            raise ConnectionFault(
                Code.ENHANCE_YOUR_CALM,
                f"{len(block)} bytes of HPACK that mean more than {self._limits.bomb_bytes}",
                Abuse.HPACK_BOMB,
            ) from None
        except NotHpack as problem:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"not HPACK: {problem}") from None
