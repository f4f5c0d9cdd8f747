"""What a fault does to a request: it waits, it is refused, or both (`sidecar.traffic.faults`).

The wait comes before anything is sent, so it holds no connection and no place upstream, and no endpoint is blamed for
it. What limits its caller has been taken before: a fault is no way around a limit. It is one of the waits of the
exchange: over when the caller leaves, and when the request's time is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import FaultInjected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sidecar.hop import Hop
    from sidecar.traffic.faults import Injected


async def suffer(pause: Callable[[float], Awaitable[None]], hop: Hop, injected: Injected, route: str) -> None:
    """Meet this fault of this route; `pause` waits so many seconds. Raises FaultInjected, and as `pause` does."""
    if injected.delay:
        hop.delayed = injected.delay
        await pause(injected.delay)
    if injected.status:
        raise FaultInjected(f"the fault of route {route} refuses a share of its requests on purpose", injected.status)
