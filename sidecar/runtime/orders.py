"""What whoever started a sidecar tells it while it runs: reload, drain, the application has gone."""

from __future__ import annotations

import trio


class Orders:
    """Given from the sidecar's own trio run. `application` says whether its end will be told."""

    def __init__(self, *, application: bool = False) -> None:
        self.drain = trio.Event()
        self.why = ""  # what asked for the drain
        self.application_gone = trio.Event() if application else None
        self._reload = trio.Event()

    def begin_drain(self, why: str) -> None:
        """Come to an end; the first reason stands."""
        self.why = self.why or why
        self.drain.set()

    def reload(self) -> None:
        """Read the configuration again, although nobody has seen it change."""
        self._reload.set()

    async def wait_reload(self) -> None:
        """Wait for the next such order; several that come at once are one."""
        await self._reload.wait()
        self._reload = trio.Event()
