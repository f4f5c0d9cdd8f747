"""What the other side may send: our windows, of each stream and of the connection (RFC 9113 section 5.2).

Room is given back only when what came has been passed on, and then in bites of a quarter of the window: often enough
that a sender never runs dry while we drain, and seldom enough to cost nothing. Padding counts as data does.

These books are ours and not the engine's, since h2 copies each frame of DATA three times and prints it for a log.
"""

from __future__ import annotations

from typing import Final

from sidecar.http.h2 import frames

_BITE: Final = 4  # a window is given back in quarters
CONNECTION: Final = 0


class Windows:
    """The windows of one connection, as the other side sees them."""

    __slots__ = ("_drained", "_limit", "_open", "_stream_limit", "room")

    def __init__(self, stream_bytes: int, connection_bytes: int) -> None:
        self._stream_limit = stream_bytes
        self._limit = connection_bytes
        self.room = connection_bytes  # what may come on all streams together
        self._drained = 0  # of it, what can be given back
        self._open: dict[int, list[int]] = {}  # stream → room, drained

    def open(self, stream: int) -> None:
        """A stream on which a body may come."""
        self._open[stream] = [self._stream_limit, 0]

    def close(self, stream: int) -> None:
        """Nothing more may come on a stream; what it still holds counts for the connection only."""
        self._open.pop(stream, None)

    def room_of(self, stream: int) -> int:
        """What may come on a stream, as far as that stream goes."""
        found = self._open.get(stream)
        return found[0] if found is not None else 0

    def take(self, stream: int, size: int) -> None:
        """So much has come; `CONNECTION` where it belongs to no stream that is open. There must have been room."""
        self.room -= size
        found = self._open.get(stream)
        if found is not None:
            found[0] -= size

    def give_back(self, stream: int, size: int) -> bytes:
        """So much has been passed on; returns the frames that say so, where it is time to."""
        said = b""
        self._drained += size
        if self._drained * _BITE >= self._limit:
            said = frames.window_update(CONNECTION, self._drained)
            self.room += self._drained
            self._drained = 0
        found = self._open.get(stream)
        if found is not None:
            found[1] += size
            if found[1] * _BITE >= self._stream_limit:
                said += frames.window_update(stream, found[1])
                found[0] += found[1]
                found[1] = 0
        return said
