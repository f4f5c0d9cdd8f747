"""The wait for a whole ClientHello: however it is cut, whatever else comes instead, and without a byte being read."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.net.port import Expired
from tests.kit.drivers import Pair, on_sockets, read_exactly

HELLO = b"\x16\x03\x01\x00\x20" + bytes(32)


def test_it_is_whole_only_with_its_last_byte_and_stays_unread() -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        waiting = port.spawn(server.first_record())
        for index in range(len(HELLO)):
            assert not waiting.happened
            await client.write(HELLO[index : index + 1])
            await port.sleep(0.002)
        await port.wait(waiting)
        assert server.received == 0
        assert await read_exactly(server, len(HELLO)) == HELLO
        await client.write(b"x")  # a single byte wakes a reader again
        assert await server.read() == b"x"

    on_sockets(scenario)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x15\x03\x01\x00\x02\x01\x00", b"\x16\x03\x01\xff\xff", b"\x00"]
)
def test_what_is_no_hello_is_handed_on_at_once(data: bytes) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        await client.write(data)
        port.deadline(port.now + 5)
        await server.first_record()
        assert await read_exactly(server, len(data)) == data

    on_sockets(scenario)


@pytest.mark.parametrize("sent", [b"", HELLO[:3], HELLO[:20]])
def test_an_end_before_it_is_whole_is_handed_on_too(sent: bytes) -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        waiting = port.spawn(server.first_record())
        if sent:
            await client.write(sent)
        await port.sleep(0.01)
        assert not waiting.happened
        await client.finish()
        await port.wait(waiting)

    on_sockets(scenario)


def test_half_of_it_does_not_keep_us_busy() -> None:
    async def scenario(port: Any, pair: Pair) -> None:
        server, client = await pair()
        await client.write(HELLO[:20])
        port.deadline(port.now + 0.3)
        before = port.batch
        with pytest.raises(Expired):
            await server.first_record()
        assert port.batch - before < 10

    on_sockets(scenario)
