"""Upstreams that lie, stop, or leave: the caller gets a plain failure or a broken connection, never half an answer."""

from __future__ import annotations

import pytest

from sidecar.net.port import WireBroken
from tests.kit import apps
from tests.kit.h1_line import HungUp, Line
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"


def saying(data: bytes, *, end: str = "close"):  # type: ignore[no-untyped-def]
    """An application that reads a request, says this, and ends the connection in this way."""

    async def serve(line: Line) -> None:
        await line.request_head()
        await line.say(data)
        await stage_tick(line)
        if end == "stay":
            await line.hear_all()
        else:
            getattr(line, end)()

    return serve


async def stage_tick(line: Line) -> None:
    """Let what was said arrive before what comes next; no time passes."""
    await line.wire.port.settled()


NOT_AN_ANSWER = [
    (b"", "UC", 503),
    (b"HTTP/1.1 200 O", "UPE", 502),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "UPE", 502),
    (b"garbage\r\n\r\n", "UPE", 502),
    (b"HTTP/2.0 200 OK\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 099 X\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 2000 X\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nX\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", "UPE", 502),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 0\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 33000 + b"\r\n\r\n", "UPE", 502),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n", "UPE", 502),
]


@pytest.mark.parametrize(("data", "flag", "status"), NOT_AN_ANSWER)
@scene()
async def test_what_is_no_answer_is_a_plain_failure(stage: Stage, data: bytes, flag: str, status: int) -> None:
    stage.app(saying(data))
    answer = await stage.ask(GET)
    assert (answer.status, stage.orders.books.hop.flag) == (status, flag)
    assert answer.get("content-type") == b"application/problem+json"


HALF_AN_ANSWER = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n1234567",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
]


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("data", HALF_AN_ANSWER)
@scene()
async def test_half_an_answer_is_never_completed(stage: Stage, data: bytes, end: str) -> None:
    stage.app(saying(data, end=end))
    web = await stage.call()
    await web.say(GET)
    try:
        answer = await web.answer()
    except (WireBroken, HungUp):
        pass
    else:
        assert answer.status == 503  # it was found out before a byte had been passed on
    await stage.quiet()
    assert stage.orders.books.hop.error is not None
    assert stage.web.books.hop.error is not None


@scene()
async def test_an_answer_that_ends_by_closing_is_broken_by_a_reset(stage: Stage) -> None:
    stage.app(saying(b"HTTP/1.1 200 OK\r\n\r\nas far as", end="abort"))
    web = await stage.call()
    await web.say(b"GET / HTTP/1.0\r\n\r\n")  # for this caller, too, only the close would end it
    with pytest.raises(WireBroken):
        await web.hear_all()


@pytest.mark.parametrize(
    "extra", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign", b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
@pytest.mark.parametrize("request_", [GET, GET.replace(b"GET", b"HEAD")])
@scene()
async def test_bytes_beyond_an_answer_end_that_connection(stage: Stage, request_: bytes, extra: bytes) -> None:
    stage.app(saying(apps.OK[: -2 if request_.startswith(b"HEAD") else None] + extra, end="stay"))
    peer = await stage.peer()
    for _ in range(2):
        await peer.say(request_)
        answer = await peer.answer(request_[:4].decode().strip())
        assert (answer.status, answer.body) == (200, b"" if request_.startswith(b"HEAD") else b"ok")
    assert len(stage.apps) == 2


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@scene()
async def test_a_body_where_none_may_be_ends_that_connection(stage: Stage, status: bytes) -> None:
    stage.app(saying(b"HTTP/1.1 " + status + b"\r\nContent-Length: 7\r\n\r\nforeign", end="stay"))
    peer = await stage.peer()
    for _ in range(2):
        await peer.say(GET)
        assert (await peer.answer()).body == b""
    assert len(stage.apps) == 2


@scene()
async def test_an_answer_before_the_request_is_never_used(stage: Stage) -> None:
    async def blurts(line: Line) -> None:
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign")
        await apps.always(apps.OK)(line)

    stage.app(blurts)
    peer = await stage.peer()
    await peer.say(GET)
    first = await peer.answer()  # on a new connection there is no telling it from an answer; but it ends there
    assert first.status == 200
    await peer.say(GET)
    await peer.answer()
    assert len(stage.apps) == 2


@scene()
async def test_an_application_that_is_down_is_a_503(stage: Stage) -> None:
    answer = await stage.ask(GET)
    assert (answer.status, stage.orders.books.hop.flag) == (503, "UF")
    web_hop = stage.web.books.hop
    assert (web_hop.status, web_hop.flag) == (503, "-")  # the peer's sidecar answered; ours only passed it on
    assert answer.get("mesh-decision-id") == stage.orders.books.hop.decision_id.encode()
    assert b"received-status=503" in (answer.get("proxy-status") or b"")


@scene()
async def test_a_sidecar_that_is_down_is_a_503_of_our_own(stage: Stage) -> None:
    stage.port.refuse("10.0.0.2", 17443)
    answer = await stage.ask(GET)
    assert (answer.status, stage.web.books.hop.flag) == (503, "UF,URX")
    assert b"error=connection_refused" in (answer.get("proxy-status") or b"")


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("stream", [False, True])
@scene()
async def test_nobody_works_for_a_caller_who_has_left(stage: Stage, stream: bool, how: str) -> None:
    ended: list[float] = []

    async def works(line: Line) -> None:
        await line.request_head()
        if stream:
            await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        try:
            await line.hear_all()
        except WireBroken:
            pass
        ended.append(stage.now)

    stage.app(works)
    web = await stage.call()
    await web.say(GET)
    if stream:
        await web.answer_head()
    await stage.sleep(5.0)
    if how == "close":
        web.wire._unread.clear()
    getattr(web, how)()
    await stage.sleep(5.0)
    assert ended
    assert ended[0] <= 6.0  # at most a second for one who only half-closed
    assert set(stage.orders.books.flags) == set(stage.web.books.flags) == {"DC"}


@scene()
async def test_a_caller_who_leaves_while_sending_cancels_the_upload(stage: Stage) -> None:
    ended: list[bool] = []

    async def works(line: Line) -> None:
        await line.request_head()
        ended.append(await line.is_reset())

    stage.app(works)
    peer = await stage.peer()
    await peer.say(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 10\r\n\r\n12345")
    await stage.quiet()
    peer.close()
    await stage.quiet()
    assert ended == [True]  # a reset: half a body must not be taken for a whole one
    assert stage.orders.books.hop.flag == "DC"
