"""What one source says of endpoints, since when, and what went wrong last. The last list stands whatever befalls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.discovery.sources import Source
    from sidecar.traffic.endpoints import Declared

LONGEST_ERROR = 2000  # characters


class Listing:
    """The state of one source. `on_change` is called after another list, `on_failure` after each failure."""

    def __init__(
        self,
        source: Source,
        on_change: Callable[[Listing, tuple[Declared, ...]], None],
        on_failure: Callable[[Listing, bool], None],
    ) -> None:
        self.source = source
        self.entries: tuple[Declared, ...] | None = None  # None: it has never said any
        self.error = ""  # why it cannot tell now; empty where it can
        self.notes: tuple[str, ...] = ()  # what is odd about the list that stands
        self.left_out = 0  # entries beyond the bound
        self.updates = 0  # lists that differed from the one before
        self.failures = 0
        self._time = trio.lowlevel.current_clock().current_time  # may be read by any thread
        self.heard_at = self._time()  # monotonic: when it said last that the list is so
        self.spoken = trio.Event()  # it has said something, or failed to
        self._on_change = on_change
        self._on_failure = on_failure

    def say(self, entries: Sequence[Declared], *, left_out: int = 0, notes: Sequence[str] = ()) -> None:
        """This is the list, whole."""
        before, self.entries = self.entries, tuple(entries)
        self.left_out, self.notes = left_out, tuple(notes)
        self.heard()
        if before is None or before != self.entries:
            self.updates += 1
            self._on_change(self, before or ())
        self.spoken.set()

    def heard(self) -> None:
        """What it has said is so still."""
        self.heard_at = self._time()
        self.error = ""

    def fail(self, error: str) -> None:
        """It cannot tell; what it has said stands."""
        error = error[:LONGEST_ERROR]
        new, self.error = error != self.error, error
        self.failures += 1
        self._on_failure(self, new)
        self.spoken.set()

    def age(self) -> float:
        """Seconds since it said last that the list is so."""
        return max(0.0, self._time() - self.heard_at)

    def why_none(self) -> str:
        """Why there are no endpoints, in words, for whoever asks for one."""
        what = f"{self.source.kind} {self.source}"
        if self.error:
            return f"{what}: {self.error}"
        return f"{what} lists none" if self.entries is not None else f"{what} has not answered yet"

    def to_json(self) -> dict[str, Any]:
        """For `mesh endpoints`."""
        return {
            "source": self.source.kind,
            "from": str(self.source),
            "listed": len(self.entries) if self.entries is not None else None,
            "left_out": self.left_out,
            "age_s": round(self.age(), 1),
            "error": self.error,
            "notes": list(self.notes),
        }
