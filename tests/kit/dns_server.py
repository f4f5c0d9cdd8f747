"""A DNS server on loopback, UDP and TCP, that says what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import trio

ZONE_SOA = "ns.test. admin.test. 1 3600 600 86400 7"


@dataclass
class DnsServer:
    """`records`: (name, kind) → addresses; a name without any does not exist."""

    port: int
    ttl: int = 30
    records: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    beside: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)  # in the additional section
    silent_for: set[str] = field(default_factory=set)  # names for which it answers SERVFAIL
    truncated: bool = False  # by UDP, whatever is asked
    broken: bool = False  # SERVFAIL to everything
    asked: list[tuple[str, str]] = field(default_factory=list)  # name and kind, in the order they came
    by_tcp: int = 0

    def resolver(self, *, search: tuple[str, ...] = ()) -> dns.asyncresolver.Resolver:
        """A resolver that asks us alone."""
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = self.port
        resolver.search = [dns.name.from_text(each) for each in search]
        resolver.use_search_by_default = True
        return resolver

    def answer(self, wire: bytes, *, tcp: bool) -> bytes:
        """What we say to a question."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        reply = dns.message.make_response(query)
        alias = self.records.get((name, "CNAME"))
        if self.broken or name in self.silent_for:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif self.truncated and not tcp:
            reply.flags |= dns.flags.TC
        elif found := self.records.get((name, kind)):
            reply.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", kind, found))
            for (other, other_kind), values in self.beside.items():
                reply.additional.append(dns.rrset.from_text_list(other + ".", self.ttl, "IN", other_kind, values))
        elif alias and (found := self.records.get((alias[0].rstrip("."), kind))):
            reply.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", "CNAME", alias))
            reply.answer.append(dns.rrset.from_text_list(alias[0], self.ttl, "IN", kind, found))
        else:
            if not any(known == name for known, _ in self.records):
                reply.set_rcode(dns.rcode.NXDOMAIN)
            reply.authority.append(dns.rrset.from_text("test.", 60, "IN", "SOA", ZONE_SOA))
        return reply.to_wire()


@asynccontextmanager
async def serving() -> AsyncIterator[DnsServer]:
    """A server, for as long as the block runs."""
    udp, listener = await _one_port()
    server = DnsServer(udp.getsockname()[1])

    async def by_udp() -> None:
        while True:
            wire, address = await udp.recvfrom(4096)
            await udp.sendto(server.answer(wire, tcp=False), address)

    async def by_tcp(stream: trio.SocketStream) -> None:
        head = await stream.receive_some(2)
        server.by_tcp += 1
        wire = await stream.receive_some(int.from_bytes(head, "big"))
        reply = server.answer(bytes(wire), tcp=True)
        await stream.send_all(len(reply).to_bytes(2, "big") + reply)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(by_udp)
        nursery.start_soon(trio.serve_listeners, by_tcp, [listener])
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()
            udp.close()


async def _one_port() -> tuple[trio.socket.SocketType, trio.SocketListener]:
    """The same port for both; somebody else may have one of them."""
    while True:
        udp = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        try:
            await udp.bind(("127.0.0.1", 0))
            (listener,) = await trio.open_tcp_listeners(udp.getsockname()[1], host="127.0.0.1")
        except OSError:
            udp.close()
        else:
            return udp, listener
