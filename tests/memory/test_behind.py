"""Two sidecars, and an application behind one of them that is down, hangs up or is silent: its caller's sidecar goes
to the other, at once where nothing was done, and soon for everything.
"""

from __future__ import annotations

import random

import pytest

from sidecar.config.load import load_text
from sidecar.net.port import Unreachable, Wire
from sidecar.proxy.upstream import SPARE_BYTES
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.play import MESH, MemoryProxy, Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
OTHER, OTHER_APP = "10.0.0.9", "127.0.0.1:8081"
TWO = f', endpoints: ["{OTHER}:17443", "10.0.0.2:17443"]'


def another_copy(stage: Stage) -> MemoryProxy:
    """The sidecar of another copy of orders, with an application of its own, which is down until somebody opens it."""
    text = (MESH % (stage._words | {"app": OTHER_APP, "upstream": ""})).replace("10.0.0.2", OTHER)
    copy = MemoryProxy(stage.port, load_text(text, now=stage.port.wall()), "orders", stage.orders._gate)
    copy.listen()
    return copy


def far_away(stage: Stage) -> None:
    """On the way to the other copy there is room for 512 KiB, and its sidecar sees a moment later that nobody is in."""
    port, dial = stage.port, stage.port.dial
    port._listening[OTHER, 17443].capacity = 512 * 1024

    async def slow(host: str, number: int) -> Wire:
        try:
            return await dial(host, number)
        except Unreachable:
            await port.sleep(0.01)
            raise

    port.dial = slow  # type: ignore[method-assign]


async def hangs_up(line: Line) -> None:
    """Reads a request and closes."""
    await line.request()


@pytest.mark.parametrize("request_", [GET, POST, CHUNKED])
@scene(upstream=TWO)
async def test_an_application_that_is_down_is_nobodys_loss(stage: Stage, request_: bytes) -> None:
    """Its sidecar says that nothing was sent, so any method goes elsewhere, and after a few nobody goes there."""
    another_copy(stage)
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    for _ in range(40):
        assert (await stage.ask(request_, request_.split(b" ")[0].decode())).status == 200
    assert len(seen) == 40
    assert {request.body for request in seen} == {b"" if request_ is GET else b"hi"}
    hops = stage.web.books.hops
    assert {hop.attempts for hop in hops} == {1, 2}
    assert {hop.attempts for hop in hops[-10:]} == {1}
    assert "application_failed" in next(hop.tried[0] for hop in hops if hop.tried)


@pytest.mark.parametrize("serve", [hangs_up, apps.silent])
@scene(upstream=TWO)
async def test_an_application_that_fails_is_soon_left_alone(stage: Stage, serve: apps.Serve) -> None:
    """It may have begun, so nothing is sent again; but the breaker counts it."""
    another_copy(stage)
    stage.app(apps.always(apps.OK))
    stage.app(serve, OTHER_APP)
    statuses = [(await stage.ask(POST, "POST")).status for _ in range(40)]
    assert set(statuses) <= {200, 503, 504}
    assert 1 <= sum(status != 200 for status in statuses) <= 7
    assert statuses[-10:] == [200] * 10


@scene()
async def test_the_note_stays_between_sidecars(stage: Stage) -> None:
    """A peer is told, our own application is not, and an application that says it itself is not believed."""
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).get("mesh-failed") == b"unsent"
    answer = await stage.ask(GET)
    assert (answer.status, answer.get("mesh-failed")) == (503, None)
    liar = b"HTTP/1.1 503 Busy\r\nMesh-Failed: unsent\r\nContent-Length: 0\r\n\r\n"
    seen: list[Request] = []
    stage.app(apps.replying(lambda request: seen.append(request) or liar))  # type: ignore[func-returns-value]
    assert (await stage.ask(GET)).status == 503
    assert len(seen) == 1
    await stage.sleep(10.0)
    other = await stage.peer()
    await other.say(GET)
    assert (await other.answer()).get("mesh-failed") is None


@scene(orders="    rates: [{name: one, limit: 1/h, per: caller}]")
async def test_a_refusal_says_nothing_of_the_application(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    for status in (200, 429):
        await peer.say(GET)
        answer = await peer.answer()
        assert (answer.status, answer.get("mesh-failed")) == (status, None)


@pytest.mark.parametrize(("size", "spare"), [(200_000, SPARE_BYTES), (5_000_000, SPARE_BYTES), (200_000, 0)])
@scene(upstream=TWO)
async def test_a_long_body_goes_elsewhere_whole_while_there_is_room_for_it(
    stage: Stage, size: int, spare: int
) -> None:
    """Over 64 KiB a body is kept for a peer whose application may be gone; what was kept is given back."""
    another_copy(stage)
    far_away(stage)
    for upstream in stage.web.upstreams:
        upstream.spare = spare
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    body = random.Random(size).randbytes(size)
    request = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: %d\r\n\r\n" % size + body
    statuses = [(await stage.ask(request, "POST")).status for _ in range(8)]
    assert set(statuses) == ({200} if spare else {200, 503})
    assert {request.body for request in seen} == {body}
    assert len(seen) == statuses.count(200)
    assert {upstream.spare for upstream in stage.web.upstreams} == {spare}
