"""One endpoint of an upstream, and the connections that we keep to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sidecar.net.pool import Pool
    from sidecar.proxy.sockets import SocketRoad
    from sidecar.proxy.trunks import Trunks
    from sidecar.traffic.endpoints import Endpoint

Way = Literal["pool", "trunks", "sockets"]


class Place:
    """Where an attempt goes."""

    __slots__ = ("endpoint", "pool", "sockets", "trunks")

    def __init__(self, endpoint: Endpoint, pool: Pool, trunks: Trunks, sockets: SocketRoad) -> None:
        self.endpoint = endpoint
        self.pool = pool  # by HTTP/1, and for whatever takes a connection over
        self.trunks = trunks  # by HTTP/2
        self.sockets = sockets  # for WebSockets that may go by either

    def road(self, way: Way) -> Pool | Trunks | SocketRoad:
        """The connections that requests of this kind take."""
        if way == "pool":
            return self.pool
        return self.trunks if way == "trunks" else self.sockets

    @property
    def roads(self) -> tuple[Pool | Trunks, ...]:
        """All connections, by version of HTTP."""
        return (self.pool, self.trunks, self.sockets.trunks)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return sum(road.open for road in self.roads)

    def renew(self, generation: int) -> None:
        """Connections of earlier generations of the gate end (decision D17)."""
        for road in self.roads:
            road.renew(generation)

    def retire(self) -> None:
        """The endpoint is no more: what is under way there comes to its end."""
        for road in self.roads:
            road.retire()
