"""The forward proxy and the listeners of single upstreams: what may be asked for, and how (decision D5)."""

from __future__ import annotations

import json

import pytest

from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.play import Stage, scene

PROXY, OWN, RAW = 9000, 9001, 9002


@scene()
async def test_absolute_targets_go_to_the_upstream_of_that_host(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    answer = await stage.ask(b"GET http://orders/a?b HTTP/1.1\r\nHost: orders\r\n\r\n", port=PROXY)
    assert answer.status == 200
    assert (seen[0].target, seen[0].get("host")) == (b"/a?b", b"orders")


@scene()
async def test_connect_to_an_http_upstream_carries_requests_that_are_judged(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call(PROXY)
    await web.say(b"CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\n")
    assert await web.until(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\n\r\n"
    for _ in range(2):
        await web.say(b"GET /in HTTP/1.1\r\nHost: orders\r\n\r\n")
        assert (await web.answer()).body == b"ok"
    await web.say(b"GET /in HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
    assert (await web.answer()).status == 403
    assert [hop.method for hop in stage.web.books.hops] == ["GET"] * 3
    assert [hop.target for hop in stage.orders.books.hops] == ["/in", "/in"]


@scene()
async def test_bytes_sent_with_a_connect_are_not_lost(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call(PROXY)
    await web.say(b"CONNECT orders:80 HTTP/1.1\r\nHost: orders\r\n\r\nGET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    await web.until(b"\r\n\r\n")
    assert (await web.answer()).status == 200


@scene()
async def test_tls_inside_a_tunnel_is_refused_with_the_advice(stage: Stage) -> None:
    web = await stage.call(PROXY)
    await web.say(b"CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n")
    await web.until(b"\r\n\r\n")
    await web.say(bytes.fromhex("16030100c8010000c40303"))
    answer = await web.answer()
    assert answer.status == 400
    assert "speak plain HTTP to the proxy" in json.loads(answer.body)["hint"]
    assert "TLS" in str(stage.web.books.hop.error)
    assert await web.is_closed()


@scene()
async def test_connect_to_a_raw_upstream_is_a_raw_connection(stage: Stage) -> None:
    async def server_first(line: Line) -> None:
        await line.say(b"220 ready\n")
        await line.say((await line.until(b"\n")).upper())

    stage.app(server_first, "127.0.0.1:5432")
    web = await stage.call(PROXY)
    await web.say(b"CONNECT orders-db:5432 HTTP/1.1\r\nHost: orders-db:5432\r\n\r\nhelo\n")
    await web.until(b"\r\n\r\n")
    assert await web.until(b"\n") == b"220 ready\n"
    assert await web.until(b"\n") == b"HELO\n"
    web.close()
    await stage.quiet()
    assert [hop.protocol for hop in stage.web.books.hops] == ["tcp"]
    assert stage.web.books.hop.received_bytes == 5


@pytest.mark.parametrize(
    ("request_", "status", "hint"),
    [
        (b"CONNECT nobody:80 HTTP/1.1\r\nHost: nobody:80\r\n\r\n", 403, "nobody"),
        (b"GET http://nobody/ HTTP/1.1\r\nHost: nobody\r\n\r\n", 403, "nobody"),
        (b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n", 403, "nobody"),
        (b"GET / HTTP/1.1\r\nHost: orders-db\r\n\r\n", 501, ""),  # raw TCP speaks no HTTP
        (b"GET https://orders/ HTTP/1.1\r\nHost: orders\r\n\r\n", 501, ""),
        (b"CONNECT orders HTTP/1.1\r\nHost: orders\r\n\r\n", 400, ""),  # no port
        (b"CONNECT orders:80 HTTP/1.1\r\nHost: other:80\r\n\r\n", 400, ""),
        (b"CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\nContent-Length: 2\r\n\r\nhi", 400, ""),
        (b"GET http://orders/ HTTP/1.1\r\nHost: other\r\n\r\n", 400, ""),
    ],
)
@scene()
async def test_what_no_upstream_declares_is_refused(stage: Stage, request_: bytes, status: int, hint: str) -> None:
    stage.app(apps.always(apps.OK))
    answer = await stage.ask(request_, port=PROXY)
    assert answer.status == status
    problem = json.loads(answer.body)
    assert hint in problem.get("hint", "")
    assert stage.apps == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"orders", 200),
        (b"ORDERS:80", 200),
        (b"127.0.0.1:9001", 200),
        (b"localhost:9001", 200),
        (b"localhost:9999", 403),  # another server's name: a page that was rebound to us
        (b"evil.example", 403),
        (b"orders-db", 403),
    ],
)
@scene()
async def test_a_listener_accepts_its_upstreams_host_and_its_own(stage: Stage, host: bytes, status: int) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", port=OWN)
    assert answer.status == status
    assert [request.get("host") for request in seen] == [b"orders"] * (status == 200)
    if status == 403:
        assert "http://orders/" in json.loads(answer.body)["hint"]
        assert stage.web.books.hop.flag == "PD"


@pytest.mark.parametrize("port", [PROXY, OWN])
@scene()
async def test_a_browsers_cross_site_request_is_refused(stage: Stage, port: int) -> None:
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: orders\r\nSec-Fetch-Site: cross-site\r\n\r\n", port=port)
    assert answer.status == 403
    assert answer.get("proxy-status") is None  # the page gets no reasons
    assert type(stage.web.books.hop.error).__name__ == "CrossSite"


@scene()
async def test_the_target_travels_byte_for_byte(stage: Stage) -> None:
    """Toward the peer only framing hygiene; its own sidecar judges the path (decision D4)."""
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    for target in (b"/%41/b%20c?x=%2F..//", b"/;a=b", b"/"):
        await stage.ask(b"GET " + target + b" HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert [request.target for request in seen] == [b"/%41/b%20c?x=%2F..//", b"/;a=b", b"/"]
    answer = await stage.ask(b"GET /a/../b HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert answer.status == 400
    assert stage.orders.books.hops[-1].flag == "DPE"


@scene()
async def test_options_asterisk_crosses(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    assert (await stage.ask(b"OPTIONS * HTTP/1.1\r\nHost: orders\r\n\r\n")).status in (200, 403)
