"""Ordinary exchanges, from the caller's bytes to the application's and back: RFC 9110 and 9112 as callers know them."""

from __future__ import annotations

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.play import Stage, scene

GET = b"GET /a HTTP/1.1\r\nHost: orders\r\n\r\n"


@scene()
async def test_one_request_crosses_two_sidecars(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    answer = await stage.ask(b"GET /a?b=c HTTP/1.1\r\nHost: orders\r\nX-Own: 1\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"ok")
    assert (seen[0].method, seen[0].target, seen[0].get("host"), seen[0].get("x-own")) == (
        b"GET", b"/a?b=c", b"orders", b"1",
    )  # fmt: skip
    web, orders = stage.web.books.hop, stage.orders.books.hop
    assert (web.direction, orders.direction) == ("outbound", "inbound")
    assert web.status == orders.status == 200
    assert web.flag == orders.flag == "-"
    assert orders.peer is not None
    assert orders.peer.text == "spiffe://demo.mesh/ns/default/sa/web"
    assert (orders.rule, orders.route) == ("web-may", "/**")


@scene()
async def test_connections_are_kept_alive_all_the_way(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    for _ in range(3):
        await web.say(GET)
        assert (await web.answer()).body == b"ok"
    assert len(stage.apps) == 1
    assert len(stage.orders.tasks) == 1  # one mTLS connection carried them all
    assert len(stage.orders.books.hops) == 3


@scene()
async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    stage.app(apps.replying(lambda it: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + it.target))
    web = await stage.call()
    await web.say(b"".join(b"GET /%d HTTP/1.1\r\nHost: orders\r\n\r\n" % n for n in range(5)))
    assert [(await web.answer()).body for _ in range(5)] == [b"/0", b"/1", b"/2", b"/3", b"/4"]


@scene()
async def test_pipelined_posts_keep_to_their_bodies(stage: Stage) -> None:
    stage.app(apps.echo())
    web = await stage.call()
    head = b"POST / HTTP/1.1\r\nHost: orders\r\n"
    await web.say(
        head + b"Content-Length: 3\r\n\r\none"
        + head + b"Transfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
        + head + b"Content-Length: 0\r\n\r\n"
        + head + b"Content-Length: 5\r\n\r\nthree"
    )  # fmt: skip
    assert [(await web.answer()).body for _ in range(4)] == [b"one", b"two", b"", b"three"]


@scene()
async def test_bytes_may_come_one_by_one(stage: Stage) -> None:
    stage.port.read_bytes = 1
    stage.app(apps.echo())
    web = await stage.call()
    for _ in range(2):
        await web.say(
            b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
        )
        answer = await web.answer()
        assert (answer.body, answer.trailers) == (b"abcde", [(b"x-t", b"1")])


@scene()
async def test_an_http_1_0_caller_gets_an_answer_without_chunks_and_a_close(stage: Stage) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: lost\r\n\r\n"
    stage.app(apps.always(chunked))
    web = await stage.call()
    await web.say(b"GET / HTTP/1.0\r\n\r\n")
    answer = await web.answer()
    assert (answer.body, answer.get("connection"), answer.get("transfer-encoding")) == (b"ok", b"close", None)
    assert stage.web.books.hop.version == "1.0"


@scene()
async def test_an_http_1_0_peer_without_host_is_served(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    peer = await stage.peer()
    await peer.say(b"GET / HTTP/1.0\r\n\r\n")
    assert (await peer.answer()).status == 200
    assert seen[0].get("host") == b"127.0.0.1:8080"  # what we send is 1.1, and must have one
    assert stage.orders.books.hop.host == ""


@scene()
async def test_an_application_that_speaks_1_0_ends_its_answer_by_closing(stage: Stage) -> None:
    stage.app(apps.once(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nas long as it is"))
    web = await stage.call()
    await web.say(GET)
    answer = await web.answer()
    assert (answer.body, answer.get("transfer-encoding")) == (b"as long as it is", b"chunked")
    await web.say(GET)  # and the caller's connection goes on
    assert (await web.answer()).status == 200
    assert len(stage.apps) == 2


@pytest.mark.parametrize(
    ("framing", "seen"),
    [
        (b"Content-Length: 1000", ("1000", None)),
        (b"Transfer-Encoding: chunked", (None, "chunked")),
        (b"X: y", (None, "chunked")),  # to GET it would be one of unknown length
    ],
)
@scene()
async def test_the_answer_to_head_has_no_body(
    stage: Stage, framing: bytes, seen: tuple[str | None, str | None]
) -> None:
    stage.app(apps.always(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"))
    web = await stage.call()
    for _ in range(2):
        await web.say(b"HEAD / HTTP/1.1\r\nHost: orders\r\n\r\n")
        answer = await web.answer("HEAD")
        found = answer.get("content-length"), answer.get("transfer-encoding")
        assert found == tuple(value.encode() if value is not None else None for value in seen)
    assert len(stage.apps) == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@scene()
async def test_some_answers_never_have_a_body(stage: Stage, status: bytes) -> None:
    stage.app(apps.always(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n"))
    web = await stage.call()
    for _ in range(2):
        await web.say(GET)
        answer = await web.answer()
        assert (str(answer.status).encode(), answer.get("etag")) == (status[:3], b"x")
    assert len(stage.apps) == 1


@scene()
async def test_a_304_keeps_the_length_of_what_it_stands_for_and_a_204_has_none(stage: Stage) -> None:
    stage.app(
        apps.replying(
            lambda it: b"HTTP/1.1 " + it.target[1:] + b" x\r\nContent-Length: %d\r\n\r\n" % (it.target == b"/304")
        )
    )
    web = await stage.call()
    await web.say(b"GET /304 HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert (await web.answer()).get("content-length") == b"1"
    await web.say(b"GET /204 HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert (await web.answer()).get("content-length") is None


@scene()
async def test_chunks_and_trailers_travel_both_ways(stage: Stage) -> None:
    stage.app(apps.echo())
    web = await stage.call()
    for _ in range(2):
        await web.say(
            b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 6\r\n\r\n"
        )
        answer = await web.answer()
        assert (answer.body, answer.trailers) == (b"hello!", [(b"x-sum", b"6")])


@scene()
async def test_trailers_cannot_carry_what_headers_may_not(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    await stage.ask(
        b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nmesh-via: x\r\nMesh_Via: x\r\nX_Forwarded_Client_Cert: x\r\nX-Fine: y\r\n\r\n"
    )
    assert seen[0].trailers == [(b"x-fine", b"y")]


@scene()
async def test_answers_to_trailerless_framings_drop_trailers(stage: Stage) -> None:
    """A response to HEAD that claims chunks and trailers, and one for HTTP/1.0: there is no place for trailers."""
    stage.app(apps.always(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: 1\r\n\r\n"))
    answer = await stage.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert (answer.body, answer.trailers) == (b"x", [])


@scene()
async def test_an_empty_line_before_a_request_is_forgiven_once(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(GET + b"\r\n" + GET)
    assert [(await web.answer()).status for _ in range(2)] == [200, 200]
    await web.say(b"\r\n\r\n" + GET)
    assert (await web.answer()).status == 400


@scene()
async def test_a_caller_who_says_close_gets_a_close(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
    answer = await web.answer()
    assert (answer.status, answer.get("connection")) == (200, b"close")
    assert await web.is_closed()
    assert stage.orders.connections == 1  # that was between the caller and its sidecar


@scene()
async def test_an_application_that_says_close_is_not_asked_again_there(stage: Stage) -> None:
    stage.app(apps.once(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"))
    web = await stage.call()
    for _ in range(2):
        await web.say(GET)
        answer = await web.answer()
        assert (answer.body, answer.get("connection")) == (b"ok", None)
    assert len(stage.apps) == 2


@scene()
async def test_a_caller_who_ends_its_direction_still_gets_its_answer(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(GET)
    await web.finish()
    assert (await web.answer()).body == b"ok"
    assert await web.is_closed()


@scene()
async def test_a_connection_that_says_nothing_is_closed_without_a_word(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    began = stage.now
    assert await web.is_closed()
    assert stage.now - began == 10.0  # the time for a head
    assert stage.web.books.hops == []


BIG = bytes(range(256)) * 4096  # 1 MiB


@scene()
async def test_big_bodies_arrive_whole_both_ways(stage: Stage) -> None:
    stage.app(apps.echo())
    web = await stage.call()
    upload = stage.port.spawn(web.say(b"PUT / HTTP/1.1\r\nHost: orders\r\nContent-Length: %d\r\n\r\n" % len(BIG) + BIG))
    answer = await web.answer()
    assert answer.body == BIG
    await stage.port.wait(upload)
    hop = stage.orders.books.hop
    assert (hop.received_bytes, hop.sent_bytes) == (len(BIG), len(BIG))


@scene()
async def test_a_slow_reader_holds_the_application_back_and_not_our_memory(stage: Stage) -> None:
    async def pour(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (16 * len(BIG)))
        for _ in range(16):
            await line.say(BIG)

    stage.app(pour)
    web = await stage.call()
    await web.say(GET)
    await stage.quiet()
    app = stage.apps[0].wire
    # three wires of 64 KiB, and in each of the two sidecars at most one buffer in hand
    assert app.sent < 3 * 64 * 1024 + 2 * 128 * 1024
    answer = await web.answer()
    assert len(answer.body) == 16 * len(BIG)
    assert app.sent > 16 * len(BIG)


@scene()
async def test_a_slow_application_holds_the_caller_back(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        await line.request_head()
        await stage.sleep(1.0)
        body = await line.hear(16 * len(BIG))
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%05d" % (len(body) >> 20))

    stage.app(slow)
    web = await stage.call()
    upload = stage.port.spawn(
        web.say(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: %d\r\n\r\n" % (16 * len(BIG)) + 16 * BIG)
    )
    await stage.sleep(0.5)
    assert web.wire.sent < 3 * 64 * 1024 + 2 * 128 * 1024
    assert not upload.happened
    assert (await web.answer()).body == b"00016"


@scene()
async def test_both_directions_flow_at_once(stage: Stage) -> None:
    """The application answers while it reads: a proxy that reads the request whole before would never get there."""

    async def rot13(line: Line) -> None:
        await line.request_head()
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            size = int((await line.until(b"\r\n"))[:-2], 16)
            piece = (await line.hear(size + 2))[:-2]
            await line.say(b"%x\r\n%s\r\n" % (size, piece.upper()))
        await line.until(b"0\r\n\r\n")
        await line.say(b"0\r\n\r\n")

    stage.app(rot13)
    web = await stage.call()
    await web.say(b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await web.answer_head()).status == 200
    for word in (b"one", b"two", b"three"):
        await web.say(b"%x\r\n%s\r\n" % (len(word), word))
        assert await web.until(word.upper() + b"\r\n")
    await web.say(b"0\r\n\r\n")
    await web.until(b"0\r\n\r\n")


@scene()
async def test_the_time_to_the_first_byte_is_the_applications(stage: Stage) -> None:
    async def thinks(line: Line) -> None:
        await line.request()
        await stage.sleep(3.0)
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
        await stage.sleep(2.0)
        await line.say(b"ok")

    stage.app(thinks)
    await stage.ask(GET)
    for hop in (stage.web.books.hop, stage.orders.books.hop):
        assert (hop.first_byte - hop.started, hop.ended - hop.started) == (3.0, 5.0)
