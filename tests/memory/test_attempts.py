"""Where attempts go, when there is another, and when nobody is asked any more (decisions D22 and D24)."""

from __future__ import annotations

import pytest

from sidecar.config.terms import Address
from sidecar.errors import ConnectFailed
from sidecar.traffic.endpoints import Declared
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 2\r\n\r\nhi"
KEYED = b"POST / HTTP/1.1\r\nHost: orders\r\nIdempotency-Key: a\r\nContent-Length: 2\r\n\r\nhi"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
LIVE, DEAD = "10.0.0.2:17443", "10.0.0.9:17443"
TWO = f', endpoints: ["{DEAD}", "{LIVE}"]'
AGAIN = ", retries: {statuses: [503]}"


def failing_first(times: int, seen: list[Request], answer: bytes = BUSY) -> apps.Serve:
    """Refuses the first requests, over all connections."""

    def reply(request: Request) -> bytes:
        seen.append(request)
        return answer if len(seen) <= times else apps.OK

    return apps.replying(reply)


@pytest.mark.parametrize("request_", [GET, POST])
@scene(upstream=TWO)
async def test_who_cannot_be_reached_is_nobodys_loss(stage: Stage, request_: bytes) -> None:
    """Nothing was sent, so any method may go elsewhere; after a few of them the dead one is left alone."""
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    for _ in range(40):
        assert (await stage.ask(request_)).status == 200
    assert len(seen) == 40
    hops = stage.web.books.hops
    assert {hop.attempts for hop in hops} == {1, 2}
    assert {hop.attempts for hop in hops[-10:]} == {1}
    assert {hop.endpoint for hop in hops} == {LIVE}


@scene(upstream=f', endpoints: ["{DEAD}"], retries: {{resends: 0}}')
async def test_retries_can_be_turned_off(stage: Stage) -> None:
    assert (await stage.ask(GET)).status == 503
    assert stage.web.books.hop.attempts == 1
    assert isinstance(stage.web.books.hop.error, ConnectFailed)


@scene(upstream=f', endpoints: ["{DEAD}"]')
async def test_a_destination_that_is_down_is_not_asked_for_a_while(stage: Stage) -> None:
    """Five failures and nothing else open the breaker: an immediate 503 that says when to come again."""
    first = await stage.ask(GET)
    assert first.status == 503
    assert stage.web.books.hops[-1].attempts == 3
    for _ in range(2):
        await stage.ask(GET)
    began = stage.now
    refused = await stage.ask(GET)
    assert refused.status == 503
    assert refused.get("retry-after") in (b"1", b"2")  # a second, and up to half of one by chance
    assert stage.now == began
    hop = stage.web.books.hops[-1]
    assert hop.flag == "UH"
    assert hop.error is not None
    assert f"{DEAD} open" in hop.error.detail


@scene()
async def test_an_application_that_fails_is_let_breathe_and_asked_again(stage: Stage) -> None:
    """One probe a second or so; a good answer closes the breaker at once."""
    seen: list[Request] = []
    stage.app(failing_first(6, seen))
    for _ in range(5):
        assert (await stage.ask(GET)).body == b"busy"
    for _ in range(5):
        assert (await stage.ask(GET)).body != b"busy"
    assert len(seen) == 5
    await stage.sleep(1.5)
    assert (await stage.ask(GET)).body == b"busy"  # the probe
    assert (await stage.ask(GET)).status == 503
    assert len(seen) == 6
    await stage.sleep(3.0)
    for _ in range(3):
        assert (await stage.ask(GET)).status == 200
    assert len(seen) == 9


