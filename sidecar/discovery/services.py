"""SRV records (RFC 2782) to endpoints.

Only the targets of the lowest priority are used, and those of the next one where none of the former has an address.
Nobody moves on because endpoints of the lowest are *unhealthy*: what a sidecar finds to be bad it avoids by itself, and
a reserve that is to be used then is better declared as such than as a side effect of DNS.

A weight is the target's, for all of its addresses together. 0 becomes 1 beside others ("a very small chance"), and all
are alike where all are 0. A single target "." says that the service is not offered there, which is an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import gcd, lcm
from typing import Final, NamedTuple

import trio

from sidecar.config.addresses import read_host
from sidecar.config.plain import BadValue
from sidecar.config.terms import Address
from sidecar.discovery.answers import Found, NotFound, Offered
from sidecar.discovery.names import SystemNames
from sidecar.traffic.endpoints import Declared

AT_ONCE: Final = 16  # look-ups of targets
AGAIN_SECONDS: Final = 5.0  # after which a target that nobody could tell of is looked up again
MOST_NOTES: Final = 5
_LARGEST: Final = 5040  # by which weights are multiplied at most; beyond it they are shared out by whole numbers


class Srv(NamedTuple):
    """One record."""

    priority: int
    weight: int
    target: str  # lower-case, without the final dot; empty for "."
    port: int


class Services:
    """The endpoints of one name with SRV records, at most so many."""

    def __init__(self, names: SystemNames, name: str, most: int) -> None:
        self._names = names
        self._name = name
        self._most = most
        self._known: dict[str, Found] = {}  # the last addresses of each target, for when nobody can tell

    async def look_up(self) -> Offered:
        """What they are now. Raises NotFound."""
        answer = await self._names.answer(self._name, "SRV")
        records = {
            Srv(each.priority, each.weight, each.target.to_text(omit_final_dot=True).lower(), each.port)
            for each in answer.records
        }
        good, notes = usable(records)
        ttl, left_out = answer.ttl, 0
        for priority in sorted({each.priority for each in good}):
            among = sorted(each for each in good if each.priority == priority)
            left_out += max(0, len(among) - self._most)
            found, problems = await self._addresses({each.target for each in among[: self._most]}, answer.beside)
            ttl, notes = min([ttl, *(each.ttl for each in found.values())]), (*notes, *problems)
            declared = weighed(among[: self._most], {target: each.addresses for target, each in found.items()})
            if declared:
                left_out += max(0, len(declared) - self._most)
                return Offered(declared[: self._most], ttl, left_out, notes)
            if problems:
                raise NotFound("; ".join(problems))
            notes = (*notes, f"none of the targets of priority {priority} has an address")
        return Offered((), ttl, left_out, notes)

    async def _addresses(
        self, targets: set[str], beside: Mapping[str, Found]
    ) -> tuple[dict[str, Found], tuple[str, ...]]:
        """The addresses of targets: those that came with the answer, or looked up. One that nobody can tell of now
        keeps the addresses that it had; the second value says so.
        """
        found = {target: beside[target] for target in targets if target in beside}
        problems: list[str] = []
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def ask(target: str) -> None:
            async with limiter:
                try:
                    found[target] = await self._names.look_up(f"{target}.")
                except NotFound as error:
                    found[target] = Found(self._known[target].addresses if target in self._known else (), AGAIN_SECONDS)
                    problems.append(f"{target} could not be looked up: {error}")

        async with trio.open_nursery() as nursery:
            for target in targets - found.keys():
                nursery.start_soon(ask, target)
        self._known = dict(found)
        return found, tuple(sorted(problems)[:MOST_NOTES])


def usable(records: Iterable[Srv]) -> tuple[list[Srv], tuple[str, ...]]:
    """Those that can lead anywhere, and what is odd about the others."""
    good, odd = [], []
    for each in sorted(records):
        if not each.target or each.target == ".":
            continue  # not offered (RFC 2782)
        try:
            read_host(each.target)
        except BadValue:
            odd.append(f"a target that is no name: {each.target[:80]!r}")
            continue
        if each.port:
            good.append(each)
        else:
            odd.append(f"{each.target} with port 0")
    return good, tuple(odd[:MOST_NOTES])


def weighed(records: Sequence[Srv], addresses: Mapping[str, Sequence[str]]) -> tuple[Declared, ...]:
    """Endpoints with whole weights: a target's is shared among its addresses."""
    there = [(each, addresses.get(each.target, ())) for each in records]
    there = [(each, found) for each, found in there if found]
    factor = min(lcm(1, *(len(found) for _, found in there)), _LARGEST)
    weights = [max(1, max(each.weight, 1) * factor // len(found)) for each, found in there]
    common = gcd(*weights) or 1
    made = [
        Declared(Address(address, each.port), weight // common)
        for (each, found), weight in zip(there, weights, strict=True)
        for address in found
    ]
    return tuple({each.address: each for each in reversed(made)}.values())[::-1]
