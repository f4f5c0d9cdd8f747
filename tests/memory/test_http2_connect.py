"""CONNECT over HTTP/2 (RFC 9113 section 8.5): the stream is the tunnel, and what crosses it is judged as ever."""

from __future__ import annotations

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.h2_line import ORDERS_GET, H2Line, h2_call, h2_peer
from tests.kit.h2_wire import (
    HELLO,
    RST_STREAM,
    WEBSOCKET,
    Fields,
    data,
    frame,
    frames_of,
    headers,
    word,
)
from tests.kit.play import Stage, scene

PROXY, OWN = 9000, 9001
CANCEL, CONNECT_ERROR, NO_ERROR = 8, 10, 0
GET = b"GET /in HTTP/1.1\r\nHost: orders\r\n\r\n"


def connect(authority: bytes) -> Fields:
    """The fields of a CONNECT."""
    return ((b":method", b"CONNECT"), (b":authority", authority))


async def tunnel(stage: Stage, authority: bytes = b"orders:80", port: int = PROXY) -> H2Line:
    """A tunnel on stream 1."""
    web = await h2_call(stage, headers(1, connect(authority), end=False), port=port)
    await web.until(lambda: web.answers.get(1) and web.answers[1].status)
    assert web.answers[1].status == 200
    assert set(web.answers[1].headers) == {b":status"}
    return web


async def until(web: H2Line, size: int, stream: int = 1) -> bytes:
    """So many bytes that came on a stream."""
    await web.until(lambda: len(web.answers[stream].body) >= size)
    return web.answers[stream].body


@pytest.mark.parametrize("port", [PROXY, OWN])
@scene()
async def test_requests_inside_are_judged_one_by_one(stage: Stage, port: int) -> None:
    stage.app(apps.always(apps.OK))
    web = await tunnel(stage, b"orders:9001" if port == OWN else b"orders:80", port)
    for count in (1, 2):
        await web.say(data(1, GET))
        await web.until(lambda: web.answers[1].body.count(b"\r\n\r\nok") == count)  # noqa: B023
    await web.say(data(1, b"GET /in HTTP/1.1\r\nHost: elsewhere\r\n\r\n"))
    await web.until(lambda: b"HTTP/1.1 403" in web.answers[1].body)
    assert [hop.method for hop in stage.web.books.hops] == ["GET"] * 3
    assert [hop.target for hop in stage.orders.books.hops] == ["/in"] * 2
    assert stage.web.streams == 1
    assert stage.web.in_flight == 0
    await web.say(data(1, b"", end=True))
    await web.answer(1)
    await stage.quiet()
    assert stage.web.streams == 0


