"""Pooled connections that died unseen (decision D22): what is sent again, what never is."""

from __future__ import annotations

import pytest

from sidecar.errors import UpstreamClosed
from sidecar.hop import Hop
from sidecar.net.memory import MemoryWire
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"


def head(method: bytes, extra: bytes = b"") -> bytes:
    return method + b" / HTTP/1.1\r\nHost: orders\r\n" + extra + b"\r\n"


def _reused(hop: Hop) -> bool:
    return isinstance(hop.error, UpstreamClosed) and hop.error.reused


async def warmed(stage: Stage, seen: list[Request], *, deaf: bool = False) -> Line:
    """A peer's connection, and behind it a pooled one to the application, which has died without our knowing."""
    stage.app(apps.keeping(seen))
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    await stage.quiet()
    wire: MemoryWire = stage.apps[0].wire
    wire.vanish(deaf=deaf)
    seen.clear()
    return peer


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
@pytest.mark.parametrize("deaf", [False, True])
@scene()
async def test_an_idempotent_request_is_sent_again_once_on_a_fresh_connection(
    stage: Stage, deaf: bool, method: bytes
) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen, deaf=deaf)
    await peer.say(head(method))
    assert (await peer.answer(method.decode())).status == 200
    assert [request.method for request in seen] == [method]
    hop = stage.orders.books.hops[-1]
    assert (hop.attempts, hop.flag) == (2, "-")


@scene()
async def test_a_post_is_not_sent_again_once_a_byte_was_written(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen)
    await peer.say(head(b"POST", b"Content-Length: 2\r\n") + b"hi")
    assert (await peer.answer()).status == 503
    hop = stage.orders.books.hops[-1]
    assert (hop.flag, hop.attempts, _reused(hop)) == ("UR", 1, True)
    assert seen == []


@scene()
async def test_a_post_is_sent_again_where_no_byte_was_written(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen, deaf=True)
    await peer.say(head(b"POST", b"Content-Length: 2\r\n") + b"hi")
    assert (await peer.answer()).status == 200
    assert [request.body for request in seen] == [b"hi"]


@scene()
async def test_a_post_takes_no_connection_that_was_idle_for_half_a_second(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen)
    await stage.sleep(0.5)
    await peer.say(head(b"POST", b"Content-Length: 2\r\n") + b"hi")
    assert (await peer.answer()).status == 200
    assert [request.body for request in seen] == [b"hi"]
    assert stage.orders.books.hops[-1].attempts == 1


@pytest.mark.parametrize("size", [0, 1, 1000, 64 * 1024])
@scene()
async def test_a_keyed_post_is_sent_again_with_its_body(stage: Stage, size: int) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen)
    body = bytes(range(256)) * 256
    await peer.say(head(b"POST", b"Idempotency-Key: k\r\nContent-Length: %d\r\n" % size) + body[:size])
    assert (await peer.answer()).status == 200
    assert [request.body for request in seen] == [body[:size]]
    assert stage.orders.books.hops[-1].attempts == 2


@scene()
async def test_a_body_of_which_only_a_part_had_come_is_sent_again_whole(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen)
    await peer.say(head(b"PUT", b"Content-Length: 6\r\n") + b"abc")
    await stage.sleep(0.1)
    await peer.say(b"def")
    assert (await peer.answer()).status == 200
    assert [request.body for request in seen] == [b"abcdef"]


@pytest.mark.parametrize("framing", ["long", "chunked"])
@scene()
async def test_a_body_that_could_not_be_sent_again_takes_a_fresh_connection(stage: Stage, framing: str) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen)
    size = 64 * 1024 + 1
    if framing == "long":
        await peer.say(head(b"PUT", b"Content-Length: %d\r\n" % size) + bytes(size))
    else:
        await peer.say(head(b"PUT", b"Transfer-Encoding: chunked\r\n") + b"%x\r\n%s\r\n0\r\n\r\n" % (size, bytes(size)))
    assert (await peer.answer()).status == 200
    assert [len(request.body) for request in seen] == [size]
    assert stage.orders.books.hops[-1].attempts == 1


@scene()
async def test_it_is_sent_again_once_and_no_more(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen)

    async def leaves(line: Line) -> None:
        await line.request_head()

    stage.app(leaves)
    await peer.say(GET)
    assert (await peer.answer()).status == 503
    hop = stage.orders.books.hops[-1]
    assert (hop.flag, hop.attempts, _reused(hop)) == ("UC", 2, False)


@scene()
async def test_a_fresh_connection_that_closes_is_not_tried_again(stage: Stage) -> None:
    async def leaves(line: Line) -> None:
        await line.request_head()

    stage.app(leaves)
    answer = await stage.ask(GET)
    assert answer.status == 503
    assert (stage.orders.books.hop.flag, len(stage.apps)) == ("UC", 1)


@scene()
async def test_a_half_closed_caller_gets_the_second_try_too(stage: Stage) -> None:
    seen: list[Request] = []
    peer = await warmed(stage, seen)
    await peer.say(GET)
    await peer.finish()
    assert (await peer.answer()).status == 200


@scene()
async def test_an_idle_connection_that_closes_leaves_the_pool_at_once(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    peer = await stage.peer()
    await peer.say(GET)
    await peer.answer()
    stage.apps[0].close()
    await stage.quiet()
    await peer.say(head(b"POST", b"Content-Length: 2\r\n") + b"hi")
    assert (await peer.answer()).status == 200
    assert [hop.attempts for hop in stage.orders.books.hops] == [1, 1]


@scene()
async def test_an_idle_connection_that_speaks_leaves_the_pool_at_once(stage: Stage) -> None:
    """Bytes that nobody asked for would be taken for the answer to the next request."""
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(GET)
    await peer.answer()
    await stage.apps[0].say(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign")
    await stage.quiet()
    await peer.say(GET)
    assert (await peer.answer()).body == b"ok"
    assert len(stage.apps) == 2


@scene()
async def test_between_sidecars_a_dead_connection_is_replaced_as_well(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(GET)
    await web.answer()
    await stage.quiet()
    between = [wire for wire in stage.port.wires if wire.greeting is not None]
    between[-1].vanish() if between[-1].other.address[1] == 17443 else between[-2].vanish()
    await web.say(GET)
    assert (await web.answer()).status == 200
    assert stage.web.books.hops[-1].attempts == 2
