"""Routes: where requests go, what is changed on the way, and which faults they meet; by the express and by the general
way alike.
"""

from __future__ import annotations

from collections import Counter

import pytest

from sidecar.errors import FaultInjected
from sidecar.proxy import lane
from tests.kit import apps
from tests.kit.h1_line import Line, Request
from tests.kit.h2_line import h2_call
from tests.kit.h2_wire import headers
from tests.kit.hops import MALLORY, WEB
from tests.kit.play import Stage, scene

V2 = "127.0.0.1:8081"
NEXT = "{to: next, unmeshed: passthrough, endpoints: ['127.0.0.1:8081']"  # its end is written by the scene
HALF = "split: [{to: orders.http, weight: 50}, {to: next, weight: 50}]"
TO_NEXT = "split: [{to: next, weight: 1}]"
GENERAL = b"Expect: 100-continue\r\n"  # what is not plain enough for the express
CALL = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"orders"), (b":path", b"/shop.Orders/Get"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"),
]  # fmt: skip
BOTH = pytest.mark.parametrize("more", [b"", GENERAL], ids=["express", "general"])


def get(path: str = "/", more: bytes = b"", method: str = "GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: orders\r\n%b\r\n" % (method.encode(), path.encode(), more)


def routes(*each: str, entry: str = "", proxy: bool = False) -> dict[str, str]:
    """Routes of the upstream `orders.http` of web; and an upstream `next`, as different as another can be: plaintext
    to a host outside the mesh.
    """
    return {"upstream": f", routes: [{', '.join(f'{{{route}}}' for route in each)}]{entry}}}\n      - {NEXT}"}


def two(stage: Stage) -> tuple[list[Request], list[Request]]:
    """What the application orders sees, and what `next` does."""
    one: list[Request] = []
    other: list[Request] = []
    stage.app(apps.keeping(one))
    stage.app(apps.keeping(other), V2)
    return one, other


async def asked(stage: Stage, *requests: bytes, port: int = 9001) -> list[int]:
    """The statuses of these requests, one after the other on one connection of web's."""
    line = await stage.call(port)
    found: list[int] = []
    for request in requests:
        await line.say(request)
        found.append((await line.answer()).status)
    line.close()
    await stage.quiet()
    return found


def counted(stage: Stage, name: str, *labels: str) -> float:
    return stage.web.books.metrics.counter(name).cell(labels).value


# ---- where to --------------------------------------------------------------------------------------------------------


@BOTH
@scene(**routes(f"name: beta, path: /beta/**, method: GET, {TO_NEXT}"))
async def test_the_first_route_whose_conditions_hold_says_where(stage: Stage, more: bytes) -> None:
    one, other = two(stage)
    story = [get("/beta/1", more), get("/alpha", more), get("/beta/1", more, "DELETE")]
    assert await asked(stage, *story * 3) == [200] * 9
    assert [(request.method, request.target) for request in other] == [(b"GET", b"/beta/1")] * 3
    assert len(one) == 6
    hops = stage.web.books.hops
    assert [(hop.listener, hop.route) for hop in hops[:3]] == [
        ("next", "beta"), ("orders.http", "/**"), ("orders.http", "/**")
    ]
    assert {hop.destination for hop in hops if hop.route == "beta"} == {None}
    assert not more or not stage.web.books.by_express
    assert more or stage.web.books.by_express == 7 or not lane.ENABLED
    assert {request.get("host") for request in other} == {b"next"}
    assert {request.get("mesh-via") for request in other} == {None}


@BOTH
@scene(**routes(f"headers: {{x-beta: {{present: true}}}}, query: {{v: '2'}}, {TO_NEXT}"))
async def test_headers_and_query_decide_too_and_nothing_is_remembered_of_another_request(
    stage: Stage, more: bytes
) -> None:
    one, other = two(stage)
    beta = b"X-Beta: 1\r\n" + more
    story = [get("/a?v=2", beta), get("/a?v=2", more), get("/a?v=1", beta), get("/a", beta), get("/a?v=2", beta)]
    assert await asked(stage, *story * 2) == [200] * 10
    assert (len(one), len(other)) == (6, 4)


@scene(**routes(f"path: /a/**, {TO_NEXT}"))
async def test_a_path_with_two_readings_is_on_no_route_and_refused(stage: Stage) -> None:
    two(stage)
    assert await asked(stage, get("/a/%2e%2e/b")) == [400]
    assert await asked(stage, get("/a/b;c"), get("/a/x%2Fy"), get("/a//b")) == [200] * 3  # for the receiver to judge


@BOTH
@scene(**routes(HALF))
async def test_a_split_is_thrown_for_each_request(stage: Stage, more: bytes) -> None:
    one, other = two(stage)
    assert await asked(stage, *[get(more=more)] * 400) == [200] * 400
    assert len(one) + len(other) == 400
    assert 150 < len(one) < 250
    assert counted(stage, "mesh_split_requests_total", "orders.http", "route-1", "next") == len(other)
    assert counted(stage, "mesh_split_requests_total", "orders.http", "route-1", "orders.http") == len(one)
    assert Counter(hop.listener for hop in stage.web.books.hops) == {"orders.http": len(one), "next": len(other)}
    assert more or stage.web.books.by_express > 390 or not lane.ENABLED


@scene(**routes(HALF))
async def test_whose_connections_are_never_at_hand_gets_its_share_all_the_same(stage: Stage) -> None:
    """The express throws the dice, finds no connection, and leaves the request to the general way, which must not
    throw again.
    """
    one: list[Request] = []
    stage.app(apps.keeping(one))
    stage.app(apps.once(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"), V2)
    assert await asked(stage, *[get()] * 400) == [200] * 400
    assert 150 < len(one) < 250
    assert counted(stage, "mesh_split_requests_total", "orders.http", "route-1", "orders.http") == len(one)


@scene(**routes(HALF))
async def test_what_the_express_has_sent_stays_where_it_was_sent(stage: Stage) -> None:
    """An answer that is not plain comes back by a handover."""
    for address in ("127.0.0.1:8080", V2):
        stage.app(apps.always(b"HTTP/1.1 103 Early Hints\r\n\r\n" + apps.OK), address)
    line = await stage.call()
    for _ in range(40):
        await line.say(get())
        assert (await line.answer()).status == 200
    assert {hop.attempts for hop in stage.web.books.hops} == {1}
    assert sum(
        counted(stage, "mesh_split_requests_total", "orders.http", "route-1", to) for to in ("next", "orders.http")
    ) == 40


@scene(**routes(f"path: /beta, {TO_NEXT}"))
async def test_a_reload_changes_routes_and_keeps_connections(stage: Stage) -> None:
    one, other = two(stage)
    line = await stage.call()
    for _ in range(3):
        await line.say(get("/beta"))
        await line.answer()
    upstreams = stage.web.upstreams
    stage.reload(**routes(f"path: /gamma, {TO_NEXT}"))
    assert stage.web.upstreams == upstreams
    for _ in range(3):
        await line.say(get("/beta"))
        await line.answer()
    assert (len(one), len(other)) == (3, 3)


@scene(**routes(f"path: /beta, {TO_NEXT}"))
async def test_the_forward_proxy_and_what_runs_inside_its_tunnels_have_the_same_routes(stage: Stage) -> None:
    one, other = two(stage)
    plain = b"GET http://orders/beta HTTP/1.1\r\nHost: orders\r\n\r\n"
    assert await asked(stage, plain, plain, plain, port=9000) == [200] * 3
    line = await stage.call(9000)
    await line.say(b"CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\n")
    await line.until(b"\r\n\r\n")
    await line.say(get("/beta"))
    assert (await line.answer()).status == 200
    assert (len(one), len(other)) == (0, 4)


# ---- what is changed -------------------------------------------------------------------------------------------------

EDITS = (
    "rewrite: {prefix: /v1, to: /}, request_headers: {remove: [x-debug], set: {x-team: shop}, add: {x-from: web}}, "
    "response_headers: {remove: server, set: {cache-control: no-store}}"
)


@scene(**routes(EDITS))
async def test_path_and_headers_are_changed_and_the_log_shows_what_was_asked_for(stage: Stage) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen, b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok"))
    line = await stage.call()
    for _ in range(2):
        await line.say(get("/v1/orders/a%2Cb?x=/v1", b"X-Debug: 1\r\nX-Team: a\r\nX-Team: b\r\n"))
        answer = await line.answer()
        assert (answer.get("server"), answer.get("cache-control")) == (None, b"no-store")
    for request in seen:
        assert request.target == b"/orders/a%2Cb?x=/v1"
        assert (request.all("x-team"), request.all("x-from"), request.all("x-debug")) == ([b"shop"], [b"web"], [])
    ours, theirs = stage.web.books.hops[0], stage.orders.books.hops[0]
    assert (ours.target, ours.route) == ("/v1/orders/a%2Cb?x=/v1", "/v1")
    assert theirs.target == "/orders/a%2Cb?x=/v1"


@scene(**routes("rewrite: {prefix: /v1, to: /}"), may="web, path: ['/orders', /]")
async def test_the_receiver_judges_what_it_receives(stage: Stage) -> None:
    two(stage)
    assert await asked(stage, get("/v1/orders"), get("/v1"), get("/v1/other"), get("/orders")) == [200, 200, 403, 200]


@pytest.mark.parametrize("path", ["/v1//x", "/v1/a%2Fb", "/v1//"])
@scene(**routes("rewrite: {prefix: /v1, to: /}"))
async def test_no_rewrite_makes_a_path_that_has_two_readings(stage: Stage, path: str) -> None:
    one, _ = two(stage)
    assert await asked(stage, get(path)) == [400]
    assert one == []


# ---- faults ----------------------------------------------------------------------------------------------------------


@scene(**routes("fault: {status: 503, abort_share: 1}"))
async def test_an_abort_is_nobodys_failure_and_says_so(stage: Stage) -> None:
    one, _ = two(stage)
    answer = await stage.ask(get())
    assert answer.status == 503
    status = answer.get("proxy-status") or b""
    assert status.startswith(b'mesh; error=proxy_internal_response; details="FI fault_injected')
    assert await asked(stage, *[get()] * 20) == [503] * 20
    assert one == []
    hop = stage.web.books.hops[0]
    assert (hop.flag, hop.attempts, hop.endpoint, hop.route) == ("FI", 0, "", "route-1")
    assert isinstance(hop.error, FaultInjected)
    upstream = next(each for each in stage.web.upstreams if each.name == "orders.http")
    assert {each["state"] for each in upstream.to_json()} == {"available"}
    assert counted(stage, "mesh_faults_total", "outbound", "orders.http", "route-1", "abort") == 21


@scene(**routes("fault: {delay: 2s, delay_share: 1}"))
async def test_a_delay_holds_the_request_and_nothing_else(stage: Stage) -> None:
    one, _ = two(stage)
    line = await stage.call()
    began = stage.now
    await line.say(get())
    await stage.sleep(1.5)
    assert one == []
    upstream = next(each for each in stage.web.upstreams if each.name == "orders.http")
    assert upstream.destination.ceilings.requests.count == 0
    assert not any(road.open for road in upstream.roads)
    answer = await line.answer()
    assert (answer.status, stage.now - began) == (200, pytest.approx(2.0))
    assert b"DI fault_injected" in (answer.get("proxy-status") or b"")
    hop = stage.web.books.hop
    assert (hop.flag, hop.error, hop.delayed) == ("DI", None, 2.0)
    assert counted(stage, "mesh_faults_total", "outbound", "orders.http", "route-1", "delay") == 1


@scene(**routes("fault: {delay: 2s, delay_share: 1, status: 418, abort_share: 1}"))
async def test_both_meet(stage: Stage) -> None:
    began = stage.now
    answer = await stage.ask(get())
    assert (answer.status, stage.now - began) == (418, pytest.approx(2.0))
    assert stage.web.books.hop.flag == "DI,FI"
    assert b'details="DI,FI fault_injected' in (answer.get("proxy-status") or b"")


@BOTH
@scene(**routes("fault: {status: 503, abort_share: 0.5}"))
async def test_each_request_throws_once_and_who_is_spared_keeps_the_short_way(stage: Stage, more: bytes) -> None:
    """The express throws first; nobody throws again, neither whom it leaves to the general way nor who was spared."""
    one, _ = two(stage)
    found = await asked(stage, *[get(more=more)] * 400)
    assert 150 < found.count(503) < 250
    assert found.count(200) == len(one) == 400 - found.count(503)
    assert more or stage.web.books.by_express >= len(one) - 1 or not lane.ENABLED
    assert counted(stage, "mesh_faults_total", "outbound", "orders.http", "route-1", "abort") == found.count(503)


@scene(**routes("fault: {status: 503, abort_share: 0.5}"))
async def test_a_connection_that_is_never_at_hand_makes_no_fault_likelier(stage: Stage) -> None:
    stage.app(apps.once(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"))
    for proxy in (stage.web, stage.orders):
        for upstream in proxy.upstreams:
            for place in upstream.places.values():
                place.pool.reuse = lambda max_idle: None  # type: ignore[assignment,method-assign]
    found = await asked(stage, *[get()] * 300)
    assert 110 < found.count(503) < 190


@scene(**routes("fault: {delay: 60s, delay_share: 1}"))
async def test_a_caller_that_leaves_during_the_delay_is_noticed(stage: Stage) -> None:
    one, _ = two(stage)
    line = await stage.call()
    await line.say(get())
    await stage.sleep(5.0)
    line.close()
    await stage.sleep(3.0)
    assert stage.web.books.hop.flag == "DI,DC"
    assert one == []


@scene(orders="", http=", routes: [{path: /**, fault: {status: 503, abort_share: 1, from: web}}]", may="'**'")
async def test_on_the_way_in_a_fault_meets_those_it_names_and_tells_them_no_more_than_a_failure(stage: Stage) -> None:
    one, _ = two(stage)
    web, other = await stage.peer(WEB), await stage.peer(MALLORY)
    for _ in range(3):
        await web.say(get())
        answer = await web.answer()
        assert (answer.status, answer.get("proxy-status"), answer.get("retry-after")) == (503, None, None)
        assert b"fault" not in answer.body.lower()
        await other.say(get())
        assert (await other.answer()).status == 200
    assert len(one) == 3
    assert stage.orders.books.flags == ["FI", "-"] * 3
    assert stage.orders.books.by_express == 2 or not lane.ENABLED


@scene(http=", routes: [{path: /**, fault: {status: 429, abort_share: 1}}]")
async def test_the_callers_sidecar_takes_it_for_nobodys_failure(stage: Stage) -> None:
    """By the decision id: who injects faults at one service does not eject its endpoints at all of its callers."""
    two(stage)
    assert await asked(stage, *[get()] * 20) == [429] * 20
    upstream = next(each for each in stage.web.upstreams if each.name == "orders.http")
    assert {each["state"] for each in upstream.to_json()} == {"available"}


@pytest.mark.parametrize(("status", "code"), [(503, b"14"), (429, b"8"), (504, b"4"), (401, b"16")])
def test_a_call_is_refused_in_its_own_language(status: int, code: bytes) -> None:
    @scene(**routes(f"path: /shop.Orders/Get, fault: {{status: {status}, abort_share: 1}}"))
    async def play(stage: Stage) -> None:
        line = await h2_call(stage, headers(1, CALL, end=True))
        answer = await line.answer(1)
        assert (answer.status, dict(answer.headers)[b"grpc-status"]) == (200, code)
        assert stage.web.books.hop.flag == "FI"

    play()


@scene(**routes("fault: {delay: 2s, delay_share: 1}"))
async def test_a_calls_deadline_goes_on_counting_while_it_is_held(stage: Stage) -> None:
    one, _ = two(stage)
    began = stage.now
    line = await h2_call(stage, headers(1, [*CALL, (b"grpc-timeout", b"500m")], end=True))
    answer = await line.answer(1)
    assert (answer.headers[b"grpc-status"], stage.now - began) == (b"4", pytest.approx(0.5))
    assert (stage.web.books.hop.flag, one) == ("DI,UT", [])


# ---- WebSockets ------------------------------------------------------------------------------------------------------

UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nServer: x\r\n\r\n"


@scene(**routes(
    f"path: /chat, {TO_NEXT}, request_headers: {{set: {{x-team: shop}}}}, response_headers: {{remove: server}}",
    "path: /broken, fault: {delay: 1s, delay_share: 1, status: 503, abort_share: 1}",
))  # fmt: skip
async def test_a_websocket_is_on_a_route_as_any_request(stage: Stage) -> None:
    heads: list[Request] = []

    async def chat(line: Line) -> None:
        heads.append(await line.request_head())
        await line.say(SWITCHED)
        await line.say(await line.hear(5))

    stage.app(chat, V2)
    line = await stage.call()
    await line.say(get("/chat", UPGRADE))
    answer = await line.answer()
    assert (answer.status, answer.get("server"), answer.get("upgrade")) == (101, None, b"websocket")
    await line.say(b"hello")
    assert await line.hear(5) == b"hello"
    assert (heads[0].get("x-team"), heads[0].get("upgrade")) == (b"shop", b"websocket")
    began = stage.now
    assert (await stage.ask(get("/broken", UPGRADE))).status == 503
    assert stage.now - began == pytest.approx(1.0)


# ---- retries ---------------------------------------------------------------------------------------------------------


@BOTH
@scene(**routes("path: /safe, retries: {statuses: [404], resends: 1}"))
async def test_a_route_has_retries_of_its_own(stage: Stage, more: bytes) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
    assert await asked(stage, get("/other", more), get("/other", more)) == [404, 404]
    assert len(seen) == 2
    assert await asked(stage, get("/safe", more)) == [404]
    assert len(seen) == 4


@scene(upstream=", retries: {statuses: [404], resends: 1}")
async def test_an_upstream_tries_again_after_any_status_that_it_lists(stage: Stage) -> None:
    """Also where the express has carried the request."""
    seen: list[Request] = []
    stage.app(apps.keeping(seen, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
    assert await asked(stage, get(), get()) == [404, 404]
    assert len(seen) == 4


# ---- to another application of the same machine ----------------------------------------------------------------------


@BOTH
@scene(
    http=f", routes: [{{path: /**, from: web, app: '{V2}'}}]", may="'**'",
)  # fmt: skip
async def test_a_caller_may_be_led_to_another_application(stage: Stage, more: bytes) -> None:
    one, other = two(stage)
    for who, times in ((WEB, 3), (MALLORY, 2)):
        line = await stage.peer(who)
        for _ in range(times):
            await line.say(get(more=more))
            assert (await line.answer()).status == 200
    assert (len(one), len(other)) == (2, 3)


@BOTH
@scene(http=f", routes: [{{path: /**, split: [{{app: '{V2}', weight: 50}}, {{app: '127.0.0.1:8080', weight: 50}}]}}]")
async def test_applications_share_by_weight(stage: Stage, more: bytes) -> None:
    one, other = two(stage)
    line = await stage.peer()
    for _ in range(200):
        await line.say(get(more=more))
        assert (await line.answer()).status == 200
    assert len(one) + len(other) == 200
    assert 70 < len(one) < 130


@scene(http=f", routes: [{{path: /**, headers: {{x-beta: '1'}}, query: {{v: '2'}}, host: orders, app: '{V2}'}}]")
async def test_inbound_routes_look_at_host_headers_and_query(stage: Stage) -> None:
    one, other = two(stage)
    line = await stage.peer()
    for _ in range(2):
        for request in (get("/?v=2", b"X-Beta: 1\r\n"), get("/?v=2"), get("/", b"X-Beta: 1\r\n")):
            await line.say(request)
            assert (await line.answer()).status == 200
    assert (len(one), len(other)) == (4, 2)
