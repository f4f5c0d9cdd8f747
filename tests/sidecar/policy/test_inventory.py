"""Edges: what is allowed and what was seen become rows; what nobody uses is dormant, and a patch removes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.load import load_bytes, load_text
from sidecar.config.removal import without, without_grant
from sidecar.policy.dormant import patch, removals
from sidecar.policy.inventory import DAY, Row, Seen, rows
from tests.kit.hops import ORDERS, WEB
from tests.kit.tools import need

NOW = 100 * DAY
TEXT = """\
trust_domain: demo.mesh
services:
  web:
    owner: shop
    outbound:
      - {to: orders, listen: "127.0.0.1:9001"}
  cart: {}
  orders:
    owner: team-orders
    inbound: [{app: "127.0.0.1:8080"}]
    allow:
      # who reads
      - name: reads
        from: [web, cart]
        path: "/orders/{id}"   # one of them
      - {name: writes, from: cart, method: POST}
      - name: family
        from: ["*"]
        path: /health
"""


def edge(caller: str = WEB.text, **changes: Any) -> dict[str, Any]:
    return {
        "direction": "inbound", "caller": caller, "called": ORDERS.text, "listener": "http", "protocol": "http",
        "auth": "mTLS", "verdict": "permit", "rule": "reads", "route": "/orders/{id}", "first": DAY, "last": NOW - 60,
        "count": 3, **changes,
    }  # fmt: skip


def told(*edges: dict[str, Any], since: float = 0.0) -> dict[str, Seen]:
    out = edge(direction="outbound", rule="", route="", listener="orders")
    return {"orders": Seen(since, edges), "web": Seen(0.0, (out,))}


def apply(folder: Path, text: str) -> None:
    done = subprocess.run([need("git"), "apply", "-"], input=text, text=True, cwd=folder, capture_output=True)
    assert done.returncode == 0, done


def states(found: list[Row]) -> dict[tuple[str, str], str]:
    return {(row.caller.rpartition("/")[2], row.rule): row.state for row in found if row.direction == "inbound"}


def test_each_caller_of_each_rule_has_a_row_and_a_family_those_who_came() -> None:
    seen = told(edge(), edge(rule="family", route="/health"), edge(rule="family", route="/health", caller=ORDERS.text))
    found = rows(load_text(TEXT), seen, NOW, 30)
    assert states(found) == {
        ("web", "reads"): "used", ("cart", "reads"): "dormant", ("cart", "writes"): "dormant",
        ("web", "family"): "used", ("orders", "family"): "used",
    }  # fmt: skip
    (row,) = [row for row in found if row.direction == "outbound"]
    assert (row.caller, row.called, row.auth, row.state, row.owner) == (
        WEB.text, "orders", "mTLS", "used", "team-orders"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ({}, "unknown"),
        (told(since=NOW - DAY), "unused"),
        (told(since=NOW - 31 * DAY), "dormant"),
        (told(edge(last=NOW - 31 * DAY)), "dormant"),
        (told(edge(last=NOW - 29 * DAY)), "used"),
        (told(edge(verdict="deny")), "dormant"),
    ],
)
def test_what_was_not_used_is_dormant_only_where_somebody_looked_for_so_long(seen: dict[str, Seen], state: str) -> None:
    assert states(rows(load_text(TEXT), seen, NOW, 30))["web", "reads"] == state


def test_what_no_rule_allows_any_more_is_told() -> None:
    found = rows(load_text(TEXT), told(edge(rule="gone", route="/old")), NOW, 30)
    (row,) = [row for row in found if row.state == "not_allowed"]
    assert (row.caller, row.rule, row.route, row.where) == (WEB.text, "gone", "/old", "")


def test_a_patch_removes_what_nobody_uses_and_nothing_else(tmp_path: Path) -> None:
    loaded = load_bytes(TEXT.encode())
    found = removals(loaded.config, rows(loaded.config, told(edge()), NOW, 30), loaded.sources)
    assert [each.what for each in found] == [
        "orders: cart in rule reads, which it does not use", "orders: rule writes, which nobody uses",
        "orders: rule family, which nobody uses",
    ]  # fmt: skip
    file = tmp_path / "mesh.yaml"
    file.write_text(TEXT)
    for each in found:  # each by itself is a patch, and so are all together
        trial = tmp_path / "trial"
        trial.mkdir(exist_ok=True)
        (trial / "mesh.yaml").write_text(TEXT)
        apply(trial, each.diff)
        load_text((trial / "mesh.yaml").read_text())
    apply(tmp_path, patch(found, loaded.sources))
    rest = load_text(file.read_text())
    (rule,) = rest.services["orders"].allow
    assert [str(caller) for caller in rule.callers] == ["web"]
    assert "# who reads" in file.read_text()
    assert "# one of them" in file.read_text()


@pytest.mark.parametrize(
    ("text", "line", "column", "caller", "left"),
    [
        ("a: [{n: 1}, {n: 2}]\n", 1, 5, "", "a: [{n: 2}]\n"),
        ("a: [{n: 1}, {n: 2}]\n", 1, 13, "", "a: [{n: 1}]\n"),
        ("a: [{n: 1}]\n", 1, 5, "", "a: []\n"),
        ("a:\n  - n: 1\n    m: x\n  # of two\n  - n: 2\n", 2, 5, "", "a:\n  # of two\n  - n: 2\n"),
        ("a:\n  - {n: 1}\nb: 2\n", 2, 5, "", "a: []\nb: 2\n"),
        ("a:\n  - n: 1\n    from:\n      - x\n      - y\n", 2, 5, "x", "a:\n  - n: 1\n    from:\n      - y\n"),
        ("a:\n  - n: 1\n    from: [x]\n", 2, 5, "x", None),
        ("a: [{n: 1}]\n", 7, 1, "", None),
        ("a: [", 1, 1, "", None),
        ("", 1, 1, "", None),
        ("a:\n- - {n: 1}\n  - {n: 2}\n", 2, 5, "", None),
    ],
)
def test_an_item_is_cut_out_or_nothing_is_done(
    text: str, line: int, column: int, caller: str, left: str | None
) -> None:
    assert without(text, line, column, caller) == left


# ---- grants ----------------------------------------------------------------------------------------------------------

OPENAPI = json.dumps({
    "openapi": "3.1.0", "info": {"title": "orders", "version": "1"},
    "paths": {"/orders": {
        verb: {"operationId": name, "responses": {"200": {"description": "done"}}}
        for verb, name in (("get", "list"), ("post", "place"), ("delete", "drop"))
    }},
})  # fmt: skip
GRANTS = """\
trust_domain: demo.mesh
services:
  web: {}
  cart: {}
  orders:
    inbound: [{name: http, app: "127.0.0.1:8080", contract: {openapi: openapi.json, mode: enforce}}]
    grants:
      web: {operations: [list, place, drop], fields: ['**']}  # the shop
      cart:
        operations:
          - list
        fields: ['**']
