"""Connections to one upstream, kept for reuse: last in, first out, so that a few stay warm and the rest grow old and
go.

The enemy is the connection that the other side closes just as we pick it (semantics S23, pains 5): a pooled
connection stays registered with the driver, so that anything that happens on it takes it out of the pool at once; it
is kept for less time than servers usually do; and who cannot send a request twice asks for a connection that was busy
a moment ago.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sidecar.errors import Overflow
from sidecar.net.port import Expired, Port, Signal

if TYPE_CHECKING:
    from sidecar.hop import Headers
    from sidecar.http.message import HttpEvent, RequestHead
    from sidecar.net.mtls import Gate, Peer
    from sidecar.net.port import Wire

FRESH = 0.0  # "no connection that has been used before"
RETIRED = -1  # the generation of no connection
YOUNG = 0.5  # seconds: idle for less than this, a connection is all but certainly alive (decision D22)


class ClientCodec(Protocol):
    """What asks on a connection: `sidecar.http.h1.H1Client`, or a stream of HTTP/2 in its words."""

    @property
    def clean(self) -> bool:
        """Whether another exchange may follow."""
        ...

    def begin(self, head: RequestHead) -> bytes:
        """Start an exchange and serialise its request head."""
        ...

    def receive(self, data: bytes) -> None:
        """Take bytes from the wire."""
        ...

    def next_event(self) -> HttpEvent:
        """The next event. Raises HopError."""
        ...

    def send_data(self, data: bytes) -> bytes:
        """Frame a piece of our body."""
        ...

    def send_end(self, trailers: Headers | tuple[()] = ()) -> bytes:
        """End our message."""
        ...

    def trailing(self) -> bytes:
        """Bytes that came after the message."""
        ...


class Connection:
    """One connection to an upstream."""

    __slots__ = ("codec", "endpoint", "generation", "idle_since", "peer", "reused", "trust", "wire")

    def __init__(self, wire: Wire, codec: ClientCodec, peer: Peer | None, endpoint: str, generation: int) -> None:
        self.wire = wire
        self.codec = codec
        self.peer = peer
        self.endpoint = endpoint
        self.generation = generation  # of the TLS gate, when it was made
        self.trust = peer.trust if peer is not None else 0  # of the TLS gate, when the peer was judged last
        self.reused = False
        self.idle_since = 0.0


class Pool:
    """The connections to one upstream: at most `limit` open, kept idle for at most `idle` seconds."""

    def __init__(
        self, port: Port, connect: Callable[[], Awaitable[Connection]], *, idle: float, limit: int, pending: float
    ) -> None:
        self._port = port
        self._connect = connect
        self._idle_limit = idle
        self._limit = limit
        self._pending = pending
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()  # idle or taken
        self._waiting: deque[Signal] = deque()
        self.open = 0
        self.generation = 0

    @property
    def full(self) -> bool:
        """Whether whoever asks has to wait until somebody is done."""
        return self.open >= self._limit and not self._idle

    async def take(self, max_idle: float) -> Connection:
        """A connection that has been idle for less than this, or a new one. Raises Overflow and what connecting
        raises.
        """
        give_up = self._port.now + self._pending
        while True:
            connection = self.reuse(max_idle)
            if connection is not None:
                return connection
            if self.open < self._limit or self._drop_oldest():
                break
            await self._wait_for_place(give_up)
        self.open += 1
        try:
            connection = await self._connect()
        except BaseException:
            self._left()
            raise
        self._all.add(connection)
        return connection

    def reuse(self, max_idle: float) -> Connection | None:
        """The connection that came back last, if it has been idle for less than this; the others are older still."""
        while self._idle:
            connection = self._idle[-1]
            if self._port.now - connection.idle_since >= min(max_idle, self._idle_limit):
                return None
            if connection.peer is not None and self._port.wall() >= connection.peer.tls.not_after:
                self._close_idle(connection)  # no request rests on a certificate that has ended
                continue
            self._idle.pop()
            connection.wire.rest(None)
            connection.reused = True
            return connection
        return None

    def give(self, connection: Connection) -> None:
        """Take back a connection on which an exchange has ended well."""
        if connection.generation != self.generation:
            self.discard(connection)
            return
        connection.idle_since = self._port.now
        self._idle.append(connection)
        # held by the wire alone, and only while it rests: a connection that is gone must not wait for the garbage
        # collector, which comes by once in many minutes, while each one keeps some 60 KiB of OpenSSL's
        connection.wire.rest(partial(self._stirred, connection))
        self._call_next()

    def discard(self, connection: Connection) -> None:
        """Close a connection that was taken."""
        self._all.discard(connection)
        connection.wire.close()
        self._left()

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest = self._port.now - self._idle_limit
        while self._idle and self._idle[0].idle_since <= oldest:
            self._close_idle(self._idle[0])

    def renew(self, generation: int) -> None:
        """Connections of earlier generations end: idle ones now, busy ones with their exchange (decision D17)."""
        self.generation = generation
        for connection in list(self._idle):
            self._close_idle(connection)

    def retire(self) -> None:
        """The upstream is no more, or has become another: idle connections end now, busy ones with their exchange."""
        self.renew(RETIRED)

    def evict(self, gate: Gate) -> int:
        """End connections to peers who were revoked, whatever is on them; returns how many."""
        count = 0
        for connection in list(self._all):
            why = gate.why_denied(connection.peer) if connection.peer is not None else None
            if why is None:
                continue
            count += 1
            if connection in self._idle:
                self._close_idle(connection)
            else:
                gate.cut(connection.wire, why)
        return count

    def _drop_oldest(self) -> bool:
        if not self._idle:
            return False
        self._close_idle(self._idle[0])
        return True

    def _stirred(self, connection: Connection) -> None:
        """An idle connection spoke or closed; either way it is of no more use."""
        if connection in self._idle:
            self._close_idle(connection)

    def _close_idle(self, connection: Connection) -> None:
        self._idle.remove(connection)
        connection.wire.rest(None)
        self.discard(connection)

    def _left(self) -> None:
        self.open -= 1
        self._call_next()

    def _call_next(self) -> None:
        if self._waiting:
            self._waiting.popleft().fire()

    async def _wait_for_place(self, give_up: float) -> None:
        place = Signal()
        self._waiting.append(place)
        self._port.deadline(give_up)
        try:
            await self._port.wait(place)
        except BaseException as error:
            if place.happened:  # it was ours, and we leave without it
                self._call_next()
            if not isinstance(error, Expired):
                raise
            raise Overflow(f"no place in the pool of {self._limit} within {self._pending:g} s (limits.pool)") from None
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
