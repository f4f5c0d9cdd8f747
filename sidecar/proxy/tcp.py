"""Raw bytes: two pumps, each with the other's end in view.

The end of one direction is passed on as such (half-close) and the other goes on, as protocols with a long answer to a
finished question need. A wire that breaks breaks both. Nothing waits for a first byte, so protocols in which the server
speaks first work.

Nobody can tell where in these bytes it would be safe to stop, so a tunnel ends with the certificate that it rests on
(decision D17), and is judged again, at once, whenever policy or roots become others: that is what `Tunnels` is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.errors import (
    DownstreamGone,
    DownstreamIdle,
    Draining,
    HopError,
    InternalError,
    TooManyStreams,
    UpstreamReset,
)
from sidecar.http.proxy_header import write
from sidecar.net.port import BULK, NEVER, PIECE, Cancelled, Expired, WireBroken
from sidecar.net.splice import Splice
from sidecar.proxy.lease import Lease
from sidecar.proxy.pacing import pacer

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.http.proxy_header import Version
    from sidecar.net.pool import Connection
    from sidecar.net.port import Port, Task, Wire
    from sidecar.proxy.pacing import Pacer
    from sidecar.proxy.side import Caller
    from sidecar.telemetry.record import Recorder
    from sidecar.traffic.tcp import Bucket

_MIDWAY = {"PD": "policy", "ID": "identity"}


class Tunnels:
    """The tunnels of one sidecar, so that they can be judged again while they run; and the count of all that lasts.

    What lasts (decision D25): upgrades, raw TCP, CONNECTs, and requests older than 30 s. They count as connections, not
    as requests in flight, and have a limit of their own, so that there is room for requests that come and go. At the
    limit no upgrade and no CONNECT is let in. Raw TCP is: its limit is that of connections, which it is from its
    first byte. Nor does an old request end, for it was let in as a request.
    """

    def __init__(self, most: float = NEVER) -> None:
        self.full = False
        self._most = most
        self._open: dict[Task, Callable[[], None]] = {}
        self._carrying = 0  # CONNECTs that carry HTTP
        self._old = 0  # requests

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open) + self._carrying + self._old

    def limit(self, most: float) -> None:
        """From now on this is the limit; what is over it may stay."""
        self._most = most
        self._recount()

    def requests_grown_old(self, count: int) -> None:
        """So many requests last, as of now."""
        self._old = count
        self._recount()

    def check_place(self) -> None:
        """Raise TooManyStreams where there is no place for another upgrade or CONNECT."""
        if self.full:
            raise TooManyStreams(
                f"{len(self)} upgrades, tunnels, raw connections and requests over 30 s are open, and from "
                f"{self._most:g} on no other is let in (limits.streams)"
            )

    @contextmanager
    def carry(self) -> Iterator[None]:
        """While inside, a CONNECT carries HTTP."""
        self._carrying += 1
        self._recount()
        try:
            yield
        finally:
            self._carrying -= 1
            self._recount()

    def _recount(self) -> None:
        self.full = len(self) >= self._most

    @contextmanager
    def open(self, task: Task | None, judge: Callable[[], None]) -> Iterator[None]:
        """While inside, this task moves the bytes of a tunnel, and `judge` raises what speaks against it.

        It is asked at once: what allowed the tunnel may be of yesterday, for connecting takes time.
        """
        assert task is not None
        judge()
        self._open[task] = judge
        self._recount()
        try:
            yield
        finally:
            del self._open[task]
            self._recount()

    def judge(self) -> None:
        """Judge all of them; whoever may not go on ends with the error that says why."""
        for task, judge in list(self._open.items()):
            try:
                judge()
            except HopError as error:
                error.midway = error.midway or _MIDWAY.get(error.flag, "removed")
                task.throw(error)


class _Activity:
    """When either direction last moved, and how long both may last."""

    __slots__ = ("at", "idle", "lease")

    def __init__(self, at: float, idle: float, lease: Lease) -> None:
        self.at = at
        self.idle = idle
        self.lease = lease

    @property
    def ends_at(self) -> float:
        """When it is over, whatever moves."""
        return self.lease.end

    def deadline(self) -> float:
        """When to look whether there is still a reason to wait."""
        return min(self.at + self.idle, self.lease.limit(self.at))

    def check(self, now: float) -> None:
        """Raise the reason to wait no longer, if there is one."""
        self.lease.check(now, self.at)
        if now - self.at >= self.idle:
            raise DownstreamIdle(f"no byte in either direction for {self.idle:g} s (timeouts.tcp_idle)")


async def tunnel(
    port: Port,
    downstream: Wire,
    upstream: Wire,
    hop: Hop,
    *,
    idle: float,
    lease: Lease,
    early: bytes = b"",
    buckets: Sequence[Bucket] = (),
) -> None:
    """Move bytes both ways until both have ended; `early` has been read from the downstream already. With `buckets` no
    more of them than those have for us.

    Raises HopError where one side breaks, nothing moves for `idle` seconds, or the lease is over.
    """
    activity = _Activity(port.now, idle, lease)
    asking, answering = pacer(buckets), pacer(buckets)
    answer = port.spawn(_pump(port, upstream, downstream, hop, activity, answering, from_downstream=False))
    try:
        if early:
            hop.received_bytes += len(early)
            if asking is not None:
                asking.spend(port.now, len(early))
            await _push(port, upstream, early, activity, to_downstream=False)
        await _pump(port, downstream, upstream, hop, activity, asking, from_downstream=True)
        port.deadline(NEVER)
        await port.wait(answer)
    finally:
        answer.cancel()


async def _pump(
    port: Port, source: Wire, sink: Wire, hop: Hop, activity: _Activity, pace: Pacer | None, *, from_downstream: bool
) -> None:
    splice = Splice.between(source, sink) if pace is None else None
    limit = PIECE
    try:
        while True:
            data: bytes | memoryview | Splice = b""
            if pace is not None:
                await pace.turn(port, activity)
                limit = pace.piece(limit)
            try:
                port.deadline(activity.deadline())
                size = await splice.take() if splice is not None and splice.useful else None
                if splice is not None and size:
                    data = splice
                elif size is None:
                    data = await source.read_shared(None, limit)
                    size = len(data)
                    if splice is not None:
                        splice.saw(size)
            except Expired:
                activity.check(port.now)
                continue  # the other direction has moved meanwhile
            except WireBroken as error:
                raise _broke(from_downstream, error) from None
            activity.at = max(activity.at, port.now)
            if pace is not None:
                pace.spend(port.now, size)
            if not size:
                await _push(port, sink, b"", activity, to_downstream=not from_downstream)
                return
            if from_downstream:
                hop.received_bytes += size
            else:
                hop.sent_bytes += size
                if not hop.first_byte:
                    hop.first_byte = port.now
            before = port.now
            await _push(port, sink, data, activity, to_downstream=not from_downstream)
            limit = BULK if port.now == before else PIECE  # who keeps up gets large pieces
    finally:
        if splice is not None:
            splice.close()


async def _push(
    port: Port, sink: Wire, data: bytes | memoryview | Splice, activity: _Activity, *, to_downstream: bool
) -> None:
    """Pass bytes on, or with none the end."""
    try:
        port.deadline(min(port.now + activity.idle, activity.lease.end))
        if isinstance(data, Splice):
            await data.put()
        elif data:
            await sink.write(data)
        else:
            await sink.finish()
    except Expired:
        if port.now >= activity.lease.end:
            activity.check(port.now)
        raise DownstreamIdle(f"the reader took no byte for {activity.idle:g} s (timeouts.tcp_idle)") from None
    except WireBroken as error:
        raise _broke(to_downstream, error) from None
    activity.at = port.now


def _broke(downstream: bool, error: WireBroken) -> HopError:
    return DownstreamGone(str(error)) if downstream else UpstreamReset(str(error))


async def introduce(port: Port, app: Wire, caller: Caller, version: Version, within: float) -> None:
    """Tell the application who connected, before the first byte. Raises UpstreamReset."""
    header = write(version, (caller.source, caller.source_port), caller.reached)
    try:
        port.deadline(port.now + within)
        await app.write(header)
    except (WireBroken, Expired) as error:
        raise UpstreamReset(f"the application did not take the PROXY header: {error}") from None


@dataclass(slots=True)
class Far:
    """The other end of a raw connection, as soon as there is one."""

    connection: Connection | None = None


@contextmanager
def carrying(hop: Hop, port: Port, wire: Wire, recorder: Recorder) -> Iterator[Far]:
    """The life of a raw connection: whatever ends it closes both ends, with a reset where it failed under way, and is
    recorded with the hop.
    """
    far = Far()
    try:
        yield far
    except HopError as error:
        hop.error = error
    except Cancelled:
        hop.error = Draining("the sidecar has ended")
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours ends this connection, not the sidecar
        hop.error = InternalError(f"{type(error).__name__}: {error}")
    finally:
        upstream = far.connection.wire if far.connection is not None else None
        broke = hop.error is not None and upstream is not None
        for end in (wire, upstream):
            if end is not None:
                if broke:
                    end.abort()
                else:
                    end.close()
        hop.ended = port.read_clock()
        if hop.error is not None:
            hop.decision_id = hop.decision_id or recorder.decision_id()
        recorder.observe(hop)
