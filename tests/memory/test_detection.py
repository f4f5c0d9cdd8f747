"""Listeners with `protocol: auto`: what is recognised, what passes as raw TCP, and what may not (semantics S9)."""

from __future__ import annotations

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.h2_wire import GET as H2_GET
from tests.kit.h2_wire import HELLO, headers
from tests.kit.hops import MALLORY, ORDERS, WEB
from tests.kit.play import Stage, scene

GET = b"GET /a HTTP/1.1\r\nHost: orders\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO_SECRETS = "    deny: [{name: no-secrets, from: '**', path: /secrets/**, port: http}]"
ROUTE = ", routes: [{path: /upload, max_body: 1KiB}]"


async def greets(line: Line) -> None:
    """A server that speaks first, then says everything back."""
    await line.say(b"220 hello\r\n")
    while data := await line.wire.read():
        await line.say(data)


def counted(stage: Stage) -> list[str]:
    name = "mesh_protocol_detections_total"
    lines = stage.orders.books.metrics.render().decode().splitlines()
    return [line.removeprefix(name) for line in lines if line.startswith(name + "{")]


@pytest.mark.parametrize("size", [1, 7, 65536])
@scene(protocol="auto")
async def test_a_request_is_read_as_one_however_it_comes(stage: Stage, size: int) -> None:
    stage.app(apps.always(OK))
    stage.port.read_bytes = size
    web = await stage.call()
    for _ in range(3):
        await web.say(GET)
        assert (await web.answer()).status == 200
    assert {(hop.protocol, hop.version, hop.status) for hop in stage.orders.books.hops} == {("http", "1.1", 200)}
    assert {(hop.protocol, hop.path) for hop in stage.web.books.hops} == {("http", "/a")}


@scene(protocol="auto")
async def test_http2_with_prior_knowledge_is_found_on_both_sides(stage: Stage) -> None:
    stage.app(apps.always(OK))
    web = await stage.call()
    for byte in HELLO + headers(1, H2_GET, end=True):
        await web.say(bytes((byte,)))
    got = b""
    while not got.endswith(b"ok"):
        got += await web.wire.read()
    assert [hop.version for hop in (*stage.web.books.hops, *stage.orders.books.hops)] == ["2", "2"]
    assert 'protocol="http2",by="alpn"' in counted(stage)[0]


@scene(protocol="auto")
async def test_what_is_no_http_passes_whole_and_once(stage: Stage) -> None:
    async def redis(line: Line) -> None:
        while True:
            assert await line.until(b"\r\n") == b"PING\r\n"
            await line.say(b"+PONG\r\n")

    stage.app(redis)
    web = await stage.call()
    for _ in range(3):
        await web.say(b"PING\r\n")
        assert await web.until(b"\r\n") == b"+PONG\r\n"
    web.close()
    await stage.quiet()
    for books in (stage.web.books, stage.orders.books):
        hop = books.hop
        assert (hop.protocol, hop.received_bytes, hop.sent_bytes, hop.flag) == ("tcp", 18, 21, "-")
    assert counted(stage) == [
        '{direction="inbound",listener="http",protocol="opaque",by="bytes"} 1'
    ]  # fmt: skip


@scene(protocol="auto")
async def test_a_server_that_speaks_first_is_heard_when_time_is_up(stage: Stage) -> None:
    stage.app(greets)
    peer = await stage.peer()
    assert await peer.until(b"\r\n") == b"220 hello\r\n"
    assert 10 <= stage.now <= 10.2
    await peer.say(b"HELO me\r\n")
    assert await peer.until(b"\r\n") == b"HELO me\r\n"
    assert 'protocol="opaque",by="timeout"' in counted(stage)[0]


@scene(protocol="auto", orders="    timeouts: {detect: 300ms}")
async def test_the_time_is_the_operators(stage: Stage) -> None:
    stage.app(greets)
    peer = await stage.peer()
    assert await peer.until(b"\r\n") == b"220 hello\r\n"
    assert stage.now < 0.5


@scene(protocol="auto")
async def test_a_question_that_ends_at_once_is_passed_on_with_its_end(stage: Stage) -> None:
    async def answers(line: Line) -> None:
        await line.say(b"you asked " + await line.hear_all())

    stage.app(answers)
    peer = await stage.peer()
    await peer.say(b"why")
    await peer.finish()
    assert await peer.hear_all() == b"you asked why"


@scene(protocol="auto")
async def test_half_a_request_is_no_way_around_the_reader_of_http(stage: Stage) -> None:
    """Nobody waits out the time and then speaks HTTP past the header hygiene."""
    stage.app(apps.always(OK))
    peer = await stage.peer()
    await peer.say(b"GET / HTT")
    await stage.sleep(11)
    await peer.say(b"P/1.1\r\nHost: orders\r\nx-forwarded-client-cert: URI=spiffe://demo.mesh/forged\r\n\r\n")
    assert (await peer.answer()).status == 200
    assert stage.orders.books.hop.protocol == "http"


@scene(protocol="auto")
async def test_who_breaks_off_before_it_is_known_leaves_nothing(stage: Stage) -> None:
    peer = await stage.peer()
    await peer.say(b"GE")
    await stage.quiet()
    peer.abort()
    await stage.quiet()
    assert (stage.orders.books.hops, stage.orders.connections) == ([], 0)


# ---- where a rule or a route looks at HTTP ---------------------------------------------------------------------------


@pytest.mark.parametrize("words", [b"PING\r\n", b"\x16\x03\x01", b"\r\nGET /secrets/a HTTP/1.1\r\n\r\n", b""])
@scene(protocol="auto", orders=NO_SECRETS)
async def test_a_rule_about_http_cannot_be_got_around(stage: Stage, words: bytes) -> None:
    stage.app(greets)
    peer = await stage.peer()
    await peer.say(words)
    assert await peer.hear_all() == b""
    hop = stage.orders.books.hop
    assert hop.error is not None
    assert (hop.protocol, hop.flag, hop.error.name, stage.apps) == ("tcp", "DPE", "undetected", [])
    assert hop.decision_id


@scene(protocol="auto", http=ROUTE)
async def test_nor_can_a_route(stage: Stage) -> None:
    peer = await stage.peer()
    await peer.say(b"PING\r\n")
    assert await peer.hear_all() == b""
    assert stage.orders.books.flags == ["DPE"]


@scene(protocol="auto", orders=NO_SECRETS)
async def test_http_passes_there_and_is_judged(stage: Stage) -> None:
    stage.app(apps.always(OK))
    assert (await stage.ask(GET)).status == 200
    assert (await stage.ask(GET.replace(b"/a", b"/secrets/a"))).status == 403


@scene(protocol="auto")
async def test_who_may_not_connect_may_not_connect(stage: Stage) -> None:
    stage.app(greets)
    peer = await stage.peer(MALLORY)
    await peer.say(b"PING\r\n")
    assert await peer.hear_all() == b""
    assert stage.orders.books.flags == ["PD"]


@scene(protocol="auto")
async def test_a_rule_that_comes_by_reload_ends_what_it_cannot_judge(stage: Stage) -> None:
    stage.app(greets)
    peer = await stage.peer(WEB)
    await peer.say(b"PING\r\n")
    assert await peer.until(b"PING\r\n") == b"220 hello\r\nPING\r\n"
    with_rule = Stage(protocol="auto", orders=NO_SECRETS).config.services["orders"]
    side = stage.orders._maker.generation(with_rule, stage.orders._generation).inbound[0][1]
    side.take_over(stage.orders._inbound[0][1])
    stage.orders.judge_again()
    assert await peer.is_reset()
    hop = stage.orders.books.hop
    assert hop.error is not None
    assert (hop.error.name, hop.destination) == ("undetected", ORDERS)


# ---- through the forward proxy ---------------------------------------------------------------------------------------


@scene(protocol="auto")
async def test_what_a_connect_carries_is_found_out_too(stage: Stage) -> None:
    async def serve(line: Line) -> None:
        first = await line.until(b"\r\n")
        await line.say(OK if first.endswith(b"HTTP/1.1\r\n") else b"+PONG\r\n")
        await line.hear_all()

    stage.app(serve)
    for words, answer, protocol in ((b"PING\r\n", b"+PONG\r\n", "tcp"), (GET, b"HTTP/1.1 200 OK\r\n", "http")):
        tunnel = await stage.call(9000)
        await tunnel.say(b"CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\n" + words)
        assert (await tunnel.answer_head()).status == 200
        assert await tunnel.until(b"\r\n") == answer
        tunnel.close()
        await stage.sleep(1)
        assert stage.web.books.hops[-1].protocol == protocol
