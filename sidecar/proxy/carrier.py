"""Drives one HTTP/2 connection, of either role; each of its streams looks like a connection of its own (`streams`).

Theory of operation. One task reads: what comes goes to the codec, and each stream on which something has happened is
told. Another task writes: it asks the codec for bytes for as long as there are any, and sleeps. Neither waits for the
other, so two sides that are both full cannot block each other for good, and neither waits for a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.http.h2 import Failed, Stirred
from sidecar.net.port import NEVER, Expired, WireBroken, park

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.http.h2 import H2Client, H2Event, H2Server
    from sidecar.net.port import Port, Task, Wire
    from sidecar.proxy.streams import StreamEnd

FAREWELL_SECONDS = 2.0  # for a connection that has failed to take our GOAWAY


class Carrier:
    """One connection. `on_event` hears of everything that is not a stream's own."""

    __slots__ = ("_on_event", "_resting", "_writer", "codec", "idle", "port", "wire")

    def __init__(
        self, port: Port, wire: Wire, codec: H2Server | H2Client, *, idle: float, on_event: Callable[[H2Event], None]
    ) -> None:
        self.port = port
        self.wire = wire
        self.codec = codec
        self.idle = idle  # seconds that the other side may take none of our bytes
        self._on_event = on_event
        self._writer: Task | None = None
        self._resting = False  # the writer waits for something to send

    async def read(self) -> bool:
        """Take what comes next; whether more can come. Raises WireBroken, and Expired by the caller's deadline."""
        data = bytes(await self.wire.read_shared())
        self.take(data)
        return bool(data)

    def take(self, data: bytes) -> None:
        """Take bytes; `b""` is the end of the connection."""
        self.codec.receive(data, self.port.now)
        self.tell()

    def tell(self) -> None:
        """Let everybody know what has happened, and the writer that there is something to send."""
        codec = self.codec
        while (event := codec.next_event()) is not None:
            if isinstance(event, Stirred):
                end: StreamEnd | None = event.stream.tag
                if end is not None:
                    end.stirred()
            else:
                if isinstance(event, Failed) and self._writer is not None:
                    self._writer.deadline = min(self._writer.deadline, self.port.now + FAREWELL_SECONDS)
                self._on_event(event)
        if codec.wants_write or codec.finished:
            self.kick()

    def kick(self) -> None:
        """There is something to send, or an end to come to."""
        if self._resting and self._writer is not None:
            self._writer.wake()

    async def write(self) -> None:
        """Send what there is until the connection has failed or comes to its end. Raises WireBroken."""
        port, codec = self.port, self.codec
        self._writer = port.current
        while True:
            data = codec.to_send(port.now)
            if data:
                self.tell()
                patience = self.idle if codec.error is None else FAREWELL_SECONDS
                port.deadline(port.now + patience)
                try:
                    await self.wire.write(data)
                except Expired:
                    raise WireBroken(f"the other side takes none of our bytes for {patience:g} s") from None
                continue
            if codec.error is not None or codec.finished:
                return
            port.deadline(NEVER)
            self._resting = True
            try:
                await park()
            finally:
                self._resting = False
