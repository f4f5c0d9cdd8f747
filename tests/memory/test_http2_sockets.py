"""WebSockets between sidecars: streams of a shared HTTP/2 connection (RFC 8441) where the other side takes them."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame

from sidecar.http.h2 import H2Server
from sidecar.http.h2.codes import Setting
from sidecar.net.mtls import Gate
from sidecar.proxy.sockets import ASK_AGAIN_SECONDS
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.h2_line import H2Line, h2_call, h2_peer
from tests.kit.h2_wire import GREETING, PREFACE, RST_STREAM, WEBSOCKET, Fields, data, frame, headers, settings, word
from tests.kit.hops import ORDERS, WEB
from tests.kit.play import Serve, Stage, scene

BY_H2 = ", upgrade: h2"
MANY = "00"  # behind the stage's 4: so many connections to the application
CANCEL, REFUSED = 8, 7
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3, with its answer
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
ASK = b"GET /chat HTTP/1.1\r\nHost: orders\r\n" + UPGRADE + b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
SOCKET: Fields = tuple((name, b"orders" if name == b":authority" else value) for name, value in WEBSOCKET)
TAKES_TUNNELS = settings((int(Setting.ENABLE_CONNECT_PROTOCOL), 1))


async def chat(line: Line) -> None:
    """Agrees to a WebSocket, speaks first, then echoes."""
    request = await line.request_head()
    assert (request.get("upgrade"), request.get("connection")) == (b"websocket", b"upgrade")
    await line.say(apps.agreed(request) + b"welcome")
    while heard := await line.wire.read():
        await line.say(heard)


async def opened(stage: Stage, ask: bytes = ASK) -> Line:
    """A WebSocket of an HTTP/1.1 caller."""
    web = await stage.call()
    await web.say(ask)
    answer = await web.answer()
    assert (answer.status, answer.get("sec-websocket-accept")) == (101, ACCEPT)
    assert (answer.get("upgrade"), answer.get("connection")) == (b"websocket", b"upgrade")
    assert await web.hear(7) == b"welcome"
    return web


async def h2_opened(web: H2Line, stream: int = 1) -> None:
    """A WebSocket of an HTTP/2 caller."""
    await web.say(headers(stream, SOCKET, end=False))
    await web.until(lambda: len(web.answers[stream].body) == 7 if stream in web.answers else False)
    assert (web.answers[stream].status, web.answers[stream].body) == (200, b"welcome")


def between(stage: Stage) -> list[str]:
    """The versions that the sidecar of orders was asked by."""
    return [hop.version for hop in stage.orders.books.hops]


# ---- who travels by which version ------------------------------------------------------------------------------------


@scene(upstream=BY_H2)
async def test_an_http_1_caller_travels_by_http_2_where_its_upstream_is_declared_so(stage: Stage) -> None:
    stage.app(chat)
    web = await opened(stage)
    await web.say(b"hello")
    assert await web.hear(5) == b"hello"
    await web.finish()
    assert await web.is_closed()
    await stage.quiet()
    assert between(stage) == ["2"]
    for hop in (stage.web.books.hop, stage.orders.books.hop):
        assert (hop.status, hop.received_bytes, hop.sent_bytes, hop.flag) == (101, 5, 12, "-")


@scene()
async def test_an_http_2_caller_travels_by_http_2(stage: Stage) -> None:
    stage.app(chat)
    web = await h2_call(stage)
    await h2_opened(web)
    await web.say(data(1, b"hello", end=True))
    answer = await web.answer(1)
    assert (answer.body, answer.reset) == (b"welcomehello", None)
    await stage.quiet()
    assert between(stage) == ["2"]


@scene()
async def test_an_http_1_caller_travels_by_http_1_where_nothing_is_declared(stage: Stage) -> None:
    stage.app(chat)
    (await opened(stage)).close()
    await stage.quiet()
    assert between(stage) == ["1.1"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Sec-WebSocket-Key: " + KEY + b"\r\n", b""),
        (KEY, b"short"),
        (KEY, KEY + b"\r\nSec-WebSocket-Key: " + KEY),
        (b"Upgrade: websocket", b"Upgrade: websocket, other"),
        (b"Upgrade: websocket", b"Upgrade: other"),
        (b"Host: orders\r\n", b"Host: orders\r\nContent-Length: 0\r\n"),
    ],
)
@scene(upstream=BY_H2)
async def test_what_http_2_cannot_say_as_it_is_travels_by_http_1(stage: Stage, old: bytes, new: bytes) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    await stage.ask(ASK.replace(old, new))
    assert between(stage) in (["1.1"], [])  # none, where an ambiguous head was refused at once
    assert stage.web.books.hop.status in (200, 400)


@scene(upstream=BY_H2, orders_limits=MANY)
async def test_many_share_a_connection_that_requests_do_not(stage: Stage) -> None:
    stage.app(chat)
    sockets = [await opened(stage) for _ in range(20)]
    await stage.quiet()
    assert stage.orders.inbound_connections == 1
    assert stage.web.streams == stage.orders.streams == 20
    for number, web in enumerate(sockets):
        await web.say(b"%03d" % number)
    assert [await web.hear(3) for web in sockets] == [b"%03d" % number for number in range(20)]
    for web in sockets:
        web.close()
    await stage.quiet()
    assert stage.web.streams == stage.orders.streams == 0


@scene(upstream=BY_H2)
async def test_bytes_that_follow_the_request_at_once_are_not_lost(stage: Stage) -> None:
    stage.app(chat)
    web = await opened(stage, ASK + b"eager")
    assert await web.hear(5) == b"eager"
    web.close()


# ---- who does not take them ------------------------------------------------------------------------------------------


@scene(upstream=BY_H2)
async def test_a_sidecar_that_takes_no_tunnels_is_asked_by_http_1_and_not_bothered_again_for_a_while(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sidecars before this one, that spoke HTTP/2."""
    greet = H2Server._greet
    silenced = [True]

    def older(codec: Any) -> None:
        greet(codec)
        if silenced:
            announced = int(Setting.ENABLE_CONNECT_PROTOCOL).to_bytes(2) + (1).to_bytes(4)
            ignored = (0xF0F0).to_bytes(2) + (1).to_bytes(4)
            codec._out = [bytes(piece).replace(announced, ignored) for piece in codec._out]

    monkeypatch.setattr(H2Server, "_greet", older)
    stage.app(chat)
    for _ in range(2):
        (await opened(stage)).close()
        await stage.quiet()
    assert between(stage) == ["1.1", "1.1"]
    silenced.clear()
    await stage.sleep(ASK_AGAIN_SECONDS)
    stage.sweep()
    await stage.quiet()
    (await opened(stage)).close()
    await stage.quiet()
    assert between(stage) == ["1.1", "1.1", "2"]


