"""The current value of something that changes while we run, and the wait for the next one.

A source holds one immutable value at a time (an SVID, a set of bundles) and a number that grows with each. Readers take
`current` and keep it to the end of what they do. Tasks wait with `wait_past`; code that cannot wait subscribes.
Belongs to one trio run: publish from its thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Generic, TypeVar

import trio

from certs.errors import NothingYet

T = TypeVar("T")


class Source(Generic[T]):
    """The current generation of a value."""

    def __init__(self, what: str = "value") -> None:
        self._what = what
        self._values: tuple[T, ...] = ()  # one, or none yet
        self._number = 0
        self._changed = trio.Event()
        self._subscribers: dict[object, Callable[[T], None]] = {}  # by subscription, oldest first

    @property
    def current(self) -> T:
        """The latest value. Raises NothingYet before the first."""
        if not self._values:
            raise NothingYet(f"there is no {self._what} yet")
        return self._values[0]

    @property
    def number(self) -> int:
        """How many values there have been; 0 before the first."""
        return self._number

    def publish(self, value: T) -> None:
        """Make this the current value, wake all who wait, tell all who subscribed.

        Every subscriber is told even if one of them raises; what it raised then comes out of here.
        """
        self._values = (value,)
        self._number += 1
        self._changed.set()
        self._changed = trio.Event()
        with ExitStack() as told:
            for subscriber in reversed(self._subscribers.values()):
                told.callback(subscriber, value)

    async def wait_past(self, number: int) -> int:
        """Wait until there is a value newer than this number; return the latest number. 0 waits for the first."""
        while self._number <= number:
            await self._changed.wait()
        return self._number

    def subscribe(self, subscriber: Callable[[T], None]) -> Callable[[], None]:
        """Call this with the current value at once, if there is one, and with each later one. Returns how to stop."""
        subscription = object()
        self._subscribers[subscription] = subscriber
        if self._values:
            subscriber(self._values[0])

        def stop() -> None:
            self._subscribers.pop(subscription, None)

        return stop
