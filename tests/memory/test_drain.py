"""Draining: what is in flight ends well, what is idle is closed, and every caller is told."""

from __future__ import annotations

from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"


@scene()
async def test_idle_connections_are_closed_in_a_moment(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(GET)
    await peer.answer()
    await stage.quiet()
    stage.orders.drain()
    assert await peer.is_closed()
    assert stage.now == 1.0  # seconds that somebody may still be writing in


@scene()
async def test_a_request_that_a_peer_was_just_writing_is_answered(stage: Stage) -> None:
    """Who cannot send twice takes a connection that was busy within the last half second; it is not closed on them."""
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(GET)
    await peer.answer()
    stage.orders.drain()
    await stage.sleep(0.5)
    await peer.say(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 2\r\n\r\nhi")
    answer = await peer.answer()
    assert (answer.status, answer.get("connection")) == (200, b"close")
    assert await peer.is_closed()


@scene()
async def test_a_request_in_flight_is_answered_and_told_of_the_close(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        await line.request()
        await stage.sleep(3.0)
        await line.say(apps.OK)

    stage.app(slow)
    peer = await stage.peer()
    await peer.say(GET)
    await stage.sleep(1.0)
    stage.orders.drain()
    assert stage.orders.in_flight == 1
    answer = await peer.answer()
    assert (answer.status, answer.body, answer.get("connection")) == (200, b"ok", b"close")
    assert await peer.is_closed()
    peer.close()
    await stage.quiet()
    assert (stage.orders.in_flight, stage.now) == (0, 3.0)


@scene()
async def test_a_request_whose_head_has_begun_is_still_answered(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    await peer.say(GET[:10])
    await stage.quiet()
    stage.orders.drain()
    await peer.say(GET[10:])
    answer = await peer.answer()
    assert (answer.status, answer.get("connection")) == (200, b"close")


@scene()
async def test_the_far_sidecar_does_not_fail_a_request_because_this_one_drains(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(GET)
    await web.answer()
    await stage.quiet()
    stage.orders.drain()
    await stage.quiet()
    other = stage.orders
    serve = stage.port._listening["10.0.0.2", 17443].serve
    assert serve is not None
    other.draining = False  # a replacement takes the address over
    for _, side in other._inbound:
        side.door.draining = False
    await web.say(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 2\r\n\r\nhi")
    assert (await web.answer()).status == 200
    assert stage.web.books.flags == ["-", "-"]


@scene()
async def test_outbound_stays_open_while_the_application_lives(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web = await stage.call()
    await web.say(GET)
    await web.answer()
    stage.web.drain()
    await web.say(GET)
    answer = await web.answer()
    assert (answer.status, answer.get("connection")) == (200, None)
