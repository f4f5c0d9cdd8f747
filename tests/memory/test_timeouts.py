"""Every time-out of decision D8, at its second, with its status and flag."""

from __future__ import annotations

import pytest

from sidecar.net.memory import MemoryWire
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 10\r\n\r\n"


@scene()
async def test_connecting_takes_at_most_2_s(stage: Stage) -> None:
    stage.port.swallow("10.0.0.2", 17443)
    answer = await stage.ask(GET)
    assert (answer.status, stage.now, stage.web.books.hop.flag) == (503, 2.0, "UF")


@scene()
async def test_a_slow_connection_is_still_a_connection(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    serve = stage.port._listening["127.0.0.1", 8080].serve
    assert serve is not None
    stage.port.listen("127.0.0.1", 8080, serve, delay=1.9)
    assert (await stage.ask(GET)).status == 200
    assert stage.now == 1.9


@scene()
async def test_connecting_to_the_application_takes_at_most_2_s(stage: Stage) -> None:
    stage.port.swallow("127.0.0.1", 8080)
    answer = await stage.ask(GET)
    assert (answer.status, stage.now, stage.orders.books.hop.flag) == (503, 2.0, "UF")


@scene()
async def test_a_handshake_as_client_takes_at_most_5_s(stage: Stage) -> None:
    async def stalls(wire: MemoryWire) -> None:
        await stage.port.sleep(60.0)
        wire.close()

    stage.port.listen("10.0.0.2", 17443, stalls)
    answer = await stage.ask(GET)
    assert (answer.status, stage.now, stage.web.books.hop.flag) == (503, 5.0, "UF")
    assert not stage.web.books.handshakes[0].ok


@scene()
async def test_a_handshake_as_server_takes_at_most_5_s(stage: Stage) -> None:
    line = await stage.call(17443, "10.0.0.2")
    assert await line.is_closed()
    assert stage.now == 5.0
    assert stage.orders.books.handshakes[0].reason == "handshake_timeout"


@scene()
async def test_a_request_head_takes_at_most_10_s_from_its_first_byte(stage: Stage) -> None:
    web = await stage.call()
    await stage.sleep(9.0)
    for byte in GET[:9]:
        await web.say(bytes([byte]))
        await stage.sleep(1.0)
    answer = await web.answer()
    assert (answer.status, stage.now) == (408, 19.0)  # 9 s of silence, then 10
    assert stage.web.books.hop.flag == "DT"
    assert await web.is_closed()


@scene()
async def test_a_response_head_takes_at_most_15_s_from_the_end_of_the_request(stage: Stage) -> None:
    stage.app(apps.silent)
    answer = await stage.ask(GET)
    assert (answer.status, stage.now) == (504, 15.0)
    assert "UT" in stage.web.books.flags + stage.orders.books.flags


@scene(orders_limits=", body_rate: off")
async def test_a_slow_upload_does_not_count_against_the_answer(stage: Stage) -> None:
    stage.app(apps.silent)
    peer = await stage.peer()
    await peer.say(POST)
    for _ in range(10):
        await stage.sleep(60.0)
        await peer.say(b"x")
    answer = await peer.answer()
    assert (answer.status, stage.now) == (504, 615.0)
    assert stage.orders.books.hop.flag == "UT"


@scene()
async def test_a_body_may_pause_for_5_min_and_no_longer(stage: Stage) -> None:
    stage.app(apps.silent)
    peer = await stage.peer()
    await peer.say(POST + b"12345")
    await stage.sleep(299.0)
    await peer.say(b"6")
    answer = await peer.answer()
    assert answer.status == 408
    assert 599.0 <= stage.now <= 601.0  # the rest of the body is waited for a second more, to keep the connection
    assert stage.orders.books.hop.flag == "SI"
    assert stage.orders.books.hop.ended == 599.0


@scene()
async def test_an_answer_that_stops_for_5_min_is_broken_off(stage: Stage) -> None:
    async def stops(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        await line.hear_all()

    stage.app(stops)
    peer = await stage.peer()
    await peer.say(GET)
    await peer.until(b"12345")
    assert await peer.is_reset()
    assert stage.now == 300.0
    assert stage.orders.books.hop.flag == "SI"
    assert stage.orders.books.hop.status == 200


@scene()
async def test_a_reader_that_takes_nothing_for_5_min_is_left(stage: Stage) -> None:
    async def pour(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + bytes(10_000_000))

    stage.app(pour)
    peer = await stage.peer()
    await peer.say(GET)
    await stage.sleep(301.0)
    assert stage.orders.books.hop.flag == "SI"
    assert stage.orders.books.hop.ended == 300.0
    assert await peer.is_reset()


@scene()
async def test_an_application_that_does_not_read_the_body_for_5_min_is_left(stage: Stage) -> None:
    async def deaf(line: Line) -> None:
        await line.request_head()
        await stage.sleep(1000.0)

    stage.app(deaf)
    peer = await stage.peer()
    upload = stage.port.spawn(
        peer.say(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 999999\r\n\r\n" + bytes(999_999))
    )
    answer = await peer.answer()
    assert answer.status == 504
    assert stage.orders.books.hop.flag == "SI"
    upload.cancel()


@scene()
async def test_an_idle_connection_is_kept_for_5_min(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(GET)
    await web.answer()
    await stage.sleep(299.0)
    await web.say(GET)
    await web.answer()
    began = stage.now
    assert await web.is_closed()
    assert stage.now - began == 300.0
    assert len(stage.web.books.hops) == 2  # closing an idle connection is no hop


@pytest.mark.parametrize(("pause", "connections"), [(2.9, 1), (3.1, 2)])
@scene()
async def test_a_pooled_connection_to_the_application_is_used_for_3_s(
    stage: Stage, pause: float, connections: int
) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(GET)
    await web.answer()
    await stage.sleep(pause)
    await web.say(GET)
    assert (await web.answer()).status == 200
    assert len(stage.apps) == connections


@pytest.mark.parametrize(("pause", "connections"), [(59.0, 1), (61.0, 2)])
@scene()
async def test_a_pooled_connection_to_a_peer_is_used_for_60_s(stage: Stage, pause: float, connections: int) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(GET)
    await web.answer()
    await stage.sleep(pause)
    await web.say(GET)
    assert (await web.answer()).status == 200
    assert len(stage.orders.tasks) == connections


@scene()
async def test_a_place_in_a_full_pool_is_waited_for_1_s(stage: Stage) -> None:
    stage.app(apps.silent)
    busy = [await stage.peer() for _ in range(4)]
    for peer in busy:
        await peer.say(GET)
    await stage.quiet()
    answer = await _late(stage)
    assert (answer.status, answer.get("retry-after"), stage.now) == (503, b"1", 1.0)
    assert stage.orders.books.hops[0].flag == "UO"


async def _late(stage: Stage):  # type: ignore[no-untyped-def]
    peer = await stage.peer()
    await peer.say(GET)
    return await peer.answer()


@scene()
async def test_a_place_that_comes_free_in_time_is_taken(stage: Stage) -> None:
    async def half_a_second(line: Line) -> None:
        while True:
            await line.request()
            await stage.sleep(0.5)
            await line.say(apps.OK)

    stage.app(half_a_second)
    peers = [await stage.peer() for _ in range(8)]
    for peer in peers:
        await peer.say(GET)
    assert [(await peer.answer()).status for peer in peers] == [200] * 8
    assert (stage.now, len(stage.apps)) == (1.0, 4)


@scene()
async def test_a_stream_has_no_total_time(stage: Stage) -> None:
    async def ticks(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            await stage.sleep(290.0)
            await line.say(b"1\r\n.\r\n")
        await line.say(b"0\r\n\r\n")

    stage.app(ticks)
    answer = await stage.ask(GET)
    assert len(answer.body) == 100
    assert stage.now == 29_000.0
