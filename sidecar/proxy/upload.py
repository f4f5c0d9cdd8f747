"""The request body on its way upstream.

What has come with the head goes with it; the rest is moved by a child of the exchange, so that an early answer is seen
while the body still comes. What was sent is kept where the request may have to be sent again: 64 KiB of it, and up to
1 MiB toward a peer while the upstream has room to spare. A peer whose application is gone says so as soon as it has a
head; until that is heard no more of a body can have left than the buffers on the way hold, which is less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import BodyTooLarge, DownstreamGone, DownstreamIdle, UpstreamIdle
from sidecar.http.headers import without_reserved
from sidecar.http.message import Data, End, ResponseHead
from sidecar.net.port import NEVER, Expired, Task, WireBroken
from sidecar.proxy.flow import Flow
from sidecar.proxy.streams import StreamEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.hop import Headers, Hop
    from sidecar.http.h1 import H1Server
    from sidecar.http.message import RequestHead
    from sidecar.net.pool import Connection
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.side import HttpSide, Plan
    from sidecar.proxy.streams import ServedStream

REPLAY_BYTES = 64 * 1024  # Linkerd's limit for the same purpose
REPLAY_MOST = 1024 * 1024  # Envoy's (per_connection_buffer_limit_bytes)
FLUSH_BYTES = 64 * 1024


class Upload(Flow):
    """The half of an exchange that sends."""

    def __init__(
        self, port: Port, side: HttpSide, hop: Hop, head: RequestHead, plan: Plan, wire: Wire,
        codec: H1Server | ServedStream,
    ) -> None:  # fmt: skip
        super().__init__(port, side, hop, wire)
        self._head = head
        self._plan = plan
        self._codec = codec
        self._pump: Task | None = None
        self._replay: list[bytes] | None = None
        self._borrowed = 0  # bytes of the upstream's spare room
        self._request_ended = not head.body
        self._trailers: Headers = []
        self._upload_failed = False

    def owed_by(self, wire: Wire) -> bool:
        """Whether we wait for bytes of its body that the downstream has promised and may send (sidecar.proxy.pace)."""
        return wire.reader is not None and not self._request_ended and self._codec.owed

    @property
    def _replayable(self) -> bool:
        """Whether all that was read of the request body is still here."""
        return not self._head.body or self._replay is not None or not self._hop.received_bytes

    def _patience(self) -> float:
        """Seconds for the response head."""
        return self._plan.upstream.times.response_head

    def _send_at_hand(self, connection: Connection) -> bool:
        """By HTTP/2, where sending waits for nobody, what has come of the body goes with the head. Whether that is all
        of it, and needs nobody to look after it.
        """
        stream = connection.wire
        assert isinstance(stream, StreamEnd)
        self._send_again(connection)
        if not self._request_ended:
            self._take_at_hand(connection)
        return self._request_ended and stream.keeps_up

    def _send_again(self, connection: Connection) -> list[bytes]:
        """What an earlier connection was sent in vain, as bytes for this one."""
        codec = connection.codec
        pieces = [codec.send_data(piece) for piece in self._replay or ()]
        if self._request_ended:
            pieces.append(codec.send_end(self._trailers))
        return pieces

    def _take_at_hand(self, connection: Connection) -> list[bytes]:
        """What has come of the body, as bytes for the upstream; not much more than FLUSH_BYTES of it."""
        codec, failed = connection.codec, self._upload_failed
        pieces: list[bytes] = []
        size = 0
        while size < FLUSH_BYTES:
            event = self._codec.next_event()
            if isinstance(event, Data):
                self._count(event.data)
                size += len(event.data)
                self._keep(event.data)
                pieces.append(b"" if failed else codec.send_data(event.data))
            elif isinstance(event, End):
                self._check_whole()
                self._request_ended = True
                self._trailers = without_reserved(event.trailers)
                pieces.append(b"" if failed else codec.send_end(self._trailers))
                break
            else:
                break
        return pieces

    async def _pump_request(self, connection: Connection, waiting: Task, *, begun: bool) -> None:
        """Move the request body upstream, or what is left of it where that has `begun`; then the clock for the response
        head starts.
        """
        await self._upload(connection, [] if begun else self._send_again(connection))
        while not self._request_ended:
            pieces = self._take_at_hand(connection)
            if pieces:
                await self._upload(connection, pieces)
            else:
                await self._receive()
        if not self.answered:
            waiting.deadline = self._port.now + self._patience()

    async def _receive(self) -> None:
        port, lease = self._port, self._rests_on()
        idle = NEVER if self.may_be_quiet else self._side.timeouts.idle
        port.deadline(min(port.now + idle, lease.end))
        try:
            self._codec.receive(await self._wire.read())
        except WireBroken:
            raise DownstreamGone("the downstream reset the connection in the middle of its request body") from None
        except Expired:
            lease.check(port.now, port.now)
            raise DownstreamIdle("no byte of the request body within the idle time (timeouts.idle)") from None

    async def _upload(self, connection: Connection, pieces: list[bytes]) -> None:
        """Write upstream. An upstream that no longer reads may still have answered: a failure here is not yet one."""
        if self._upload_failed:
            return
        self._port.deadline(self._port.now + self._side.timeouts.idle)
        try:
            await connection.wire.write(b"".join(pieces))
        except WireBroken:
            self._upload_failed = True
        except Expired:
            raise UpstreamIdle("the upstream does not read the request body (timeouts.idle)") from None

    async def hold_body(self, most: int, room: Callable[[int], bool] | None = None) -> list[bytes] | None:
        """Read the whole request body before anybody is asked; what was read is replayed, without trailers. None where
        it is over that many bytes, or there is no `room` for more of them, with what has come still to be replayed.
        Raises HopError.
        """
        held = self._replay = []
        if self._codec.wants_continue:  # who is asked is asked only then (RFC 9110 section 10.1.1)
            await self._put(self._codec.send_head(ResponseHead(100, [])))
        while not self._request_ended:
            event = self._codec.next_event()
            if isinstance(event, Data):
                self._count(event.data)
                held.append(event.data)
                if self._hop.received_bytes > most or (room is not None and not room(len(event.data))):
                    return None
            elif isinstance(event, End):
                self._check_whole()
                self._request_ended = True
            else:
                await self._receive()
        return held

    def _count(self, data: bytes) -> None:
        """A piece of the request body has come."""
        hop = self._hop
        hop.received_bytes += len(data)
        limit = self._plan.max_body
        if limit is not None and hop.received_bytes > limit:
            raise BodyTooLarge(f"the request body is over {limit} bytes (max_body)")

    def _check_whole(self) -> None:
        """The request body has ended."""

    def _keep(self, data: bytes) -> None:
        if self._replay is None:
            return
        if self._hop.received_bytes > REPLAY_BYTES and not self._borrow():
            self._forget()
        else:
            self._replay.append(data)

    def _borrow(self) -> bool:
        """Whether there is room for what is kept over REPLAY_BYTES."""
        upstream, size = self._plan.upstream, self._hop.received_bytes
        more = size - REPLAY_BYTES - self._borrowed
        if not upstream.meshed or size > REPLAY_MOST or upstream.spare < more:
            return False
        upstream.spare -= more
        self._borrowed += more
        return True

    def _forget(self) -> None:
        """What has been sent will not be sent again."""
        self._replay = None
        self._plan.upstream.spare += self._borrowed
        self._borrowed = 0

    def _stop_pump(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
