"""A turnstile: so many do something costly at a time, the rest wait in the order in which they came.

A server to which everybody comes at once, and which begins all handshakes at once, ends all of them at once: too late
for everybody, and whoever gave up comes again. With a turnstile the first are through in milliseconds and the others
wait their turn, at the cost of an open socket each. What happens beyond it (requests) is not counted, so whoever has
been let in is not kept waiting by those who come.

Nobody can hold it: whoever stays inside for longer than `hold` seconds (a peer that says nothing) goes on with what it
does, but gives up its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

PLACES = 16  # enough to keep a core busy over a slow network; the more, the later the first is through
HOLD_SECONDS = 0.25  # a handshake over a network takes a round trip, and a few milliseconds of work


class Turnstile:
    """Bounds how many are inside at once, first come, first served. Belongs to one trio run."""

    def __init__(self, places: int = PLACES, hold: float = HOLD_SECONDS) -> None:
        self._limiter = trio.CapacityLimiter(places)
        self._hold = hold

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._limiter.statistics().tasks_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for our turn, which lasts for the block or `hold` seconds, whichever is shorter."""
        ours = object()
        await self._limiter.acquire_on_behalf_of(ours)
        held = True

        def give_up() -> None:
            nonlocal held
            if held:
                held = False
                self._limiter.release_on_behalf_of(ours)

        async def watch() -> None:
            await trio.sleep(self._hold)
            give_up()

        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised again outside, so that it comes as itself, in no group
                failure = error
            finally:
                give_up()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
