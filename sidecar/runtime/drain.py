"""The end of a sidecar, in phases that are timed and told.

    lame_duck   not ready, and that is all: whoever has not heard of it yet is served, on new connections too
    inbound     peers find no listener, and answers say `Connection: close`; what is in flight may end, within a limit
    outbound    the application's own door stays open until it has gone, for it may need its upstreams to finish its
                work (semantics S27): until its end is told, or, where nobody can tell, until it has no connection left
                here, within the same limit; of which the last 2 s are for a farewell: no new connections, and answers
                say `Connection: close`, so that an application that goes on asking loses no request by our end
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.schema import Timeouts
    from sidecar.net.clock import Clock
    from sidecar.runtime.build import Proxy
    from sidecar.runtime.orders import Orders
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics

LOOK_SECONDS = 0.05
FAREWELL_SECONDS = 2.0  # for an application that stays; an idle connection has 1 s of it left (sidecar.proxy.http)
UNTOLD = "an unknown wish"


@dataclass
class Drain:
    """One drain, under way."""

    proxy: Proxy
    timeouts: Timeouts
    orders: Orders
    log: Log
    metrics: Metrics
    clock: Clock
    phase: str = "lame_duck"
    limit: float | None = None  # seconds that the phase may take; None where only its own end ends it
    began: float = 0.0  # monotonic: of the phase

    async def run(self) -> None:
        """Go through the phases. Whoever wants it over sooner cancels."""
        why = self.orders.why or UNTOLD
        self.log.info("draining", why=why, **self._open())
        began = self.clock.monotonic()
        if self.timeouts.lame_duck:
            self._enter("lame_duck", self.timeouts.lame_duck)
            await trio.sleep(self.timeouts.lame_duck)
            self._leave()
        deadline = self.clock.monotonic() + self.timeouts.drain
        self._enter("inbound", self.timeouts.drain)
        self.proxy.drain()
        if not await self._until(lambda: not self.proxy.inbound_connections, self.timeouts.drain):
            self.log.warning("the drain's time is over", phase=self.phase, **self._open())
            self.proxy.cut_inbound()
        self._leave()
        gone = self.orders.application_gone
        if gone is None:
            left = max(0.0, deadline - self.clock.monotonic())
            self._enter("outbound", left)
            if not await self._until_outbound_is_over(left):
                self.log.warning("the drain's time is over", phase=self.phase, **self._open())
        else:
            self._enter("outbound", None)
            await gone.wait()
        self._leave()
        self.log.info("drained", seconds=round(self.clock.monotonic() - began, 3))

    async def _until_outbound_is_over(self, seconds: float) -> bool:
        farewell = min(FAREWELL_SECONDS, seconds / 2)
        if await self._until(lambda: not self.proxy.outbound_connections, seconds - farewell):
            return True
        self.proxy.drain_outbound()
        return await self._until(lambda: not self.proxy.outbound_connections, farewell)

    async def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until it is done, for at most so long; returns whether it was."""
        with trio.move_on_after(seconds):
            while not done():
                self._measure()
                await trio.sleep(LOOK_SECONDS)
        return done()

    def _enter(self, phase: str, limit: float | None) -> None:
        self.phase, self.limit, self.began = phase, limit, self.clock.monotonic()
        self._measure()
        self.log.info("drain phase", phase=phase, limit=limit, **self._open())

    def _leave(self) -> None:
        seconds = self._measure()
        self.log.info("drain phase over", phase=self.phase, seconds=round(seconds, 3), **self._open())

    def _measure(self) -> float:
        seconds = self.clock.monotonic() - self.began
        self.metrics.counter("mesh_drain_phase_seconds").set(seconds, (self.phase,))
        return seconds

    def _open(self) -> dict[str, int]:
        proxy = self.proxy
        return {
            "in_flight": proxy.in_flight,
            "streams": proxy.streams,
            "inbound_connections": proxy.inbound_connections,
            "outbound_connections": proxy.outbound_connections,
        }

    def to_json(self) -> dict[str, Any]:
        """For `mesh status`."""
        return {
            "why": self.orders.why or UNTOLD,
            "phase": self.phase,
            "seconds": round(self._measure(), 3),
            "limit": self.limit,
            **self._open(),
        }
