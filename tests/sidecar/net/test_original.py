"""Where a captured connection was going, in each of the ways in which kernels say it; and whose a socket is."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address

import pytest

from sidecar.net.original import Place, SocketOwners, original_destination, place

SOL_IP, SOL_IPV6, ASKED = 0, 41, 80


def sockaddr(host: str, port: int) -> bytes:
    """What getsockopt gives: sockaddr_in or sockaddr_in6."""
    address = ip_address(host)
    if address.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + address.packed + bytes(8)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 7) + address.packed + bytes(4)


class Accepted:
    """A socket that was accepted from this peer, with what the kernel remembers of it at each level."""

    def __init__(self, peer: str, known: dict[int, bytes]) -> None:
        self._peer, self._known = peer, known

    def getpeername(self) -> tuple[str, int]:
        return self._peer, 50000

    def getsockopt(self, level: int, name: int, size: int) -> bytes:
        assert name == ASKED
        if level not in self._known:
            raise OSError(92, "Protocol not available")
        return self._known[level][:size]


@pytest.mark.parametrize(
    ("peer", "known", "found"),
    [
        ("10.77.0.1", {SOL_IP: sockaddr("10.77.0.2", 8080)}, "10.77.0.2:8080"),
        ("fd77::1", {SOL_IPV6: sockaddr("fd77::2", 8080)}, "[fd77::2]:8080"),
        ("fe80::1%eth0", {SOL_IPV6: sockaddr("fd77::2", 8080)}, "[fd77::2]:8080"),
        # A socket of IPv6 that has accepted IPv4: the connection is tracked as what it is.
        ("::ffff:10.77.0.1", {SOL_IP: sockaddr("10.77.0.2", 443)}, "10.77.0.2:443"),
        ("fd77::1", {SOL_IPV6: sockaddr("::ffff:10.77.0.2", 80)}, "10.77.0.2:80"),
        ("10.77.0.1", {SOL_IPV6: sockaddr("fd77::2", 8080)}, None),
        ("10.77.0.1", {}, None),
        ("10.77.0.1", {SOL_IP: b"\x02\x00"}, None),
        ("", {SOL_IP: sockaddr("10.77.0.2", 8080)}, None),
    ],
)
def test_what_the_kernel_remembers(peer: str, known: dict[int, bytes], found: str | None) -> None:
    asked = original_destination(Accepted(peer, known))  # type: ignore[arg-type]
    assert (str(asked) if asked is not None else None) == found


def test_a_connection_that_nobody_has_redirected() -> None:
    """Where connections are tracked it is told with its own address, else not at all."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        accepted, _ = server.accept()
        with accepted:
            assert original_destination(accepted) in (None, place(*server.getsockname()))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_whose_a_socket_is(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    owners = SocketOwners()
    with socket.create_server((host, 0), family=family) as server:
        there = place(host, server.getsockname()[1])
        with socket.create_connection((host, there.port)) as near:
            here = place(host, near.getsockname()[1])
            assert owners.uid_of(here, there) == os.geteuid()
            assert owners.is_ours(here, there)
            assert owners.uid_of(Place(here.host, here.port), Place(here.host, 1)) is None
    owners.close()
    assert owners.uid_of(place(host, 1), place(host, 2)) is None, "it opens again, and knows of no such socket"
    assert not owners.is_ours(place(host, 1), place(host, 2))
    owners.close()


def test_a_socket_of_ipv6_that_speaks_ipv4_is_found_too() -> None:
    owners = SocketOwners()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as near:
        near.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        here, there = place(*near.getsockname()[:2]), place(*server.getsockname())
        assert here.host.version == 4
        assert owners.is_ours(here, there)
    owners.close()
