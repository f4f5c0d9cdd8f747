"""A request that has to wait until its quotas know how much of them has been used.

That is rare: the first one of a caller in a window, and one that comes faster than leases can be renewed. All others
find a lease with room (`sidecar.traffic.quota_limits.Charges.ready`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.errors import QuotaUnknown
from sidecar.net.port import NEVER, Expired
from sidecar.traffic.limits import Dues
from sidecar.traffic.quota_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sidecar.hop import Headers, Hop
    from sidecar.net.port import Port, Signal
    from sidecar.traffic.quota import Order
    from sidecar.traffic.quota_limits import Charges, QuotaLimits, Quotas

SWITCHED: Final = 101
MOST_KNOWN: Final = 4096  # pairs of dues and charges; they can be made again at any time

PATIENCE: Final = 2.0  # seconds that a request waits for the store, all in all; a sound one takes milliseconds


class Desk(Protocol):
    """Who carries orders to the store, and knows when one has been settled."""

    def ask(self, order: Order) -> None:
        """Carry it there, soon."""
        ...

    def signal(self, order: Order) -> Signal | None:
        """What happens then; None where it has happened already."""
        ...


async def charge(port: Port, charges: Charges, hop: Hop, desk: Desk) -> None:
    """Take one of every quota. Raises QuotaSpent, and QuotaUnknown where the store does not say how much is left."""
    until = port.now + PATIENCE
    while True:
        order = charges.take(port.wall(), hop.headers)
        if order is None:
            port.deadline(NEVER)
            return
        signal = desk.signal(order)
        if signal is not None:
            port.deadline(until)
            try:
                await port.wait(signal)
            except Expired:
                raise QuotaUnknown(f"the store of quotas has not answered for {PATIENCE:g} s") from None
        if order.failed and order.quota.rules.shared:
            raise QuotaUnknown("the Redis that a quota is counted in is away, and what this caller held of it is used")
        if order.failed and not order.lease.known:
            raise QuotaUnknown("the store of quotas cannot be read or written, and this caller is not known yet")
        if port.now >= until:
            raise QuotaUnknown(f"others were quicker to take what the store gave, for {PATIENCE:g} s")


async def charge_after(port: Port, charge: Callable[[Port], Awaitable[None]], dues: Dues, keys: Sequence[str]) -> None:
    """Charge a hop that its rate limits have let in by these keys; where that does not come about, they get back what
    they gave: who is refused takes nothing from anybody. Raises as `charge` does.
    """
    try:
        await charge(port)
    except BaseException:
        dues.levels.give_back(keys)
        raise


class ListenerQuotas:
    """The quotas of one listener, as its side asks for them."""

    def __init__(self, limits: QuotaLimits, desk: Desk, port: Port) -> None:
        self._limits = limits
        self._desk = desk
        self._port = port
        self._beside: dict[tuple[int, int], tuple[Dues | None, Charges, Dues]] = {}
        self.looks_at_headers = bool(limits.headers)

    def begin(self, hop: Hop, wall: float) -> Callable[[Port], Awaitable[None]] | None:
        """What charges a permitted hop, once nothing else can refuse it; None where there is nothing to charge. Raises
        QuotaSpent where it is known already that nothing is left.
        """
        charges = self._limits.charges(hop, hop.route)
        if charges is None:
            return None
        charges.check(wall, hop.headers)
        return partial(charge, charges=charges, hop=hop, desk=self._desk)

    def beside(self, dues: Dues | None, hop: Hop, route: str) -> Dues | None:
        """What a plain request comes under, rates and quotas: the same object for requests of the same kind."""
        charges = self._limits.charges(hop, route)
        if charges is None:
            return dues
        pair = id(dues), id(charges)  # both are kept with what was made of them
        found = self._beside.get(pair)
        if found is None:
            if len(self._beside) >= MOST_KNOWN:
                self._beside.clear()
            made = dues.beside(charges) if dues is not None else Dues((), (), charges)
            found = self._beside[pair] = dues, charges, made
        return found[2]

    def told(self, hop: Hop, status: int) -> Headers:
        """The fields of an answer of this status to a hop that was let in."""
        if status < 200 and status != SWITCHED:
            return []
        charges = self._limits.charges(hop, hop.route)
        return charges.told(self._port.wall(), hop.headers) if charges is not None else []


def listener_quotas(limits: QuotaLimits | None, desk: Desk, port: Port) -> ListenerQuotas | None:
    """Those of a listener, where it has any."""
    return ListenerQuotas(limits, desk, port) if limits is not None else None


class PromptDesk:
    """A desk that answers at once, out of memory: for those who do not mind that a restart forgets."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.nudge: Callable[[], None] = lambda: None
        self.quotas: Quotas | None = None  # of the configuration in force
        self._store = store or MemoryStore()

    def ask(self, order: Order) -> None:
        """Reserve it."""
        if order.lease.order is order:
            order.quota.settle(order, *order.place(self._store))

    def signal(self, order: Order) -> None:
        """It has happened already."""

    def adopt(self, quotas: Quotas) -> None:
        """These are in force now."""
        self.quotas = quotas
        quotas.put_in_force()
