"""How each kind of source is followed. A way is a loop that tells a listing what there is, for as long as it runs.

An answer of the DNS is good for its TTL, but for a second at least and five minutes at most: a TTL of 0 must not make
us ask all the time, and one of a day not keep us with machines that are gone. Where no resolver can tell, the last
answer stays, and we ask again after 1, 2, 4 … 30 s. A name that has no addresses, and of which the resolvers are sure,
is an upstream without endpoints: what it stood for is gone. Before the first answer, connecting looks a declared name
up by itself.

What only some sidecars need (dnspython, TLS toward a cluster) is loaded with the first source that asks for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from sidecar.config.terms import Address
from sidecar.discovery.answers import Found, NotFound, Offered
from sidecar.discovery.sources import FromFile, FromKubernetes, FromName, FromSrv, Source
from sidecar.traffic.endpoints import Declared

if TYPE_CHECKING:
    from sidecar.discovery.listing import Listing
    from sidecar.discovery.names import SystemNames
    from sidecar.discovery.services import Services

SHORTEST, LONGEST = 1.0, 300.0  # seconds that an answer is good
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds after a look-up that failed
MOST: Final = 256  # addresses of one name

LookUp = Callable[[str], Awaitable[Found]]
Ask = Callable[[], Awaitable[Offered]]
Way = Callable[[], Awaitable[None]]


class Ways:
    """Makes the loops; keeps the resolver that they share."""

    def __init__(self, look_up: LookUp, names: SystemNames | None = None) -> None:
        self._look_up = look_up
        self._names = names

    def of(self, source: Source, listing: Listing) -> Way:
        """The loop for this source. A file is read at once, so that a reload that names it loses no request."""
        match source:
            case FromName(host):
                return partial(follow_answers, partial(self._addresses, host), listing)
            case FromSrv(name):
                return partial(follow_answers, self._services(name), listing)
            case FromFile(path):
                from sidecar.discovery.file_watch import FileWatch

                watch = FileWatch(path, listing)
                watch.begin()
                return watch.run
            case FromKubernetes():
                from sidecar.discovery.kubernetes import SliceWatch

                return SliceWatch(source, listing).run

    async def _addresses(self, host: str) -> Offered:
        found = await self._look_up(host)
        kept = sorted(found.addresses)[:MOST]
        return Offered(
            tuple(Declared(Address(each, 0)) for each in kept), found.ttl, max(0, len(found.addresses) - MOST)
        )

    def _services(self, name: str) -> Ask:
        services: Services | None = None

        async def ask() -> Offered:
            nonlocal services
            if services is None:
                from sidecar.discovery.names import SystemNames
                from sidecar.discovery.services import Services

                self._names = self._names or SystemNames()
                services = Services(self._names, name, MOST)
            return await services.look_up()

        return ask


async def follow_answers(ask: Ask, listing: Listing) -> None:
    """Ask, and again when the answer has had its time; for ever."""
    wait = FIRST_WAIT
    while True:
        try:
            found = await ask()
        except NotFound as error:
            listing.fail(str(error))
            await trio.sleep(wait)
            wait = min(2.0 * wait, LONGEST_WAIT)
            continue
        wait = FIRST_WAIT
        listing.say(found.declared, left_out=found.left_out, notes=found.notes)
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
