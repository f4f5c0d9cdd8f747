"""Who is too slow: the least rate of bodies, looked at from outside, twice a second.

Nothing of this runs where bytes are moved. A *look* notes whether a task of ours waits for the peer (it reads from the
wire, or it writes and the wire does not take more) and how many bytes have gone over the wire. Time counts only where
we waited for the peer at both of two looks; whatever keeps *us* from reading or writing (an application that does not
read, or has nothing to say) counts for nothing.

A peer's account, in seconds:

    behind = time that we waited for it - bytes it moved in that time / `limits.body_rate`, never less than 0

It is over where that passes `timeouts.slow`. Of a silence without a single byte only the first part counts, a quarter
of that: who pauses, and then goes on, is not slow, and how long a pause may last is for `timeouts.idle` to say. So a
trickle ends after `timeouts.slow`, and a body that stands still after `timeouts.idle`.

A request body counts while something that was *promised* is missing: the rest of a Content-Length, or of a chunk that
has begun. Between two chunks nobody is behind, and a stream of small ones may take for ever.

The default rate is that of Apache's mod_reqtimeout (body=20,MinRate=500); Kestrel asks for 240 bytes a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import DownstreamSlow

if TYPE_CHECKING:
    from sidecar.config.schema import Limits, Timeouts
    from sidecar.net.port import Wire
    from sidecar.proxy.flow import Flow

PAUSE_SHARE = 0.25  # of `timeouts.slow`: what of one silence counts


class Account:
    """How far one direction of a request has fallen behind."""

    __slots__ = ("_at", "_moved", "_quiet", "_waiting", "behind")

    def __init__(self, now: float, moved: int, *, waiting: bool) -> None:
        self.behind = 0.0
        self._at = now
        self._moved = moved
        self._quiet = 0.0  # seconds without a byte
        self._waiting = waiting

    def look(self, now: float, moved: int, *, waiting: bool, rate: int, patience: float) -> bool:
        """Take note of `moved` bytes in all, and of whether we wait for the peer; whether it is too far behind."""
        passed, self._at = now - self._at, now
        grown, self._moved = moved - self._moved, moved
        waited, self._waiting = waiting and self._waiting, waiting
        if not waited:
            self._quiet = passed = 0.0
        elif grown:
            self._quiet = 0.0
        else:
            before, self._quiet = self._quiet, self._quiet + passed
            passed = min(passed, max(0.0, patience * PAUSE_SHARE - before))
        self.behind = max(0.0, self.behind + passed - grown / rate)
        return self.behind > patience


class Pace:
    """The two accounts of one request: its body on the way to us, and its answer on the way to the peer."""

    __slots__ = ("_down", "_up", "exchange")

    def __init__(self, exchange: Flow, wire: Wire, now: float) -> None:
        self.exchange = exchange
        self._up = Account(now, wire.received, waiting=exchange.owed_by(wire))
        self._down = Account(now, wire.sent, waiting=wire.writer is not None)

    def look(self, wire: Wire, now: float, limits: Limits, timeouts: Timeouts) -> DownstreamSlow | None:
        """What is to be said to a peer that has fallen too far behind by now; None to all others."""
        rate, patience = limits.body_rate, timeouts.slow
        if rate is None:
            return None
        owed = self.exchange.owed_by(wire)
        if self._up.look(now, wire.received, waiting=owed, rate=rate, patience=patience):
            return DownstreamSlow(f"the downstream sends its body at {_least(rate, timeouts)}")
        if self._down.look(now, wire.sent, waiting=wire.writer is not None, rate=rate, patience=patience):
            return DownstreamSlow(f"the downstream takes its answer at {_least(rate, timeouts)}", reading=True)
        return None


def _least(rate: int, timeouts: Timeouts) -> str:
    return f"less than {rate} bytes a second (limits.body_rate), and is {timeouts.slow:g} s behind (timeouts.slow)"
