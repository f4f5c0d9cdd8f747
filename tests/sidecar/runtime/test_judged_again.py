"""A decision is judged again at its own moment, and gets no verdict that only its token could tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from certs.spiffe import SpiffeId
from sidecar.config.load import load_text
from sidecar.errors import HopError, PolicyDenied, ScopeMissing
from sidecar.hop import Hop, Token
from sidecar.policy.authz import RuleSet
from sidecar.policy.question import BadQuestion
from sidecar.runtime.explaining import NOT_KEPT, decided, explained
from sidecar.telemetry.decisions import Decision, Decisions

RULES = """
trust_domain: demo.mesh
issuers: {login: {issuer: "https://login.example.org", audience: "https://orders.example.org"}}
services:
  web: {outbound: [{to: orders, listen: "127.0.0.1:9001"}]}
  other: {outbound: [{to: orders, listen: "127.0.0.1:9002"}]}
  orders:
    inbound: [{name: http, tokens: {from: login, required: false}}]
    allow:
      - {name: own, from: web, path: "/customers/{customer}", when: [path customer is claim customer]}
      - {name: staff, from: web, path: /staff, scopes: [read]}
      - {name: day, from: [web, other], path: /day, when: ["time between 08:00 and 18:00"]}
    deny:
      - {name: guests, from: web, path: /staff, when: [claim role is guest]}
"""
NOON = 1_767_614_400.0  # 2026-01-05T12:00:00Z
ANNA = Token("login", "anna", {"customer": "c7"}, frozenset(), NOON + 60, "ab" * 8)


def told(
    path: str, *, rule: str = "", error: HopError | None = None, token: Token | None = None, caller: str = "web"
) -> dict[str, Any]:
    """What is said of a decision that was made at noon, asked at midnight."""
    service = load_text(RULES).services["orders"]
    ring = Decisions("0a1b2c3d")
    hop = Hop("inbound", "http", 17443, "http", SpiffeId.parse(f"spiffe://demo.mesh/ns/default/sa/{caller}"))
    hop.destination, hop.method, hop.host, hop.target = service.identity, "GET", "orders", path
    hop.segments, hop.rule, hop.error, hop.token = tuple(path.split("/")[1:]), rule, error, token
    hop.decision_id = ring.new_id()
    ring.keep(Decision.of_hop(hop, NOON, frozenset()))
    worker = SimpleNamespace(
        recorder=SimpleNamespace(decisions=ring), service=service, instance="0a1b2c3d",
        proxy=SimpleNamespace(rules=RuleSet.compile(service.allow, service.deny)),
        clock=SimpleNamespace(wall=lambda: NOON + 12 * 3600),
    )  # fmt: skip
    found = decided(cast(Any, worker), hop.decision_id)
    assert found is not None
    return found


def test_the_time_is_that_of_the_decision() -> None:
    answer = told("/day", rule="day", caller="other")
    assert (answer["policy"]["verdict"], answer["policy"]["rule"]) == ("permit", "day")
    assert "note" not in answer


@pytest.mark.parametrize(
    ("path", "rule", "error"),
    [("/customers/c7", "own", None), ("/staff", "staff", None), ("/staff", "guests", PolicyDenied("", "guests"))],
)
def test_what_a_token_decided_is_not_judged_without_it(path: str, rule: str, error: HopError | None) -> None:
    answer = told(path, rule=rule, error=error, token=ANNA)
    assert "policy" not in answer
    assert "text" not in answer
    assert answer["note"] == NOT_KEPT
    assert answer["rule"] == rule


def test_a_refusal_keeps_its_nearest_rule_and_says_what_is_not_known() -> None:
    answer = told("/customers/c8", error=PolicyDenied(), token=ANNA)
    assert answer["note"] == NOT_KEPT
    assert answer["policy"]["nearest"]["rule"] == "own"
    assert "seen 'c8', nothing: the token is not kept" in answer["text"]
    answer = told("/staff", error=ScopeMissing("", scopes=("read",)), token=ANNA)
    assert "scopes: wanted read, seen nothing: the token is not kept" in answer["text"]


def test_who_showed_no_token_or_comes_under_no_such_rule_is_judged_as_ever() -> None:
    assert "note" not in told("/customers/c8", error=PolicyDenied())
    answer = told("/day", rule="day", token=ANNA, caller="other")
    assert answer["policy"]["verdict"] == "permit"
    assert "note" not in answer


def test_a_sidecar_says_what_its_own_application_may_ask_outside() -> None:
    config = load_text(RULES.replace("{outbound: [{to: orders, listen: \"127.0.0.1:9001\"}]}", """
    outbound:
      - {to: orders, listen: "127.0.0.1:9001", allow: [{method: GET}]}
      - {to: partner, unmeshed: passthrough, listen: "127.0.0.1:9003", endpoints: "a.test:80", allow: [{path: /v1}]}
""", 1))
    around = {"config": config, "clock": SimpleNamespace(wall=lambda: NOON), "proxy": SimpleNamespace()}
    web = cast(Any, SimpleNamespace(service=config.services["web"], **around))
    assert explained(web, {"from": "web", "to": "partner", "path": "/v1"})["verdict"] == "permit"
    assert explained(web, {"from": "orders", "to": "partner", "path": "/v2"})["error"] == "egress_denied"
    for other in ("orders", "nobody"):
        with pytest.raises(BadQuestion):
            explained(web, {"from": "web", "to": other})
    orders = cast(Any, SimpleNamespace(service=config.services["orders"], **around))
    assert explained(orders, {"from": "web", "method": "POST", "path": "/day"})["error"] == "egress_denied"
