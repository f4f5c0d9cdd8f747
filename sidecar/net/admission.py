"""Who may come in: the books of open connections, and what happens when they are full (decision D25).

Four limits, each against another way of filling us up:

- *All connections* of the sidecar, from configuration and from the descriptors that the process may have. A new one
  over it is closed unread.
- *Strangers*: peers that have not proved who they are. They cost a descriptor and up to 5 s each. When there is no
  place for another, one of them makes room: first whoever has not even sent a whole ClientHello, because everybody who
  means it does so at once; then whoever has our answer and says nothing more, because a real handshake is over in
  milliseconds; among equals the one that has waited longest. So who comes again and again only pushes out its like.
- *Handshakes per second*: each costs a millisecond of CPU or two. Beyond the rate they wait in line
  (`sidecar.net.line`). Where many wait already, no more are accepted for a moment: they wait in the kernel. And all
  that is done for strangers gives way to what is done for connections that stand (`Port.give_way`), so these wait for
  one step of one handshake at most, however short of processor we are.
- *Connections per identity*: whoever has an identity can use up its own places and nobody else's.

Memory is the fifth: above 90 % of what the process may have, no new connection is let in until it is below again.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.net.line import Line
from sidecar.net.port import Port, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.config.schema import Limits
    from sidecar.hop import Direction

DESCRIPTORS_PER_CONNECTION = 2  # a downstream and an upstream socket
SHARE = 0.9  # of descriptors, and of memory
PEER_SHARE = 0.5  # of all connections, that one identity may have at most
BURST_SECONDS = 1.0  # of handshakes, at once
QUEUE_SECONDS = 0.25  # of handshakes that wait here rather than in the kernel


class Admission:
    """The books of one sidecar. `on_refused(direction, listener, why)` hears of each connection that is turned away."""

    def __init__(self, limits: Limits, *, descriptors: int, on_refused: Callable[[Direction, str, str], None]) -> None:
        self.short_of_memory = False
        self.refused = 0
        self.open: dict[Direction, int] = {"inbound": 0, "outbound": 0}
        self._on_refused = on_refused
        self._silent: dict[Task, str] = {}  # strangers, and what they came in by
        self._waiting: dict[Task, str] = {}  # those whose ClientHello is here, for their turn
        self._answered: dict[Task, str] = {}  # those whose turn has come
        self._of_peer: dict[str, int] = {}
        self._line = Line()
        self._next_turn = -math.inf  # monotonic: when it is the turn of the next handshake, whoever it is
        self.adopt(limits, descriptors)

    def adopt(self, limits: Limits, descriptors: int) -> None:
        """From now on these limits hold; what is over them already may stay."""
        self.most = max(1, min(limits.connections, int(descriptors * SHARE / DESCRIPTORS_PER_CONNECTION)))
        self.most_of_a_peer = max(1, min(limits.connections_per_peer, int(self.most * PEER_SHARE)))
        self._most_strangers = min(limits.handshakes_open, self.most)
        self._rate = float(limits.handshakes_per_second)
        # A share of all descriptors; where `limits.connections` is what limits, as much of that.
        self.most_streams = int(self.most * limits.streams * DESCRIPTORS_PER_CONNECTION / SHARE)

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
        """Remember that this task serves a peer that has not proved who it is; another one may have to make room."""
        if len(self._silent) + len(self._waiting) + len(self._answered) >= self._most_strangers:
            self._make_room()
        self._silent[task] = listener

    def _make_room(self) -> None:
        for stage in (self._silent, self._answered, self._waiting):
            if stage:
                oldest = next(iter(stage))
                self._turn_away("inbound", stage.pop(oldest), "half_open")
                oldest.cancel()
                return

    def known(self, task: Task) -> None:
        """The peer has proved who it is, or is gone."""
        for stage in (self._silent, self._answered, self._waiting):
            stage.pop(task, None)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    @property
    def crowded(self) -> bool:
        """Whether so many wait for their turn that no more should be accepted for a moment."""
        return len(self._waiting) >= max(1.0, self._rate * QUEUE_SECONDS)

    async def turn(self, port: Port, source: str = "") -> None:
        """Give way, and wait for this handshake's turn; its ClientHello is here. The caller's deadline holds.

        `source` is whom it shares its turns with: see `sidecar.net.line.origin`.
        """
        task = port.current
        assert task is not None
        listener = self._waiting[task] = self._silent.pop(task, "")
        try:
            await port.give_way()
            await self._line.wait(port, source)
            try:
                await self._token(port)
            finally:
                self._line.pass_on()
        finally:
            self._waiting.pop(task, None)
        self._answered[task] = listener

    async def _token(self, port: Port) -> None:
        """Wait until the rate permits one more."""
        at = max(self._next_turn, port.now - BURST_SECONDS + 1 / self._rate)
        self._next_turn = at + 1 / self._rate
        if at > port.now:
            await port.sleep(at - port.now)


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
