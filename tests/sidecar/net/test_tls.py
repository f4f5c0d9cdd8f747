"""TLS on the socket: what a wire of the reactor adds to the contract, and what it tells apart."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from sidecar.net.contexts import make_context
from sidecar.net.port import WireBroken
from sidecar.net.reactor import Reactor
from sidecar.net.tls import AlertReceived, TlsBroken, TlsWire
from sidecar.net.wires import SocketWire
from tests.kit.drivers import ORDERS, ROOT, WEB, loopback_pair, on_reactor
from tests.kit.identities import a_root, an_issuer, an_svid

STRANGER = an_svid(an_issuer(a_root("demo.mesh", name="another")), "web")


def wires(reactor: Reactor, *, mine: Any = WEB, verify: str = "require") -> tuple[TlsWire, TlsWire]:
    left, right = loopback_pair()
    client_context = make_context(mine, [ROOT.certificate], server=False, verify="require")
    server_context = make_context(ORDERS, [ROOT.certificate], server=True, verify=verify)  # type: ignore[arg-type]
    return (
        TlsWire(SocketWire(reactor, left), client_context, server=False, server_name="orders"),
        TlsWire(SocketWire(reactor, right), server_context, server=True),
    )


async def shaken(reactor: Reactor) -> tuple[TlsWire, TlsWire]:
    client, server = wires(reactor)
    other = reactor.spawn(server.handshake())
    await client.handshake()
    await reactor.wait(other)
    return client, server


def test_both_sides_know_the_other_and_what_was_agreed() -> None:
    async def body(reactor: Reactor) -> None:
        client, server = await shaken(reactor)
        assert client.peer_chain()[0] == ORDERS.leaf
        assert server.peer_chain()[0] == WEB.leaf
        facts = client.facts(ORDERS.leaf)
        assert (facts.version, facts.group, facts.serial) == ("TLSv1.3", "X25519MLKEM768", ORDERS.serial)
        assert facts.not_after == ORDERS.not_after
        assert server.connection.get_servername() == b"orders"
        client.close()
        server.close()

    on_reactor(body)


def test_an_end_without_close_notify_is_no_end() -> None:
    async def body(reactor: Reactor) -> None:
        client, server = await shaken(reactor)
        await client.write(b"half of it")
        assert await server.read() == b"half of it"
        client.sock.shutdown(socket.SHUT_WR)  # FIN on the socket, and nothing from TLS
        with pytest.raises(WireBroken):
            await server.read()
        client.abort()
        server.close()

    on_reactor(body)


def test_a_plaintext_byte_in_a_tls_stream_breaks_it() -> None:
    async def body(reactor: Reactor) -> None:
        client, server = await shaken(reactor)
        client.sock.send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(TlsBroken):
            await server.read()
        client.abort()
        server.abort()

    on_reactor(body)


@pytest.mark.parametrize(("mine", "reason"), [(None, "no_certificate"), (STRANGER, "unknown_ca")])
def test_a_refused_client_reads_the_alert_in_place_of_the_first_byte(mine: Any, reason: str) -> None:
    async def body(reactor: Reactor) -> None:
        client, server = wires(reactor, mine=mine)

        async def refuse() -> None:
            with pytest.raises(TlsBroken):
                await server.handshake()
            server.sock.shutdown(socket.SHUT_WR)

        other = reactor.spawn(refuse())
        await client.handshake()  # in TLS 1.3 the client is done before it is judged
        with pytest.raises(AlertReceived) as alert:
            await client.read()
        assert alert.value.reason == reason
        await reactor.wait(other)
        client.close()
        server.close()

    on_reactor(body)


def test_records_of_any_size_arrive_whole() -> None:
    sizes = (1, 16383, 16384, 16385, 65535, 65536, 65537, 300_000)

    async def body(reactor: Reactor) -> None:
        client, server = await shaken(reactor)
        for size in sizes:
            writer = reactor.spawn(client.write(b"x" * size))
            found = 0
            while found < size:
                found += len(await server.read())
            await reactor.wait(writer)
            assert found == size
        assert (client.sent, server.received) == (sum(sizes), sum(sizes))
        client.close()
        server.close()

    on_reactor(body)


def test_the_plain_wire_gives_its_socket_away() -> None:
    async def body(reactor: Reactor) -> None:
        left, right = loopback_pair()
        plain = SocketWire(reactor, left)
        context = make_context(WEB, [ROOT.certificate], server=False, verify="require")
        secure = TlsWire(plain, context, server=False)
        with pytest.raises(WireBroken):
            await plain.write(b"in the clear")
        plain.close()
        assert secure.sock.fileno() >= 0
        secure.close()
        right.close()

    on_reactor(body)
