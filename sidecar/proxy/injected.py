"""What a fault does to a request: it waits, it is refused, or both (`sidecar.traffic.faults`).

The wait is the first thing of an exchange, so it holds no connection and no place upstream, and nothing is charged to
anybody. A caller that leaves meanwhile is noticed within a second; a call's own deadline goes on counting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sidecar.errors import DownstreamGone, FaultInjected
from sidecar.net.port import NEVER
from sidecar.proxy.flow import HALF_CLOSE_GRACE

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.net.port import Port
    from sidecar.traffic.faults import Injected

LOOK: Final = 1.0  # seconds between two looks at whether the caller is still there


async def suffer(port: Port, wire: Any, hop: Hop, injected: Injected, route: str) -> None:
    """Meet this fault of this route. `wire` leads to the caller. Raises FaultInjected, DownstreamGone."""
    if injected.delay:
        hop.delayed = injected.delay
        await _wait(port, wire, injected.delay)
    if injected.status:
        raise FaultInjected(f"the fault of route {route} refuses a share of its requests on purpose", injected.status)


async def _wait(port: Port, wire: Any, seconds: float) -> None:
    port.deadline(NEVER)
    until, left_at = port.now + seconds, NEVER
    while port.now < until:
        await port.sleep(min(LOOK, until - port.now))
        if wire.half_closed and left_at == NEVER:
            left_at = port.now
        if wire.reset or port.now - left_at >= HALF_CLOSE_GRACE:
            raise DownstreamGone("the caller left while a fault held its request")
