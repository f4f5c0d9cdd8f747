"""An inbound side whose detectors may hold callers: whoever is held is refused after the rules have let it in, and
before anything else is asked or taken. A listener without such detectors has the plain side, and pays nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.proxy.inbound import InboundSide

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.proxy.side import Caller
    from sidecar.proxy.upstream import Upstream
    from sidecar.traffic.holds import Holds


class GuardedSide(InboundSide):
    """One inbound listener of a service whose detectors throttle or block."""

    def __init__(self, *args: Any, holds: Holds, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._holds = holds

    def may_go_on(self, caller: Caller, upstream: Upstream, wall: float) -> bool:
        """As every side; of whom anything is held, each request goes the general way, where refusals are made."""
        peer, held = caller.peer, self._holds.peers
        if held and peer is not None and peer.id.text in held:
            return False
        return super().may_go_on(caller, upstream, wall)

    def _authorize(self, hop: Hop, wall: float) -> None:
        super()._authorize(hop, wall)
        if not hop.attempts:  # what the express has sent already is not held any more
            self._holds.check(hop, hop.started)
