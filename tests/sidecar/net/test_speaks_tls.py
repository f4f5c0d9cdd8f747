"""A caller's first byte tells TLS from plaintext, on both drivers, and it is still there afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from certs.bundle import BundleSet
from certs.source import Source
from certs.svid import X509Svid
from sidecar.net.memory_gate import MemoryGate
from sidecar.net.mtls import Gate, MtlsGate
from sidecar.net.port import Expired, WireBroken
from tests.kit.drivers import Pair, in_memory, on_sockets
from tests.kit.hops import ORDERS, WEB

HELLO = b"\x16\x03\x01\x00\x20" + bytes(32)
BOTH = [in_memory, on_sockets]


def gate(port: Any) -> Gate:
    """The gate of this driver; to look at a first byte it needs no identity."""
    if hasattr(port, "pair"):
        return MemoryGate(ORDERS, not_after=port.wall() + 1000.0)
    svids: Source[X509Svid] = Source("SVID")
    bundles: Source[BundleSet] = Source("bundle")
    return MtlsGate(svids, bundles)


@pytest.mark.parametrize("run", BOTH)
@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\n", b"\x00", b"\x15\x03\x01", b"\x80\x2e\x01"])
def test_plaintext_is_told_by_its_first_byte_which_stays_unread(run: Callable[..., Any], data: bytes) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        asked = port.spawn(verdict(port, server))
        await port.sleep(0.01)
        assert not asked.happened
        await client.write(data)
        await port.wait(asked)
        assert found == [False]
        assert server.received == 0
        assert (await server.read())[: len(data)] == data

    found: list[bool] = []

    async def verdict(port: Any, server: Any) -> None:
        found.append(await gate(port).speaks_tls(server))

    run(scenario)


def test_a_handshake_is_told_by_the_first_byte_of_its_record() -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        for size in (1, len(HELLO)):
            await client.write(HELLO[:size])
            assert await gate(port).speaks_tls(server)
        assert server.received == 0

    on_sockets(scenario)


def test_in_memory_a_handshake_is_a_greeting() -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        MemoryGate(WEB, not_after=port.wall() + 1000.0)._greet(client)  # type: ignore[arg-type]
        assert await gate(port).speaks_tls(server)

    in_memory(scenario)


@pytest.mark.parametrize("run", BOTH)
def test_who_leaves_without_a_byte_is_left_to_the_gate(run: Callable[..., Any]) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        await client.finish()
        assert await gate(port).speaks_tls(server)
        server, client = await pair()
        client.abort()
        with pytest.raises(WireBroken):
            await gate(port).speaks_tls(server)

    run(scenario)


@pytest.mark.parametrize("run", BOTH)
def test_a_byte_before_the_end_is_plaintext_all_the_same(run: Callable[..., Any]) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        await client.write(b"x")
        await client.finish()
        await port.sleep(0.01)
        assert not await gate(port).speaks_tls(server)
        assert await server.read() == b"x"

    run(scenario)


@pytest.mark.parametrize("run", BOTH)
def test_silence_lasts_as_long_as_the_deadline(run: Callable[..., Any]) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, _ = await pair()
        port.deadline(port.now + 0.05)
        with pytest.raises(Expired):
            await gate(port).speaks_tls(server)

    run(scenario)
