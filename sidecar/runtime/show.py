"""What of a sidecar's listeners, limits and upstreams people may look at: rows that are ready for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.config.terms import Address
from sidecar.traffic.show import applies, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.hop import Hop
    from sidecar.net.reactor import Reactor
    from sidecar.runtime.generation import Generation
    from sidecar.runtime.postures import PostureWatch


class Show:
    """The rows of the generation in force."""

    def __init__(self, generation: Callable[[], Generation], reactor: Reactor, postures: PostureWatch) -> None:
        self._generation = generation
        self._reactor = reactor
        self._postures = postures

    @property
    def _now(self) -> Generation:
        return self._generation()

    def listeners(self) -> list[dict[str, Any]]:
        """Where we listen, for `mesh status`."""
        rows: list[dict[str, Any]] = [
            {"name": spec.name, "address": str(Address(spec.bind, spec.port)), "protocol": spec.protocol,
             "direction": "inbound", **self._postures.to_json(spec)}
            for spec, _ in self._now.inbound
        ]  # fmt: skip
        rows += [
            {"name": name, "address": str(address), "protocol": protocol, "direction": "outbound"}
            for name, protocol, address, _ in self._now.outbound
        ]
        captured = self._now.captured
        return rows if captured is None else captured.shown(rows)

    def tcp_limits(self) -> list[dict[str, Any]]:
        """What is open under TCP limits."""
        return self._now.tcp.to_json()

    def endpoints(self) -> list[dict[str, Any]]:
        """What the balancers see, for `mesh endpoints`."""
        return [row for upstream in self._now.all_upstreams() for row in upstream.to_json()]

    def limits(self) -> list[dict[str, Any]]:
        """How the rate limits stand, for `mesh limits`."""
        return [shown(limit, self._reactor.now) for limit in self._now.rates]

    def contracts(self) -> list[dict[str, Any]]:
        """What was seen of each contract, for `mesh contract status`."""
        sides = ((spec, side.contract) for spec, side in self._now.inbound)
        return [{"listener": spec.name, **contract.to_json()} for spec, contract in sides if contract is not None]

    def limits_of(self, hop: Hop, route: str) -> list[dict[str, Any]]:
        """The limits that a hop would come under, for `mesh explain`."""
        side = next((side for spec, side in self._now.inbound if spec.name == hop.listener), None)
        return applies(side.rates, hop, route, self._reactor.now) if side is not None else []

    def totals(self) -> list[dict[str, Any]]:
        """The same upstream by upstream, for `mesh top`."""
        return [upstream.totals() for upstream in self._now.all_upstreams() if upstream.guarded]
