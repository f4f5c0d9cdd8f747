"""Listening sockets: opened all or none, with an error that says what to do."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from certs.errors import MeshError
from sidecar.net.wires import UNSENT_BYTES, keep_alive

if TYPE_CHECKING:
    from sidecar.config.terms import Address, SocketMode

BACKLOG = 1024
MODES: Final[Mapping[SocketMode, int]] = {"owner": 0o600, "group": 0o660}


class CannotListen(MeshError):
    """A listener's address cannot be had: taken, not ours, or not permitted."""

    name = "cannot_listen"


def bind_all(
    addresses: Iterable[Address], ours: Iterable[Address] = (), modes: Mapping[Address, SocketMode] | None = None
) -> dict[Address, socket.socket]:
    """A listening socket for each, or for none. Raises CannotListen; `ours` are addresses that we listen on already.

    `modes` are those of all Unix sockets, old and new, to be set once every address is ours.
    """
    bound: dict[Address, socket.socket] = {}
    try:
        for address in addresses:
            bound[address] = bind(address, ours)
        for address, mode in (modes or {}).items():
            allow(address, mode)
    except BaseException:
        for address, sock in bound.items():
            sock.close()
            if address.unix:
                Path(address.path).unlink(missing_ok=True)
        raise
    return bound


def bind(address: Address, ours: Iterable[Address] = (), *, one_family: bool = False) -> socket.socket:
    """A listening socket; on `::` for IPv4 too, unless it is to be of one family. Raises CannotListen, saying what to
    do.
    """
    if address.unix:
        return bind_unix(address)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, one_family)
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


def bind_unix(address: Address) -> socket.socket:
    """A listening Unix socket that only our own user may use, until `allow` says otherwise. Raises CannotListen.

    What a sidecar has left there that was killed is replaced, if nobody listens on it; nothing else is.
    """
    path = Path(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        os.fchmod(sock.fileno(), MODES["owner"])  # unix(7), Linux: the file is born with the mode of its socket
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except CannotListen:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        hint = "; make its folder first" if isinstance(error, FileNotFoundError) else ""
        raise CannotListen(f"cannot listen on {address}: {error.strerror or error}{hint}") from None
    return sock


def allow(address: Address, mode: SocketMode) -> None:
    """Give the file of our Unix socket this mode. Raises CannotListen."""
    try:
        Path(address.path).chmod(MODES[mode])
    except OSError as error:
        raise CannotListen(f"cannot set the mode of {address}: {error.strerror or error}") from None


def _clear(path: Path) -> None:
    """Take away a socket on which nobody listens. Raises CannotListen for whatever else stands there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise CannotListen(f"cannot listen on unix:{path}: it is there, and is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its queue is full, so somebody has one
    raise CannotListen(f"cannot listen on unix:{path}: somebody listens there already")