@scene()
async def test_an_answer_whose_connection_ends_behind_it_comes_whole(stage: Stage) -> None:
    body = bytes(60_000)
    stage.app(apps.always(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + body))
    web = await tunnel(stage)
    await web.say(data(1, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
    answer = await web.answer(1)
    assert answer.body.endswith(body)
    assert answer.reset is None


@scene()
async def test_a_request_inside_whose_caller_leaves_is_cancelled(stage: Stage) -> None:
    stage.app(apps.silent)
    web = await tunnel(stage)
    await web.say(data(1, GET))
    await stage.quiet()
    await web.say(frame(RST_STREAM, 0, 1, word(CANCEL)))
    await stage.quiet()
    assert stage.web.books.flags == stage.orders.books.flags == ["DC"]


@scene()
async def test_a_caller_that_half_closes_gets_the_answer_that_comes_in_time(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        await line.request()
        await stage.sleep(0.5)
        await line.say(apps.OK)

    stage.app(slow)
    web = await tunnel(stage)
    await web.say(data(1, GET, end=True))
    assert (await web.answer(1)).body.endswith(b"\r\n\r\nok")


@scene()
async def test_http_2_inside_a_tunnel(stage: Stage) -> None:
    """As gRPC's clients do with a proxy, and its own frames in frames of DATA."""
    stage.app(apps.always(apps.OK))
    web = await tunnel(stage)
    await web.say(data(1, HELLO + headers(1, ORDERS_GET)))
    await web.until(lambda: b"ok" in web.answers[1].body)
    assert stage.web.books.hop.version == "2"
    inner = frames_of(web.answers[1].body)
    assert any(found.stream_id == 1 and getattr(found, "data", b"") == b"ok" for found in inner)


@scene()
async def test_tls_inside_a_tunnel_is_refused_with_the_advice(stage: Stage) -> None:
    web = await tunnel(stage)
    await web.say(data(1, bytes.fromhex("16030100c8010000c40303")))
    answer = await web.answer(1)
    assert b"speak plain HTTP to the proxy" in answer.body
    assert "TLS" in str(stage.web.books.hop.error)


async def echo(line: Line) -> None:
    """Speaks first, then says what it hears."""
    await line.say(b"220 ready\n")
    while heard := await line.wire.read():
        await line.say(heard)
    await line.say(b"bye")
    await line.finish()


@scene()
async def test_a_raw_upstream_moves_bytes_and_both_ends(stage: Stage) -> None:
    stage.app(echo, "127.0.0.1:5432")
    web = await tunnel(stage, b"orders-db:5432")
    assert await until(web, 10) == b"220 ready\n"
    sent = bytes(range(256)) * 100
    for at in range(0, len(sent), 16_000):
        await web.say(data(1, sent[at : at + 16_000]))
    await web.say(data(1, b"", end=True))
    answer = await web.answer(1)
    assert (answer.body[10:], answer.reset) == (sent + b"bye", None)
    await stage.quiet()
    hop = stage.web.books.hop
    assert (hop.protocol, hop.received_bytes, hop.flag) == ("tcp", len(sent), "-")


@pytest.mark.parametrize("who", ["caller", "app"])
@scene()
async def test_a_reset_of_either_side_is_one_of_the_other(stage: Stage, who: str) -> None:
    stage.app(echo, "127.0.0.1:5432")
    web = await tunnel(stage, b"orders-db:5432")
    await until(web, 10)
    if who == "caller":
        await web.say(frame(RST_STREAM, 0, 1, word(CANCEL)))
        await stage.quiet()
        assert stage.apps[0].wire.closed
    else:
        stage.apps[0].abort()
        assert (await web.answer(1)).reset == CONNECT_ERROR
    await stage.quiet()
    assert stage.web.books.hop.flag == {"caller": "DC", "app": "UR"}[who]


@scene()
async def test_an_upstream_that_is_down_shows_as_an_error_of_the_tunnel(stage: Stage) -> None:
    web = await tunnel(stage, b"orders-db:5432")
    await web.answer(1)
    await stage.quiet()
    assert stage.orders.books.hop.flag == "UF"


@scene()
async def test_tunnels_and_requests_share_a_connection(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    stage.app(echo, "127.0.0.1:5432")
    web = await tunnel(stage, b"orders-db:5432")
    await web.say(headers(3, ORDERS_GET), headers(5, connect(b"orders:80"), end=False), data(5, GET))
    assert (await web.answer(3)).body == b"ok"
    await web.until(lambda: web.answers.get(5) and b"ok" in web.answers[5].body)
    await web.say(data(1, b"still here"))
    assert (await until(web, 20))[10:] == b"still here"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (connect(b"nobody:80"), 403),
        (connect(b"orders"), 400),  # no port
        ((*connect(b"orders:80"), (b":path", b"/")), None),
        ((*connect(b"orders:80"), (b"host", b"orders:81")), None),
        ((*connect(b"orders:80"), (b"content-length", b"2")), None),
    ],
)
@scene()
async def test_what_no_upstream_declares_is_refused(stage: Stage, fields: Fields, status: int | None) -> None:
    web = await h2_call(stage, headers(1, fields, end=False), port=PROXY)
    answer = await web.answer(1)
    assert answer.status == (status or 0)
    assert (answer.reset == 1) is (status is None)
    assert stage.web.books.hop.method in ("CONNECT", "")


@scene()
async def test_peers_may_not_connect_anywhere(stage: Stage) -> None:
    web = await h2_peer(stage, headers(1, connect(b"orders:80"), end=False))
    assert (await web.answer(1)).status == 403
    assert stage.orders.books.hop.method == "CONNECT"


@scene(web_limits=", connections: 2, streams: 0.25")
async def test_a_tunnel_counts_as_lasting_and_has_no_place_beyond_the_limit(stage: Stage) -> None:
    stage.app(echo, "127.0.0.1:5432")
    web = await tunnel(stage, b"orders-db:5432")
    await until(web, 10)
    assert (stage.web.streams, stage.web.in_flight) == (1, 0)
    await web.say(headers(3, connect(b"orders:80"), end=False))
    assert (await web.answer(3)).status == 503
    stage.web.books.opened += 1  # the stage takes every CONNECT that was let in for a tunnel


@scene()
async def test_a_tunnel_that_is_no_longer_declared_ends(stage: Stage) -> None:
    stage.app(echo, "127.0.0.1:5432")
    web = await tunnel(stage, b"orders-db:5432")
    await until(web, 10)
    for upstream in stage.web.upstreams:
        upstream.retire(None, stage.now)
    stage.web.judge_again()
    assert (await web.answer(1)).reset == CONNECT_ERROR
    assert stage.web.books.hop.flag != "-"


@scene(web="    timeouts: {tcp_idle: 48h}", orders="    timeouts: {tcp_idle: 48h}")
async def test_a_tunnel_ends_with_the_certificate_that_it_rests_on(stage: Stage) -> None:
    stage.app(echo, "127.0.0.1:5432")
    web = await tunnel(stage, b"orders-db:5432")
    await until(web, 10)
    began = stage.now
    assert (await web.answer(1)).reset is not None
    assert stage.now - began == 86400.0
    assert "ID" in stage.web.books.flags + stage.orders.books.flags


@scene()
async def test_a_connection_that_fails_takes_its_tunnels_along(stage: Stage) -> None:
    stage.app(echo, "127.0.0.1:5432")
    web = await tunnel(stage, b"orders-db:5432")
    await until(web, 10)
    await web.say(data(0, b"on no stream"))
    assert (await web.last_word()).error_code == 1
    await stage.quiet()
    assert sorted(stage.web.books.flags) == ["DC", "DPE"]


# ---- WebSocket through the forward proxy -----------------------------------------------------------------------------


async def chat(line: Line) -> None:
    """Agrees to a WebSocket, then echoes."""
    await line.say(apps.agreed(await line.request_head()))
    while heard := await line.wire.read():
        await line.say(heard)


@scene()
async def test_a_websocket_through_the_forward_proxy(stage: Stage) -> None:
    """Extended CONNECT names the upstream by :authority, as any request to the proxy does."""
    stage.app(chat)
    fields = [(name, b"orders" if name == b":authority" else value) for name, value in WEBSOCKET]
    web = await h2_call(stage, headers(1, fields, end=False), port=PROXY)
    await web.until(lambda: web.answers.get(1) and web.answers[1].status)
    assert web.answers[1].status == 200
    await web.say(data(1, b"hello"))
    assert await until(web, 5) == b"hello"
    assert stage.web.streams == 1
    elsewhere = [(name, b"nobody" if name == b":authority" else value) for name, value in fields]
    await web.say(headers(3, elsewhere, end=False))
    assert (await web.answer(3)).status == 403
    await web.say(data(1, b"", end=True))
    assert (await web.answer(1)).reset is None


@scene()
async def test_a_websocket_inside_a_tunnel(stage: Stage) -> None:
    stage.app(chat)
    web = await tunnel(stage)
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    await web.say(data(1, b"GET /chat HTTP/1.1\r\nHost: orders\r\n" + upgrade + b"\r\n"))
    await web.until(lambda: b"\r\n\r\n" in web.answers[1].body)
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in web.answers[1].body
    await web.say(data(1, b"hello", end=True))
    assert (await web.answer(1)).body.endswith(b"hello")
