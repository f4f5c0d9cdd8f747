"""Which routes a request would be on that was never sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.config.load import load_text
from sidecar.errors import EgressDenied, HopError
from sidecar.policy.egress import EgressRules
from sidecar.policy.question import hop_of
from sidecar.policy.steered import Steered, led, let_out, steered

CONFIG = load_text("""\
trust_domain: demo.mesh
services:
  web:
    outbound:
      - to: orders
        listen: "127.0.0.1:9001"
        routes:
          - {name: old, rewrite: {prefix: /v1, to: /}, request_headers: {remove: x-a, set: {x-b: c}}}
          - {name: moved, path: /moved, split: [{to: next, weight: 1}]}
          - {name: canary, path: /canary, split: [{to: next, weight: 5}, {to: orders, weight: 95}]}
          - {name: slow, path: /slow, fault: {delay: 2s, delay_share: 0.1}}
      - {to: next}
  orders:
    inbound:
      - app: "127.0.0.1:8080"
        routes:
          - {path: /a, from: web, app: "127.0.0.1:8081"}
          - {path: /a/**, max_body: 1B}
          - {path: /b, split: [{app: "127.0.0.1:8080", weight: 3}, {app: "127.0.0.1:8081", weight: 1}]}
    allow: [{from: web}]
  next: {inbound: [{app: "127.0.0.1:8082"}], allow: [{from: web}]}
""")
PLACE = "(mesh.yaml:{})"


def ask(path: str, called: str = "orders", **more: Any) -> Steered:
    return steered(CONFIG, called, {"from": "web", "method": "GET", "path": path, **more})


@pytest.mark.parametrize(("path", "words", "note"), [
    ("/other", "out of web: on none of its routes to orders", ""),
    ("/v1/x", "out of web: old (mesh.yaml:8), as usual, its path gets the front /, request headers are changed", ""),
    ("/moved", "out of web: moved (mesh.yaml:9), to next", "such requests go to next, not to orders"),
    ("/canary", "out of web: canary (mesh.yaml:10), to next (0.05) or orders (0.95)",
     "some of these requests go to next"),
    ("/slow", "out of web: slow (mesh.yaml:11), as usual, fault: 0.1 wait 2 s", ""),
])  # fmt: skip
def test_the_callers_route_is_told(path: str, words: str, note: str) -> None:
    found = ask(path)
    assert found.words == (words,)
    assert found.note.startswith(note)
    assert bool(found.note) == bool(note)


def test_the_called_one_is_asked_what_it_would_get() -> None:
    found = ask("/v1/x?y=1", headers={"X-A": "1", "x-c": ["2", "3"]})
    assert found.question["path"] == "/x?y=1"
    assert found.question["headers"] == {"x-c": ["2", "3"], "x-b": ["c"]}


@pytest.mark.parametrize("question", [
    {"from": "spiffe://far.mesh/ns/a/sa/b"}, {"from": "orders"}, {}, {"from": "web", "path": "/a/../b"},
])  # fmt: skip
def test_whose_routes_are_not_known_or_not_asked_is_left_alone(question: dict[str, Any]) -> None:
    assert replace(steered(CONFIG, "orders", question), asked=None) == Steered(question)
    assert replace(ask("/moved", "next"), asked=None) == Steered({"from": "web", "method": "GET", "path": "/moved"})


@pytest.mark.parametrize(("path", "words"), [
    ("/a", "at orders: /a, to 127.0.0.1:8081"),
    ("/a/b", "at orders: /a/**, as usual"),
    ("/b", "at orders: /b, to 127.0.0.1:8080 (0.75) or 127.0.0.1:8081 (0.25)"),
    ("/c", ""),
])  # fmt: skip
def test_the_called_ones_route_is_told(path: str, words: str) -> None:
    service = CONFIG.services["orders"]
    assert led(service, hop_of({"from": "web", "path": path}, service)) == words


OUTSIDE = load_text("""\
trust_domain: demo.mesh
services:
  web:
    outbound:
      - to: partner
        host: api.partner.test
        unmeshed: passthrough
        listen: "127.0.0.1:9001"
        endpoints: "api.partner.test:443"
        tls: {}
        allow: [{method: GET, path: "/v1/{id}"}]
        routes: [{name: old, path: /old/**, rewrite: {prefix: /old, to: /v1}}]
      - {to: open, unmeshed: passthrough, listen: "127.0.0.1:9002", endpoints: "open.test:80"}
      - {to: orders, listen: "127.0.0.1:9003", allow: [{method: GET}]}
  orders: {inbound: [{app: "127.0.0.1:8080"}], allow: [{from: web}]}
""")
LISTED = OUTSIDE.services["web"].outbound[0]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v1/7", "/v1/%37?a=/../", "/v1", "/v1/7/8", "/v1/../x", "/v1//7", "/v1/7;a"])
def test_what_is_let_out_is_what_the_proxy_lets_out(method: str, path: str) -> None:
    way = steered(OUTSIDE, "partner", {"from": "web", "method": method, "path": path})
    told, said = let_out(way), ("permit", None, None, None)
    try:
        EgressRules("partner", LISTED.allow).check(method, path.encode())
    except EgressDenied as error:
        said = ("deny", error.name, error.detail, error.hint)
    except HopError as error:
        said = ("deny", error.name, error.detail, None)
    assert (told["verdict"], told.get("error"), told.get("detail"), told.get("hint")) == said


def test_a_route_that_rewrites_comes_before_the_list() -> None:
    told = let_out(steered(OUTSIDE, "partner", {"from": "web", "path": "/old/7"}))
    assert told["verdict"] == "permit"
    assert "its path gets the front /v1" in told["routes"][0]


def test_what_no_list_keeps_in_and_who_has_no_such_upstream() -> None:
    assert "it may be asked for anything" in let_out(steered(OUTSIDE, "open", {"from": "web", "path": "/../x"}))["text"]
    assert steered(OUTSIDE, "partner", {"from": "orders"}).asked is None
    of_member = steered(OUTSIDE, "orders", {"from": "web", "method": "POST", "path": "/"})
    assert isinstance(of_member.refused, EgressDenied)