@scene(upstream=BY_H2)
async def test_a_sidecar_that_speaks_no_http_2_is_asked_by_http_1(stage: Stage) -> None:
    gate: Gate = stage.gates[WEB]
    connect = gate.connect

    async def without_h2(*args: Any, **options: Any) -> Any:
        if options.get("h2"):
            from sidecar.errors import HandshakeFailed

            args[1].close()
            raise HandshakeFailed("the upstream agrees on no protocol; HTTP/2 is needed", "alpn")
        return await connect(*args, **options)

    stage.gates[WEB].connect = without_h2  # type: ignore[method-assign]
    stage.app(chat)
    (await opened(stage)).close()
    await stage.quiet()
    assert between(stage) == ["1.1"]


# ---- applications ----------------------------------------------------------------------------------------------------


def h2_chat(asked: list[dict[bytes, bytes]], *, greeting: bytes = TAKES_TUNNELS, refusals: int = 0) -> Serve:
    """An application that speaks HTTP/2, and takes WebSockets in it after so many refusals."""

    async def serve(raw: Line) -> None:
        line = H2Line(raw)
        assert await raw.hear(len(PREFACE)) == PREFACE
        await line.say(greeting)
        while True:
            found = await line.next()
            if isinstance(found, HeadersFrame):
                asked.append(line.answers[found.stream_id].headers)
                if len(asked) <= refusals:
                    await line.say(frame(RST_STREAM, 0, found.stream_id, word(REFUSED)))
                else:
                    agreed = ((b":status", b"200"), (b"sec-websocket-protocol", b"chat"))
                    await line.say(headers(found.stream_id, agreed, end=False), data(found.stream_id, b"welcome"))
            elif isinstance(found, DataFrame):
                ended = "END_STREAM" in found.flags
                await line.say(data(found.stream_id, found.data, end=ended))

    return serve


