"""Listening sockets: opened all or none, with an error that says what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from certs.errors import MeshError
from sidecar.net.wires import UNSENT_BYTES, keep_alive

if TYPE_CHECKING:
    from sidecar.config.schema import Address

BACKLOG = 1024


class CannotListen(MeshError):
    """A listener's address cannot be had: taken, not ours, or not permitted."""

    name = "cannot_listen"


def bind_all(addresses: Iterable[Address], ours: Iterable[Address] = ()) -> dict[Address, socket.socket]:
    """A listening socket for each, or for none. Raises CannotListen; `ours` are addresses that we listen on already."""
    bound: dict[Address, socket.socket] = {}
    try:
        for address in addresses:
            bound[address] = bind(address, ours)
    except BaseException:
        for sock in bound.values():
            sock.close()
        raise
    return bound


def bind(address: Address, ours: Iterable[Address] = ()) -> socket.socket:
    """A listening socket. Raises CannotListen, saying what to do."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)  # accepted sockets inherit it,
        keep_alive(sock)  # and this
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        clash = next((str(own) for own in ours if own.port == address.port), "")
        hint = f", by this very sidecar on {clash}; to move a port to another address, restart it" if clash else ""
        raise CannotListen(f"cannot listen on {address}: {error.strerror or error}{hint}") from None
    return sock
