"""Rate limits: who is held, what it is told, and that nobody else pays for it (S19)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.config.posture import show_moment
from sidecar.config.schema_inbound import RateLimit
from sidecar.config.terms import Frequency
from sidecar.errors import RateLimited
from sidecar.net.memory import EPOCH
from sidecar.proxy import lane
from tests.kit import apps
from tests.kit.h1_line import Answer, Line, Request
from tests.kit.h2_line import h2_call
from tests.kit.h2_wire import headers
from tests.kit.hops import MALLORY, WEB
from tests.kit.play import Stage, scene

GET = b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"
SLOW = "    rates: [{name: few, limit: 2/s, per: caller}]"
CALL = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"orders"), (b":path", b"/shop.Orders/Get"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"),
]  # fmt: skip


def get(path: str = "/", more: bytes = b"", method: str = "GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: orders\r\n%b\r\n" % (method.encode(), path.encode(), more)


def rates(*limits: str) -> str:
    return "    rates:\n" + "\n".join(f"      - {{{limit}}}" for limit in limits)


async def asked(line: Line, *requests: bytes) -> list[int]:
    """The statuses of these requests, one after the other on one connection."""
    found: list[int] = []
    for request in requests:
        await line.say(request)
        found.append((await line.answer()).status)
    return found


def limited(stage: Stage) -> list[str]:
    """Which limits have refused, in order."""
    return [hop.error.limit for hop in stage.orders.books.hops if isinstance(hop.error, RateLimited)]


# ---- the four levels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [b"", b"Expect: 100-continue\r\n"], ids=["express", "general"])
@scene(orders=SLOW)
async def test_a_caller_is_held_and_let_in_again_when_it_was_told(stage: Stage, prefix: bytes) -> None:
    seen: list[Request] = []
    stage.app(apps.keeping(seen))
    peer = await stage.peer()
    assert await asked(peer, *[get(more=prefix)] * 4) == [200, 200, 429, 429]
    assert len(seen) == 2
    await peer.say(get(more=prefix))
    answer = await peer.answer()
    assert answer.get("retry-after") == b"1"
    await stage.sleep(float(answer.get("retry-after") or b""))
    assert await asked(peer, *[get(more=prefix)] * 3) == [200, 200, 429]


@scene(orders=SLOW)
async def test_the_express_takes_once_and_hands_over_what_is_too_much(stage: Stage) -> None:
    """The first request goes the general way, the second the express, the third is refused in the general way; and
    after each refusal the connection to the application is as good as before.
    """
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, GET, GET, GET) == [200, 200, 429]
    assert stage.orders.books.by_express == 1 or not lane.ENABLED
    await stage.sleep(1.0)
    assert await asked(peer, GET, GET, GET) == [200, 200, 429]
    assert stage.orders.books.by_express == 3 or not lane.ENABLED
    assert len(stage.apps) == 1


@scene(orders=rates("name: three, limit: 3/m, per: caller"))
async def test_what_the_express_has_sent_is_not_taken_again_by_the_general_way(stage: Stage) -> None:
    """An answer that is not plain comes back by a handover, which judges the request once more."""
    answers = iter([apps.OK, b"HTTP/1.1 103 Early Hints\r\n\r\n" + apps.OK, apps.OK, apps.OK])
    stage.app(apps.replying(lambda request: next(answers)))
    peer = await stage.peer()
    assert await asked(peer, GET, GET, GET, GET) == [200, 200, 200, 429]


@scene(orders=SLOW, may="'**'")
async def test_callers_have_a_limit_each(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web, other = await stage.peer(WEB), await stage.peer(MALLORY)
    assert await asked(web, GET, GET, GET) == [200, 200, 429]
    assert await asked(other, GET, GET, GET) == [200, 200, 429]


@scene(orders=rates("name: all, limit: 3/s"), may="'**'")
async def test_a_listener_has_one_limit_for_all_callers(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web, other = await stage.peer(WEB), await stage.peer(MALLORY)
    assert await asked(web, GET, GET) == [200, 200]
    assert await asked(other, GET, GET) == [200, 429]


@scene(orders=rates("name: each, limit: 1/s, per: endpoint, path: ['/orders/{id}', /items]"))
async def test_an_endpoint_is_a_method_of_a_template(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, get("/orders/1"), get("/orders/2"), get("/items"), get("/items")) == [200, 429, 200, 429]
    assert await asked(peer, get("/orders/3", b"Content-Length: 0\r\n", "POST")) == [200]
    assert await asked(peer, *[get("/elsewhere")] * 5) == [200] * 5


@scene(orders=rates("name: each, limit: 1/s, per: endpoint"), may="web, path: [/a/**, /b]")
async def test_without_a_path_of_its_own_it_goes_by_the_templates_of_the_rules(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, get("/a/1"), get("/a/2"), get("/b"), get("/b")) == [200, 429, 200, 429]


@scene(orders=rates("name: key, limit: 2/s, per: header X-Api-Key"))
async def test_each_value_of_a_header_has_its_own_and_those_without_share_one(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    long = b"c" * 500
    for values in ((), (b"a",), (b"b",), (b"",), (b"a", b"b"), (long + b"d",), (long + b"e",)):
        request = get(more=b"".join(b"X-Api-Key: %b\r\n" % value for value in values))
        assert await asked(peer, request, request, request) == [200, 200, 429], values
    assert stage.orders.books.by_express > 0 or not lane.ENABLED


@scene(orders=rates("name: writes, limit: 1/s, method: [POST, PUT], from: web, path: /orders"), may="'**'")
async def test_a_filter_narrows_a_limit_as_it_does_a_rule(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    web, other = await stage.peer(WEB), await stage.peer(MALLORY)
    post = get("/orders", b"Content-Length: 0\r\n", "POST")
    assert await asked(web, get("/orders"), get("/orders"), post, post) == [200, 200, 200, 429]
    assert await asked(other, post, post) == [200, 200]


@scene(orders=rates("limit: 9/s", "name: narrow, limit: 1/s, path: /a", "name: mine, limit: 4/s, per: caller"))
async def test_who_is_refused_by_one_takes_from_none(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, *[get("/a")] * 9) == [200] + [429] * 8
    assert await asked(peer, *[get("/b")] * 5) == [200] * 3 + [429] * 2
    assert limited(stage) == ["narrow"] * 8 + ["mine"] * 2


# ---- who pays --------------------------------------------------------------------------------------------------------


@scene(orders=rates("name: all, limit: 2/s"), http=", routes: [{path: /**, max_body: 1B}]")
async def test_who_is_refused_for_another_reason_takes_nothing(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert await asked(await stage.peer(MALLORY), *[GET] * 9) == [403] * 9
    assert await asked(await stage.peer(), get("/a%00b")) == [400]
    assert await asked(await stage.peer(), get(more=b"Content-Length: 2\r\n", method="POST") + b"hi") == [413]
    web = await stage.peer()
    assert await asked(web, GET, GET, GET) == [200, 200, 429]


@scene(orders=SLOW)
async def test_a_refusal_is_no_failure_of_the_endpoint(stage: Stage) -> None:
    """The caller's own sidecar goes on asking: it is not ours to hold others back for it (D24)."""
    stage.app(apps.always(apps.OK))
    for _ in range(30):
        answer = await stage.ask(GET)
        assert answer.status in (200, 429)
    assert answer.status == 429
    assert b"refused by the peer" in (answer.get("proxy-status") or b"")
    assert {hop.attempts for hop in stage.web.books.hops} == {1}
    await stage.sleep(1.0)
    assert (await stage.ask(GET)).status == 200


