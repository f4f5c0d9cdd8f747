"""The life of HTTP/2 connections: drain, GOAWAY, certificates that end, and callers and upstreams that come and go."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import WindowUpdateFrame

from sidecar.net.memory_gate import DAY
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.h2_line import ORDERS_GET, ORDERS_POST, H2Line, answer_ok, h2_app, h2_call, h2_peer
from tests.kit.h2_wire import (
    GOAWAY,
    GREETING,
    HELLO,
    OK,
    RST_STREAM,
    WEBSOCKET,
    WINDOW_UPDATE,
    data,
    frame,
    headers,
    settings,
    word,
)
from tests.kit.hops import ORDERS, WEB
from tests.kit.play import Stage, scene

BY_H2 = ", app_http: http2"
REFUSED = 7


@scene()
async def test_from_end_to_end(stage: Stage) -> None:
    stage.app(apps.echo())
    web = await h2_call(stage, headers(1, ORDERS_POST, end=False), data(1, b"a" * 5000), data(1, b"b", end=True))
    assert (await web.answer(1)).body == b"a" * 5000 + b"b"
    await stage.quiet()
    assert (stage.web.books.hop.version, stage.orders.books.hop.version) == ("2", "2")


# ---- nobody's wake-up is lost ----------------------------------------------------------------------------------------


@scene(http=BY_H2)
async def test_the_end_of_an_answer_that_came_while_its_reader_was_slow_is_not_missed(stage: Stage) -> None:
    """It waits in our stream while we wait for the downstream; nothing more comes to wake us."""

    async def in_two_steps(line: H2Line, stream: int) -> None:
        await line.say(headers(stream, OK, end=False), data(stream, bytes(16_384)), data(stream, bytes(5000)))
        await stage.sleep(1)
        await line.say(data(stream, b"", end=True))

    stage.app(h2_app(in_two_steps))
    web = await h2_peer(stage, settings((4, 0)), headers(1, ORDERS_GET))
    await stage.sleep(2)
    await web.say(frame(WINDOW_UPDATE, 0, 1, word(65_535)))
    assert len((await web.answer(1)).body) == 21_384
    assert stage.now < 3


@scene(http=BY_H2)
async def test_room_on_the_connection_is_given_back_although_all_its_streams_stand_still(stage: Stage) -> None:
    stage.app(h2_app(answer_ok))  # whose window is 64 KiB for all, and it gives none back
    streams = range(1, 64, 2)
    web = await h2_peer(stage, *[headers(n, ORDERS_POST, end=False) for n in streams])
    for number in streams:
        await stage.quiet()
        await web.say(*[data(number, bytes(16_384))] * 2)
    await stage.quiet()
    while web.line.pending or web.line.wire.unread:
        await web.next()
    given = [found.window_increment for found in web.frames if isinstance(found, WindowUpdateFrame)]
    assert given[1:] == [1 << 20]  # after the one of our greeting
    web.line.close()


# ---- drain -----------------------------------------------------------------------------------------------------------


@scene()
async def test_a_drain_says_goaway_serves_what_is_on_its_way_and_closes_with_the_last_answer(stage: Stage) -> None:
    waiting: list[Line] = []

    async def held(line: Line) -> None:
        await line.request()
        waiting.append(line)
        await line.hear_all()

    stage.app(held)
    web = await h2_peer(stage, headers(1, ORDERS_GET), polite=False)
    await stage.quiet()
    stage.orders.drain()
    await web.until(lambda: web.goaways)
    assert (web.goaways[0].last_stream_id, web.goaways[0].error_code) == (2**31 - 1, 0)
    await web.say(headers(3, ORDERS_GET))  # it was on its way
    await stage.sleep(1.2)  # no PING has come back, so now it is over all the same
    await web.until(lambda: len(web.goaways) == 2)
    assert web.goaways[1].last_stream_id == 3
    await web.say(headers(5, ORDERS_GET))  # too late, and they know
    for line in waiting:
        await line.say(apps.OK)
    assert [(await web.answer(n)).status for n in (1, 3)] == [200, 200]
    await web.last_word()
    assert not web.answers.get(5) or not web.answers[5].status


@scene()
async def test_a_drain_of_an_idle_connection_needs_no_grace_where_the_peer_answers(stage: Stage) -> None:
    web = await h2_peer(stage)
    await web.next()
    before = stage.now
    stage.orders.drain()
    assert (await web.last_word()).last_stream_id == 0
    assert stage.now == before
    assert not stage.orders.books.hops


@scene()
async def test_nothing_is_lost_while_the_peers_sidecar_drains(stage: Stage) -> None:
    """Requests that come meanwhile go on the old connection until its GOAWAY; those under way are answered."""
    stage.app(apps.always(apps.OK))
    web = await h2_call(stage)
    for number in range(1, 60, 2):
        await web.say(headers(number, ORDERS_GET))
        if number == 31:
            stage.orders.drain()
    statuses = [(await web.answer(number)).status for number in range(1, 60, 2)]
    assert statuses == [200] * 30
    assert all(hop.error is None for hop in stage.web.books.hops)


@scene()
async def test_a_drain_while_the_caller_has_left_and_its_request_still_runs(stage: Stage) -> None:
    stage.port.listen("127.0.0.1", 8080, apps.silent, delay=30.0)  # type: ignore[arg-type]
    web = await h2_peer(stage, headers(1, ORDERS_GET))
    await stage.quiet()
    await web.line.finish()
    stage.orders.drain()
    await stage.sleep(10)
    assert stage.orders.books.hop.error is not None


@scene(orders="    timeouts: {idle: 5s, slow: 60s}")
async def test_who_takes_none_of_our_bytes_at_all_is_left(stage: Stage) -> None:
    stage.app(apps.always(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000)))
    stage.attend()
    web = await h2_peer(
        stage, settings((4, 1 << 20)), frame(WINDOW_UPDATE, 0, 0, word(1 << 20)), headers(1, ORDERS_GET), polite=False
    )
    await stage.sleep(30)
    assert stage.orders.connections == 0
    assert stage.orders.books.hop.error is not None
    web.line.close()


# ---- a right that is lost (D17) --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["expired", "distrusted"])
def test_who_has_lost_its_right_gets_no_more_than_it_has_begun(how: str) -> None:
    _lose_a_right(how)


@scene(orders="    timeouts: {response_head: 300s}")
async def _lose_a_right(stage: Stage, how: str) -> None:
    waiting: list[Line] = []

    async def held(line: Line) -> None:
        await line.request()
        waiting.append(line)
        await line.hear_all()

    stage.app(held)
    stage.gates[WEB].not_after = stage.port.wall() + 30
    web = await h2_peer(stage, headers(1, ORDERS_GET))
    await stage.quiet()
    if how == "distrusted":
        stage.gates[ORDERS].distrust(WEB)
    else:
        await stage.sleep(31)
    await web.say(headers(3, ORDERS_GET))
    assert (await web.answer(3)).status == 403
    await waiting[0].say(apps.OK)
    assert (await web.answer(1)).status == 200
    assert (await web.last_word()).last_stream_id == 3
    assert sorted(stage.orders.books.flags) == ["-", "ID"]


@scene()
async def test_after_a_renewal_requests_take_a_new_trunk_and_the_old_one_ends_with_its_own(stage: Stage) -> None:
    waiting: list[Line] = []

    async def held(line: Line) -> None:
        while True:
            request = await line.request()
            if request.target == b"/":
                waiting.append(line)
            else:
                await line.say(apps.OK)

    stage.app(held)
    quick = (*ORDERS_GET[:3], (b":path", b"/quick"))
    web = await h2_call(stage, headers(1, ORDERS_GET))
    await stage.quiet()
    stage.gates[WEB].renew(stage.port.wall() + 2 * DAY)
    stage.web.renew()
    await web.say(headers(3, quick))
    assert (await web.answer(3)).status == 200
    assert stage.orders.inbound_connections == 2
    await waiting[0].say(apps.OK)
    assert (await web.answer(1)).status == 200
    await stage.sleep(3)
    assert stage.orders.inbound_connections == 1
    ends = stage.web.books.metrics.cell("mesh_trunks_ended_total", ("outbound", "orders.http", "renewed"))
    assert ends.value == 1


@scene(http=", posture: permissive, until: 2023-11-14T22:14:20Z")
async def test_plaintext_http_2_is_let_in_while_the_posture_says_so_and_no_longer(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = H2Line(await stage.stranger())
    await web.say(HELLO, headers(1, ORDERS_GET))
    assert (await web.answer(1)).status == 200
    await stage.sleep(61)
    await web.say(headers(3, ORDERS_GET))
    assert (await web.answer(3)).status == 403
    assert (await web.last_word()).last_stream_id == 3
    assert stage.orders.books.flags == ["-", "ID"]


@pytest.mark.parametrize("reloaded", [False, True])
def test_a_peer_that_fell_silent_is_found_out(reloaded: bool) -> None:
    _fall_silent(reloaded)


@scene()
async def _fall_silent(stage: Stage, reloaded: bool) -> None:
    """By PING, since a call may be quiet for ever; also where a reload has put another upstream in its place."""

    async def dead(wire: Any) -> None:
        secure, _ = await stage.gates[ORDERS].accept(stage.port, wire, http=True, within=5.0)
        stage.port.deadline(float("inf"))
        await secure.write(GREETING)
        try:
            await stage.sleep(DAY)
        finally:
            secure.close()

    stage.port.listen("10.0.0.2", 17443, dead)
    grpc = (*ORDERS_POST, (b"content-type", b"application/grpc"), (b"te", b"trailers"))
    web = await h2_call(stage, headers(1, grpc, end=False))
    await stage.quiet()
    if reloaded:
        before = stage.web.upstreams
        stage.reload(web="    timeouts: {idle: 299s}")
        assert not set(before) & set(stage.web.upstreams)
    stage.attend()
    assert (await web.answer(1)).headers[b"grpc-status"] == b"4"
    assert 15 <= stage.now < 17
    assert stage.web.books.hop.flag == "SI"


# ---- an upstream that has not begun ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "goaway"])
@scene(http=BY_H2)
async def test_what_an_upstream_has_not_begun_is_asked_again_and_the_caller_never_knows(
    stage: Stage, how: str
) -> None:
    asked: list[int] = []

    async def reluctant(line: H2Line, stream: int) -> None:
        asked.append(stream)
        if len(asked) <= 2:
            no = frame(RST_STREAM, 0, stream, word(REFUSED)) if how == "refused" else frame(
                GOAWAY, 0, 0, word(0) + word(0)
            )
            await line.say(no)
        else:
            await answer_ok(line, stream)

    stage.app(h2_app(reluctant))
    web = await h2_peer(stage, headers(1, ORDERS_POST, end=False), data(1, b"once", end=True))
    answer = await web.answer(1)
    assert (answer.status, answer.body) == (200, b"ok")
    assert len(asked) == 3
    assert stage.orders.books.hop.attempts == 3


@scene(http=BY_H2)
async def test_an_upstream_that_never_begins_is_asked_three_times(stage: Stage) -> None:
    async def never(line: H2Line, stream: int) -> None:
        await line.say(frame(RST_STREAM, 0, stream, word(REFUSED)))

    stage.app(h2_app(never))
    web = await h2_peer(stage, headers(1, ORDERS_GET))
    assert (await web.answer(1)).status == 503
    hop = stage.orders.books.hop
    assert (hop.attempts, hop.flag) == (3, "UR,URX")


@scene(http=BY_H2)
async def test_a_reset_of_one_stream_is_no_stale_connection_and_is_not_asked_again(stage: Stage) -> None:
    asked: list[int] = []

    async def failing(line: H2Line, stream: int) -> None:
        asked.append(stream)
        if stream == 1:
            await answer_ok(line, stream)
        else:
            await line.say(frame(RST_STREAM, 0, stream, word(2)))

    stage.app(h2_app(failing))
    web = await h2_peer(stage, headers(1, ORDERS_GET))
    await web.answer(1)
    await web.say(headers(3, ORDERS_GET))
    assert (await web.answer(3)).status == 503
    assert asked == [1, 3]


@scene(http=BY_H2)
async def test_large_uploads_by_put_share_a_connection(stage: Stage) -> None:
    stage.app(h2_app(answer_ok))
    put = ((b":method", b"PUT"), *ORDERS_GET[1:])
    web = await h2_peer(stage)
    for number in range(1, 20, 2):
        await web.say(headers(number, put, end=False), data(number, b"x" * 1000, end=True))
        assert (await web.answer(number)).status == 200
    assert len(stage.apps) == 1


# ---- streams and their neighbours ------------------------------------------------------------------------------------


@scene()
async def test_a_fault_of_ours_on_one_stream_leaves_the_others_alone(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    (_, side), *_ = stage.orders._inbound
    admit = side.admit

    def faulty(hop: Any, caller: Any, head: Any, wall: float) -> Any:
        if head.target == b"/boom":
            raise RuntimeError("boom")
        return admit(hop, caller, head, wall)

    side.admit = faulty  # type: ignore[method-assign]
    boom = (*ORDERS_GET[:3], (b":path", b"/boom"))
    web = await h2_peer(stage, headers(1, ORDERS_GET), headers(3, boom), headers(5, ORDERS_GET))
    assert [(await web.answer(n)).status for n in (1, 3, 5)] == [200, 500, 200]


@scene()
async def test_cancelled_requests_are_recorded_once_and_stop_the_upstream(stage: Stage) -> None:
    stage.app(apps.silent)
    web = await h2_call(stage, *[headers(n, ORDERS_GET) for n in range(1, 40, 2)])
    await stage.quiet()
    await web.say(*[frame(RST_STREAM, 0, n, word(8)) for n in range(1, 40, 2)])
    await stage.quiet()
    assert stage.web.books.flags == ["DC"] * 20
    assert stage.orders.books.flags == ["DC"] * 20
    assert stage.web.in_flight == stage.orders.in_flight == 0


@scene(web_limits=", connections: 2, streams: 0.25")
async def test_tunnels_over_http_2_count_as_lasting(stage: Stage) -> None:
    async def agreeing(line: Line) -> None:
        await line.say(apps.agreed(await line.request_head()))
        await line.hear_all()

    stage.app(agreeing)
    websocket = tuple((n, b"orders" if n == b":authority" else v) for n, v in WEBSOCKET)
    web = await h2_call(stage, headers(1, websocket, end=False))
    await web.until(lambda: web.answers.get(1) is not None and web.answers[1].status)
    assert web.answers[1].status == 200
    assert stage.web.streams == 1
    await web.say(headers(3, websocket, end=False))
    assert (await web.answer(3)).status == 503
    assert not web.answers[1].ended
    web.line.close()
