"""SSL_read and SSL_write without the wrapping: pyOpenSSL's own calls, made the short way.

pyOpenSSL's `recv_into` allocates a buffer for each call and copies out of it, and `send` copies in; together 3 to 4 µs
of a request. Here OpenSSL reads into the reactor's shared buffer and writes from the bytes themselves. That takes three
private names of pyOpenSSL (`Connection._ssl`, `Connection._raise_ssl_error`, `_util.lib`), so a self-test at import
asks whether they still mean what we think; where they do not, the public calls do the same work more slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

Read = Callable[[SSL.Connection, "SharedBuffer", int], int]
ReadOn = Callable[[SSL.Connection, "SharedBuffer", int, int], int]
Write = Callable[[SSL.Connection, "bytes | memoryview"], int]


class SharedBuffer:
    """One buffer for all reads of a reactor: each reader copies out, or passes on, what it got before it waits."""

    __slots__ = ("address", "data", "view")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.view = memoryview(self.data)
        self.address: Any = _address(self.data)


def _public_read(connection: SSL.Connection, buffer: SharedBuffer, size: int) -> int:
    return connection.recv_into(buffer.view, size)


def _public_write(connection: SSL.Connection, data: bytes | memoryview) -> int:
    return connection.send(data)


def _no_more(connection: SSL.Connection, buffer: SharedBuffer, start: int, end: int) -> int:
    return 0


def _nothing(data: bytearray) -> None:
    return None


_address: Callable[[bytearray], Any] = _nothing
read: Read = _public_read  # as SSL.Connection.recv_into
read_on: ReadOn = _no_more  # into the buffer from `start` to `end`: 0 where nothing has come yet
write: Write = _public_write  # as SSL.Connection.send


def _short_way() -> tuple[Read, ReadOn, Write, Callable[[bytearray], Any]]:
    """The calls on OpenSSL itself. Raises whatever a pyOpenSSL that has changed makes it raise."""
    from OpenSSL._util import ffi, lib

    ssl_read, ssl_write, address = lib.SSL_read, lib.SSL_write, ffi.from_buffer

    def short_read(connection: Any, buffer: SharedBuffer, size: int) -> int:
        count: int = ssl_read(connection._ssl, buffer.address, size)
        if count <= 0:
            connection._raise_ssl_error(connection._ssl, count)
        return count

    def short_read_on(connection: Any, buffer: SharedBuffer, start: int, end: int) -> int:
        count: int = ssl_read(connection._ssl, buffer.address + start, end - start)
        if count <= 0:
            try:
                connection._raise_ssl_error(connection._ssl, count)
            except SSL.WantReadError:
                return 0
        return count

    def short_write(connection: Any, data: bytes | memoryview) -> int:
        count: int = ssl_write(connection._ssl, data if isinstance(data, bytes) else address(data), len(data))
        if count <= 0:
            connection._raise_ssl_error(connection._ssl, count)
        return count

    return short_read, short_read_on, short_write, address


def _works(read: Read, read_on: ReadOn, write: Write, address: Callable[[bytearray], Any]) -> bool:
    """Whether the short way acts as the public one on a connection that has just begun: it asks for the other side,
    and has its ClientHello ready.
    """
    buffer = SharedBuffer(64)
    buffer.address = address(buffer.data)
    calls: tuple[Callable[[SSL.Connection], int], ...] = (
        lambda c: read(c, buffer, 64), lambda c: write(c, b"x"), lambda c: write(c, memoryview(b"xy")),
    )  # fmt: skip
    for call in calls:
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        connection.set_connect_state()
        try:
            call(connection)
        except SSL.WantReadError:
            if connection.bio_read(1) != b"\x16":  # RFC 8446 section 5.1: a handshake record
                return False
        else:
            return False
    return True


def _choose() -> bool:
    global read, read_on, write, _address
    try:
        found = _short_way()
        good = _works(*found)
    except Exception:  # noqa: BLE001 - whatever is wrong with the short way, there is the public one
        good = False
    if good:
        read, read_on, write, _address = found
    return good


SHORT = _choose()  # whether the short way is taken
