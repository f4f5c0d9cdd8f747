"""The way of an answer's bytes from the upstream to the downstream: by which deadlines, and what a failure there means.

`Flow` is what the general way (`sidecar.proxy.exchange`) and the express share; `PlainAnswer` is the express's own: an
answer that it has begun to send on, and that is chunked or has not come whole with its head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import (
    DownstreamGone,
    DownstreamIdle,
    HeadTooLarge,
    ProtocolViolation,
    UpstreamClosed,
    UpstreamIdle,
    UpstreamProtocolViolation,
    UpstreamReset,
)
from sidecar.http.chunk_relay import ChunkRelay
from sidecar.net.port import BULK, NEVER, PIECE, Expired, PeerGone, WireBroken, WireCut
from sidecar.proxy.evicting import revoked_upstream
from sidecar.proxy.lease import Lease, lease_of_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.hop import Hop
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.side import HttpSide

LINGER_BYTES, LINGER_SECONDS = 1 << 20, 2.0  # what we read on when a connection has had its last answer
HALF_CLOSE_GRACE = 1.0  # seconds that we wait for more of an answer once the downstream has sent FIN


class Flow:
    """One request whose answer is on its way."""

    may_be_quiet = False  # either side may be silent for ever

    def __init__(self, port: Port, side: HttpSide, hop: Hop, wire: Wire) -> None:
        self._port = port
        self._side = side
        self._hop = hop
        self._wire = wire  # the downstream
        self._lease: Lease | None = None
        self._request_ended = True
        self._half_closed = False  # the downstream has sent FIN
        self.answered = False  # whether the final response head has been sent downstream
        self.switched = False  # whether another protocol has taken the connection over

    @property
    def began(self) -> float:
        """Monotonic seconds at which the request's head had been read."""
        return self._hop.started

    def owed_by(self, wire: Wire) -> bool:
        """Whether we wait for bytes of the request body that the downstream has promised (sidecar.proxy.pace)."""
        return False

    def become_stream(self) -> None:
        """It is older than a request in flight may be (decision D25): it stops to count as one."""

    async def _read_answer(self, upstream: Wire, limit: int = PIECE) -> memoryview:
        """More from the upstream, with the downstream in view: nobody works for a caller who has left.

        A reset says so. A FIN may also come from one who has half-closed and wants the answer: it gets a moment, not
        more, unless its request is still being read. Raises WireBroken for the upstream, DownstreamGone, Expired.
        """
        if not self._half_closed:
            try:
                return await upstream.read_shared(self._wire, limit)
            except PeerGone as gone:
                if gone.reset:
                    raise DownstreamGone from None
                self._half_closed = True
        if not self._request_ended:
            return await upstream.read_shared(None, limit)
        task = self._port.current
        assert task is not None
        task.deadline = min(task.deadline, self._port.now + HALF_CLOSE_GRACE)
        try:
            return await upstream.read_shared(None, limit)
        except Expired:
            raise DownstreamGone from None

    def _rests_on(self, *, endless: bool = False) -> Lease:
        """How long its certificate lets this exchange go on; a quiet second ends it early only where it may have no
        other end.
        """
        if self._lease is None:
            self._lease = lease_of_answer(self._hop, self._port)
        return self._lease if endless else Lease(self._lease.end)

    async def _read_body(self, upstream: Wire, lease: Lease, limit: int = PIECE) -> memoryview:
        port, began = self._port, self._port.now
        idle = NEVER if self.may_be_quiet else self._side.timeouts.idle
        port.deadline(min(began + idle, lease.limit(began)))
        try:
            return await self._read_answer(upstream, limit)
        except WireCut as error:
            raise revoked_upstream("the upstream", error) from None
        except WireBroken as error:
            raise UpstreamReset(f"the upstream broke off its answer: {error}") from None
        except Expired:
            lease.check(port.now, began)
            raise UpstreamIdle("no byte of the answer within the idle time (timeouts.idle)") from None

    async def _send(self, pieces: list[bytes]) -> None:
        await self._put(b"".join(pieces))

    async def _put(self, data: bytes | memoryview) -> None:
        self._port.deadline(self._port.now + self._side.timeouts.idle)
        try:
            await self._wire.write(data)
        except WireBroken:
            raise DownstreamGone from None
        except Expired:
            raise DownstreamIdle("the downstream does not read its answer (timeouts.idle)") from None


async def close_in_stages(port: Port, wire: Wire) -> None:
    """Say that we have ended, then read on for a moment, or the caller loses our last answer (RFC 9112 section 9.6)."""
    try:
        port.deadline(port.now + LINGER_SECONDS)
        await wire.finish()
        left = LINGER_BYTES
        while left > 0:
            data = await wire.read()
            if not data:
                return
            left -= len(data)
    except (WireBroken, Expired):
        return


class PlainAnswer(Flow):
    """An answer whose head the express has read."""

    def __init__(self, port: Port, side: HttpSide, hop: Hop, wire: Wire, let_go: Callable[[], None]) -> None:
        super().__init__(port, side, hop, wire)
        self.become_stream = let_go  # type: ignore[method-assign]

    async def counted(self, upstream: Wire, begun: bytes, size: int, length: int) -> bool:
        """`begun` is what goes out first, `size` bytes of the body among it. The rest is moved as it comes, in large
        pieces while the reader keeps up. Returns whether the upstream connection is clean. Raises HopError.
        """
        self.answered = True
        hop, port, limit, clean = self._hop, self._port, PIECE, True
        hop.sent_bytes = size
        await self._put(begun)
        begun = b""  # a stream may last, and nobody needs its beginning
        while hop.sent_bytes < length:
            data = await self._more(upstream, limit, endless=False)
            clean = hop.sent_bytes + len(data) <= length
            if not clean:
                data = data[: length - hop.sent_bytes]
            hop.sent_bytes += len(data)
            before = port.now
            await self._put(data)
            limit = BULK if port.now == before else PIECE
        return clean

    async def chunked(self, upstream: Wire, head: list[bytes], begun: bytes) -> bool:
        """The same for a chunked answer, whose chunks travel on as they came. Raises HopError."""
        limits, hop = self._side.limits, self._hop
        relay = ChunkRelay(limits.head_bytes, limits.head_lines)
        data, out = begun, head
        begun = b""
        self.answered = True
        while True:
            try:
                end = relay.pass_on(data, out)
            except (ProtocolViolation, HeadTooLarge) as error:
                raise UpstreamProtocolViolation(f"response: {error}") from None
            hop.sent_bytes = relay.payload
            clean, data = end == len(data), b""
            if out:
                whole, out = b"".join(out), []
                await self._put(whole)
            if relay.done:
                return clean
            data = bytes(await self._more(upstream, PIECE, endless=True))

    async def _more(self, upstream: Wire, limit: int, *, endless: bool) -> memoryview:
        data = await self._read_body(upstream, self._rests_on(endless=endless), limit)
        if not data:
            raise UpstreamClosed("the upstream closed in the middle of its answer")
        return data
