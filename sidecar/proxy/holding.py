"""Requests that their rate limits hold: until Redis has said what all sidecars together have let in, and until it is
their turn.

A held request has been judged and has paid its place, and has nothing yet of what serves it: no attempt, no connection,
no place of its upstream. It is still its caller's: when that leaves, the wait is over, and what it had taken is given
back. It is under way as any other request is: a drain lets it have its turn, and its time counts in its deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from sidecar.errors import DownstreamGone
from sidecar.hop import Held
from sidecar.http import grpc
from sidecar.net.port import NEVER, PeerGone
from sidecar.net.stay import stay
from sidecar.traffic.gcra import Refused
from sidecar.traffic.shared import Answered, Away, refusal, settle
from sidecar.traffic.turn import turn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.hop import Hop
    from sidecar.net.port import Port, Wire
    from sidecar.telemetry.metrics import Metrics
    from sidecar.traffic.limits import Dues
    from sidecar.traffic.shared import Names, Question
    from sidecar.traffic.turn import Turn


class Asker(Protocol):
    """Whoever can ask Redis."""

    async def ask(self, port: Port, wire: Wire, question: Question) -> Answered | Away:
        """Ask for a request whose caller is at this wire. Raises PeerGone."""
        ...


class _NobodyToAsk:
    """No Redis."""

    async def ask(self, port: Port, wire: Wire, question: Question) -> Answered | Away:
        """Never an answer."""
        return Away("away")


NOBODY_TO_ASK: Final[Asker] = _NobodyToAsk()


class Holding:
    """How requests are held in one generation of a service."""

    def __init__(self, asker: Asker, names: Names | None, metrics: Metrics, *, refuses: bool) -> None:
        self._asker = asker
        self._names = names  # None where no limit is shared
        self._metrics = metrics
        self._refuses = refuses  # while Redis is away

    async def hold(self, port: Port, wire: Wire, hop: Hop, dues: Dues) -> None:
        """Let a request in at all its limits, now or later. Raises RateLimited, LimiterAway, DownstreamGone."""
        began, keys = port.now, list(dues.keys_of(hop.headers))
        turn = turn_of(dues, began, keys)
        held = Held()
        try:
            if dues.shared:
                await self._ask(port, wire, turn, dues, keys, held)
            if turn.wait > 0.0:
                await self._wait(port, wire, hop, turn, dues, keys, began)
                turn.count()
                held.delayed, held.limit = port.read_clock() - began, turn.limit
                self._metrics.histogram("mesh_rate_delayed_seconds").observe(held.delayed, (turn.limit,), port.now)
        except PeerGone:
            turn.give_back()
            raise DownstreamGone from None
        except BaseException:
            turn.give_back()
            raise
        turn.leave()
        held.told = dues.told(port.now, keys)
        if held.delayed or held.alone or held.told:
            hop.held = held

    async def _ask(
        self, port: Port, wire: Wire, turn: Turn, dues: Dues, keys: Sequence[str], held: Held
    ) -> None:
        """Let all sidecars together decide. Where they do not, this one has."""
        assert self._names is not None  # a configuration with a shared limit and no Redis is refused
        answer = await self._asker.ask(port, wire, self._names.question(dues, keys))
        if isinstance(answer, Answered):
            if not answer.fits:
                turn.give_back()
            refused = settle(dues, port.now, keys, answer)
            if refused is not None:
                raise dues.error(port.now, refused)
            if None in answer.ahead:
                held.alone = "what stands under its key in Redis is not ours"
            return
        held.alone = f"Redis does not answer: {answer.why}"
        if self._refuses:
            raise refusal([dues.limits[place] for place in dues.shared], answer.why)

    async def _wait(
        self, port: Port, wire: Wire, hop: Hop, turn: Turn, dues: Dues, keys: Sequence[str], began: float
    ) -> None:
        until = began + turn.wait
        if until > _deadline(hop):  # it would be late, and somebody else could have had the place
            place = next(place for place, limit in enumerate(dues.limits) if limit.spec.name == turn.limit)
            raise dues.error(began, Refused(dues.limits[place].rate, keys[place], turn.wait))
        await stay(port, wire, until)


def _deadline(hop: Hop) -> float:
    """The monotonic time at which a call's own deadline passes."""
    given = grpc.timeout_of(hop.headers) if grpc.is_grpc(hop.headers) else None
    return NEVER if given is None else hop.started + given