"""


def granted(text: str, *used: str) -> tuple[list[str], str]:
    """What is said of grants of which these operations of web are used, and the config without the others."""
    loaded = load_bytes(text.encode(), "mesh.yaml", {"openapi.json": OPENAPI.encode()})
    found = rows(loaded.config, told(*(edge(rule=f"grant:web:{each}", route="/orders") for each in used)), NOW, 30)
    asleep = [each for each in removals(loaded.config, found, loaded.sources) if "grant" in each.what]
    return [each.what for each in asleep], patch(asleep, loaded.sources)


def test_operations_that_nobody_uses_are_taken_out_of_their_grant_and_unused_grants_as_a_whole(tmp_path: Path) -> None:
    said, found = granted(GRANTS, "list")
    assert said == [
        "orders: operation place in the grant of web, which it does not use",
        "orders: operation drop in the grant of web, which it does not use",
        "orders: the grant of cart, which it does not use",
    ]
    (tmp_path / "mesh.yaml").write_text(GRANTS)
    apply(tmp_path, found)
    left = GRANTS.partition("      web:")[0] + "      web: {operations: [list], fields: ['**']}  # the shop\n"
    assert (tmp_path / "mesh.yaml").read_text() == left


def test_the_last_grant_leaves_none(tmp_path: Path) -> None:
    _, found = granted(GRANTS)
    (tmp_path / "mesh.yaml").write_text(GRANTS)
    apply(tmp_path, found)
    assert yaml.safe_load((tmp_path / "mesh.yaml").read_text())["services"]["orders"]["grants"] == {}


@pytest.mark.parametrize(
    ("text", "line", "operation", "left"),
    [
        ("a: {grants: {w: {operations: [x]}, v: {operations: [x]}}}\n", 1, "", "a: {grants: {v: {operations: [x]}}}\n"),
        ("grants:\n  w: {operations: [x, y]}\n", 2, "y", "grants:\n  w: {operations: [x]}\n"),
        ("grants:\n  w: {operations: [x]}\n", 2, "", "grants: {}\n"),
        ("grants:\n  w:\n    operations:\n    - x\n    - y\n", 2, "x", "grants:\n  w:\n    operations:\n    - y\n"),
        ("grants:\n  w: {operations: [x, y]}\n", 3, "", None),
        ("grants:\n  w: {operations: x}\n", 2, "x", None),
        ("grants: [\n", 1, "", None),
    ],
)  # fmt: skip
def test_a_member_of_grants_is_cut_out_or_nothing_is_done(
    text: str, line: int, operation: str, left: str | None
) -> None:
    assert without_grant(text, line, operation) == left


@pytest.mark.parametrize(
    ("upstream", "auth"),
    [
        ("", "none (passthrough)"),
        (", tls: {}", "TLS (passthrough)"),
        (", tls: {}, token: {url: 'https://id.example.org', client_id: a, secret: {file: /s}}",
         "TLS + our token (passthrough)"),
    ],
)  # fmt: skip
def test_upstreams_outside_show_what_proves_them(upstream: str, auth: str) -> None:
    outside = '{to: x, host: x.org, unmeshed: passthrough, endpoints: "x.org:443"'
    text = TEXT.replace('{to: orders, listen: "127.0.0.1:9001"}', f"{outside}{upstream}}}")
    (row,) = [row for row in rows(load_text(text), {}, NOW, 30) if row.direction == "outbound"]
    assert row.auth == auth
