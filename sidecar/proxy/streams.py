"""One stream of an HTTP/2 connection, as a connection of its own.

A `StreamEnd` is wire and codec of one stream at once, for `sidecar.proxy.exchange`, which knows nothing of HTTP/2. What
it is told to send goes straight into the stream, so the bytes that its codec half returns are none; writing none of
them means "let the other side have it, and wait while it is slow". Reading returns no bytes either: it waits until
there is another event. Once a tunnel has been agreed on, `raw` is the same stream as a wire of plain bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.http.grpc import is_grpc
from sidecar.http.h2 import Code
from sidecar.http.message import Data, ResponseHead
from sidecar.http.versions import TRAILERS, is_websocket, reason_of
from sidecar.net.port import PIECE, PeerGone, WireBroken, park
from sidecar.proxy.raw_stream import RawStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.hop import Headers
    from sidecar.http.h2 import H2Stream
    from sidecar.http.message import HttpEvent, RequestHead
    from sidecar.net.port import Task, Wire
    from sidecar.proxy.carrier import Carrier

EAGER_BYTES = 16 * 1024  # of a body that may wait for its turn on the wire before its sender waits too
_NOTHING = memoryview(b"")


class StreamEnd:
    """Our end of one stream."""

    __slots__ = (
        "_handed", "carrier", "closed", "half_closed", "is_tunnel", "reader", "reset", "stream", "watcher", "writer",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, stream: H2Stream | None) -> None:
        self.carrier = carrier
        self._handed = 0  # bytes of our body that the stream was given
        self.reader: Task | None = None
        self.writer: Task | None = None
        self.watcher: Task | None = None  # who wants to know when the other side gives up
        self.half_closed = self.reset = False  # it has
        self.closed = False
        self.is_tunnel = False  # its end is no end of a message, but the other side's FIN
        self.stream: Any = stream  # None before a request has begun; whoever asks then is in error
        if stream is not None:
            stream.tag = self

    # ---- as the carrier sees it --------------------------------------------------------------------------------------

    def stirred(self) -> None:
        """Something has happened on the stream."""
        if not self.reset and self.gone:
            self.reset = True
            self._hang_up()
        elif self.is_tunnel and self.stream.they_are_done:
            self._hang_up()
        for task in (self.reader, self.writer):
            if task is not None:
                task.wake()

    def _hang_up(self) -> None:
        self.half_closed = True
        if self.watcher is not None:
            self.watcher.wake()

    @property
    def gone(self) -> bool:
        """Whether the stream has failed, so that nothing can be sent on it."""
        return self.stream.error is not None and not self.stream.on_books

    @property
    def keeps_up(self) -> bool:
        """Whether the other side takes our body about as fast as it is sent."""
        unsent: int = self.stream.unsent
        return unsent <= EAGER_BYTES

    # ---- as a wire ---------------------------------------------------------------------------------------------------

    @property
    def received(self) -> int:
        """Bytes of their body so far."""
        return self.stream.received if self.stream is not None else 0

    @property
    def sent(self) -> int:
        """Bytes of our body that are on their way."""
        return self._handed - self.stream.unsent if self.stream is not None else 0

    async def read(self, beside: Wire | None = None) -> bytes:
        """Wait until there is another event; it may have come since the last look, while its reader was writing."""
        await self._stir(beside)
        return b""

    async def read_shared(self, beside: Wire | None = None, limit: int = PIECE) -> memoryview:
        """The same. Raises PeerGone for `beside`."""
        await self._stir(beside)
        return _NOTHING

    async def _stir(self, beside: Any) -> None:
        carrier = self.carrier
        if carrier.codec.wants_write:
            carrier.kick()
        task = carrier.port.current
        if beside is not None and beside.half_closed:
            raise PeerGone(reset=beside.reset)
        if self.stream.has_news:  # it came while nobody waited for it
            return
        if beside is not None:
            beside.watcher = task
        self.reader = task
        try:
            await park()
        finally:
            self.reader = None
            if beside is not None:
                beside.watcher = None
        if beside is not None and beside.half_closed:
            raise PeerGone(reset=beside.reset)

    async def write(self, data: bytes | memoryview) -> None:
        """Have the wire take what was sent on the stream, and wait where the other side is slow. Raises WireBroken."""
        if data:
            self.send_data(bytes(data))
        carrier = self.carrier
        carrier.kick()
        while not self.keeps_up:
            self.writer = carrier.port.current
            try:
                await park()
            finally:
                self.writer = None
        self._check_alive()

    def _check_alive(self) -> None:
        if self.gone:
            raise WireBroken(str(self.stream.error))

    async def finish(self) -> None:
        """End our direction."""
        self.stream.send_end()
        self.carrier.kick()

    def close(self) -> None:
        """Whoever served the stream, or asked on it, is done with it."""
        stream = self.stream
        if self.closed or stream is None:
            return
        self.closed = True
        stream.finish()
        self.carrier.tell()
        stream.tag = None

    def abort(self, code: Code | None = None) -> None:
        """End the stream so that nobody takes what it has for the whole."""
        if self.stream is not None and not self.closed:
            usual = Code.CANCEL if self.carrier.codec.is_client else Code.INTERNAL_ERROR
            self.stream.reset(usual if code is None else code)
            self.close()

    def rest(self, on_stir: Callable[[], None] | None) -> None:
        """Streams are not kept for later."""
        raise AssertionError

    def raw(self, failure: Code = Code.CANCEL) -> RawStream:
        """The same stream, once a tunnel has been agreed on, as a wire of plain bytes. `failure` is what a reset of TCP
        is in it: CANCEL in a WebSocket (RFC 8441 section 5), CONNECT_ERROR in a plain CONNECT (RFC 9113 section 8.5).
        """
        self.is_tunnel = True
        self.half_closed = self.half_closed or self.they_are_done
        return RawStream(self, failure)

    # ---- as a codec --------------------------------------------------------------------------------------------------

    def next_event(self) -> HttpEvent:
        """The next event. Raises the stream's error."""
        event: HttpEvent = self.stream.next_event()
        # Taking a piece may have given the other side window again: others wait for it even while we do not.
        if isinstance(event, Data) and self.carrier.codec.wants_write:
            self.carrier.kick()
        return event

    def receive(self, data: bytes) -> None:
        """Nothing comes this way."""

    def send_data(self, data: bytes) -> bytes:
        """A piece of our body."""
        self._handed += len(data)
        self.stream.send_data(data)
        return b""

    def send_end(self, trailers: Headers | tuple[()] = ()) -> bytes:
        """The end of our message."""
        self.stream.send_end(trailers)
        return b""

    def trailing(self) -> bytes:
        """Nothing follows a message on its stream."""
        return b""

    @property
    def they_are_done(self) -> bool:
        """Whether their message has come whole."""
        done: bool = self.stream.they_are_done
        return done

    @property
    def clean(self) -> bool:
        """Whether both messages have come to their end."""
        clean: bool = self.stream.clean
        return clean


