"""Who still speaks plaintext to whom, connection by connection, since this sidecar started: for `mesh migrate status`.

A row is one direction, one listener (or what let it out) and one address at the other end: without identities that is
all that is known of anybody. Rows are few where a migration goes well. Where they are not, the oldest that has nothing
open makes room, and is counted, so that nobody takes what is left for all there was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from sidecar.hop import Direction
    from sidecar.telemetry.log import Log

MOST_ROWS: Final = 1024
MOST_TOLD: Final = 64  # rows of which the log hears, each once

Key = tuple["Direction", str, str]


@dataclass(slots=True)
class Row:
    """One kind of plaintext connection."""

    first: float  # seconds since the epoch, as are all times here
    last: float  # when the latest one began or ended
    connections: int = 0  # since `first`
    open: int = 0  # now


class Plaintext:
    """The book of one sidecar."""

    def __init__(self, log: Log | None = None) -> None:
        self.forgotten = 0  # rows that had to make room
        self._log = log
        self._told = 0
        self._rows: OrderedDict[Key, Row] = OrderedDict()  # the latest used last

    @contextmanager
    def stay(self, direction: Direction, listener: str, other: str, wall: Callable[[], float]) -> Iterator[None]:
        """While inside, a plaintext connection with this address is open."""
        row = self._enter((direction, listener, other), wall())
        try:
            yield
        finally:
            row.open -= 1
            row.last = wall()

    def _enter(self, key: Key, now: float) -> Row:
        row = self._rows.get(key)
        if row is None:
            self._make_room()
            row = self._rows[key] = Row(now, now)
            self._tell(key)
        self._rows.move_to_end(key)
        row.last = now
        row.connections += 1
        row.open += 1
        return row

    def _make_room(self) -> None:
        if len(self._rows) >= MOST_ROWS:
            oldest = next((key for key, row in self._rows.items() if not row.open), next(iter(self._rows)))
            del self._rows[oldest]
            self.forgotten += 1

    def _tell(self, key: Key) -> None:
        """Write a new row into the log; not each of very many, for whoever dials around would fill it."""
        if self._log is None or self._told >= MOST_TOLD:
            return
        self._told += 1
        direction, listener, other = key
        if direction == "outbound":
            self._log.warning(f"plaintext leaves for {other}", destination=other, let_by=listener)
        else:
            self._log.warning(f"plaintext comes from {other}", source=other, listener=listener)

    def to_json(self) -> list[dict[str, Any]]:
        """The rows, those first that were used last."""
        return [
            {
                "direction": direction, "listener": listener, "address": other, "connections": row.connections,
                "open": row.open, "first": rfc3339(row.first), "last": rfc3339(row.last),
            }
            for (direction, listener, other), row in reversed(self._rows.items())
        ]  # fmt: skip
