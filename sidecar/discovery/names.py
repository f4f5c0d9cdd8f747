"""A DNS name to its addresses, and for how long they are good: the hosts file first, then this machine's resolvers.

`getaddrinfo` tells no TTL, so dnspython asks: with the search list and the servers of resolv.conf, by UDP, and by TCP
where an answer was cut off. A name that has addresses of both families stands for those of IPv4, and one that has none
of those for IPv6: with both, machines where one family leads nowhere would try it in vain, again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.resolver
import trio

from sidecar.discovery.answers import Found, NotFound

LOOK_UP_SECONDS: Final = 5.0  # for one look-up, all servers together
HOSTS: Final = Path("/etc/hosts")
HOSTS_TTL: Final = 5.0  # seconds after which the hosts file is looked at again
_KINDS: Final = ("A", "AAAA")


class Answer(NamedTuple):
    """Records of one kind. None is an answer too: there are none, and the resolvers are sure of it."""

    records: tuple[Any, ...]
    ttl: float  # seconds
    beside: Mapping[str, Found]  # addresses of other names, in lower case, that came with the answer


class SystemNames:
    """Looks names up as this machine does."""

    def __init__(self, resolver: dns.asyncresolver.Resolver | None = None, hosts: Path = HOSTS) -> None:
        self._resolver = resolver
        self._hosts = hosts
        self._hosts_seen: tuple[int, int] | None = None  # modification time and size of what we have read
        self._from_hosts: dict[str, tuple[str, ...]] = {}

    async def look_up(self, name: str) -> Found:
        """The addresses of a name. Raises NotFound."""
        known = self._in_hosts(name)
        if known:
            return Found(known, HOSTS_TTL)
        answers: dict[str, Found | Exception] = {}

        async def ask(kind: str) -> None:
            try:
                answers[kind] = await self._ask(name, kind)
            except (dns.exception.DNSException, OSError) as error:
                answers[kind] = error

        async with trio.open_nursery() as nursery:
            for kind in _KINDS:
                nursery.start_soon(ask, kind)
        found = [answer for kind in _KINDS if isinstance(answer := answers[kind], Found)]
        for answer in found:
            if answer.addresses:
                return answer
        if len(found) == len(_KINDS):
            return Found((), min(answer.ttl for answer in found))
        problem = next(answer for answer in answers.values() if isinstance(answer, Exception))
        raise NotFound(_short(problem)) from problem

    async def _ask(self, name: str, kind: str) -> Found:
        answer = await self._resolve(name, kind)
        return Found(tuple(sorted(record.address for record in answer.records)), answer.ttl)

    async def answer(self, name: str, kind: str) -> Answer:
        """The records of a name, and addresses of other names that came with them. Raises NotFound."""
        try:
            return await self._resolve(name, kind)
        except (dns.exception.DNSException, OSError) as error:
            raise NotFound(_short(error)) from error

    async def _resolve(self, name: str, kind: str) -> Answer:
        if self._resolver is None:
            self._resolver = dns.asyncresolver.Resolver()  # reads resolv.conf; raises where there is none
        try:
            answer = await self._resolver.resolve(name, kind, lifetime=LOOK_UP_SECONDS, search=True)
        except dns.resolver.NXDOMAIN as error:
            return Answer((), _negative_ttl(error.kwargs["responses"].values()), {})
        except dns.resolver.NoAnswer as error:
            return Answer((), _negative_ttl([error.kwargs["response"]]), {})
        assert answer.rrset is not None
        return Answer(tuple(answer.rrset), float(answer.rrset.ttl), _beside(answer.response.additional))

    def _in_hosts(self, name: str) -> tuple[str, ...]:
        try:
            stat = self._hosts.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._hosts_seen:
                self._from_hosts = read_hosts(self._hosts.read_text("utf-8", "replace").splitlines())
                self._hosts_seen = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            return ()
        return self._from_hosts.get(name.rstrip(".").lower(), ())


def read_hosts(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What a hosts file says (hosts(5)); lines that cannot be read are passed over, as the system's resolver does."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        try:
            text = str(ip_address(address.partition("%")[0]))
        except ValueError:
            continue
        for name in names:
            known = found.get(name.lower(), ())
            if text not in known:
                found[name.lower()] = (*known, text)
    return found


def _beside(additional: Iterable[Any]) -> dict[str, Found]:
    """Addresses of the additional section, by name: those of IPv4, or of IPv6 where there is none of those."""
    found: dict[str, Found] = {}
    for kind in reversed(_KINDS):
        for rrset in additional:
            if dns.rdatatype.to_text(rrset.rdtype) == kind and rrset:
                name = rrset.name.to_text(omit_final_dot=True).lower()
                found[name] = Found(tuple(sorted(each.address for each in rrset)), float(rrset.ttl))
    return found


def _negative_ttl(responses: Iterable[Any]) -> float:
    """How long it is good that there is nothing: the zone's own word (RFC 2308 section 5), 0 where it says none."""
    for response in responses:
        for rrset in response.authority:
            if rrset.rdtype == dns.rdatatype.SOA and rrset:
                return float(min(rrset.ttl, rrset[0].minimum))
    return 0.0


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
