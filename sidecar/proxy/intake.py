"""What a listener takes of its limits for whoever is let in: rate limits, quotas, and those of TCP.

It comes last of all that may refuse, so that whoever is refused for another reason takes nothing from anybody. Rates
are taken at once where no request has to be held for them; a quota may have to be waited for, so it is charged where
the exchange begins, and rates get back what they gave where that comes to nothing.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from sidecar.net.port import NEVER
from sidecar.proxy.charging import charge_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sidecar.hop import Headers, Hop
    from sidecar.net.port import Port, Wire
    from sidecar.proxy.charging import ListenerQuotas
    from sidecar.proxy.holding import Holding
    from sidecar.proxy.side import Plan
    from sidecar.traffic.limits import Dues, RateLimits
    from sidecar.traffic.tcp import Bucket, TcpLimits


class Intake:
    """The limits of one listener; `holding` is there where rates are."""

    def __init__(
        self, rates: RateLimits | None, quotas: ListenerQuotas | None, tcp: TcpLimits | None, holding: Holding | None
    ) -> None:
        self.rates = rates
        self._quotas = quotas
        self._tcp = tcp
        self._holding = holding
        self.looks_at_headers = (rates is not None and bool(rates.headers)) or (
            quotas is not None and quotas.looks_at_headers
        )

    def plain_dues(self, hop: Hop, route: str) -> Dues | None:
        """What a plain request comes under, rates and quotas; None for nothing."""
        dues = self.rates.dues(hop, route) if self.rates is not None else None
        return dues if self._quotas is None else self._quotas.beside(dues, hop, route)

    async def let_in(self, port: Port, wire: Wire, dues: Dues, keys: Sequence[str]) -> bool:
        """Whether all sidecars together let a plain request in. Raises DownstreamGone."""
        assert self._holding is not None
        return await self._holding.let_in(port, wire, dues, keys)

    def take(self, plan: Plan, hop: Hop, now: float, wall: float) -> None:
        """Take for a request, or let the exchange do so where it may take a while. Raises RateLimited, QuotaSpent."""
        charge, dues = self._due(hop, wall)
        if dues is not None and dues.held:
            assert self._holding is not None
            plan.hold = partial(self._holding.hold, hop=hop, dues=dues)
        elif dues is not None:
            dues.take(now, hop.headers)
        plan.charge = charge

    @asynccontextmanager
    async def connection(self, port: Port, wire: Wire, hop: Hop) -> AsyncIterator[Sequence[Bucket]]:
        """Take for a raw connection, for as long as it stays; gives the buckets that its bytes go through.

        Raises TcpLimited, RateLimited, QuotaSpent, QuotaUnknown, DownstreamGone.
        """
        if self._tcp is not None:
            self._tcp.check(hop, port.now)
        charge, dues = self._due(hop, port.wall())
        if dues is not None:
            assert self._holding is not None
            await self._holding.hold(port, wire, NEVER, hop, dues)
        stay = self._tcp.enter(hop, port.now) if self._tcp is not None else None
        try:
            if charge is not None:
                await charge(port)
            yield stay.buckets if stay is not None else ()
        finally:
            if stay is not None:
                stay.leave()

    def told(self, hop: Hop, status: int) -> Headers:
        """What an answer of this status says about quotas."""
        return self._quotas.told(hop, status) if self._quotas is not None else []

    def _due(self, hop: Hop, wall: float) -> tuple[Callable[[Port], Awaitable[None]] | None, Dues | None]:
        """What charges the quotas, and the rates that are to be taken before."""
        charge = self._quotas.begin(hop, wall) if self._quotas is not None else None
        dues = self.rates.dues(hop, hop.route) if self.rates is not None else None
        if charge is not None and dues is not None:
            charge = partial(charge_after, charge=charge, dues=dues, keys=list(dues.keys_of(hop.headers)))
        return charge, dues


def intake(
    rates: RateLimits | None, quotas: ListenerQuotas | None, tcp: TcpLimits | None, holding: Holding | None
) -> Intake | None:
    """The limits of a listener, where it has any."""
    return Intake(rates, quotas, tcp, holding) if (rates, quotas, tcp) != (None, None, None) else None
