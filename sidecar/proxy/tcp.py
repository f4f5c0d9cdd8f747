"""Raw bytes: two pumps, each with the other's end in view.

The end of one direction is passed on as such (half-close) and the other goes on, as protocols with a long answer to a
finished question need. A wire that breaks breaks both. Nothing waits for a first byte, so protocols in which the server
speaks first work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import DownstreamGone, DownstreamIdle, HopError, IdentityRefused, UpstreamReset
from sidecar.net.port import NEVER, Expired, WireBroken

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.net.port import Port, Wire


class _Activity:
    """When either direction last moved, and how long both may last."""

    __slots__ = ("at", "idle", "until")

    def __init__(self, at: float, idle: float, until: float) -> None:
        self.at = at
        self.idle = idle
        self.until = until

    def deadline(self) -> float:
        """When to look whether there is still a reason to wait."""
        return min(self.at + self.idle, self.until)

    def check(self, now: float) -> None:
        """Raise the reason to wait no longer, if there is one."""
        if now >= self.until:
            raise IdentityRefused("expired", "the peer's certificate has reached its end, and the connection with it")
        if now - self.at >= self.idle:
            raise DownstreamIdle(f"no byte in either direction for {self.idle:g} s (timeouts.tcp_idle)")


def end_of(hop: Hop, port: Port) -> float:
    """The monotonic time at which the certificate ends that this hop rests on; NEVER where it rests on none."""
    return NEVER if hop.tls is None else port.now + max(0.0, hop.tls.not_after - port.wall())


async def tunnel(
    port: Port,
    downstream: Wire,
    upstream: Wire,
    hop: Hop,
    *,
    idle: float,
    until: float = NEVER,
    early: bytes = b"",
) -> None:
    """Move bytes both ways until both have ended; `early` has been read from the downstream already.

    Raises HopError where one side breaks, nothing moves for `idle` seconds, or at `until` (monotonic): the end of the
    certificate that the connection rests on (decision D17).
    """
    activity = _Activity(port.now, idle, until)
    answer = port.spawn(_pump(port, upstream, downstream, hop, activity, from_downstream=False))
    try:
        if early:
            hop.received_bytes += len(early)
            await _push(port, upstream, early, activity, to_downstream=False)
        await _pump(port, downstream, upstream, hop, activity, from_downstream=True)
        port.deadline(NEVER)
        await port.wait(answer)
    finally:
        answer.cancel()


async def _pump(port: Port, source: Wire, sink: Wire, hop: Hop, activity: _Activity, *, from_downstream: bool) -> None:
    while True:
        try:
            port.deadline(activity.deadline())
            data = await source.read()
        except Expired:
            activity.check(port.now)
            continue  # the other direction has moved meanwhile
        except WireBroken as error:
            raise _broke(from_downstream, error) from None
        activity.at = port.now
        if not data:
            await _push(port, sink, b"", activity, to_downstream=not from_downstream)
            return
        if from_downstream:
            hop.received_bytes += len(data)
        else:
            hop.sent_bytes += len(data)
            if not hop.first_byte:
                hop.first_byte = port.now
        await _push(port, sink, data, activity, to_downstream=not from_downstream)


async def _push(port: Port, sink: Wire, data: bytes, activity: _Activity, *, to_downstream: bool) -> None:
    """Pass bytes on, or with none the end."""
    try:
        port.deadline(min(port.now + activity.idle, activity.until))
        if data:
            await sink.write(data)
        else:
            await sink.finish()
    except Expired:
        activity.check(port.now)
        raise DownstreamIdle(f"the reader took no byte for {activity.idle:g} s (timeouts.tcp_idle)") from None
    except WireBroken as error:
        raise _broke(to_downstream, error) from None
    activity.at = port.now


def _broke(downstream: bool, error: WireBroken) -> HopError:
    return DownstreamGone(str(error)) if downstream else UpstreamReset(str(error))
