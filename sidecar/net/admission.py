"""Who may come in: the books of open connections, and what happens when they are full (decision D25).

Four limits, each against another way of filling us up:

- *All connections* of the sidecar, from configuration and from the descriptors that the process may have. A new one
  over it is closed unread.
- *Strangers*: peers that have not proved who they are. They cost a descriptor and up to 5 s each, and nobody can tell
  a slow one from an attacker. When there is no place for another, the one that has waited longest makes room: a real
  handshake is over in milliseconds, a half-open one only ever grows older.
- *Handshakes per second*: each costs half a millisecond of CPU. Beyond the rate they wait, so that connections that
  stand keep most of the processor.
- *Connections per identity*: whoever has an identity can use up its own places and nobody else's.

Memory is the fifth: above 90 % of what the process may have, no new connection is let in until it is below again.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.net.port import Port, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.schema import Limits
    from sidecar.hop import Direction

DESCRIPTORS_PER_CONNECTION = 2  # a downstream and an upstream socket
SHARE = 0.9  # of descriptors, and of memory
PEER_SHARE = 0.5  # of all connections, that one identity may have at most
BURST_SECONDS = 1.0  # of handshakes, at once
SHORTEST_WAIT = 0.01  # seconds; time that rounds to nothing would be waited for without ever letting go


class Admission:
    """The books of one sidecar. `on_refused(direction, listener, why)` hears of each connection that is turned away."""

    def __init__(self, limits: Limits, *, descriptors: int, on_refused: Callable[[Direction, str, str], None]) -> None:
        self.short_of_memory = False
        self.refused = 0
        self.open: dict[Direction, int] = {"inbound": 0, "outbound": 0}
        self._on_refused = on_refused
        self._strangers: OrderedDict[Task, str] = OrderedDict()
        self._of_peer: dict[str, int] = {}
        self._tokens = limits.handshakes_per_second * BURST_SECONDS
        self._filled_at = 0.0
        self.adopt(limits, descriptors)

    def adopt(self, limits: Limits, descriptors: int) -> None:
        """From now on these limits hold; what is over them already may stay."""
        self.most = max(1, min(limits.connections, int(descriptors * SHARE / DESCRIPTORS_PER_CONNECTION)))
        self.most_of_a_peer = max(1, min(limits.connections_per_peer, int(self.most * PEER_SHARE)))
        self._most_strangers = min(limits.handshakes_open, self.most)
        self._rate = float(limits.handshakes_per_second)

    # ---- connections -----------------------------------------------------------------------------------------------

    def enter(self, direction: Direction, listener: str) -> bool:
        """Count a new connection in, or turn it away."""
        why = "memory" if self.short_of_memory else "connections" if sum(self.open.values()) >= self.most else ""
        if why:
            self._turn_away(direction, listener, why)
            return False
        self.open[direction] += 1
        return True

    def leave(self, direction: Direction) -> None:
        """Count a connection out."""
        self.open[direction] -= 1

    def enter_peer(self, peer: str, listener: str) -> bool:
        """Count a connection of this verified identity in, or turn it away."""
        count = self._of_peer.get(peer, 0)
        if count >= self.most_of_a_peer:
            self._turn_away("inbound", listener, "peer")
            return False
        self._of_peer[peer] = count + 1
        return True

    def leave_peer(self, peer: str) -> None:
        """Count a connection of this identity out."""
        count = self._of_peer[peer] - 1
        if count:
            self._of_peer[peer] = count
        else:
            del self._of_peer[peer]

    def _turn_away(self, direction: Direction, listener: str, why: str) -> None:
        self.refused += 1
        self._on_refused(direction, listener, why)

    # ---- strangers -------------------------------------------------------------------------------------------------

    def stranger(self, task: Task, listener: str) -> None:
        """Remember that this task serves a peer that has not proved who it is; the oldest may have to make room."""
        if len(self._strangers) >= self._most_strangers:
            oldest, its_listener = self._strangers.popitem(last=False)
            self._turn_away("inbound", its_listener, "half_open")
            oldest.cancel()
        self._strangers[task] = listener

    def known(self, task: Task) -> None:
        """The peer has proved who it is, or is gone."""
        self._strangers.pop(task, None)

    async def turn(self, port: Port) -> None:
        """Wait for this handshake's turn. The caller's deadline holds."""
        while True:
            self._fill(port.now)
            if self._tokens >= 1:
                self._tokens -= 1
                return
            await port.sleep(max((1 - self._tokens) / self._rate, SHORTEST_WAIT))

    def _fill(self, now: float) -> None:
        self._tokens = min(self._rate * BURST_SECONDS, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now


def memory_limit() -> int | None:
    """The bytes that this process may have by its control group (v2, then v1); None where there is no limit."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:  # v1 says "no limit" with a huge number
            return int(text)
    return None


def memory_used() -> int:
    """The bytes that this process has in memory."""
    import resource

    return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
