"""The way back from trio's tasks to the connections that wait for them."""

from __future__ import annotations

from typing import Protocol


class Bridge(Protocol):
    """What we need of the reactor: it does not linger while somebody waits for us, and looks when we have answered."""

    def awaits(self, more: int) -> None:
        """So many more (or fewer) wait for trio."""
        ...

    def nudge(self) -> None:
        """Step whatever was made ready from trio's side."""
        ...
