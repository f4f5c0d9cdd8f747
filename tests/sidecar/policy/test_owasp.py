"""What stands against the ten risks: each measure turns on by the YAML that it proposes, and says off without."""

from __future__ import annotations

import json
import textwrap

import pytest

from sidecar.config.codes import EXAMPLES_AT
from sidecar.config.load import load_text
from sidecar.config.schema import MeshConfig
from sidecar.policy.owasp import MEASURES, RISKS, Line, lines, overall, summary

OPENAPI = json.dumps({
    "openapi": "3.1.0", "info": {"title": "orders", "version": "1"},
    "paths": {"/orders/{id}": {"get": {
        "operationId": "getOrder", "responses": {"200": {"description": "one order"}},
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
    }}},
})  # fmt: skip
BARE = """\
trust_domain: demo.mesh
services:
  web: {}
  orders:
    inbound: [{name: http, app: "127.0.0.1:8080"}]
    allow: [{from: web}]
"""
FULL = """\
trust_domain: demo.mesh
issuers: {login: {issuer: "https://login.example.org", url: "https://login.example.org/keys", audience: orders}}
services:
  web:
    owner: shop
    outbound: [{to: orders, listen: "127.0.0.1:9001", timeouts: {total: 10s}}]
  orders:
    owner: team-orders
    inbound: [{name: http, app: "127.0.0.1:8080", routes: [{path: /**, max_body: 1MiB}],
               tokens: {from: [login]},
               contract: {openapi: openapi.json, mode: enforce, unknown_fields: refuse}}]
    allow: [{from: web, method: GET, path: "/orders/{id}", when: ["path id is claim order_id"]}]
    rates: [{name: each, per: caller, limit: 100/s}]
    quotas: [{name: sign-ups, path: "/orders/{id}", limit: 20/d}]
    detectors: {stuffing: {action: block}, enumeration: {action: block}, spikes: {action: throttle}}
    audit: {export: [{kind: syslog, address: "logs.internal:6514"}]}
"""


def loaded(text: str) -> MeshConfig:
    return load_text(text, others={"openapi.json": OPENAPI}, now=EXAMPLES_AT)


def states(text: str, service: str = "orders") -> dict[str, str]:
    return {f"{each.risk} {each.measure}": each.state for each in lines(loaded(text), service)}


def risk(found: list[Line], name: str) -> str:
    return overall(each for each in found if each.risk == name)


def test_each_risk_has_a_measure_and_no_other_is_named() -> None:
    assert {measure.risk for measure in MEASURES} == set(RISKS)
    assert len({(measure.risk, measure.name) for measure in MEASURES}) == len(MEASURES)


def test_what_is_said_is_on_and_what_is_not_is_off() -> None:
    full, bare = states(FULL), states(BARE)
    assert {name for name, state in full.items() if state != "on"} == {"API3 fields by grant"}
    assert {name for name, state in bare.items() if state == "off"} == {
        "API1 objects by rule", "API1 enumeration detector",
        "API2 bearer tokens", "API2 stuffing detector", "API3 methods by rule", "API3 requests by contract",
        "API3 unknown fields", "API3 fields by grant", "API4 a share of its own",
        "API4 bounded bodies", "API5 functions by rule", "API6 a pace for flows", "API6 spikes detector",
        "API9 a record elsewhere", "API9 nothing undocumented", "API9 an owner",
    }  # fmt: skip
    assert all(each.yaml for each in lines(loaded(BARE), "orders") if each.state == "off")
    assert [each.measure for each in lines(loaded(FULL), "orders") if each.yaml] == ["fields by grant"]


def test_a_grant_is_as_good_as_the_contract_behind_it() -> None:
    granted = FULL + "    grants: {web: {operations: [getOrder], fields: [id]}}\n"
    assert states(granted)["API3 fields by grant"] == "on"
    assert states(granted.replace("mode: enforce", "mode: shadow"))["API3 fields by grant"] == "shadow"
    assert states(granted.replace("mode: enforce", "mode: off"))["API9 nothing undocumented"] == "off"


def test_what_only_helps_never_covers_a_risk() -> None:
    found = lines(loaded(FULL), "orders")
    assert risk(found, "API1") == "on"
    assert risk([each for each in found if each.helps], "API1") == "partly"
    assert risk(found, "API3") == "partly"
    assert risk(found, "API5") == "on"
    assert risk(lines(loaded(BARE), "orders"), "API1") == "off"


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ("action: block}, enum", "action: record}, enum", "API2 stuffing detector"),
        ('order_id"]}]', 'order_id"], shadow: true}]', "API5 functions by rule"),
    ],
)  # fmt: skip
def test_what_only_looks_is_in_shadow(before: str, after: str, name: str) -> None:
    assert before in FULL
    assert states(FULL.replace(before, after))[name] == "shadow"


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("name: http,", "name: http, posture: permissive, until: 2026-01-07,",
         ["API2 mutual TLS", "API8 no posture"]),
        ("allow: [{from: web,", "unsafe_allow_bypass: true\n    allow: [{from: web,", ["API8 nothing unsafe"]),
        ('"logs.internal:6514"', '"127.0.0.1:6514", unsafe_plaintext: true', ["API8 nothing unsafe"]),
        (", unknown_fields: refuse", "", ["API3 unknown fields"]),
        ("mode: enforce", "mode: enforce, undocumented: pass", ["API9 nothing undocumented"]),
        ("max_body: 1MiB", "fault: {status: 503, abort_share: 1}", ["API8 no faults", "API4 bounded bodies"]),
    ],
)  # fmt: skip
def test_what_weakens_is_seen(before: str, after: str, names: list[str]) -> None:
    text = FULL.replace(before, after)
    assert text != FULL
    found = states(text)
    assert [found[name] for name in names] == ["off"] * len(names)


def test_a_caller_is_asked_about_what_it_calls() -> None:
    web = states(FULL, "web")
    assert web["API10 upstreams prove who they are"] == web["API10 answers in time"] == "on"
    assert "API5 functions by rule" not in web
    open_text = textwrap.dedent(FULL).replace(
        'outbound: [{', 'outbound: [{to: paypal, host: paypal.com, unmeshed: passthrough, endpoints: ["paypal.com:80"],'
        ' listen: "127.0.0.1:9009"}, {'
    )
    assert states(open_text, "web")["API10 upstreams prove who they are"] == "off"


def test_an_upstream_outside_proves_its_name_by_tls() -> None:
    outside = "outbound: [{to: pay, host: pay.com, unmeshed: passthrough, endpoints: 'pay.com:443', tls: {}}, {"
    found = states(FULL.replace("outbound: [{", outside), "web")
    assert found["API10 upstreams prove who they are"] == found["API10 TLS outside"] == "on"


def test_each_service_has_a_word_on_each_of_the_ten() -> None:
    everything = lines(loaded(FULL))
    web, orders = summary(everything, "web"), summary(everything, "orders")
    assert list(web) == list(orders) == list(RISKS)
    assert {risk: web[risk] for risk in ("API1", "API2", "API3", "API4", "API5", "API6")} == dict.fromkeys(
        ("API1", "API2", "API3", "API4", "API5", "API6"), "none"
    )
    assert web["API10"] == "on"
    assert (orders["API7"], orders["API10"]) == ("none", "none")
    assert (orders["API3"], orders["API5"]) == ("partly", "on")
    assert set(summary(lines(loaded(BARE)), "orders").values()) <= {"on", "partly", "off", "none"}