class ServedStream(StreamEnd):
    """The end of a stream on which a downstream has asked."""

    __slots__ = ()
    reusable = True  # other streams of the connection are not touched by this one

    def send_head(self, head: ResponseHead, *, end: bool = False) -> bytes:
        """A response head, final or 1xx; `end`: it is the whole message, in one frame (gRPC's trailers-only)."""
        self.stream.send_head(head, end=end)
        return b""

    @property
    def wants_continue(self) -> bool:
        """Whether the downstream waits for our 100 before it sends its body."""
        wants: bool = self.stream.wants_continue
        return wants

    @property
    def owed(self) -> bool:
        """Whether promised bytes of the request body are missing, and the downstream may send them."""
        stream = self.stream
        return stream.expected is not None and not stream.they_are_done and not stream.wants_continue


class AskedStream(StreamEnd):
    """The end of a stream on which we ask an upstream. It fails by what its events say, never by its writes."""

    __slots__ = ("scheme",)

    def __init__(self, carrier: Carrier, *, scheme: bytes) -> None:
        super().__init__(carrier, None)
        self.scheme = scheme

    def begin(self, head: RequestHead) -> bytes:
        """Begin the exchange; there is room for it."""
        codec: Any = self.carrier.codec
        if is_grpc(head.headers):  # "te" was for the hop before this one; servers insist on it
            head.headers = [*head.headers, TRAILERS]
        self.stream = codec.open(head, scheme=self.scheme)
        self.stream.tag = self
        return b""

    def send_end(self, trailers: Headers | tuple[()] = ()) -> bytes:
        """The end of our request, which may have been in its head; a tunnel has only just begun by then."""
        if not self.stream.end_queued and not is_websocket(self.stream.head):
            self.stream.send_end(trailers)
        return b""

    def next_event(self) -> HttpEvent:
        """The next event. Raises the stream's error."""
        event = super().next_event()
        if isinstance(event, ResponseHead) and not event.reason:
            event.reason = reason_of(event.status)
        return event

    def _check_alive(self) -> None:
        return
