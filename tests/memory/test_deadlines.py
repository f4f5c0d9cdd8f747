"""Until when a request may take (D21, pain 33): the earliest word wins, is kept at every hop, and is named."""

from __future__ import annotations

import pytest

from sidecar.proxy import lane
from tests.kit import apps
from tests.kit.h1_line import HungUp, Line, Request
from tests.kit.h2_line import ORDERS_POST, h2_call, h2_peer
from tests.kit.h2_wire import RST_STREAM, data, frame, headers, word
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 2\r\n\r\nhi"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
TOTAL = "    timeouts: {total: 2s}"
TRY = ", timeouts: {per_try: 1s}"


def within(field: bytes, request: bytes = GET) -> bytes:
    """A request with this header line."""
    return request.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n", 1)


class Slow:
    """An application that takes its time, and knows when it was left."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        self.seen: list[Request] = []
        self.left_at: list[float] = []
        self._stage = stage
        self._seconds = seconds

    async def __call__(self, line: Line) -> None:
        """Serve one connection."""
        while True:
            try:
                self.seen.append(await line.request())
                await line.say(apps.OK) if await self._rests(line) else self.left_at.append(self._stage.now)
            except HungUp:
                return

    async def _rests(self, line: Line) -> bool:
        for _ in range(int(self._seconds * 10)):
            await self._stage.sleep(0.1)
            if line.wire.half_closed:
                return False
        return True


# ---- of the caller ---------------------------------------------------------------------------------------------------


@scene()
async def test_an_application_says_how_long_it_waits_and_every_hop_keeps_to_it(stage: Stage) -> None:
    """Nobody works for a caller who has given up: the connection to the called application is closed too."""
    app = Slow(stage, 10.0)
    stage.app(app)
    answer = await stage.ask(within(b"mesh-timeout: 300m"))
    assert (answer.status, round(stage.now, 3)) == (504, 0.3)
    await stage.sleep(0.5)
    assert [round(at, 1) for at in app.left_at] in ([0.3], [0.4])
    web, orders = stage.web.books.hop, stage.orders.books.hop
    assert (web.flag, orders.flag) == ("UT", "UT")
    assert "within 0.3 s (mesh-timeout, set by our own application)" in str(web.error)
    assert "(mesh-deadline, told by the sidecar before us)" in str(orders.error)
    assert app.seen[0].get("mesh-timeout") is app.seen[0].get("mesh-deadline") is None
    assert round(orders.ended, 3) == 0.3


@pytest.mark.parametrize("value", [
    b"", b"S", b"5", b"5s", b"-5S", b"123456789S", b"5 S", b"1.5S", b"300m, 5S", b"300m\r\nmesh-timeout: 5S",
])  # fmt: skip
@scene()
async def test_what_cannot_be_read_is_refused(stage: Stage, value: bytes) -> None:
    """Who sets a limit means one; nothing is asked without it."""
    app = Slow(stage, 0.0)
    stage.app(app)
    answer = await stage.ask(within(b"mesh-timeout: " + value))
    assert answer.status == 400
    peer = await stage.peer()
    await peer.say(within(b"mesh-deadline: " + value.replace(b"mesh-timeout", b"mesh-deadline")))
    assert (await peer.answer()).status == 400
    assert "mesh-timeout" in str(stage.web.books.hop.error)
    assert "mesh-deadline" in str(stage.orders.books.hop.error)
    assert app.seen == []


@scene()
async def test_only_those_who_may_are_listened_to(stage: Stage) -> None:
    """The control header is our own application's, the hop header a verified peer's; both end here."""
    app = Slow(stage, 1.0)
    stage.app(app)
    assert (await stage.ask(within(b"mesh-deadline: 1m"))).status == 200
    peer = await stage.peer()
    await peer.say(within(b"mesh-timeout: 1m"))
    assert (await peer.answer()).status == 200
    assert [request.get(name) for request in app.seen for name in ("mesh-timeout", "mesh-deadline")] == [None] * 4


@pytest.mark.parametrize("request_", [GET, POST])
@scene()
async def test_with_nothing_left_nothing_is_sent(stage: Stage, request_: bytes) -> None:
    app = Slow(stage, 0.0)
    stage.app(app)
    answer = await stage.ask(within(b"mesh-timeout: 0n", request_), request_.split(b" ")[0].decode())
    assert (answer.status, stage.web.books.hop.flag, stage.web.books.hop.attempts) == (504, "UT", 0)
    assert "nothing was left" in str(stage.web.books.hop.error)
    assert stage.orders.books.hops == []
    assert app.seen == []


@scene()
async def test_a_deadline_of_its_own_holds_for_a_tunnel_too(stage: Stage) -> None:
    async def switches(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        await line.hear_all()

    stage.app(switches)
    web = await stage.call()
    await web.say(
        b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: upgrade\r\nUpgrade: echo\r\nmesh-timeout: 5S\r\n\r\n"
    )
    assert (await web.answer()).status == 101
    assert await web.is_reset()
    assert stage.now == 5.0


@scene()
async def test_a_call_by_http2_is_told_which_deadline_is_the_earlier_one(stage: Stage) -> None:
    """mesh-timeout and grpc-timeout at once: the call is told the tighter of the two."""
    told: list[tuple[bytes | None, bytes | None]] = []

    async def serve(line: Line) -> None:
        request = await line.request()
        told.append((request.get("grpc-timeout"), request.get("mesh-deadline")))
        await line.say(apps.OK)

    stage.app(serve)
    fields = (*ORDERS_POST, (b"mesh-timeout", b"1S"), (b"grpc-timeout", b"9S"))
    web = await h2_call(stage, headers(1, fields))
    assert (await web.answer(1)).status == 200
    assert told == [(b"9S", None)]  # no call: what grpc-timeout means there is not for us to say


@pytest.mark.parametrize("value", [b"5x", b"123456789S", b"-1S"])
@scene()
async def test_a_call_with_a_deadline_that_cannot_be_read_is_refused_in_its_own_language(
    stage: Stage, value: bytes
) -> None:
    stage.app(apps.silent)
    for name in (b"grpc-timeout", b"mesh-deadline"):
        fields = (*ORDERS_POST, (b"content-type", b"application/grpc"), (b"te", b"trailers"), (name, value))
        peer = await h2_peer(stage, headers(1, fields, end=False) + data(1, b"", end=True))
        assert (await peer.answer(1)).headers[b"grpc-status"] == b"13"


@pytest.mark.skipif(not lane.ENABLED, reason="MESH_HTTP1_READER=h11: every request goes the general way")
@scene()
async def test_a_plain_request_with_a_deadline_goes_by_the_express(stage: Stage) -> None:
    """As long as all goes well; when its time is over the application is left, and the caller told."""
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    for _ in range(3):
        await peer.say(within(b"mesh-deadline: 500m"))
        assert (await peer.answer()).status == 200
    assert stage.orders.books.by_express == 2  # the first one had to connect
    await stage.sleep(4.0)
    app = Slow(stage, 10.0)
    stage.app(app)
    await peer.say(within(b"X: y"))
    await stage.sleep(0.1)
    for field, took in ((b"mesh-deadline: 300m", 0.3), (b"mesh-deadline: 0n", 0.0)):
        other, began = await stage.peer(), stage.now
        await other.say(within(field))
        assert (await other.answer()).status == 504
        assert round(stage.now - began, 3) == took


@pytest.mark.parametrize("total", [False, True])
@scene(orders="    timeouts: {total: 600ms}")
async def test_the_express_hands_over_what_has_no_answer_in_time(stage: Stage, *, total: bool) -> None:
    """With a connection at hand, so that the request is on its way before anybody looks at the clock again."""
    left: list[float] = []

    async def stops(line: Line) -> None:
        await line.request()
        await line.say(apps.OK)
        await line.request()
        if await line.is_reset():
            left.append(stage.now)

    stage.app(stops)
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    began = stage.now
    await peer.say(GET if total else within(b"mesh-deadline: 300m"))
    assert (await peer.answer()).status == 504
    assert round(stage.now - began, 3) == (0.6 if total else 0.3)
    await stage.quiet()
    assert left == [stage.now]
    hop = stage.orders.books.hops[-1]
    assert (hop.flag, hop.attempts) == ("UT", 1)
    assert ("services.orders.timeouts.total" if total else "mesh-deadline") in str(hop.error)


@scene()
async def test_a_deadline_ends_an_answer_on_its_way_by_the_express(stage: Stage) -> None:
    """Also one that is a stream of events: the caller itself has said how long it listens."""

    async def ticks(line: Line) -> None:
        await line.request()
        await line.say(apps.OK)
        await line.request()
        await line.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n"
        )
        for _ in range(5):
            await stage.sleep(1.0)
            await line.say(b"1\r\n.\r\n")

    stage.app(ticks)
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).status == 200
    began = stage.now
    await peer.say(within(b"mesh-deadline: 2500m"))
    assert await peer.is_reset()
    assert round(stage.now - began, 3) == 2.5
    assert stage.orders.books.hops[-1].flag == "UT"
    assert "(mesh-deadline, told by the sidecar before us)" in str(stage.orders.books.hops[-1].error)


# ---- of the operator -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [GET, POST, within(b"X-Odd: 1\r\nExpect: 100-continue", POST)])
@scene(web=TOTAL)
async def test_a_total_holds_for_all_that_a_request_takes(stage: Stage, request_: bytes) -> None:
    """By the express and by the general way; the peer is told."""
    stage.app(apps.always(apps.OK))
    assert (await stage.ask(GET)).status == 200  # from now on there is a connection at hand
    began = stage.now
    app = Slow(stage, 10.0)
    stage.app(app)
    for place in stage.orders.upstreams[0].places.values():
        place.renew(-1)
    answer = await stage.ask(request_, request_.split(b" ")[0].decode())
    assert answer.status == 504
    assert 2.0 <= stage.now - began <= 2.1
    hop = stage.web.books.hops[-1]
    assert hop.flag == "UT"
    assert hop.error is not None
    assert (hop.error.name, "services.web.timeouts.total" in str(hop.error)) == ("total_timeout", True)
    assert stage.orders.books.hops[-1].flag in ("UT", "DC")


@scene(web=TOTAL, orders=TOTAL)
async def test_a_total_ends_an_answer_that_goes_on_too_long(stage: Stage) -> None:
    async def ticks(line: Line) -> None:
        request = await line.request()
        kind = b"text/event-stream" if request.target == b"/events" else b"text/plain"
        await line.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n"
        )
        for _ in range(5):
            await stage.sleep(1.0)
            await line.say(b"1\r\n.\r\n")
        await line.say(b"0\r\n\r\n")

    stage.app(ticks)
    for way in (b"", b"X-Odd: 1\r\nTE: trailers\r\nmesh-odd: 1\r\n"):
        web = await stage.call()
        began = stage.now
        await web.say(GET.replace(b"\r\n\r\n", b"\r\n" + way + b"\r\n"))
        assert await web.is_reset()
        assert 2.0 <= stage.now - began <= 2.1
        web = await stage.call()
        await web.say(GET.replace(b"/", b"/events", 1).replace(b"\r\n\r\n", b"\r\n" + way + b"\r\n"))
        assert (await web.answer()).body == b"......"  # a stream that is meant to last (pain 33)


@scene(upstream=", timeouts: {response_head: 3s}")
async def test_an_upstream_has_time_outs_of_its_own(stage: Stage) -> None:
    stage.app(apps.silent)
    assert (await stage.ask(GET)).status == 504
    assert stage.now == 3.0
    assert "services.web.outbound.orders.http.timeouts.response_head" in str(stage.web.books.hop.error)


@scene(web=TOTAL, upstream=", timeouts: {total: off}")
async def test_an_upstream_may_be_left_out_of_the_services_total(stage: Stage) -> None:
    app = Slow(stage, 5.0)
    stage.app(app)
    assert (await stage.ask(GET)).status == 200
    assert stage.now > 4.9


# ---- of a try --------------------------------------------------------------------------------------------------------


def slow_first(times: int, stage: Stage, seen: list[Request]) -> apps.Serve:
    """Takes 5 s for the first requests, over all connections."""

    async def serve(line: Line) -> None:
        while True:
            seen.append(await line.request())
            if len(seen) <= times:
                await stage.sleep(5.0)
            await line.say(apps.OK)

    return serve


@pytest.mark.parametrize(("request_", "times", "status", "tries", "least"), [
    (GET, 1, 200, 2, 1.0), (GET, 2, 200, 3, 2.0), (GET, 3, 200, 3, 7.0), (POST, 1, 200, 1, 5.0),
    (within(b"Idempotency-Key: a", POST), 2, 200, 3, 2.0),
])  # fmt: skip
@pytest.mark.parametrize("warm", [False, True])
@scene(upstream=TRY)
async def test_a_slow_try_is_followed_by_another_where_that_is_harmless(
    stage: Stage, request_: bytes, times: int, status: int, tries: int, least: float, *, warm: bool
) -> None:
    """And the last one has all the time that there is, as has one that could not be sent again."""
    if warm:
        stage.app(apps.always(apps.OK))
        assert (await stage.ask(GET)).status == 200
        await stage.sleep(4.0)  # the pool toward the application is empty again
    began, seen = stage.now, list[Request]()
    stage.app(slow_first(times, stage, seen))
    answer = await stage.ask(request_, request_.split(b" ")[0].decode())
    hop = stage.web.books.hops[-1]
    assert (answer.status, len(seen), hop.attempts) == (status, tries, tries)
    assert least <= stage.now - began <= least + 0.6
    if tries > 1:
        assert "services.web.outbound.orders.http.timeouts.per_try" in hop.tried[0]
        assert "try_timeout" in hop.tried[0]


@scene(upstream=TRY)
async def test_tries_are_followed_by_others_only_while_there_is_time(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(slow_first(9, stage, seen))
    answer = await stage.ask(within(b"mesh-timeout: 1100m"))
    assert (answer.status, round(stage.now, 2)) in ((504, 1.1), (504, 1.0))
    assert len(seen) <= 2


# ---- callers who leave -----------------------------------------------------------------------------------------------


@scene(upstream=", retries: {statuses: [503]}")
async def test_who_resets_during_a_back_off_is_let_go_at_once(stage: Stage) -> None:
    stage.app(apps.always(BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 3\r\n\r\n")))
    web = await stage.call()
    await web.say(GET)
    await stage.sleep(0.5)
    web.wire.abort()
    await stage.sleep(0.1)
    assert (stage.web.books.hop.flag, stage.web.books.hop.ended) == ("DC", 0.5)


@scene(upstream=", retries: {statuses: [503]}")
async def test_who_cancels_a_stream_during_a_back_off_is_let_go_at_once(stage: Stage) -> None:
    stage.app(apps.always(BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 3\r\n\r\n")))
    get = ((b":method", b"GET"), *ORDERS_POST[1:])
    web = await h2_call(stage, headers(1, get))
    await stage.sleep(0.5)
    await web.say(frame(RST_STREAM, 0, 1, word(8)))
    await stage.sleep(0.1)
    assert (stage.web.books.hop.flag, stage.web.books.hop.ended) == ("DC", 0.5)


@scene(upstream=", retries: {statuses: [503]}")
async def test_who_closes_during_a_back_off_is_given_a_second(stage: Stage) -> None:
    """It may have half-closed, and wait."""
    stage.app(apps.always(BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 3\r\n\r\n")))
    web = await stage.call()
    await web.say(GET)
    await stage.sleep(0.5)
    await web.wire.finish()
    await stage.sleep(1.1)
    assert (stage.web.books.hop.flag, stage.web.books.hop.ended) == ("DC", 1.5)


@scene(web_limits=", pending: 30s")
async def test_who_waits_for_a_place_and_leaves_is_let_go_at_once(stage: Stage) -> None:
    stage.app(apps.silent)
    busy = [await stage.call() for _ in range(4)]
    for line in busy:
        await line.say(GET)
    await stage.quiet()
    late = await stage.call()
    await late.say(GET)
    await stage.sleep(0.5)
    late.wire.abort()
    await stage.sleep(0.1)
    assert [(hop.flag, hop.ended) for hop in stage.web.books.hops] == [("DC", 0.5)]


@scene()
async def test_who_leaves_while_we_connect_is_let_go_at_once(stage: Stage) -> None:
    stage.port.swallow("10.0.0.2", 17443)
    web = await stage.call()
    await web.say(GET)
    await stage.sleep(0.5)
    web.wire.abort()
    await stage.sleep(0.1)
    assert (stage.web.books.hop.flag, stage.web.books.hop.ended) == ("DC", 0.5)
