"""The way back from trio's tasks to the connections that wait for them, and what all who ask outside have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.net.clock import Clock
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics


class Bridge(Protocol):
    """What we need of the reactor: it does not linger while somebody waits for us, and looks when we have answered."""

    def awaits(self, more: int) -> None:
        """So many more (or fewer) wait for trio."""
        ...

    def nudge(self) -> None:
        """Step whatever was made ready from trio's side."""
        ...


class Around(NamedTuple):
    """What is around everybody who asks outside on behalf of hops."""

    bridge: Bridge
    clock: Clock
    metrics: Metrics
    log: Log | None
    dice: Callable[[], float]  # numbers in [0, 1)


class Asker:
    """Whoever asks outside on behalf of hops."""

    def __init__(self, around: Around) -> None:
        self._bridge, self._clock, self._metrics, self._log, self._dice = around
