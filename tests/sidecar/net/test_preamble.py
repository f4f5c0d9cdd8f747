"""A look at what has come, on both drivers: nothing is read but what is taken, and an end is found."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from sidecar.config.schema_inbound import ProxyProtocol
from sidecar.errors import IdentityRefused
from sidecar.http.proxy_header import write
from sidecar.net.port import WireBroken
from sidecar.net.preamble import address_of, is_sender, proxy_header
from tests.kit.drivers import DRIVERS, Pair, read_exactly

BOTH = pytest.mark.parametrize("driver", [DRIVERS["memory"], DRIVERS["sockets"]], ids=["memory", "sockets"])
HEADER = write("v2", (ip_address("192.0.2.1"), 1), (ip_address("192.0.2.2"), 2))
LISTED = ProxyProtocol((ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
LB = ip_address("10.0.0.7")


@BOTH
def test_a_look_takes_nothing_and_waits_for_as_much_as_was_asked_for(driver: Any) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        near, far = await pair()

        async def says() -> None:
            for piece in (b"ab", b"cd", b"ef"):
                await near.write(piece)
                await port.sleep(0.12)

        port.spawn(says())
        assert (await far.peek(1)).startswith(b"ab")
        assert (await far.peek(5)).startswith(b"abcdef"[:5])
        assert far.take(3) == b"abc"
        assert await read_exactly(far, 3) == b"def"

    driver(scenario)


@BOTH
def test_an_end_or_a_reset_is_found_by_who_waits_for_more(driver: Any) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        near, far = await pair()
        await near.write(b"ab")
        await near.finish()
        assert await far.peek(5) == b"ab"
        near, far = await pair()
        await near.write(b"ab")
        near.abort()
        with pytest.raises(WireBroken):
            await far.peek(5)

    driver(scenario)


@BOTH
@pytest.mark.parametrize("cut", [1, 5, 12, 15, 16, 17, len(HEADER) - 1])
def test_a_header_is_taken_whole_and_what_follows_stays(driver: Any, cut: int) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        near, far = await pair()

        async def says() -> None:
            await near.write(HEADER[:cut])
            await port.sleep(0.12)
            await near.write(HEADER[cut:] + b"\x16\x03")

        port.spawn(says())
        found = await proxy_header(far, LISTED, LB, 5.0)
        assert found is not None
        assert found.source == ip_address("192.0.2.1")
        assert await read_exactly(far, 2) == b"\x16\x03"

    driver(scenario)


REFUSED = [
    (LB, b"\x16\x03\x01", "proxy_header"), (LB, HEADER[:20], "proxy_header"), (LB, b"", "proxy_header"),
    (None, HEADER, "proxy_sender"), (ip_address("11.0.0.1"), HEADER, "proxy_sender"),
    (ip_address("11.0.0.1"), b"PROXY UNKNOWN\r\n", "proxy_sender"),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("source", "said", "reason"), REFUSED)
def test_who_must_and_who_may_not(driver: Any, source: Any, said: bytes, reason: str) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        near, far = await pair()
        await near.write(said)
        await near.finish()
        with pytest.raises(IdentityRefused) as caught:
            await proxy_header(far, LISTED, source, 5.0)
        assert caught.value.reason == reason

    driver(scenario)


@BOTH
@pytest.mark.parametrize("said", [b"\x16\x03\x01", b"GET /", b"P", b"\r\n", b""])
def test_nobody_else_notices(driver: Any, said: bytes) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        near, far = await pair()
        await near.write(said)
        await near.finish()
        assert await proxy_header(far, LISTED, ip_address("192.0.2.9"), 5.0) is None
        assert await read_exactly(far, len(said)) == said

    driver(scenario)


@pytest.mark.parametrize(("address", "listed"), [
    ("10.255.0.1", True), ("::ffff:10.0.0.1", True), ("fd00::1", True), ("11.0.0.1", False), ("fe80::1", False),
])  # fmt: skip
def test_who_is_on_the_list(address: str, listed: bool) -> None:
    assert is_sender(LISTED, ip_address(address)) is listed


def test_an_address_of_the_kernels() -> None:
    assert address_of(("192.0.2.1", 7)) == (ip_address("192.0.2.1"), 7)
    assert address_of(("", 0)) == (None, 0)
