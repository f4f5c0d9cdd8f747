"""Upgrades: HTTP until 101, and from there on bytes (RFC 9110 section 7.8)."""

from __future__ import annotations

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.play import Stage, scene

ASK = b"GET /chat HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


async def chat(line: Line) -> None:
    """Agrees to the upgrade, speaks first, then echoes."""
    head = await line.request_head()
    assert (head.get("upgrade"), head.get("connection")) == (b"websocket", b"upgrade")
    await line.say(AGREED + b"welcome")
    while data := await line.wire.read():
        await line.say(data)


@scene()
async def test_bytes_flow_both_ways_after_an_upgrade_and_none_is_lost(stage: Stage) -> None:
    stage.app(chat)
    web = await stage.call()
    await web.say(ASK)
    answer = await web.answer()
    assert (answer.status, answer.get("upgrade"), answer.get("connection")) == (101, b"websocket", b"upgrade")
    assert await web.hear(7) == b"welcome"
    await web.say(b"hello")
    assert await web.hear(5) == b"hello"
    await web.finish()
    assert await web.is_closed()
    await stage.quiet()
    hop = stage.orders.books.hop
    assert (hop.status, hop.received_bytes, hop.sent_bytes, hop.flag) == (101, 5, 12, "-")


@scene()
async def test_bytes_that_follow_the_request_at_once_reach_the_other_protocol(stage: Stage) -> None:
    stage.app(chat)
    web = await stage.call()
    await web.say(ASK + b"eager")
    assert (await web.answer()).status == 101
    assert await web.hear(12) == b"welcomeeager"
    web.close()


@scene()
async def test_a_refused_upgrade_is_an_ordinary_answer(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    for _ in range(2):
        await web.say(ASK)
        assert (await web.answer()).status == 200
    await web.say(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert (await web.answer()).status == 200
    assert len(stage.apps) == 1


@scene()
async def test_a_request_that_follows_a_refused_upgrade_is_read_as_http(stage: Stage) -> None:
    stage.app(apps.replying(lambda it: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + it.target[:5]))
    web = await stage.call()
    await web.say(ASK + b"GET /next HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert [(await web.answer()).body for _ in range(2)] == [b"/chat", b"/next"]


@scene()
async def test_an_upgrade_has_no_idle_time(stage: Stage) -> None:
    stage.app(chat)
    web = await stage.call()
    await web.say(ASK)
    await web.answer()
    await web.hear(7)
    await stage.sleep(3600.0)
    await web.say(b"still here")
    assert await web.hear(10) == b"still here"
    web.close()


@scene()
async def test_an_upgrade_ends_with_the_certificate_that_it_rests_on(stage: Stage) -> None:
    stage.app(chat)
    web = await stage.call()
    await web.say(ASK)
    await web.answer()
    await web.hear(7)
    began = stage.now
    assert await web.is_reset()
    assert stage.now - began == 86400.0
    assert set(stage.web.books.flags + stage.orders.books.flags) <= {"ID", "UR", "DC"}
    assert "ID" in stage.web.books.flags + stage.orders.books.flags


@pytest.mark.parametrize("answer", [AGREED, AGREED.replace(b"websocket", b"other")])
@scene()
async def test_a_switch_that_nobody_asked_for_is_a_fault_of_the_upstream(stage: Stage, answer: bytes) -> None:
    stage.app(apps.always(answer))
    ask = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n" if answer == AGREED else ASK
    assert (await stage.ask(ask)).status == 502
    assert stage.orders.books.hop.flag == "UPE"


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@scene()
async def test_what_is_no_upgrade_is_not_passed_on_as_one(stage: Stage, version: bytes) -> None:
    """Upgrade without Connection, or in HTTP/1.0, means nothing; h2c is never carried."""
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    upgrade = b"Upgrade: websocket\r\n" if version == b"1.1" else b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    await stage.ask(b"GET / HTTP/" + version + b"\r\nHost: orders\r\n" + upgrade + b"\r\n")
    await stage.ask(
        b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    )
    assert [request.get("upgrade") for request in seen] == [None, None]
    assert [request.get("connection") for request in seen] == [None, None]
    assert seen[1].get("http2-settings") is None


@pytest.mark.parametrize("who", ["caller", "app"])
@scene()
async def test_a_reset_after_the_upgrade_resets_the_other_end(stage: Stage, who: str) -> None:
    stage.app(chat)
    web = await stage.call()
    await web.say(ASK)
    await web.answer()
    await web.hear(7)
    ends = {"caller": (web, stage.apps[0]), "app": (stage.apps[0], web)}[who]
    if who == "caller":
        ends[0].abort()
        await stage.quiet()
        assert ends[1].wire.closed
    else:
        ends[0].abort()
        assert await ends[1].is_reset()
    await stage.quiet()
    assert stage.orders.books.hop.flag == {"caller": "DC", "app": "UR"}[who]