@pytest.mark.parametrize("refusals", [0, 2])
@scene(http=", app_http: http2")
async def test_an_application_that_takes_them_is_asked_by_http_2(stage: Stage, refusals: int) -> None:
    asked: list[dict[bytes, bytes]] = []
    stage.app(h2_chat(asked, refusals=refusals))
    peer = await stage.peer()
    await peer.say(ASK)
    answer = await peer.answer()
    assert (answer.status, answer.get("sec-websocket-accept")) == (101, ACCEPT)
    assert answer.get("sec-websocket-protocol") == b"chat"
    assert await peer.hear(7) == b"welcome"
    await peer.say(b"hello")
    assert await peer.hear(5) == b"hello"
    await peer.finish()
    assert await peer.is_closed()
    fields = asked[-1]
    assert (fields[b":method"], fields[b":protocol"], fields[b":path"]) == (b"CONNECT", b"websocket", b"/chat")
    assert not {b"upgrade", b"connection", b"sec-websocket-key"} & fields.keys()
    assert len(asked) == refusals + 1


@scene(http=", app_http: http2")
async def test_an_application_that_says_nothing_of_it_is_asked_by_http_1(stage: Stage) -> None:
    async def both(line: Line) -> None:
        beginning = await line.hear(3)
        if beginning == b"PRI":
            await line.say(GREETING)
            await line.hear_all()
            return
        assert beginning == b"GET"
        await line.until(b"\r\n\r\n")
        await line.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    stage.app(both)
    web = await h2_peer(stage, headers(1, SOCKET, end=False))
    answer = await web.answer(1)
    assert (answer.status, answer.body) == (403, b"no")


@scene()
async def test_an_answer_of_2xx_that_agrees_to_nothing_is_no_tunnel(stage: Stage) -> None:
    """By HTTP/2 the caller would take it for one."""
    stage.app(apps.always(apps.OK))
    web = await h2_call(stage, headers(1, SOCKET, end=False))
    assert (await web.answer(1)).status == 502
    assert stage.orders.books.hop.flag == "UPE"


@pytest.mark.parametrize("status", [400, 403, 500])
@scene(upstream=BY_H2)
async def test_a_refusal_is_an_ordinary_answer(stage: Stage, status: int) -> None:
    stage.app(apps.always(b"HTTP/1.1 %d Not So\r\nContent-Length: 2\r\n\r\nno" % status))
    web = await stage.call()
    for _ in range(2):
        await web.say(ASK)
        answer = await web.answer()
        assert (answer.status, answer.body) == (status, b"no")
    assert between(stage) == ["2", "2"]


# ---- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["caller", "app"])
@scene(upstream=BY_H2)
async def test_a_reset_of_either_end_is_one_of_the_other(stage: Stage, who: str) -> None:
    stage.app(chat)
    other = await opened(stage)
    web = await opened(stage)
    if who == "caller":
        web.abort()
        await stage.quiet()
        assert stage.apps[1].wire.closed
    else:
        stage.apps[1].abort()
        assert await web.is_reset()
    await stage.quiet()
    flag = {"caller": "DC", "app": "UR"}[who]
    assert stage.orders.books.hop.flag == stage.web.books.hop.flag == flag
    await other.say(b"unharmed")
    assert await other.hear(8) == b"unharmed"
    other.close()


