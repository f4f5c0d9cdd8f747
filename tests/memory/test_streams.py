"""What lasts counts apart from requests in flight, and has a limit of its own (decision D25)."""

from __future__ import annotations

import json

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.hops import MALLORY
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
UPGRADE = b"GET /chat HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CONNECT = b"CONNECT %s:80 HTTP/1.1\r\nHost: %s:80\r\n\r\n"
TWO = ", connections: 450, streams: 0.002"  # of 450 connections, whatever the descriptors: two
RAW = "127.0.0.1:5432"


async def either(line: Line) -> None:
    """Agrees to every upgrade, and answers everything else."""
    while True:
        if (await line.request_head()).get("upgrade") is None:
            await line.say(apps.OK)
        else:
            await line.say(AGREED)
            await line.hear_all()
            return


async def listens(line: Line) -> None:
    """Takes whatever comes."""
    await line.hear_all()


async def upgraded(stage: Stage) -> Line:
    """A peer whose upgrade has been agreed to."""
    peer = await stage.peer()
    await peer.say(UPGRADE)
    assert (await peer.answer()).status == 101
    return peer


def gauge(stage: Stage, name: str) -> float:
    """A gauge of the sidecar of orders."""
    lines = stage.orders.books.metrics.render().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


@scene(orders="    timeouts: {response_head: 1m}")
async def test_a_request_is_in_flight_for_30_s_and_then_a_stream(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        await line.request()
        await stage.sleep(40.0)
        await line.say(apps.OK)

    stage.attend()
    stage.app(slow)
    peer = await stage.peer()
    await peer.say(GET)
    await stage.sleep(29.0)
    assert (stage.orders.in_flight, stage.orders.streams) == (1, 0)
    await stage.sleep(2.0)
    assert (stage.orders.in_flight, stage.orders.streams) == (0, 1)
    assert (gauge(stage, "mesh_requests_in_flight"), gauge(stage, "mesh_streams_open")) == (0, 1)
    assert (await peer.answer()).status == 200
    assert (stage.orders.in_flight, stage.orders.streams) == (0, 0)


@scene()
async def test_an_upgrade_is_a_stream_at_once(stage: Stage) -> None:
    stage.app(either)
    peer = await upgraded(stage)
    assert (stage.orders.in_flight, stage.orders.streams) == (0, 1)
    await stage.sleep(100.0)
    assert (stage.orders.in_flight, stage.orders.streams) == (0, 1)
    peer.close()
    await stage.quiet()
    assert (stage.orders.in_flight, stage.orders.streams) == (0, 0)


@scene()
async def test_a_raw_connection_is_a_stream_at_once(stage: Stage) -> None:
    stage.app(listens, RAW)
    web = await stage.call(9002)
    await web.say(b"hello")
    await stage.quiet()
    assert (stage.orders.streams, stage.web.streams) == (1, 1)
    web.close()
    await stage.quiet()
    assert (stage.orders.streams, stage.web.streams) == (0, 0)


@pytest.mark.parametrize("host", [b"orders", b"orders-db"])
@scene()
async def test_a_connect_is_one_stream_whatever_it_carries(stage: Stage, host: bytes) -> None:
    stage.app(either)
    stage.app(listens, RAW)
    web = await stage.call(9000)
    await web.say(CONNECT % (host, host))
    await web.until(b"\r\n\r\n")
    await stage.quiet()
    assert (stage.web.in_flight, stage.web.streams) == (0, 1)
    web.close()
    await stage.quiet()
    assert stage.web.streams == 0


@scene(orders_limits=TWO)
async def test_over_the_limit_an_upgrade_is_refused_and_a_request_is_not(stage: Stage) -> None:
    stage.app(either)
    sockets = [await upgraded(stage), await upgraded(stage)]
    peer = await stage.peer()
    await peer.say(UPGRADE)
    answer = await peer.answer()
    assert (answer.status, answer.get("retry-after")) == (503, b"1")
    assert set(json.loads(answer.body)) == {"title", "status", "decision"}
    hop = stage.orders.books.hop
    assert hop.error is not None
    assert (hop.error.name, hop.flag, hop.attempts) == ("too_many_streams", "OM", 0)
    assert "limits.streams" in hop.error.detail
    await peer.say(GET)
    assert (await peer.answer()).status == 200, "the connection is as good as ever"
    text = stage.orders.books.metrics.render().decode()
    assert 'flag="OM",error="too_many_streams"} 1' in text
    sockets.pop().close()
    await stage.quiet()
    sockets.append(await upgraded(stage))


@scene(orders_limits=TWO)
async def test_whom_no_rule_allows_is_not_told_how_full_it_is(stage: Stage) -> None:
    stage.app(either)
    for _ in range(2):
        await upgraded(stage)
    stranger = await stage.peer(MALLORY)
    await stranger.say(UPGRADE)
    assert (await stranger.answer()).status == 403


@scene(orders_limits=TWO)
async def test_two_that_come_for_one_place_do_not_both_get_it(stage: Stage) -> None:
    async def thinks(line: Line) -> None:
        await line.request_head()
        await stage.sleep(1.0)
        await line.say(AGREED)
        await line.hear_all()

    stage.app(thinks)
    peers = [await stage.peer() for _ in range(4)]
    for peer in peers:
        await peer.say(UPGRADE)
    assert sorted([(await peer.answer()).status for peer in peers]) == [101, 101, 503, 503]
    assert stage.orders.streams == 2


@scene(orders="    timeouts: {response_head: 2m}", orders_limits=TWO)
async def test_old_requests_take_places_and_are_not_ended(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        if (await line.request()).target == b"/chat":
            await line.say(AGREED)
            return
        await stage.sleep(60.0)
        await line.say(apps.OK)

    stage.attend()
    stage.app(slow)
    peers = [await stage.peer() for _ in range(3)]
    for peer in peers:
        await peer.say(GET)
    await stage.sleep(31.0)
    assert stage.orders.streams == 3
    other = await stage.peer()
    await other.say(UPGRADE)
    assert (await other.answer()).status == 503
    assert [(await peer.answer()).status for peer in peers] == [200] * 3


@scene(orders_limits=TWO)
async def test_raw_connections_take_places_and_are_limited_as_connections(stage: Stage) -> None:
    stage.app(either)
    stage.app(listens, RAW)
    lines = [await stage.call(9002) for _ in range(3)]
    for line in lines:
        await line.say(b"hello")
    await stage.quiet()
    assert stage.orders.streams == 3
    peer = await stage.peer()
    await peer.say(UPGRADE)
    assert (await peer.answer()).status == 503


@scene(web_limits=TWO)
async def test_over_the_limit_the_forward_proxy_refuses_connect(stage: Stage) -> None:
    stage.app(either)
    for _ in range(2):
        line = await stage.call(9000)
        await line.say(CONNECT % (b"orders", b"orders"))
        await line.until(b"\r\n\r\n")
    web = await stage.call(9000)
    await web.say(CONNECT % (b"orders", b"orders"))
    answer = await web.answer()
    assert answer.status == 503
    assert b"OM too_many_streams" in (answer.get("proxy-status") or b"")
    stage.web.books.opened += 1  # the stage took it for a tunnel, but it is a hop: one that was refused


@scene(orders_limits=", streams: 0")
async def test_at_zero_there_are_no_upgrades(stage: Stage) -> None:
    stage.app(either)
    peer = await stage.peer()
    await peer.say(UPGRADE)
    assert (await peer.answer()).status == 503
