"""Keeps the addresses of upstreams up to date: a task for each name that a configuration has.

An answer is good for its TTL, but for a second at least and five minutes at most: a TTL of 0 must not make us ask all
the time, and one of a day not keep us with machines that are gone. Where no resolver can tell, the last answer stays,
and we ask again after 1, 2, 4 … 30 s. A name that has no addresses, and of which the resolvers are sure, is an upstream
without endpoints: what it stood for is gone. Before the first answer, connecting looks the name up by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

import trio

from sidecar.discovery.answers import Found, NotFound

if TYPE_CHECKING:
    from sidecar.config.terms import Address
    from sidecar.telemetry.log import Log

SHORTEST, LONGEST = 1.0, 300.0  # seconds that an answer is good
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds after a look-up that failed
MOST: Final = 256  # addresses of one name

LookUp = Callable[[str], Awaitable[Found]]


class Named(Protocol):
    """An upstream, as far as we are concerned."""

    name: str

    @property
    def names(self) -> tuple[Address, ...]:
        """Its declared endpoints that are DNS names."""
        ...

    def found(self, name: Address, addresses: tuple[str, ...]) -> None:
        """A name stands for these."""
        ...


class Follower:
    """Follows the names of whatever upstreams there are."""

    def __init__(self, look_up: LookUp, log: Log) -> None:
        self._look_up = look_up
        self._log = log
        self._following: dict[tuple[int, Address], trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self.failures = 0  # look-ups that failed, in all

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def look(self, upstreams: Iterable[Named]) -> None:
        """These are the upstreams now: names that are new are followed, those that are gone are not."""
        assert self._nursery is not None
        wanted = {(id(upstream), name): upstream for upstream in upstreams for name in upstream.names}
        for key in [key for key in self._following if key not in wanted]:
            self._following.pop(key).cancel()
        for key, upstream in wanted.items():
            if key not in self._following:
                scope = self._following[key] = trio.CancelScope()
                self._nursery.start_soon(self._follow, upstream, key[1], scope)

    async def _follow(self, upstream: Named, name: Address, scope: trio.CancelScope) -> None:
        wait, known = FIRST_WAIT, None
        with scope:
            while True:
                try:
                    found = await self._look_up(name.host)
                except NotFound as error:
                    self.failures += 1
                    self._log.warning(
                        "a name could not be looked up, what is known stands", upstream=upstream.name, name=name.host,
                        error=str(error),
                    )  # fmt: skip
                    await trio.sleep(wait)
                    wait = min(2.0 * wait, LONGEST_WAIT)
                    continue
                wait = FIRST_WAIT
                addresses = tuple(sorted(found.addresses)[:MOST])
                if addresses != known:
                    known = addresses
                    upstream.found(name, addresses)
                    shown = " ".join(addresses) or "none"
                    self._log.info("endpoints by DNS", upstream=upstream.name, name=name.host, addresses=shown)
                await trio.sleep(min(max(found.ttl, SHORTEST), LONGEST))


def look_up_as_we_do() -> LookUp:
    """Look-ups by this machine's own resolvers, whose library is loaded with the first of them."""
    names = None

    async def look_up(name: str) -> Found:
        nonlocal names
        if names is None:
            from sidecar.discovery.names import SystemNames

            names = SystemNames()
        return await names.look_up(name)

    return look_up
