"""What comes before TLS on an inbound connection: a PROXY header, where the listener's load balancers send one; then
the wait for a ClientHello, or for what is none.

A header is looked at where it is, in the kernel, and exactly its bytes are taken away, so that TLS begins where it
always does. Who is on the list must send one and nobody else may: a listener that believed either without the other
would let callers choose their own address, or refuse to see whose it is.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Protocol

from sidecar.errors import IdentityRefused
from sidecar.http.proxy_header import BadProxyHeader, IpAddress, ProxyHeader, may_begin, parse
from sidecar.net.port import Expired, WireBroken

if TYPE_CHECKING:
    from sidecar.config.schema_inbound import ProxyProtocol
    from sidecar.net.mtls import Gate
    from sidecar.net.wires import SocketWire


class Fresh(Protocol):
    """A wire from which nothing has been read."""

    async def peek(self, least: int) -> bytes:
        """Wait for so many bytes and look at what is there; fewer where no more will come. Raises WireBroken."""
        ...

    def take(self, count: int) -> bytes:
        """Read bytes that `peek` has shown. Raises WireBroken."""
        ...


def is_sender(asked: ProxyProtocol, source: IpAddress | None) -> bool:
    """Whether this address is on the list of those who send PROXY headers."""
    if isinstance(source, IPv6Address) and source.ipv4_mapped is not None:
        source = source.ipv4_mapped
    return source is not None and any(source in network for network in asked.senders)


async def proxy_header(
    wire: Fresh, asked: ProxyProtocol, source: IpAddress | None, within: float
) -> ProxyHeader | None:
    """The PROXY header of a connection from this address; None where it has, rightly, none. Raises IdentityRefused.

    The deadline is the caller's; `within` is what words say of it, in seconds.
    """
    if is_sender(asked, source):
        return await _read(wire, within)
    await _refuse(wire, within)
    return None


async def _read(wire: Fresh, within: float) -> ProxyHeader:
    data = b""
    try:
        while True:
            found = parse(data)
            if isinstance(found, ProxyHeader):
                wire.take(found.size)
                return found
            data = await wire.peek(found)
            if len(data) < found:
                raise IdentityRefused("proxy_header", "the load balancer ended within its PROXY header")
    except BadProxyHeader as error:
        raise IdentityRefused("proxy_header", f"bad PROXY header: {error}") from None
    except Expired:
        raise IdentityRefused("handshake_timeout", f"no whole PROXY header within {within:g} s") from None
    except WireBroken:
        raise IdentityRefused("reset", "the load balancer left before the end of its PROXY header") from None


async def _refuse(wire: Fresh, within: float) -> None:
    """Raise IdentityRefused for a PROXY header from somebody who is not on the list."""
    data = b""
    try:
        while (begins := may_begin(data)) is None:
            least = len(data) + 1
            data = await wire.peek(least)
            if len(data) < least:
                return  # it has ended: the handshake finds the words
    except Expired:
        raise IdentityRefused("handshake_timeout", f"no handshake within {within:g} s") from None
    except WireBroken:
        raise IdentityRefused("reset", "the peer left before its ClientHello") from None
    if begins:
        raise IdentityRefused("proxy_sender", "a PROXY header from an address that proxy_protocol.from does not name")


async def speaks_tls(gate: Gate, wire: SocketWire, within: float) -> bool:
    """Whether a caller begins with a TLS handshake. Raises IdentityRefused where it does not begin at all."""
    try:
        return await gate.speaks_tls(wire)
    except Expired:
        raise IdentityRefused("handshake_timeout", f"no byte within {within:g} s") from None
    except WireBroken:
        raise IdentityRefused("reset", "the peer left before its first byte") from None


async def client_hello(wire: SocketWire, within: float) -> None:
    """Wait for the beginning of a handshake. Raises IdentityRefused where none comes in time."""
    try:
        await wire.first_record()
    except Expired:
        raise IdentityRefused("handshake_timeout", f"no handshake within {within:g} s") from None
    except WireBroken:
        raise IdentityRefused("reset", "the peer left before its ClientHello") from None


_ip_address = lru_cache(maxsize=1024)(ip_address)  # who connects comes back


def address_of(place: tuple[str, int]) -> tuple[IpAddress | None, int]:
    """An address of the kernel's as a value; None where it is no IP address (a Unix socket)."""
    host, port = place
    return (_ip_address(host) if host else None), port
