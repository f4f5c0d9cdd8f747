"""TlsStream keeps trio's stream contract, and says in words what TLS found wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import check_two_way_stream, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from certs.svid import X509Svid
from sidecar.net.contexts import make_context
from sidecar.net.tls_errors import TlsError
from sidecar.net.tls_stream import TlsStream
from tests.kit.identities import DAY, NOW, a_root, an_issuer, an_svid
from tests.kit.trio_time import in_trio, in_virtual_time

ROOT = a_root()
ISSUER = an_issuer(ROOT)
WEB, ORDERS = an_svid(ISSUER, "web"), an_svid(ISSUER, "orders")
TRUST = [ROOT.certificate]


def over(left: trio.abc.Stream, right: trio.abc.Stream, mine: X509Svid | None = WEB) -> tuple[TlsStream, TlsStream]:
    client = TlsStream(left, make_context(mine, TRUST, server=False, verify="require"), server=False)
    server = TlsStream(right, make_context(ORDERS, TRUST, server=True, verify="require"), server=True)
    return client, server


async def established() -> tuple[TlsStream, TlsStream]:
    client, server = over(*memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    return client, server


async def established_in_lockstep() -> tuple[TlsStream, TlsStream]:
    client, server = over(*lockstep_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(client.receive_some, 1))  # somebody must take the server's session tickets
        await server.do_handshake()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return client, server


@in_virtual_time
async def test_it_keeps_the_contract_of_trio_streams() -> None:
    await check_two_way_stream(established, established_in_lockstep)


@in_trio
async def test_both_sides_know_the_other_and_what_was_agreed() -> None:
    client, server = await established()
    assert client.peer_chain() == ORDERS.chain
    assert server.peer_chain() == WEB.chain
    facts = client.facts()
    assert (facts.version, facts.group, facts.alpn) == ("TLSv1.3", "X25519MLKEM768", b"")
    assert facts.cipher.startswith("TLS_")


@in_trio
async def test_a_handshake_happens_by_itself_and_once() -> None:
    client, server = over(*memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"hello")
        assert await server.receive_some(10) == b"hello"
    await client.do_handshake()


@in_trio
async def test_much_data_both_ways_at_once_over_sockets() -> None:
    left, right = trio.socket.socketpair()
    client, server = over(trio.SocketStream(left), trio.SocketStream(right))
    payload = bytes(range(256)) * 16 * 1024
    received: dict[str, bytes] = {}

    async def drain(name: str, stream: TlsStream) -> None:
        pieces = b""
        while len(pieces) < len(payload):
            pieces += await stream.receive_some()
        received[name] = pieces

    async with trio.open_nursery() as nursery:
        for name, stream in (("client", client), ("server", server)):
            nursery.start_soon(stream.send_all, payload)
            nursery.start_soon(drain, name, stream)
    assert received == {"client": payload, "server": payload}
    await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


@in_trio
async def test_the_end_of_data_is_close_notify() -> None:
    client, server = await established()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        assert await server.receive_some() == b""


@in_trio
async def test_a_cut_wire_is_no_end_of_data() -> None:
    client, server = await established()
    await client.send_all(b"half")
    await client.transport.aclose()
    assert await server.receive_some() == b"half"
    with pytest.raises(TlsError) as caught:
        await server.receive_some()
    assert caught.value.reason == "truncated"
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()


@in_trio
async def test_garbage_in_the_middle_breaks_the_connection() -> None:
    client, server = await established()
    await client.transport.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TlsError):
        await server.receive_some()
    with pytest.raises(TlsError) as caught:
        await client.receive_some()
    assert caught.value.alert == "bad record mac"


async def first_failure(client: Any, server: TlsStream) -> tuple[TlsError | None, TlsError | None]:
    """Handshake and one byte each way; the error of client and server."""
    errors: dict[str, TlsError] = {}

    async def side(name: str, stream: TlsStream) -> None:
        try:
            await stream.do_handshake()
            await stream.receive_some(1)
        except TlsError as error:
            errors[name] = error
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(side, "client", client)
        nursery.start_soon(side, "server", server)
    return errors.get("client"), errors.get("server")


@in_trio
async def test_a_client_without_a_certificate_hears_what_is_missing() -> None:
    mine, theirs = await first_failure(*over(*memory_stream_pair(), mine=None))
    assert mine is not None
    assert theirs is not None
    assert (mine.reason, mine.alert) == ("no_certificate", "certificate required")
    assert theirs.reason == "no_certificate"


@in_trio
async def test_an_expired_client_hears_of_its_clock() -> None:
    old = an_svid(ISSUER, "web", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    mine, theirs = await first_failure(*over(*memory_stream_pair(), mine=old))
    assert mine is not None
    assert theirs is not None
    assert mine.alert == "certificate expired"
    assert "clock" in str(mine)
    assert "clock" in str(theirs)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", bytes(range(8)), b"SSH-2.0-x\r\n"])
def test_plaintext_is_named(said: bytes) -> None:
    @in_trio
    async def story() -> None:
        left, right = memory_stream_pair()
        _, server = over(left, right)
        await left.send_all(said)
        with pytest.raises(TlsError) as caught:
            await server.do_handshake()
        assert caught.value.reason == "plaintext"

    story()


@in_trio
async def test_a_peer_that_leaves_in_the_handshake_is_named() -> None:
    left, right = memory_stream_pair()
    _, server = over(left, right)
    await left.aclose()
    with pytest.raises(TlsError) as caught:
        await server.do_handshake()
    assert caught.value.reason == "truncated"


@in_trio
async def test_a_cancelled_handshake_can_be_taken_up_again() -> None:
    client, server = over(*memory_stream_pair())
    with trio.move_on_after(0.01) as scope:
        await client.do_handshake()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)


@in_trio
async def test_a_send_cancelled_in_a_record_breaks_the_stream() -> None:
    client, _ = await established_in_lockstep()
    with trio.move_on_after(0.01) as scope:
        await client.send_all(b"x" * 100)
    assert scope.cancelled_caught
    with pytest.raises(TlsError) as caught:
        await client.send_all(b"y")
    assert caught.value.reason == "cancelled"


@in_virtual_time
async def test_closing_does_not_wait_for_ever_for_a_peer_that_does_not_read() -> None:
    client, _ = await established_in_lockstep()
    started = trio.current_time()
    await client.aclose()
    assert trio.current_time() - started == pytest.approx(2.0)
    with pytest.raises(trio.ClosedResourceError):
        await client.send_all(b"x")
    await client.aclose()
