"""OPA is asked about what the rules permit: its yes, its no, its silence, and what each of them comes to."""

from __future__ import annotations

import json

from sidecar.policy.ask import Said
from sidecar.proxy import lane
from tests.kit import apps
from tests.kit.play import Stage, scene

OPA = "    opa: {url: 'http://127.0.0.1:8181'%s}"
GET = b"GET /orders/7?x=1 HTTP/1.1\r\nHost: orders\r\nX-Team: shop\r\nX-Other: no\r\n\r\n"


@scene(orders=OPA % ", headers: [X-Team]")
async def test_it_is_told_who_asks_for_what(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    assert (await stage.ask(GET)).status == 200
    (asked,) = stage.orders.outside.asked_opa.asked
    assert asked == {
        "caller": "spiffe://demo.mesh/ns/default/sa/web", "service": "spiffe://demo.mesh/ns/default/sa/orders",
        "source": "127.0.0.1", "listener": "http", "host": "orders", "method": "GET", "path": ["orders", "7"],
        "operation": None, "rule": "web-may", "route": "/**", "headers": {"x-team": ["shop"]},
    }  # fmt: skip
    assert stage.orders.books.by_express == 0


@scene(orders=OPA % "")
async def test_its_no_is_a_403_whose_reason_stays_here(stage: Stage) -> None:
    stage.orders.outside.asked_opa.says = lambda _: Said(allow=False, reason="not on Sundays")
    answer = await stage.ask(GET)
    assert answer.status == 403
    assert b"Sundays" not in answer.body
    hop = stage.orders.books.hop
    assert hop.error is not None
    assert (hop.error.name, hop.flag, hop.rule) == ("ask_denied", "UAEX", "opa")
    assert "not on Sundays" in hop.error.detail
    assert json.loads(answer.body)["decision"] == hop.decision_id
    assert stage.apps == []


@scene(orders=OPA % "")
async def test_its_silence_is_a_403_too(stage: Stage) -> None:
    stage.orders.outside.asked_opa.says = lambda _: "no answer"
    assert (await stage.ask(GET)).status == 403
    hop = stage.orders.books.hop
    assert hop.error is not None
    assert (hop.error.name, hop.flag) == ("ask_silent", "UAEX")


@scene(orders=OPA % ", silent: unsafe_permit")
async def test_its_silence_can_be_declared_a_yes(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    stage.orders.outside.asked_opa.says = lambda _: "no answer"
    assert (await stage.ask(GET)).status == 200


@scene(orders=OPA % ", mode: shadow")
async def test_in_shadow_it_refuses_nobody_and_is_recorded(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    stage.orders.outside.asked_opa.says = lambda _: Said(allow=False)
    assert (await stage.ask(GET)).status == 200
    assert [(each.rule, each.effect) for each in stage.orders.books.hop.shadow] == [("opa", "deny")]


@scene(orders=OPA % ", for: [{method: POST}, {path: /admin/**}]")
async def test_it_is_asked_about_what_was_declared_alone(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    opa = stage.orders.outside.asked_opa
    opa.says = lambda _: Said(allow=False)
    web = await stage.call()
    for target, status in ((b"/orders", 200), (b"/admin/x", 403), (b"/orders", 200), (b"/%61dmin/x", 403)):
        await web.say(b"GET %b HTTP/1.1\r\nHost: orders\r\n\r\n" % target)
        assert (await web.answer()).status == status, target
    assert [each["path"] for each in opa.asked] == [["admin", "x"], ["admin", "x"]]
    if lane.ENABLED:
        assert stage.orders.books.by_express >= 1  # the first of a connection goes the general way


@scene(orders=OPA % "", may="[cart]")
async def test_what_no_rule_allows_it_is_never_asked_about(stage: Stage) -> None:
    assert (await stage.ask(GET)).status == 403
    assert stage.orders.outside.asked_opa.asked == []


@scene(orders=OPA % "" + "\n    rates: [{limit: 1/m, burst: 1, per: listener}]")
async def test_who_is_refused_by_it_takes_nothing_from_a_limit(stage: Stage) -> None:
    stage.app(apps.always(apps.OK))
    opa = stage.orders.outside.asked_opa
    opa.says = lambda _: Said(allow=False)
    for _ in range(3):
        assert (await stage.ask(GET)).status == 403
    opa.says = lambda _: Said(allow=True)
    assert (await stage.ask(GET)).status == 200
    assert (await stage.ask(GET)).status == 429


@scene(orders=OPA % "")
async def test_nobody_is_asked_for_a_caller_who_leaves_meanwhile(stage: Stage) -> None:
    opa = stage.orders.outside.asked_opa
    opa.seconds = 5.0
    web = await stage.call()
    await web.say(GET)
    await stage.sleep(1.0)
    web.abort()
    await stage.sleep(10.0)
    assert stage.apps == []
    assert stage.orders.books.flags == ["DC"]
