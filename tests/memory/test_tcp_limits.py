"""TCP limits: how often connections come, how many are open, and how fast their bytes go, by virtual time."""

from __future__ import annotations

import pytest

from sidecar.errors import TcpLimited
from tests.kit.h1_line import Line
from tests.kit.hops import MALLORY, WEB
from tests.kit.play import Stage, scene

APP = "127.0.0.1:5432"
KIB = 1024
BIG = bytes(range(256)) * 4 * KIB  # 1 MiB


def limits(*said: str) -> str:
    return ", tcp_limits: [" + ", ".join(f"{{{each}}}" for each in said) + "]"


async def collecting(line: Line) -> None:
    """Takes all there is, and answers with how much that was."""
    data = await line.hear_all()
    await line.say(b"%d" % len(data))
    await line.finish()


async def giving(line: Line) -> None:
    await line.say(BIG)
    await line.finish()


async def greeting(line: Line) -> None:
    await line.say(b"hello")
    await line.hear_all()
    await line.finish()


def named(stage: Stage) -> list[str]:
    return [hop.error.limit for hop in stage.orders.books.hops if isinstance(hop.error, TcpLimited)]


@scene(raw=limits("name: few, connections: 2"), may="'**'")
async def test_so_many_may_be_open_at_once_for_each_caller(stage: Stage) -> None:
    stage.app(greeting, APP)
    lines = [await stage.peer(port=17444) for _ in range(2)]
    for line in lines:
        assert await line.hear(5) == b"hello"
    assert await (await stage.peer(port=17444)).is_closed()
    other = await stage.peer(MALLORY, port=17444)
    assert await other.hear(5) == b"hello"
    (error,) = [hop.error for hop in stage.orders.books.hops if hop.error is not None]
    assert isinstance(error, TcpLimited)
    assert (error.limit, error.per, error.flag) == ("few", "caller", "RL")
    assert "2 connections are open already (connections)" in error.detail
    assert [(row["key"], row["open"]) for row in stage.orders.show.tcp_limits()] == [(MALLORY.text, 1), (WEB.text, 2)]
    await lines[0].finish()
    assert await lines[0].hear_all() == b""
    await stage.quiet()
    again = await stage.peer(port=17444)
    assert await again.hear(5) == b"hello"
    for line in (lines[1], other, again):
        line.close()


@scene(raw=limits("name: often, connections_per_second: 2/s, per: listener"), may="'**'")
async def test_so_many_may_come_in_a_second_and_who_is_refused_takes_nothing(stage: Stage) -> None:
    stage.app(greeting, APP)
    first, second = await stage.peer(port=17444), await stage.peer(MALLORY, port=17444)
    assert (await first.hear(5), await second.hear(5)) == (b"hello", b"hello")
    for _ in range(3):
        assert await (await stage.peer(port=17444)).is_closed()
    assert named(stage) == ["often"] * 3
    await stage.sleep(0.51)
    third = await stage.peer(port=17444)
    assert await third.hear(5) == b"hello"
    for line in (first, second, third):
        line.close()


@pytest.mark.parametrize("connections", [1, 4])
@scene(raw=limits("name: slow, bandwidth: 1MiB/s"), may="'**'")
async def test_a_caller_sends_so_many_bytes_a_second_over_all_its_connections(stage: Stage, connections: int) -> None:
    stage.app(collecting, APP)
    began = stage.now
    lines = [await stage.peer(port=17444) for _ in range(connections)]
    done: list[float] = []

    async def send(line: Line) -> None:
        await line.say(BIG)
        await line.finish()
        assert await line.hear_all() == b"%d" % len(BIG)
        done.append(stage.now - began)

    tasks = [stage.port.spawn(send(line)) for line in lines]
    for task in tasks:
        await stage.port.wait(task)
    assert max(done) == pytest.approx(connections * 1.0, rel=0.06)
    assert min(done) >= 0.85 * max(done)  # all had their turns
    free = await stage.peer(MALLORY, port=17444)
    before = stage.now
    await free.say(BIG[: 64 * KIB])
    await free.finish()
    assert await free.hear_all() == b"65536"
    assert stage.now - before < 0.2


@scene(raw=limits("name: slow, bandwidth: 512KiB/s, per: listener"))
async def test_both_directions_are_paced_and_not_a_byte_is_lost(stage: Stage) -> None:
    stage.app(giving, APP)
    peer = await stage.peer(port=17444)
    began = stage.now
    await peer.finish()
    assert await peer.hear_all() == BIG
    assert stage.now - began == pytest.approx(2.0, rel=0.06)
    await stage.quiet()
    hop = stage.orders.books.hop
    assert (hop.sent_bytes, hop.flag) == (len(BIG), "-")


@scene(raw=limits("name: crawl, bandwidth: 1KiB/s"), orders="    timeouts: {tcp_idle: 2s}")
async def test_who_is_held_is_not_idle(stage: Stage) -> None:
    """A turn may take longer than the idle time; and who then really is idle is found out."""
    stage.app(greeting, APP)
    peer = await stage.peer(port=17444)
    assert await peer.hear(5) == b"hello"
    await peer.say(bytes(10 * KIB))
    await stage.sleep(9.0)
    assert stage.orders.connections == 1
    await stage.sleep(6.0)
    await stage.quiet()
    assert stage.orders.books.flags == ["SI"]
    assert stage.orders.books.hop.received_bytes == 10 * KIB
    peer.close()


@scene(raw=limits("name: slow, bandwidth: 1KiB/s"))
async def test_another_number_acts_at_once_on_what_is_open(stage: Stage) -> None:
    stage.app(collecting, APP)
    peer = await stage.peer(port=17444)
    await peer.say(BIG[: 4 * KIB])
    await stage.sleep(1.5)
    stage.reload(raw=limits("name: slow, bandwidth: 1GiB/s"))
    await peer.say(BIG[4 * KIB :])
    await peer.finish()
    assert await peer.hear_all() == b"%d" % len(BIG)
    assert stage.now < 8.0
