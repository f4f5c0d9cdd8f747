"""Waiting with a caller: for an answer from elsewhere, or for a turn, and only for as long as there is a caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sidecar.net.port import NEVER, Expired, PeerGone, park

if TYPE_CHECKING:
    from sidecar.net.port import Port, Signal, Wire

GRACE: Final = 1.0  # seconds that a caller which has sent FIN is still waited for, as with an answer


async def stay(port: Port, wire: Wire, until: float, done: Signal | None = None) -> bool:
    """Wait until this monotonic time, or until `done` has happened; returns whether it has. Up to 0.1 s late, never
    early.

    Raises PeerGone as soon as whoever is at the other end of `wire` has left.
    """
    task, other = port.current, _watchable(wire)
    assert task is not None
    port.deadline(until)
    other.watcher = task
    if done is not None:
        done.attach(task)
    try:
        while not (done is not None and done.happened) and port.now < until:
            if other.reset or (other.half_closed and until - port.now > GRACE):
                raise PeerGone(reset=other.reset)
            await park()
    except Expired:
        pass
    finally:
        other.watcher = None
        if done is not None:
            done.detach(task)
        task.deadline = NEVER
    return done is not None and done.happened


def _watchable(wire: Wire) -> Any:
    """A wire of a driver, or a stream on one: they tell whoever watches that the other side has hung up."""
    return wire
