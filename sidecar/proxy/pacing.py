"""A tunnel that may move only so many bytes a second: who is over reads nothing for a while; TCP holds the sender."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.net.port import Expired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.net.port import Port
    from sidecar.traffic.tcp import Bucket


class Activity(Protocol):
    """When a tunnel last moved, and how long it may last."""

    at: float

    @property
    def ends_at(self) -> float:
        """Monotonic: when it is over, whatever moves."""
        ...

    def check(self, now: float) -> None:
        """Raise the reason to wait no longer, if there is one."""
        ...


class Pacer:
    """One direction of one tunnel, under all the buckets that it shares with others."""

    __slots__ = ("_buckets", "_until")

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self._buckets = buckets
        self._until = 0.0  # monotonic: when it may read again

    def piece(self, limit: int) -> int:
        """How many bytes it reads next, at most."""
        return min(limit, *[bucket.piece() for bucket in self._buckets])

    def spend(self, now: float, size: int) -> None:
        """So many have been moved."""
        self._until = max([bucket.spend(now, size) for bucket in self._buckets])

    async def turn(self, port: Port, activity: Activity) -> None:
        """Wait until it may read again. Nobody is idle meanwhile: not this direction, and not the other, whose answer
        may be what we hold. Raises what `activity` says of a tunnel that is over.
        """
        until = self._until
        while port.now < until:
            activity.at = max(activity.at, until)
            port.deadline(activity.ends_at)
            try:
                await port.sleep(until - port.now)
            except Expired:
                activity.check(port.now)


def pacer(buckets: Sequence[Bucket]) -> Pacer | None:
    """A pacer of its own for one direction; None where nothing is paced."""
    return Pacer(buckets) if buckets else None
