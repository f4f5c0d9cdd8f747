"""Of a connection that rules of the kernel have brought to us: where it was going, and whose it is.

Theory of operation. A REDIRECT rule writes our own port into a connection's packets, and connection tracking remembers
what stood there before: that is what SO_ORIGINAL_DST tells, of IPv4 at one level of socket options and of IPv6 at
another. Of a connection that nobody has redirected it tells the address that was really connected to, which is our
own, or nothing at all where nothing is tracked.

Whose an outgoing connection is tells sock_diag(7), the interface behind `ss`: asked for the one socket that has these
two addresses it answers with the user who made it. It says nothing of a socket that has gone meanwhile.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST of netfilter_ipv6/ip6_tables.h
SOL_IP: Final = 0
_INET: Final = struct.Struct("!2xH4s8x")  # sockaddr_in, without its family
_INET6: Final = struct.Struct("!2xH4x16s4x")  # sockaddr_in6
IpAddress = IPv4Address | IPv6Address


class Place(NamedTuple):
    """An address and a port; an IPv4 address in IPv6's clothes (RFC 4291 section 2.5.5.2) stands here as IPv4."""

    host: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"


def place(host: str, port: int) -> Place:
    """A place by its text. Raises ValueError for what is no IP address."""
    return Place(_plain(ip_address(host.partition("%")[0])), port)


def _plain(address: IpAddress) -> IpAddress:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def original_destination(sock: socket.socket) -> Place | None:
    """Where this accepted connection was going before it was redirected; None where the kernel does not know."""
    try:
        peer = _plain(ip_address(sock.getpeername()[0].partition("%")[0]))
        if peer.version == 4:
            port, packed = _INET.unpack(sock.getsockopt(SOL_IP, SO_ORIGINAL_DST, _INET.size))
        else:
            port, packed = _INET6.unpack(sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, _INET6.size))
    except (OSError, ValueError, struct.error):
        return None
    return Place(_plain(ip_address(packed)), port)


# ---- whose it is -----------------------------------------------------------------------------------------------------

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY: Final = 20  # linux/sock_diag.h
_NLM_F_REQUEST: Final = 1
_NO_COOKIE: Final = b"\xff" * 8
_ALL_STATES: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr
_REQUEST: Final = struct.Struct("=BBBBI")  # inet_diag_req_v2, up to its inet_diag_sockid
_UID_AT: Final = _HEADER.size + 4 + 48 + 12  # in inet_diag_msg: four bytes, the sockid, three times 32 bits
_ANSWER_BYTES: Final = 4096


class SocketOwners:
    """Asks the kernel whose sockets are. One netlink socket, made at the first question."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None

    def uid_of(self, local: Place, remote: Place) -> int | None:
        """The user whose TCP socket of this network namespace has these two ends; None where nobody can tell."""
        try:
            sock = self._sock
            if sock is None:
                kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                sock = self._sock = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
            sock.sendto(_question(local, remote), (0, 0))
            answer = sock.recv(_ANSWER_BYTES)  # the kernel has answered before `sendto` returns
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EAGAIN):
                self.close()
            return None
        if len(answer) < _UID_AT + 4 or _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
            return None  # an error message: there is no such socket
        (uid,) = struct.unpack_from("=I", answer, _UID_AT)
        return int(uid)

    def is_ours(self, local: Place, remote: Place) -> bool:
        """Whether a process of our own user made it, as far as anybody can tell."""
        return self.uid_of(local, remote) == os.geteuid()

    def close(self) -> None:
        """Close; the next question opens it again."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _question(local: Place, remote: Place) -> bytes:
    family = socket.AF_INET if remote.host.version == 4 else socket.AF_INET6
    ends = struct.pack("!HH", local.port, remote.port) + b"".join(
        each.host.packed.ljust(16, b"\0") for each in (local, remote)
    )
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + ends + b"\0" * 4 + _NO_COOKIE
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body