@scene()
async def test_a_reset_in_a_tunnel_is_cancel(stage: Stage) -> None:
    stage.app(chat)
    web = await h2_call(stage)
    await h2_opened(web)
    stage.apps[0].abort()
    assert (await web.answer(1)).reset == CANCEL
    assert [found.error_code for found in web.frames if isinstance(found, RstStreamFrame)] == [CANCEL]


@scene(upstream=BY_H2)
async def test_what_was_said_last_arrives_although_the_other_side_has_ended_already(stage: Stage) -> None:
    heard: list[bytes] = []

    async def talks_and_listens(line: Line) -> None:
        request = await line.request_head()
        await line.say(apps.agreed(request) + b"welcome")
        await line.finish()
        heard.append(await line.hear_all())

    stage.app(talks_and_listens)
    web = await opened(stage)
    await stage.quiet()
    await web.say(bytes(300_000))
    await web.finish()
    await stage.sleep(1)
    assert [len(all_of_it) for all_of_it in heard] == [300_000]
    assert stage.web.books.hop.flag == stage.orders.books.hop.flag == "-"


@scene(upstream=BY_H2, orders_limits=MANY)
async def test_slow_readers_slow_only_themselves(stage: Stage) -> None:
    """Seventy tunnels that nobody reads, with all that may wait for each: the next one is as quick as ever."""

    async def flood(line: Line) -> None:
        request = await line.request_head()
        floods = len(stage.apps) <= 70
        await line.say(apps.agreed(request) + b"welcome")
        while floods:
            await line.say(bytes(65_536))
        while heard := await line.wire.read():
            await line.say(heard)

    stage.app(flood)
    slow = [await opened(stage) for _ in range(70)]
    await stage.quiet()
    assert stage.orders.inbound_connections == 1
    quick = await opened(stage)
    await quick.say(b"x" * 100_000)
    assert await quick.hear(100_000) == b"x" * 100_000
    stage.attend()
    await stage.sleep(3600)  # nor does a pause have an end, as by HTTP/1.1
    assert len(await slow[0].hear(1_000_000)) == 1_000_000
    for web in (quick, *slow):
        web.close()


@scene(upstream=BY_H2)
async def test_a_renewal_lets_open_ones_go_on_and_gives_the_next_a_new_connection(stage: Stage) -> None:
    stage.app(chat)
    before = await opened(stage)
    stage.gates[WEB].renew(stage.port.wall() + 200_000)
    stage.web.renew()
    after = await opened(stage)
    await stage.quiet()
    assert stage.orders.inbound_connections == 2
    for web in (before, after):
        await web.say(b"hello")
        assert await web.hear(5) == b"hello"
        web.close()


@pytest.mark.parametrize("who", [WEB, ORDERS])
@scene(upstream=BY_H2)
async def test_roots_that_become_others_end_them_on_either_side(stage: Stage, who: Any) -> None:
    stage.app(chat)
    web = await opened(stage)
    other = {WEB: ORDERS, ORDERS: WEB}[who]
    stage.gates[who].distrust(other)
    (stage.web if who is WEB else stage.orders).judge_again()
    assert await web.is_reset()
    await stage.quiet()
    books = (stage.web if who is WEB else stage.orders).books
    assert books.hop.flag == "ID"


@scene(upstream=BY_H2)
async def test_a_tunnel_ends_with_the_certificate_that_it_rests_on(stage: Stage) -> None:
    stage.app(chat)
    web = await opened(stage)
    began = stage.now
    stage.attend()
    assert await web.is_reset()
    assert 86_399.0 <= stage.now - began <= 86_401.0
    assert "ID" in stage.web.books.flags + stage.orders.books.flags
