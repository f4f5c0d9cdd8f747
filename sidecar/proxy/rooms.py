"""How much one caller's HTTP/2 connections may hold together: a few wide ones, and narrow ones beyond.

What an HTTP/2 connection may make us hold is said to the other side before it begins, in windows and in streams; it
cannot be taken back from one that uses it. So the bound for an identity stands in what each of its connections is
offered: the first few are *wide* (`H2Limits` as it is), every further one is *narrow*: about what an HTTP/1 connection
may hold. A caller with many instances is not turned away; its later connections carry fewer requests at once.

    bytes of bodies that wait ≤ wide × 4 MiB + (limits.connections_per_peer - wide) × 64 KiB
    requests under way        ≤ wide × 100   + (limits.connections_per_peer - wide) × 16

A peer whose connection was dismissed, since it cancels so much of what it asks, gets only narrow ones for a minute:
what it can cancel in a second is what it can ask at once, and a new connection must not give it back the whole of that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.http.h2.codes import DEFAULT_WINDOW

if TYPE_CHECKING:
    from sidecar.hop import Direction
    from sidecar.http.h2 import H2Limits

WIDE = {"inbound": 8, "outbound": 64}  # a peer's identity; our own application, whose processes share one
NARROW_STREAMS = 16
NARROW_UNREAD_BYTES = 256 * 1024
CONFINED_SECONDS = 60.0


class Rooms:
    """The wide connections of one listener, by caller."""

    __slots__ = ("_confined", "_most", "_taken")

    def __init__(self, direction: Direction) -> None:
        self._most = WIDE[direction]
        self._taken: dict[str, int] = {}
        self._confined: dict[str, float] = {}  # until when; monotonic

    def confine(self, caller: str, now: float) -> None:
        """Let it have no wide connection for a while."""
        self._confined = {who: until for who, until in self._confined.items() if until > now}
        self._confined[caller] = now + CONFINED_SECONDS

    def enter(self, caller: str, now: float) -> bool:
        """Count a connection in; whether it is a wide one, which `leave` gives back."""
        count = self._taken.get(caller, 0)
        if count >= self._most or self._confined.get(caller, now) > now:
            return False
        self._taken[caller] = count + 1
        return True

    def leave(self, caller: str) -> None:
        """A wide connection has ended."""
        count = self._taken[caller] - 1
        if count:
            self._taken[caller] = count
        else:
            del self._taken[caller]


def narrow(limits: H2Limits) -> H2Limits:
    """What a connection may take when its caller has enough wide ones. No window is less than RFC 9113's first."""
    return replace(
        limits, streams=min(limits.streams, NARROW_STREAMS), stream_window=DEFAULT_WINDOW,
        connection_window=DEFAULT_WINDOW, unread_bytes=NARROW_UNREAD_BYTES,
    )  # fmt: skip
