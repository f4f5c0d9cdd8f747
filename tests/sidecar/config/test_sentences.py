"""Rules read back as plain English."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_text
from sidecar.config.sentences import sentences

HEAD = "trust_domain: demo.mesh\nservices:\n"
RULES = [
    ("allow: [{from: web}]", "orders: web may call anything on http"),
    ("allow: [{from: web, method: GET, path: '/orders/{id}'}]", "orders: web may GET /orders/{id}"),
    ("allow: [{from: [web, a/b], method: [GET, PUT]}]", "orders: web or a/b may GET or PUT any path"),
    ("allow: [{from: web, path: [/a, /b, /c/**]}]", "orders: web may call /a, /b or /c/**"),
    ("allow: [{from: '**', host: a.example}]", "orders: anybody in the mesh may call any path at host a.example"),
    ("allow: [{from: '*', method: GET}]", "orders: any service of namespace default may GET any path"),
    ("allow: [{from: web, port: raw}]", "orders: web may connect on raw"),
    (
        "allow: [{from: web, path: /a, headers: {x-a: b}, source: 10.0.0.0/8, shadow: true}]",
        "orders: web may call /a with header x-a exact 'b' from 10.0.0.0/8 (shadow: judged and logged, without effect)",
    ),
    ("deny: [{from: web, path: /a}]", "orders: web may not call /a"),
]


@pytest.mark.parametrize(("rule", "sentence"), RULES)
def test_a_rule_is_one_sentence(rule: str, sentence: str) -> None:
    rule = rule.replace("[{from: web}]", "[{from: web, port: http}]")
    listeners = "[{name: http, app: '127.0.0.1:1'}, {name: raw, protocol: tcp, app: '127.0.0.1:2'}]"
    config = load_text(f"{HEAD}  orders:\n    inbound: {listeners}\n    {rule}\n")
    assert sentences(config)[0] == sentence


def test_a_service_without_rules_is_said_to_be_closed() -> None:
    config = load_text(f"{HEAD}  a: {{inbound: [{{app: '127.0.0.1:1'}}]}}\n  b: {{}}\n")
    assert sentences(config) == ["a: nobody may call it"]


def test_denials_are_read_first_as_they_are_judged() -> None:
    config = load_text(f"{HEAD}  a: {{inbound: [{{app: '127.0.0.1:1'}}], allow: [{{from: b}}], deny: [{{from: c}}]}}\n")
    assert sentences(config) == ["a: c may not call anything", "a: b may call anything"]
