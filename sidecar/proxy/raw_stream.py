"""The bytes of a stream of HTTP/2 that has become a tunnel, as a wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.http.message import Data, End
from sidecar.net.port import PIECE, WireBroken, park

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.http.h2 import Code
    from sidecar.net.port import Task, Wire
    from sidecar.proxy.streams import StreamEnd


class RawStream:
    """The bytes of a stream that has become a tunnel, as a wire."""

    __slots__ = ("_end", "_failure")

    def __init__(self, end: StreamEnd, failure: Code) -> None:
        self._end = end
        self._failure = failure

    @property
    def received(self) -> int:
        """Bytes that came so far."""
        return self._end.received

    @property
    def sent(self) -> int:
        """Bytes on their way so far."""
        return self._end.sent

    @property
    def reader(self) -> Task | None:
        """Who waits for more."""
        return self._end.reader

    @property
    def writer(self) -> Task | None:
        """Who waits for the other side to take what is written."""
        return self._end.writer

    @property
    def half_closed(self) -> bool:
        """Whether the other side has ended its direction."""
        return self._end.half_closed

    @property
    def reset(self) -> bool:
        """Whether it has reset the stream."""
        return self._end.reset

    @property
    def watcher(self) -> Task | None:
        """Who wants to know of either."""
        return self._end.watcher

    @watcher.setter
    def watcher(self, task: Task | None) -> None:
        self._end.watcher = task

    async def read(self, beside: Wire | None = None) -> bytes:
        """The next bytes; `b""` at their end. Raises WireBroken."""
        end = self._end
        while True:
            if end.gone:
                raise WireBroken(str(end.stream.error))
            event = end.next_event()
            if isinstance(event, Data):
                return event.data
            if isinstance(event, End) or end.they_are_done:
                return b""
            await end.read(beside)

    async def read_shared(self, beside: Wire | None = None, limit: int = PIECE) -> memoryview:
        """The same."""
        return memoryview(await self.read(beside))

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises WireBroken."""
        await self._end.write(data)

    async def finish(self) -> None:
        """End our direction, and wait until that is on its way: whoever has both ends may give the stream up then."""
        end, stream = self._end, self._end.stream
        await end.finish()
        while stream.on_books and not stream.we_are_done:
            end.writer = end.carrier.port.current
            try:
                await park()
            finally:
                end.writer = None

    def close(self) -> None:
        """End both, behind what has been written."""
        end = self._end
        if not end.closed:
            end.stream.send_end()
        end.close()

    def abort(self) -> None:
        """Reset the stream."""
        self._end.abort(self._failure)

    def rest(self, on_stir: Callable[[], None] | None) -> None:
        """Tunnels are not kept for later."""
        raise AssertionError
