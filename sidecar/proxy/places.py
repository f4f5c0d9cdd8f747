"""One endpoint of an upstream, and the connections that we keep to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.net.pool import Pool
    from sidecar.proxy.trunks import Trunks
    from sidecar.traffic.endpoints import Endpoint


class Place:
    """Where an attempt goes."""

    __slots__ = ("endpoint", "pool", "trunks")

    def __init__(self, endpoint: Endpoint, pool: Pool, trunks: Trunks) -> None:
        self.endpoint = endpoint
        self.pool = pool  # by HTTP/1, and for whatever takes a connection over
        self.trunks = trunks  # by HTTP/2

    @property
    def open(self) -> int:
        """How many connections there are."""
        return self.pool.open + self.trunks.open

    def renew(self, generation: int) -> None:
        """Connections of earlier generations of the gate end (decision D17)."""
        self.pool.renew(generation)
        self.trunks.renew(generation)

    def retire(self) -> None:
        """The endpoint is no more: what is under way there comes to its end."""
        self.pool.retire()
        self.trunks.retire()