# ---- what is told ----------------------------------------------------------------------------------------------------


@scene(orders=rates("name: orders-day, limit: 3/m, per: caller"))
async def test_what_a_refused_caller_reads_and_what_its_operator_does(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    for _ in range(4):
        answer: Answer = await stage.ask(GET)
    assert (answer.status, answer.get("content-type")) == (429, b"application/problem+json")
    assert answer.get("retry-after") == b"20"
    assert answer.get("ratelimit-policy") == b'"orders-day";q=3;w=60'
    assert answer.get("ratelimit") == b'"orders-day";r=0;t=60'
    assert b"mesh.yaml" not in answer.body
    hop = stage.orders.books.hops[-1]
    assert (hop.flag, hop.rule, hop.attempts) == ("RL", "web-may", 0)
    kept = stage.orders.books.decisions.find((answer.get("mesh-decision-id") or b"").decode())
    assert kept is not None
    assert (kept.error, kept.verdict) == ("rate_limited", "deny")
    where = next(spec.where for spec in stage.orders.service.rates)
    assert kept.detail == (
        f"over the limit orders-day ({where}: 3/m per caller, 3 at once), which has room again after 20.0 s"
    )
    text = stage.orders.books.metrics.render().decode()
    line = f'mesh_rate_limited_total{{listener="http",source="{WEB}",limit="orders-day",per="caller"}} 1'
    assert line in text


@scene(orders=rates("name: key, limit: 1/m, per: header x-api-key"))
async def test_the_value_of_a_header_is_never_told(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    assert await asked(peer, *[get(more=b"X-Api-Key: hunter2\r\n")] * 2) == [200, 429]
    hop = stage.orders.books.hops[-1]
    assert "hunter2" not in str(stage.orders.books.decisions.lookup(hop.decision_id))
    assert b"hunter2" not in stage.orders.books.metrics.render()


@scene(orders=rates("name: calls, limit: 1/m"))
async def test_a_call_of_grpc_is_told_in_its_own_words(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert (await stage.ask(GET)).status == 200
    web = await h2_call(stage, headers(1, CALL))
    told: dict[bytes, bytes] = dict((await web.answer(1)).headers)
    assert told[b":status"] == b"200"
    assert (told[b"grpc-status"], told[b"grpc-retry-pushback-ms"]) == (b"8", b"60000")
    assert told[b"retry-after"] == b"60"
    assert stage.orders.books.hops[-1].grpc_status == "RESOURCE_EXHAUSTED"


@scene(orders=rates("name: connections, limit: 2/s, per: caller, port: raw"))
async def test_raw_connections_over_the_limit_are_closed(stage: Stage) -> None:
    stage.app(apps.always(b"hello"), "127.0.0.1:5432")
    lines = [await stage.peer(port=17444) for _ in range(3)]
    for line in lines[:2]:
        await line.say(b"GET / HTTP/1.1\r\n\r\n")
        assert await line.hear(5) == b"hello"
    assert await lines[2].is_closed()
    assert limited(stage) == ["connections"]
    http = await stage.peer()
    stage.app(apps.always(apps.OK))
    assert await asked(http, GET, GET, GET) == [200, 200, 200]
    for line in lines:
        line.close()


# ---- change ----------------------------------------------------------------------------------------------------------


def reload(stage: Stage, *specs: RateLimit) -> None:
    """Put these limits in force; the connections stay."""
    service = replace(stage.orders.service, rates=specs)
    before = stage.orders._generation
    stage.orders._generation = stage.orders._maker.generation(service, before)
    for (_, old), (_, new) in zip(before.inbound, stage.orders._generation.inbound, strict=True):
        new.take_over(old)


@scene(orders=rates("name: one, limit: 2/m, per: caller", "name: two, limit: 3/m"))
async def test_over_a_reload_limits_that_stay_remember_and_others_begin_anew(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    one, two = stage.orders.service.rates
    peer = await stage.peer()
    assert await asked(peer, GET, GET, GET) == [200, 200, 429]
    reload(stage, replace(one, where=two.where, callers=()), two)
    assert await asked(peer, GET) == [429]
    reload(stage, replace(one, limit=Frequency(60, "m")), two)
    assert await asked(peer, GET, GET) == [200, 429]
    assert limited(stage)[-1] == "two"
    reload(stage)
    assert await asked(peer, *[GET] * 5) == [200] * 5


# ---- floods ----------------------------------------------------------------------------------------------------------


@scene(orders=rates("name: key, limit: 1/m, per: header x-api-key", "name: mine, limit: 5/s, per: caller"))
async def test_invented_values_end_at_the_limit_of_who_invents_them(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    peer = await stage.peer()
    statuses = await asked(peer, *[get(more=b"X-Api-Key: %d\r\n" % number) for number in range(8)])
    assert statuses == [200] * 5 + [429] * 3
    assert limited(stage) == ["mine"] * 3


@scene(may="'**'", http=f", posture: permissive, until: '{show_moment(EPOCH + 3600.0)}'", orders=SLOW)
async def test_those_without_identity_share_what_one_caller_has(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert await asked(await stage.stranger(), GET, GET) == [200, 200]
    assert await asked(await stage.stranger(), GET) == [429]
    assert await asked(await stage.peer(), GET, GET) == [200, 200]
