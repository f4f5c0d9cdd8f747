"""The connections that WebSockets take to one upstream: streams of shared HTTP/2 connections (RFC 8441) where the other
side takes them there, and else a connection of HTTP/1.1 each.

Whether it does, it says in its SETTINGS, so a connection is made to hear them. Who says no (an older sidecar, most
applications) or speaks no HTTP/2 at all is asked by HTTP/1.1, and not bothered again for a while.

Tunnels share connections with each other and not with requests. They last, so they would hold old connections open
after each renewal; and a few whose callers read slowly would fill the window that a connection has for all. On
connections of their own each has a small window, and the connection room for every one, so that a slow one slows only
itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sidecar.errors import HandshakeFailed
from sidecar.http.h2.codes import DEFAULT_WINDOW
from sidecar.net.port import NEVER
from sidecar.proxy.streams import StreamEnd
from sidecar.proxy.trunks import Trunks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.http.h2 import H2Limits
    from sidecar.net.pool import Connection, Pool
    from sidecar.net.port import Port

ASK_AGAIN_SECONDS: Final = 300.0  # the other side may have been replaced by one that takes them
_ROOM: Final = 256  # tunnels with a whole window each; our sidecars take 100, and a quarter may be on its way back


class SocketRoad:
    """In the place of a `sidecar.net.pool.Pool`, for requests that want to become a WebSocket."""

    def __init__(
        self, pool: Pool, port: Port, connect: Callable[[], Awaitable[Connection]], *, limits: H2Limits, **options: Any
    ) -> None:
        self._pool = pool
        self._port = port
        self._not_before = 0.0  # monotonic: when the other side is asked again whether it takes them
        limits = replace(
            limits, stream_window=DEFAULT_WINDOW, connection_window=_ROOM * DEFAULT_WINDOW, stall_seconds=NEVER
        )  # by HTTP/1.1, too, a WebSocket may pause for as long as it likes
        self.trunks = Trunks(port, connect, limits=limits, **options)

    @property
    def full(self) -> bool:
        """Whether whoever asks has to wait until somebody is done."""
        return self._pool.full and self.trunks.full

    async def take(self, max_idle: float) -> Connection:
        """A place on an HTTP/2 connection, or a connection of HTTP/1.1. Raises as the `take` of either."""
        if self._port.now >= self._not_before:
            try:
                connection = await self.trunks.take_tunnel()
            except HandshakeFailed:
                connection = None  # it speaks no HTTP/2; what else is wrong shows again
            if connection is not None:
                return connection
            self._not_before = self._port.now + ASK_AGAIN_SECONDS
        return await self._pool.take(max_idle)

    def give(self, connection: Connection) -> None:
        """The exchange has ended well."""
        self._road_of(connection).give(connection)

    def discard(self, connection: Connection) -> None:
        """The exchange has ended."""
        self._road_of(connection).discard(connection)

    def _road_of(self, connection: Connection) -> Pool | Trunks:
        return self.trunks if isinstance(connection.wire, StreamEnd) else self._pool
