"""Who is next: one at a time, each source address in its turn, and within one address first come, first served.

Before a handshake nobody can be told apart but by where they come from. So an address that sends very many has a long
wait for its own, and everybody else's wait for two of its at most: the one whose turn it is, and one more.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from sidecar.net.port import Port, Signal

if TYPE_CHECKING:
    from ipaddress import IPv4Address

IPV6_PREFIX = 64  # bits that one host or one network has (RFC 4291 section 2.5.1): it may use any address in it


@lru_cache(maxsize=1024)
def origin(source: IPv4Address | IPv6Address | None) -> str:
    """What counts as one source: an IPv4 address, or the network of an IPv6 one."""
    if isinstance(source, IPv6Address):
        if source.ipv4_mapped is not None:
            return str(source.ipv4_mapped)
        return str(IPv6Network((source, IPV6_PREFIX), strict=False))
    return str(source) if source is not None else ""


class Line:
    """Those who wait to be the one whose turn it is. Whoever was, says so with `pass_on`."""

    def __init__(self) -> None:
        self._taken = False
        self._of: dict[str, dict[Signal, None]] = {}  # in the order of their turns; none is empty

    async def wait(self, port: Port, source: str) -> None:
        """Wait until it is the current task's turn. Where this raises, the turn is not taken."""
        if not self._taken:
            self._taken = True
            return
        mine = Signal()
        self._of.setdefault(source, {})[mine] = None
        try:
            await port.wait(mine)
        except BaseException:
            if mine.happened:
                self.pass_on()
            else:
                self._leave(source, mine)
            raise

    def pass_on(self) -> None:
        """The turn is over: it is that of the next address, if there is one."""
        source = next(iter(self._of), None)
        if source is None:
            self._taken = False
            return
        waiting = self._of.pop(source)
        first = next(iter(waiting))
        del waiting[first]
        if waiting:
            self._of[source] = waiting  # at the end: its next turn comes after one of everybody else's
        first.fire()

    def _leave(self, source: str, mine: Signal) -> None:
        waiting = self._of[source]
        del waiting[mine]
        if not waiting:
            del self._of[source]
