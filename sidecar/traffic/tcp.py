"""What raw connections may take: how often they come, how many there are at once, how many bytes a second they move.

Theory of operation. How often is the cell rate algorithm of all rate limits (sidecar.traffic.gcra). How many is a
count. Bytes are paced, never refused: all connections that share a limit, and both of their directions, share one
*bucket*. Who has moved a piece has it written down at the end of what is owed already, and moves its next one when
the bucket has got there: so bytes are given out in the order in which they were asked for, and everybody has a turn.
Nobody is held before 50 ms are owed, and then until nothing is; who sleeps too long (timers are not exact) finds up
to a quarter of a second kept for it, so the mean is what the operator said. Pieces are small enough that a turn of
all of them takes 50 ms.

A reload keeps counts and debts by name and place; another number acts at once on what is open already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.errors import TcpLimited
from sidecar.traffic.gcra import Rate
from sidecar.traffic.limits import NOBODY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.config.schema_amounts import TcpLimit
    from sidecar.hop import Hop

TURN: Final = 0.05  # seconds: what may be owed without a pause, and how long a turn of everybody takes
KEPT: Final = 0.25  # seconds: how much of a bucket's time is kept for who comes late
LEAST_PIECE: Final = 1024  # bytes
MOST_BUCKETS: Final = 1024  # until those are looked for that nobody needs


class Bucket:
    """The bytes that some connections may move together."""

    __slots__ = ("_due", "open", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate  # bytes a second
        self.open = 0  # connections that share it
        self._due = now  # when all that has been moved is paid for

    def spend(self, now: float, size: int) -> float:
        """So many bytes have been moved; returns when (monotonic) who moved them may go on."""
        self._due = due = max(self._due, now - KEPT) + size / self.rate
        return due if due - now > TURN else now

    def piece(self) -> int:
        """How many bytes one direction of a connection moves at most before the others have their turn."""
        return max(LEAST_PIECE, int(self.rate * TURN / (2 * max(1, self.open))))

    def idle(self, now: float) -> bool:
        """Whether it is as good as new."""
        return not self.open and self._due <= now - KEPT


class TcpState:
    """One limit of one listener, through all generations."""

    __slots__ = ("_rate", "_rate_facts", "buckets", "listener", "open", "spec")

    def __init__(self, listener: str, spec: TcpLimit) -> None:
        self.listener = listener
        self.spec = spec
        self.open: dict[str, int] = {}
        self.buckets: dict[str, Bucket] = {}
        self._rate: Rate | None = None
        self._rate_facts: object = None
        self.adopt(spec)

    def adopt(self, spec: TcpLimit) -> None:
        """Go on by these numbers."""
        self.spec = spec
        often = spec.connections_per_second
        if often != self._rate_facts:
            self._rate_facts = often
            self._rate = Rate(spec.name, often.per_second, often.count) if often is not None else None
        for bucket in self.buckets.values():
            bucket.rate = float(spec.bandwidth) if spec.bandwidth is not None else float("inf")

    def is_for(self, hop: Hop) -> bool:
        """Whether this caller comes under it."""
        callers, peer = self.spec.callers, hop.peer
        return not callers or (peer is not None and any(pattern.matches(peer) for pattern in callers))

    def key(self, hop: Hop) -> str:
        """Who shares it with this caller."""
        if self.spec.per == "listener":
            return self.listener
        return hop.peer.text if hop.peer is not None else NOBODY

    def refusal(self, key: str, now: float) -> TcpLimited | None:
        """Why one more may not come; None where it may. Nothing is taken."""
        spec, most = self.spec, self.spec.connections
        if most is not None and self.open.get(key, 0) >= most:
            return self._error(f"{most} connections are open already (connections)")
        if self._rate is not None:
            standing = self._rate.standing(now, key)
            if standing.wait:
                return self._error(f"they may come {spec.connections_per_second} (connections_per_second)")
        return None

    def _error(self, why: str) -> TcpLimited:
        spec = self.spec
        return TcpLimited(f"over the TCP limit {spec.name} ({spec.where}, per {spec.per}): {why}", limit=spec.name,
                          per=spec.per)  # fmt: skip

    def enter(self, key: str, now: float) -> Bucket | None:
        """One more has come; its bucket, where it is paced."""
        if self._rate is not None:
            self._rate.take(now, key)
        self.open[key] = self.open.get(key, 0) + 1
        if self.spec.bandwidth is None:
            return None
        bucket = self.buckets.get(key)
        if bucket is None:
            if len(self.buckets) >= MOST_BUCKETS:
                self.buckets = {each: kept for each, kept in self.buckets.items() if not kept.idle(now)}
            bucket = self.buckets[key] = Bucket(float(self.spec.bandwidth), now)
        bucket.open += 1
        return bucket

    def leave(self, key: str, bucket: Bucket | None) -> None:
        """One of them has gone."""
        left = self.open[key] - 1
        if left:
            self.open[key] = left
        else:
            del self.open[key]
        if bucket is not None:
            bucket.open -= 1


class Stay:
    """A connection that was let in, until it leaves."""

    __slots__ = ("_entered", "buckets")

    def __init__(self, entered: Sequence[tuple[TcpState, str, Bucket | None]]) -> None:
        self._entered = entered
        self.buckets = [bucket for *_, bucket in entered if bucket is not None]

    def leave(self) -> None:
        """It has gone. To be called once."""
        for state, key, bucket in self._entered:
            state.leave(key, bucket)


class TcpLimits:
    """The TCP limits of one listener."""

    def __init__(self, states: Sequence[TcpState]) -> None:
        self._states = states

    def _for(self, hop: Hop) -> list[tuple[TcpState, str]]:
        return [(state, state.key(hop)) for state in self._states if state.is_for(hop)]

    def check(self, hop: Hop, now: float) -> None:
        """Raise TcpLimited where a limit would not let this connection in; nothing is taken."""
        for state, key in self._for(hop):
            error = state.refusal(key, now)
            if error is not None:
                raise error

    def enter(self, hop: Hop, now: float) -> Stay:
        """Let a connection in that was checked a moment ago, under every limit that it comes under."""
        found = self._for(hop)
        return Stay([(state, key, state.enter(key, now)) for state, key in found])


class TcpStates:
    """All TCP limits of a service, through all its generations."""

    def __init__(self, specs: Sequence[tuple[str, TcpLimit]], before: TcpStates | None = None) -> None:
        kept: dict[tuple[str, str, str], TcpState] = before._states if before is not None else {}
        self._specs = {(listener, spec.name, spec.per): spec for listener, spec in specs}
        self._states: dict[tuple[str, str, str], TcpState] = {
            place: kept.get(place) or TcpState(place[0], spec) for place, spec in self._specs.items()
        }

    def put_in_force(self) -> None:
        """From now on the numbers are those of this generation."""
        for place, spec in self._specs.items():
            if self._states[place].spec != spec:
                self._states[place].adopt(spec)

    def limits(self, listener: str) -> TcpLimits | None:
        """Those of one listener; None where there is none."""
        ours = [state for place, state in self._states.items() if place[0] == listener]
        return TcpLimits(ours) if ours else None

    def to_json(self) -> list[dict[str, object]]:
        """What is open under each, for people."""
        return [
            {"listener": listener, "name": name, "per": per, "key": key, "open": number,
             "connections": state.spec.connections, "bandwidth": state.spec.bandwidth}
            for (listener, name, per), state in self._states.items() for key, number in sorted(state.open.items())
        ]  # fmt: skip
