"""Expect: 100-continue, early answers, and other 1xx: who may wait for whom (RFC 9110 sections 10.1.1 and 15.2)."""

from __future__ import annotations

from sidecar.net.port import WireBroken
from tests.kit import apps
from tests.kit.h1_line import Line
from tests.kit.play import Stage, scene

ASK = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


@scene()
async def test_the_applications_100_reaches_the_caller_before_the_body_is_sent(stage: Stage) -> None:
    async def careful(line: Line) -> None:
        head = await line.request_head()
        assert head.get("expect") == b"100-continue"
        await line.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + await line.hear(5))
        await apps.always(apps.OK)(line)

    stage.app(careful)
    web = await stage.call()
    await web.say(ASK)
    assert (await web.answer_head()).status == 100
    await web.say(b"hello")
    assert (await web.answer()).body == b"hello"
    await web.say(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert (await web.answer()).status == 200
    assert len(stage.apps) == 1


@scene()
async def test_an_application_that_answers_without_reading_ends_the_connection(stage: Stage) -> None:
    async def refuses(line: Line) -> None:
        await line.request_head()
        await line.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await line.hear_all()

    stage.app(refuses)
    web = await stage.call()
    await web.say(ASK)
    answer = await web.answer()
    assert (answer.status, answer.body, answer.interim) == (403, b"no", [])
    assert await web.is_closed()  # nobody can tell whether the body would still come
    assert [hop.status for hop in stage.orders.books.hops] == [403]


@scene()
async def test_a_caller_that_does_not_wait_is_served_all_the_same(stage: Stage) -> None:
    stage.app(apps.echo())
    web = await stage.call()
    await web.say(ASK + b"hello")
    assert (await web.answer()).body == b"hello"
    await web.say(ASK + b"again")
    assert (await web.answer()).body == b"again"


@scene()
async def test_a_needless_100_is_swallowed(stage: Stage) -> None:
    async def eager(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 100 Continue\r\n\r\n" + apps.OK)

    stage.app(eager)
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert (answer.status, answer.interim) == (200, [])


@scene()
async def test_other_informational_answers_are_passed_on(stage: Stage) -> None:
    async def hints(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nmesh-decision-id: forged\r\n\r\n")
        await line.say(b"HTTP/1.1 102 Processing\r\n\r\n" + apps.OK)

    stage.app(hints)
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert [one.status for one in answer.interim] == [103, 102]
    assert answer.interim[0].headers == [(b"link", b"</a.css>")]


@scene()
async def test_an_http_1_0_caller_hears_no_informational_answers(stage: Stage) -> None:
    async def hints(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + apps.OK)

    stage.app(hints)
    answer = await stage.ask(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
    assert (answer.status, answer.interim) == (200, [])


@scene()
async def test_a_flood_of_informational_answers_is_a_fault_of_the_upstream(stage: Stage) -> None:
    async def floods(line: Line) -> None:
        await line.request()
        for _ in range(1000):
            await line.say(b"HTTP/1.1 102 Processing\r\n\r\n")

    stage.app(floods)
    answer = await stage.ask(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert answer.status == 502
    assert stage.orders.books.hop.flag == "UPE"
    assert len(answer.interim) == 32


@scene()
async def test_an_answer_that_begins_while_the_body_still_comes_is_passed_on_at_once(stage: Stage) -> None:
    async def early(line: Line) -> None:
        await line.request_head()
        await line.hear(3)
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")
        await line.hear(3)
        await line.say(b"4\r\nlate\r\n0\r\n\r\n")
        await apps.always(apps.OK)(line)

    stage.app(early)
    web = await stage.call()
    await web.say(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 6\r\n\r\none")
    assert (await web.answer_head()).status == 200
    await web.until(b"early\r\n")
    await web.say(b"two")
    await web.until(b"late\r\n0\r\n\r\n")
    await web.say(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")  # both had ended: the connection goes on
    assert (await web.answer()).status == 200
    assert len(stage.apps) == 1


@scene()
async def test_an_answer_that_ends_before_the_request_closes_both_connections_orderly(stage: Stage) -> None:
    async def refuses(line: Line) -> None:
        await line.request_head()
        await line.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await stage.sleep(60.0)

    stage.app(refuses)
    web = await stage.call()
    upload = stage.port.spawn(_ignoring_breaks(web, b"x" * 5_000_000))
    answer = await web.answer()  # the answer is not lost, although we are still sending
    assert (answer.status, answer.body) == (413, b"big")
    await stage.port.wait(upload)
    assert [hop.status for hop in stage.web.books.hops] == [413]
    assert stage.orders.books.flags == ["-"]


async def _ignoring_breaks(line: Line, body: bytes) -> None:
    try:
        await line.say(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    except WireBroken:
        pass


@scene()
async def test_a_request_that_is_still_on_its_way_never_meets_the_next_one(stage: Stage) -> None:
    """The answer is whole and the request has been read whole by us, but the application has not taken it all.

    Were that connection pooled, the rest of this body would be read as the head of the next request.
    """
    heard: list[bytes] = []

    async def lazy(line: Line) -> None:
        line.wire.capacity = 1000
        await line.request_head()
        await stage.sleep(1.0)  # by now the whole body is in our sidecar's hands, and has no room here
        await line.say(apps.OK)
        await stage.sleep(5.0)
        try:
            heard.append(await line.hear_all())
        except WireBroken:
            heard.append(b"")

    async def serve(line: Line) -> None:
        await (lazy if len(stage.apps) == 1 else apps.always(apps.OK))(line)

    stage.app(serve)
    web = await stage.peer()
    body = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".ljust(50_000, b"x")
    await web.say(b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert (await web.answer()).status == 200
    assert stage.orders.books.hop.received_bytes == len(body)
    other = await stage.peer()
    await other.say(b"GET /honest HTTP/1.1\r\nHost: orders\r\n\r\n")
    assert (await other.answer()).status == 200
    assert len(stage.apps) == 2
    await stage.sleep(10.0)
    assert b"/honest" not in heard[0]
