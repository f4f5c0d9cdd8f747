"""Listening sockets hand their options on to the connections that they accept."""

from __future__ import annotations

import socket

from sidecar.config.terms import Address
from sidecar.runtime.listening import bind


def test_the_kernel_asks_after_those_who_have_fallen_silent() -> None:
    with bind(Address("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [accepted.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [60, 20, 3]