@scene(upstream=", breaker: off")
async def test_without_a_breaker_everything_is_asked(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(failing_first(20, seen))
    for _ in range(20):
        assert (await stage.ask(GET)).body == b"busy"
    assert len(seen) == 20


@scene()
async def test_refusals_are_no_failures_of_an_endpoint(stage: Stage) -> None:
    """The application's own 403, and those of the peer's sidecar."""
    stage.app(apps.replying(lambda request: FORBIDDEN if request.target == b"/no" else apps.OK))
    for _ in range(20):
        assert (await stage.ask(GET.replace(b"/", b"/no", 1))).body == b"no"
    for _ in range(20):
        answer = await stage.ask(b"GET /a%00b HTTP/1.1\r\nHost: orders\r\n\r\n")
        assert answer.status == 400
        assert answer.get("mesh-decision-id")
    assert (await stage.ask(GET)).status == 200


@pytest.mark.parametrize(("request_", "times", "status"), [
    (GET, 1, 200), (GET, 2, 200), (GET, 3, 503), (KEYED, 2, 200), (POST, 1, 503),
])  # fmt: skip
@scene(upstream=AGAIN)
async def test_a_status_is_tried_again_where_that_is_wanted_and_harmless(
    stage: Stage, request_: bytes, times: int, status: int
) -> None:
    seen: list[Request] = []
    stage.app(failing_first(times, seen))
    answer = await stage.ask(request_, request_.split(b" ")[0].decode())
    assert answer.status == status
    tries = 1 if request_ is POST else min(times, 2) + 1
    assert [request.body for request in seen] == [request_.partition(b"\r\n\r\n")[2]] * tries
    assert stage.web.books.hop.attempts == tries


@scene()
async def test_a_status_is_an_answer_unless_somebody_wants_it_otherwise(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(failing_first(1, seen))
    assert (await stage.ask(GET)).body == b"busy"
    assert len(seen) == 1


@scene(upstream=AGAIN)
async def test_who_asks_to_be_left_alone_is(stage: Stage) -> None:
    """A Retry-After of more than five seconds is passed on, and so is the answer."""
    seen: list[Request] = []
    stage.app(failing_first(1, seen, BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 60\r\n\r\n")))
    answer = await stage.ask(GET)
    assert (answer.status, answer.get("retry-after")) == (503, b"60")
    assert len(seen) == 1


@scene(upstream=AGAIN)
async def test_the_wait_that_is_asked_for_is_kept(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(failing_first(1, seen, BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 2\r\n\r\n")))
    assert (await stage.ask(GET)).status == 200
    assert 2.0 <= stage.now <= 3.1  # and up to half of it on top


@scene(upstream=AGAIN)
async def test_a_caller_who_leaves_is_not_asked_for_again(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(failing_first(1, seen, BUSY.replace(b"\r\n\r\n", b"\r\nRetry-After: 2\r\n\r\n")))
    web = await stage.call()
    await web.say(GET)
    await stage.sleep(0.5)
    web.wire.abort()
    await stage.sleep(10.0)
    assert len(seen) == 1
    assert stage.web.books.hop.flag == "DC"


@scene(upstream=AGAIN + ", breaker: off")
async def test_the_budget_holds_whatever_happens(stage: Stage) -> None:
    """Ten a second, or a fifth of the requests: here ten seconds' worth are spent at once."""
    seen: list[Request] = []
    stage.app(failing_first(1000, seen))
    for _ in range(100):
        assert (await stage.ask(GET)).status == 503
    assert len(seen) <= 100 + 100 + 100 * 0.25


@scene(web_limits=", requests: 2")
async def test_more_requests_than_may_be_under_way_are_refused_at_once(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        while True:
            await line.request()
            await stage.sleep(1.0)
            await line.say(apps.OK)

    stage.app(slow)
    lines = [await stage.call() for _ in range(3)]
    for line in lines:
        await line.say(GET)
    answers = [await line.answer() for line in lines]
    assert sorted(answer.status for answer in answers) == [200, 200, 503]
    assert stage.web.books.flags.count("UO") == 1
    error = next(hop.error for hop in stage.web.books.hops if hop.error)
    assert "limits.requests" in str(error)


@scene(web_limits=", requests: 1")
async def test_a_tunnel_is_no_request_under_way(stage: Stage) -> None:
    stage.app(apps.once(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"))
    web = await stage.call()
    await web.say(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    assert (await web.answer()).status == 101
    stage.app(apps.always(apps.OK))
    assert (await stage.ask(GET)).status == 200


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
@scene(web_limits=", requests: 1")
async def test_an_answer_that_lasts_is_no_request_under_way(stage: Stage, framing: bytes) -> None:
    """Nor is it for the pools and the balancer (decision D25: after 30 s)."""

    async def serve(line: Line) -> None:
        request = await line.request()
        if request.target == b"/":
            await line.say(apps.OK)
            request = await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n1\r\na\r\n")
        await stage.sleep(100.0)

    stage.app(serve)
    stage.attend()
    assert (await stage.ask(GET)).status == 200
    web = await stage.call()
    await web.say(GET.replace(b"/", b"/lasts", 1))
    await stage.sleep(29.0)
    assert (await stage.ask(GET)).status == 503
    await stage.sleep(2.0)
    assert (await stage.ask(GET)).status == 200
    web.wire.abort()


# ---- endpoints by name -----------------------------------------------------------------------------------------------

NAME = Address("orders.test", 17443)


@scene(upstream=', endpoints: ["orders.test:17443"]')
async def test_a_name_stands_for_its_addresses_of_today(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    upstream = stage.web.upstreams[0]
    assert upstream.names == (NAME,)
    upstream.found(NAME, ("10.0.0.2",))
    web = await stage.call()
    for _ in range(3):
        await web.say(GET)
        assert (await web.answer()).status == 200
    assert {hop.endpoint for hop in stage.web.books.hops} == {LIVE}
    upstream.found(NAME, ("10.0.0.7", "10.0.0.2"))
    for _ in range(20):
        await web.say(GET)
        assert (await web.answer()).status == 200
    assert len(stage.apps) == 1  # who stays keeps its connections, and what is known of it
    upstream.found(NAME, ())
    await web.say(GET)
    assert (await web.answer()).status == 503
    assert stage.web.books.hops[-1].flag == "UH"
    assert "has no endpoint" in str(stage.web.books.hops[-1].error)


@scene(upstream=', endpoints: ["orders.test:17443"]')
async def test_what_is_under_way_to_an_endpoint_that_is_gone_comes_to_its_end(stage: Stage) -> None:
    async def slow(line: Line) -> None:
        await line.request()
        await stage.sleep(1.0)
        await line.say(apps.OK)

    stage.app(slow)
    upstream = stage.web.upstreams[0]
    upstream.found(NAME, ("10.0.0.2",))
    web = await stage.call()
    await web.say(GET)
    await stage.sleep(0.5)
    upstream.found(NAME, ("10.0.0.9",))
    assert (await web.answer()).status == 200
    await stage.quiet()
    assert not any(road.open for road in upstream.roads)


@scene(upstream=', endpoints: ["orders.test:17443", "10.0.0.2:17443"]')
async def test_each_source_of_endpoints_has_its_own_list(stage: Stage) -> None:
    upstream = stage.web.upstreams[0]

    def rows() -> list[tuple[str, int, str]]:
        return [(each.name, each.weight, each.zone) for each in upstream.destination.endpoints]

    upstream.listed("file", [Declared(Address("10.0.0.7", 17443), 3, "b")])
    upstream.found(NAME, ("10.0.0.4", "10.0.0.5"))
    named = [("10.0.0.4:17443", 1, ""), ("10.0.0.5:17443", 1, "")]
    assert rows() == [*named, ("10.0.0.2:17443", 1, ""), ("10.0.0.7:17443", 3, "b")]
    with pytest.raises(ValueError, match="a weight is at least 1"):
        upstream.listed("file", [Declared(Address("10.0.0.8", 17443), 0)])
    assert len(upstream.places) == 4  # a list that is none changes nothing
    upstream.listed("file", [])
    assert [place.endpoint.name for place in upstream.places.values()] == [each for each, *_ in rows()]
    assert rows() == [*named, ("10.0.0.2:17443", 1, "")]


# ---- only the hop nearest the failure --------------------------------------------------------------------------------


DEAD_LEAF = """
    outbound:
      - {to: leaf, unmeshed: passthrough, listen: "127.0.0.1:9005", protocol: http, endpoints: ["10.0.0.9:80"]}
"""


def traced(request: bytes, trace: bytes) -> bytes:
    """A request of this trace."""
    field = b"\r\nTraceparent: 00-%b-00f067aa0ba902b7-01" % trace if trace else b""
    return request.replace(b"\r\n\r\n", field + b"\r\n\r\n")


def calling_what_is_down(stage: Stage, trace: bytes, seen: list[Request]) -> apps.Serve:
    """An application that calls what is down, by its own sidecar, and fails for it."""

    async def serve(line: Line) -> None:
        seen.append(await line.request())
        leaf = await stage.call(9005)
        await leaf.say(traced(b"GET / HTTP/1.1\r\nHost: leaf\r\n\r\n", trace))
        assert (await leaf.answer()).status == 503
        await line.say(BUSY)

    return serve


@pytest.mark.parametrize(("trace", "other"), [(b"", b""), (b"a" * 32, b""), (b"a" * 32, b"a" * 32)])
@scene(orders=DEAD_LEAF)
async def test_who_has_tried_again_says_so_with_its_failure(stage: Stage, trace: bytes, other: bytes) -> None:
    """Joined by the trace, and else by time."""
    stage.app(calling_what_is_down(stage, other, []))
    peer = await stage.peer()
    await peer.say(traced(GET, trace))
    answer = await peer.answer()
    assert (answer.body, answer.get("mesh-retried")) == (b"busy", b"1")


@scene(orders=DEAD_LEAF)
async def test_an_application_that_passes_traces_on_is_taken_at_its_word(stage: Stage) -> None:
    """Then what was tried again for another trace had nothing to do with this one."""
    stage.app(calling_what_is_down(stage, b"a" * 32, []))
    peer = await stage.peer()
    for trace, marked in ((b"a" * 32, b"1"), (b"b" * 32, None)):
        await peer.say(traced(GET, trace))
        assert (await peer.answer()).get("mesh-retried") == marked


@scene(orders=DEAD_LEAF, upstream=AGAIN)
async def test_what_was_tried_again_nearer_to_the_failure_is_not_tried_here(stage: Stage) -> None:
    """And the mark goes no further than our own sidecar."""
    seen: list[Request] = []
    stage.app(calling_what_is_down(stage, b"", seen))
    answer = await stage.ask(GET)
    assert (answer.body, answer.get("mesh-retried")) == (b"busy", None)
    assert len(seen) == 1
    assert "nearer to the failure" in stage.web.books.hops[-1].tried[-1]


@scene(orders=DEAD_LEAF)
async def test_a_failure_further_on_opens_no_breaker_in_between(stage: Stage) -> None:
    """Its own sidecar leaves the dead one alone; who is asked in between is there for all else, and at once when the
    dead one comes back.
    """
    stage.app(calling_what_is_down(stage, b"", []))
    for _ in range(20):
        assert (await stage.ask(GET)).body == b"busy"
    assert {hop.flag for hop in stage.orders.books.hops if hop.direction == "outbound"} == {"UF,URX", "UH"}
    stage.app(apps.always(apps.OK))
    await stage.sleep(4.0)
    assert (await stage.ask(GET)).status == 200


@scene()
async def test_an_application_cannot_set_the_mark(stage: Stage) -> None:
    stage.app(apps.always(BUSY.replace(b"\r\n\r\n", b"\r\nMesh-Retried: 1\r\n\r\n")))
    peer = await stage.peer()
    await peer.say(GET)
    assert (await peer.answer()).get("mesh-retried") is None
