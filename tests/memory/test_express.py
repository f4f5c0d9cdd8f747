"""The express and the general way: which requests take which, and that nobody can tell from the answers."""

from __future__ import annotations

import pytest

from sidecar.net.memory import MemoryWire
from sidecar.proxy import lane
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
pytestmark = pytest.mark.skipif(not lane.ENABLED, reason="MESH_HTTP1_READER=h11: every request goes the general way")


def get(path: str = "/", more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: orders\r\n%b\r\n" % (path.encode(), more)


async def ready(stage: Stage, answer: bytes = apps.OK, seen: list[Request] | None = None) -> Line:
    """A peer's connection, with a pooled one to the application behind it: the first request goes the general way."""
    stage.app(apps.keeping(seen if seen is not None else [], answer))
    peer = await stage.peer()
    await peer.say(GET)
    await peer.answer()
    assert stage.orders.books.by_express == 0
    return peer


@scene()
async def test_a_plain_request_takes_the_express_on_both_sides(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    caller = await stage.call()
    for number in range(5):
        await caller.say(get(f"/items/{number}"))
        assert (await caller.answer()).body == b"ok"
    assert (stage.web.books.by_express, stage.orders.books.by_express) == (4, 4)
    hop = stage.orders.books.hops[-1]
    assert (hop.target, hop.segments, hop.status, hop.attempts, hop.flag) == ("/items/4", ("items", "4"), 200, 1, "-")
    assert (hop.received_bytes, hop.sent_bytes) == (0, 2)


@scene()
async def test_what_the_application_sees_is_the_same_either_way(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await ready(stage, seen=seen)
    for more in (b"", b"Expect: 100-continue\r\n"):
        await peer.say(get("/a?b=c", b"X-Own: 1\r\nAccept:  */*\r\nConnection: keep-alive\r\nTE: trailers\r\n" + more))
        await peer.answer()
    assert stage.orders.books.by_express == 1
    express, general = ({(n.lower(), v) for n, v in request.headers if n.lower() != b"expect"} for request in seen[1:])
    assert express == general
    assert {name for name, _ in express} == {b"host", b"x-own", b"accept", b"x-forwarded-client-cert", b"mesh-via"}


@pytest.mark.parametrize(
    "more",
    [
        b"X-Forwarded-Client-Cert: By=me\r\n",
        b"x_forwarded_client_cert: By=me\r\n",
        b"mesh-decision-id: 1-1\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"Connection: x-own\r\n",
        b"Expect: 100-continue\r\n",
    ],
)
@scene()
async def test_what_is_special_goes_the_general_way(stage: Stage, more: bytes) -> None:
    seen: list[Request] = []
    peer = await ready(stage, seen=seen)
    await peer.say(get("/", more))
    assert (await peer.answer()).status == 200
    assert stage.orders.books.by_express == 0
    assert seen[1].get("mesh-decision-id") is None
    assert (seen[1].get("x-forwarded-client-cert") or b"").startswith(b"By=spiffe://demo.mesh/")
    await peer.say(GET)  # and the one behind it takes the express again
    assert (await peer.answer()).status == 200
    assert stage.orders.books.by_express == 1


@scene()
async def test_a_request_that_has_been_here_before_is_a_loop(stage: Stage) -> None:
    peer = await ready(stage)
    ours = stage.orders.books.instance.encode()
    await peer.say(get("/", b"mesh-via: 0123abcd,%b\r\n" % ours))
    assert (await peer.answer()).status == 508
    assert stage.orders.books.by_express == 0


@scene()
async def test_a_pipeline_is_answered_in_order(stage: Stage) -> None:
    stage.app(apps.replying(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + request.target[-2:]))
    peer = await stage.peer()
    await peer.say(get("/00"))
    await peer.answer()
    numbers = range(10, 40)
    await peer.say(b"".join(get(f"/{number}", b"" if number % 10 else b"Connection: x\r\n") for number in numbers))
    assert [(await peer.answer()).body for _ in numbers] == [b"%d" % number for number in numbers]
    assert len(stage.orders.books.hops) == 31


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + apps.OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nUpgrade: h2c\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nmesh-decision-id: 1-1\r\n\r\nok",
    ],
)
@scene()
async def test_an_answer_that_is_special_is_handed_over(stage: Stage, answer: bytes) -> None:
    peer = await ready(stage, answer)
    for _ in range(2):
        await peer.say(GET)
        got = await peer.answer()
        assert (got.status, got.body) == (200, b"ok")
        assert got.get("mesh-decision-id") is None
    assert stage.orders.books.by_express == 0
    assert len(stage.apps) == 1  # on the same connection all the time


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nETag: 1\r\nContent-Length: 7\r\n\r\n", 304, b""),
        (b"HTTP/1.1 404 Oh\r\nContent-Length: 2\r\n\r\nno", 404, b"no"),
        (CHUNKED + b"2\r\nok\r\n1;a=b\r\n!\r\n0\r\nX-T: 1\r\n\r\n", 200, b"ok!"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000, 200, b"x" * 300_000),
    ],
)
@scene()
async def test_plain_answers_of_every_framing_take_the_express(
    stage: Stage, answer: bytes, status: int, body: bytes
) -> None:
    peer = await ready(stage, answer)
    for _ in range(2):
        await peer.say(GET)
        got = await peer.answer()
        assert (got.status, got.body) == (status, body)
    assert stage.orders.books.by_express == 2
    assert stage.orders.books.hops[-1].sent_bytes == len(body)


@scene()
async def test_bytes_beyond_an_answer_are_nobodys(stage: Stage) -> None:
    peer = await ready(stage, apps.OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    for _ in range(3):
        await peer.say(GET)
        assert (await peer.answer()).body == b"ok"
    assert len(stage.apps) == 4  # no connection that has said more than it was asked is used again


@scene()
async def test_who_wants_to_close_is_told_so_and_closed(stage: Stage) -> None:
    peer = await ready(stage)
    await peer.say(get("/", b"Connection: close\r\n"))
    got = await peer.answer()
    assert (got.status, got.get("connection")) == (200, b"close")
    assert await peer.is_closed()
    assert stage.orders.books.by_express == 1


@scene()
async def test_a_connection_that_proves_dead_is_replaced_and_a_long_body_waits_for_none(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await ready(stage, seen=seen)
    wire: MemoryWire = stage.apps[0].wire
    wire.vanish()
    body = b"x" * 100_000  # could not be sent again: it takes a fresh connection
    await peer.say(b"PUT / HTTP/1.1\r\nHost: orders\r\nContent-Length: 100000\r\n\r\n" + body)
    assert (await peer.answer()).status == 200
    assert seen[-1].body == body
    assert stage.orders.books.hops[-1].attempts == 1


@scene()
async def test_a_small_body_rides_along(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await ready(stage, seen=seen)
    await peer.say(b"POST /a HTTP/1.1\r\nHost: orders\r\nContent-Length: 4\r\n\r\nbody" + GET)
    assert (await peer.answer()).status == 200
    assert (await peer.answer()).status == 200
    assert [request.body for request in seen[1:]] == [b"body", b""]
    assert stage.orders.books.by_express == 2
    assert stage.orders.books.hops[1].received_bytes == 4
