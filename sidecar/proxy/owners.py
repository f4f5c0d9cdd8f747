"""Whom an address means: the upstream that holds it, found by nothing else (decision D11).

An upstream holds its endpoints, wherever they were learned from, and what its `addresses` say, by name or by number.
Neither Host nor SNI has a say: both are the caller's, and with them it would choose whose identity is asked for. Where
two upstreams hold one address, nobody is meant.

The index is made anew when any of the lists that it was made of is another: each upstream replaces its own whole, so a
look at which object it is tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.errors import AmbiguousUpstream, UndeclaredUpstream
from sidecar.net.original import Place, place
from sidecar.policy.declare import raw_declaration

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from sidecar.config.destinations import Destination
    from sidecar.config.terms import Address
    from sidecar.proxy.upstream import Upstream
    from sidecar.traffic.endpoints import Declared


class Called:
    """Where the application connects to when it means an upstream, besides its endpoints: `addresses`.

    Discovery keeps the names among them up to date, as it does for endpoints (`sidecar.discovery.follow.Named`).
    """

    sources: tuple[Hashable, ...] = ()
    loops: tuple[Address, ...] = ()

    def __init__(self, name: str, addresses: Sequence[Address]) -> None:
        self.name = name
        self.why_none = ""
        self.names = tuple(each for each in addresses if each.named)
        self._found: dict[Address, tuple[str, ...]] = {each: (each.host,) for each in addresses if not each.named}
        self.places: tuple[Place, ...] = ()
        self._settle()

    def found(self, name: Address, addresses: tuple[str, ...]) -> None:
        """A name stands for these from now on."""
        self._found[name] = addresses
        self._settle()

    def listed(self, source: Hashable, declared: Sequence[Declared]) -> None:
        """Nobody is asked but the DNS."""
        raise AssertionError(source)

    def _settle(self) -> None:
        self.places = tuple(dict.fromkeys(
            each for address, hosts in self._found.items() for host in hosts for each in _place(host, address.port)
        ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """An upstream with all by which captured connections can mean it."""

    upstream: Upstream
    called: Called

    def lists(self) -> tuple[object, object]:
        """The lists as they are now; other objects once they have changed."""
        return self.upstream.places, self.called.places

    def places(self) -> Iterator[Place]:
        """Every address that it holds now."""
        for endpoint in self.upstream.places:
            yield from _place(endpoint.address.host, endpoint.address.port)
        yield from self.called.places


class Owners:
    """All upstreams of one configuration by the addresses that they hold, and where plaintext may go besides."""

    def __init__(self, held: Sequence[Held] = (), passthrough: Sequence[Destination] = ()) -> None:
        self._held = held
        self._passthrough = passthrough
        self._seen: list[tuple[object, object]] = []
        self._index: Mapping[Place, tuple[Upstream, ...]] = {}

    def of(self, asked: Place) -> Upstream | None:
        """The upstream that is meant; None for an address that nobody holds. Raises AmbiguousUpstream."""
        now = [each.lists() for each in self._held]
        if len(now) != len(self._seen) or any(
            a[0] is not b[0] or a[1] is not b[1] for a, b in zip(now, self._seen, strict=True)
        ):
            self._seen, self._index = now, self._made()
        found = self._index.get(asked, ())
        if len(found) > 1:
            names = " and ".join(each.name for each in found)
            raise AmbiguousUpstream(f"{asked} is an address of {names}, and nothing else says which of them is meant")
        return found[0] if found else None

    def _made(self) -> Mapping[Place, tuple[Upstream, ...]]:
        index: dict[Place, tuple[Upstream, ...]] = {}
        for each in self._held:
            for held in each.places():
                before = index.get(held, ())
                if each.upstream not in before:
                    index[held] = (*before, each.upstream)
        return index

    def lets_pass(self, asked: Place) -> Destination | None:
        """The `passthrough` that this address is of, although no upstream holds it; None for none."""
        return next((each for each in self._passthrough if each.holds(asked.host, asked.port)), None)

    def check_passthrough(self, asked: Place) -> Destination:
        """The same. Raises UndeclaredUpstream where plaintext may not go there, and AmbiguousUpstream."""
        upstream = self.of(asked)
        if upstream is not None:
            raise UndeclaredUpstream(f"{asked} is an address of the upstream {upstream.name} now")
        found = self.lets_pass(asked)
        if found is None:
            raise undeclared(asked)
        return found


def undeclared(asked: Place) -> UndeclaredUpstream:
    """Why a connection to an address that nobody holds is refused, with what would allow it."""
    hint = raw_declaration(str(asked.host), asked.port)
    return UndeclaredUpstream(f"no upstream holds {asked}, and redirect.passthrough does not let it pass", hint)


def _place(host: str, port: int) -> Iterator[Place]:
    """A host as a place; nothing for a name that is not known yet, or a Unix socket."""
    try:
        yield place(host, port)
    except ValueError:
        pass
