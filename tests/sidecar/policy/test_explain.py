"""An explanation names who was seen, what decided and where it stands, what came nearest, and what to change."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from certs.spiffe import SpiffeId, TrustDomain, workload_id
from sidecar.config.schema_inbound import Rule
from sidecar.config.terms import Effect, Where
from sidecar.hop import Hop, Permit
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate
from sidecar.policy.authz import RuleSet
from sidecar.policy.differences import Difference, differences, request_line, safe
from sidecar.policy.explain import Explanation, explain
from sidecar.policy.propose import rule_yaml, scalar, sentence

TD = TrustDomain("demo.mesh")
WEB = workload_id(TD, "default", "web")
ORDERS = workload_id(TD, "default", "orders")


def rule(name: str, *callers: str, effect: Effect = "allow", line: int = 7, **fields: Any) -> Rule:
    return Rule(
        name=name,
        effect=effect,
        callers=tuple(IdentityPattern.parse(caller, TD, "default") for caller in callers),
        hosts=tuple(map(HostPattern.parse, fields.get("host", ()))),
        methods=tuple(fields.get("method", ())),
        paths=tuple(map(PathTemplate.parse, fields.get("path", ()))),
        headers=tuple(HeaderPattern.parse(*item) for item in fields.get("headers", {}).items()),
        networks=tuple(map(ip_network, fields.get("source", ()))),
        ports=tuple(fields.get("port", ())),
        shadow=fields.get("shadow", False),
        where=Where("mesh.yaml", line),
    )


def hop(**fields: Any) -> Hop:
    made = Hop("inbound", "http", 17443, "http", peer=WEB, destination=ORDERS, method="GET", host="orders")
    given: dict[str, Any] = {
        "segments": ("orders", "7"),
        "target": "/orders/7?secret=1",
        "source": ip_address("10.0.0.9"),
    }
    return replace(made, **(given | fields))


def tcp(**fields: Any) -> Hop:
    given = {"protocol": "tcp", "listener": "db", "method": "", "host": "", "segments": (), "target": ""}
    return hop(**(given | fields))


def told(given: Hop, *allow: Rule, deny: tuple[Rule, ...] = (), namespace: str | None = None) -> Explanation:
    explanation = explain(RuleSet.compile(allow, deny), given, namespace=namespace)
    assert json.loads(json.dumps(explanation.to_json()))["verdict"] == explanation.verdict
    for change in explanation.changes:
        assert isinstance(RuleSet.compile(change.applied_to(allow), deny).check(given, 0.0), Permit)
    return explanation


def test_a_permitted_request_names_rule_place_and_route() -> None:
    said = told(hop(), rule("readers", "web", method=["GET"], path=["/orders/{id}"]))
    assert (said.verdict, said.identity) == ("permit", "spiffe://demo.mesh/ns/default/sa/web")
    assert (said.rule, said.where, said.route) == ("readers", "mesh.yaml:7", "/orders/{id}")
    assert (said.nearest, said.changes, said.advice) == (None, (), ())
    assert said.render() == (
        "permit: web GET http://orders/orders/7 on http\n"
        "  caller   spiffe://demo.mesh/ns/default/sa/web\n"
        "  decided  allow rule 'readers' (mesh.yaml:7): web may GET /orders/{id}\n"
    )


def test_a_permit_tells_what_holds_it_up_and_what_is_one_step_from_refusing() -> None:
    said = told(
        hop(),
        rule("readers", "web", method=["GET", "HEAD"], path=["/orders/{id}"]),
        rule("all", "web", line=9),
        rule("writers", "web", method=["PUT"], line=10),
        deny=(
            rule("far", "cart", effect="deny", path=["/x"], line=2),
            rule("no-deletes", effect="deny", method=["DELETE"], line=3),
        ),
    )
    assert said.why_not is not None
    assert said.why_not.render() == (
        "why not refused: rule 'readers' (mesh.yaml:7) permits it, and needs every one of these:\n"
        "           from web (it is web)\n"
        "           method GET or HEAD (it is GET)\n"
        "           path /orders/{id} (it is /orders/7)\n"
        "  else     without 'readers', allow rule 'all' (mesh.yaml:9) would permit it\n"
        "  deny     rule 'no-deletes' (mesh.yaml:3) would refuse it if method were DELETE (it is GET)\n"
        "  deny     rule 'far' (mesh.yaml:2) would refuse it if from were cart (it is web) and path were /x (it is "
        "/orders/7)\n"
        "  allow    rule 'all' (mesh.yaml:9) permits it, too, but comes later\n"
        "  allow    rule 'writers' (mesh.yaml:10) would permit it if method were PUT (it is GET)\n"
    )
    data = said.to_json()["why_not"]
    assert data["denies"][0]["differences"] == [{"field": "method", "wanted": "DELETE", "seen": "GET"}]
    assert data["text"] == said.why_not.render()
    alone = told(hop(), rule("readers", "web", method=["GET"])).why_not
    assert alone is not None
    assert alone.without == "without 'readers' no rule would allow it"
    assert "no deny rule is in force" in alone.render()
    assert told(hop(), rule("r", "cart")).why_not is None


def test_a_refused_request_names_the_nearest_rule_the_field_and_the_smallest_change() -> None:
    said = told(
        hop(method="DELETE"),
        rule("far", "cart", method=["GET"]),
        rule("near", "web", method=["GET"], path=["/orders/{id}"], line=12),
        rule("later", "web", method=["GET"], path=["/orders/{id}"]),
    )
    assert (said.verdict, said.rule, said.where) == ("deny", "", "")
    assert said.nearest is not None
    assert (said.nearest.rule, said.nearest.where) == ("near", "mesh.yaml:12")
    assert said.nearest.differences == (Difference("method", "GET", "DELETE"),)
    (change,) = said.changes
    assert (change.kind, change.sentence, change.note) == ("extend", "add DELETE to `method` of rule 'near'", "")
    assert said.render() == (
        "deny: web DELETE http://orders/orders/7 on http\n"
        "  caller   spiffe://demo.mesh/ns/default/sa/web\n"
        "  decided  no rule allows it, and what no rule allows is refused\n"
        "  nearest  rule 'near' (mesh.yaml:12): web may GET /orders/{id}\n"
        "           method: wanted GET, seen DELETE\n"
        "  change   add DELETE to `method` of rule 'near' (mesh.yaml:12):\n"
        "             - name: near\n"
        "               from: [web]\n"
        "               method: [GET, DELETE]\n"
        '               path: ["/orders/{id}"]\n'
    )
    assert "secret" not in said.render() + json.dumps(said.to_json())


def test_a_change_that_would_let_in_more_stands_second_and_says_so() -> None:
    said = told(hop(), rule("both", "cart", method=["GET", "POST"], path=["/orders/**"]))
    first, second = said.changes
    assert (first.kind, first.note) == ("add", "")
    assert first.yaml == "- name: web-get-orders\n  from: [web]\n  method: [GET]\n  path: [/orders/7]\n"
    assert (second.kind, second.note) == ("extend", "permits this: web may GET, POST /orders/**")
    assert "  or       add web to `from` of rule 'both' (mesh.yaml:7):\n" in said.render()
    assert "           note: permits this: web may GET, POST /orders/**\n" in said.render()


KNOWN = "DELETE or GET or HEAD or OPTIONS or PATCH or POST or PUT"
ONLY_HTTP = "http, because the rule names something that only HTTP has"
FIELDS: list[tuple[Rule, Hop, tuple[Difference, ...]]] = [
    (rule("r", "cart", "shop/web"), hop(), (Difference("from", "cart or shop/web", "web"),)),
    (rule("r"), hop(), (Difference("from", "nobody", "web"),)),
    (rule("r", "web"), hop(peer=None), (Difference("from", "web", "no identity"),)),
    (rule("r", "web"), hop(method="PURGE"), (Difference("method", KNOWN, "PURGE"),)),
    (rule("r", "web", path=["/a", "/b"]), hop(), (Difference("path", "/a or /b", "/orders/7"),)),
    (rule("r", "web", path=["/a"]), hop(target=""), (Difference("path", "/a", "/orders/7"),)),
    (rule("r", "web", path=["/a"]), hop(target="", segments=()), (Difference("path", "/a", "*"),)),
    (rule("r", "web", host=["a"]), hop(), (Difference("host", "a", "orders"),)),
    (rule("r", "web", host=["a"]), hop(host=""), (Difference("host", "a", "no host"),)),
    (rule("r", "web", headers={"x-a": "1"}), hop(), (Difference("headers.x-a", "'1'", "no such header"),)),
    (
        rule("r", "web", headers={"x-a": {"prefix": "p"}}),
        hop(headers=[(b"x-a", b"q"), (b"x-a", b"\xff")]),
        (Difference("headers.x-a", "a value that begins with 'p'", "'q', '\\\\xff'"),),
    ),
    (
        rule("r", "web", headers={"x-a": {"present": True}}),
        hop(),
        (Difference("headers.x-a", "any value", "no such header"),),
    ),
    (
        rule("r", "web", headers={"Authorization": {"prefix": "Bearer "}}),
        hop(headers=[(b"authorization", b"Basic c2VjcmV0")]),
        (Difference("headers.authorization", "a value that begins with 'Bearer '", "1 line(s), not shown"),),
    ),
    (
        rule("r", "web", headers={"x-a": "1", "x-b": "2"}),
        hop(headers=[(b"x-a", b"1")]),
        (Difference("headers.x-b", "'2'", "no such header"),),
    ),
    (rule("r", "web", source=["fd00::/8"]), hop(), (Difference("source", "fd00::/8", "10.0.0.9"),)),
    (rule("r", "web", source=["fd00::/8"]), hop(source=None), (Difference("source", "fd00::/8", "unknown"),)),
    (rule("r", "web", port=["admin"]), hop(), (Difference("port", "admin", "http"),)),
    (rule("r", "web", port=["admin"]), hop(listener=""), (Difference("port", "admin", "17443"),)),
    (rule("r", "web", method=["GET"]), tcp(), (Difference("protocol", ONLY_HTTP, "tcp"),)),
    (rule("r", "web"), tcp(), ()),
    (rule("r", "web"), hop(), ()),
    (
        rule("r", "cart", method=["POST"], path=["/a"]),
        hop(),
        (Difference("from", "cart", "web"), Difference("method", "POST", "GET"), Difference("path", "/a", "/orders/7")),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("allow", "given", "expected"), FIELDS)
def test_every_field_that_differs_is_named(allow: Rule, given: Hop, expected: tuple[Difference, ...]) -> None:
    rules = RuleSet.compile([allow])
    assert differences(rules.rules[0], given) == expected
    assert isinstance(rules.check(given, 0.0), Permit) is (expected == ())


def test_a_request_line_reads_like_a_url_and_other_targets_stay() -> None:
    assert request_line("GET", "payments", "/charges/1") == "GET http://payments/charges/1"
    assert request_line("GET", "fd00::1", "/") == "GET http://[fd00::1]/"
    assert request_line("GET", "", "/x") == "GET /x"
    assert request_line("OPTIONS", "payments", "*") == "OPTIONS *"
    assert request_line("CONNECT", "payments", "payments:80") == "CONNECT payments:80"
    assert request_line("GET", "payments", "http://payments/x") == "GET http://payments/x"
    assert request_line("", "", "") == ""


def test_a_deny_rule_is_named_and_nothing_is_proposed_against_it() -> None:
    no = rule("no-deletes", "*", effect="deny", line=3, method=["DELETE"], path=["/orders/**"])
    said = told(hop(method="DELETE"), rule("all", "web"), deny=(no,))
    assert (said.verdict, said.rule, said.where) == ("deny", "no-deletes", "mesh.yaml:3")
    assert said.decision == "deny rule 'no-deletes' (mesh.yaml:3): * may not DELETE /orders/**"
    assert (said.nearest, said.changes) == (None, ())
    assert "narrow 'no-deletes' at mesh.yaml:3 (it names `from` and `method` and `path`)" in said.advice[0]
    assert said.advice[1] == "without 'no-deletes', allow rule 'all' (mesh.yaml:7) would permit it"
    everything = told(hop(), deny=(rule("closed", effect="deny"),))
    assert "it names no field at all" in everything.advice[0]
    assert everything.decision.endswith("everybody may not call")


def test_without_any_allow_rule_the_change_is_a_first_one() -> None:
    said = told(hop())
    assert said.nearest is None
    assert said.decision == "the service has no allow rule, and what no rule allows is refused"
    assert [change.kind for change in said.changes] == ["add"]
    assert "from: [web]" in said.changes[0].yaml


def test_a_caller_without_identity_cannot_be_named() -> None:
    said = told(hop(peer=None), rule("r", "web"))
    assert (said.identity, said.changes) == ("no identity", ())
    assert "proved no identity" in said.advice[0]


def test_a_method_that_cannot_be_listed_gets_advice_instead() -> None:
    said = told(hop(method="get"), rule("r", "web", method=["GET"]))
    assert said.changes == ()
    assert "case-sensitive" in said.advice[0]


def test_a_missing_header_is_the_callers_to_send() -> None:
    said = told(hop(), rule("r", "web", headers={"x-env": "prod"}))
    assert [change.kind for change in said.changes] == ["add"]
    assert "let the caller send the header" in said.advice[0]


def test_shadow_rules_never_decide_but_are_told() -> None:
    said = told(hop(), rule("soon", "web", shadow=True, line=4), rule("r", "cart"))
    assert said.nearest is not None
    assert said.nearest.rule == "r"
    assert said.advice == ("shadow rule 'soon' (mesh.yaml:4) would permit it, were it in force",)
    assert "  shadow   rule 'soon' would permit\n" in said.render()
    assert said.to_json()["shadow"] == [{"rule": "soon", "effect": "permit"}]


def test_a_new_rule_names_what_other_rules_find_worth_naming() -> None:
    rules = [rule("a", "cart", host=["x"], method=["POST"]), rule("b", "x", source=["fd00::/8"], port=["admin"])]
    added = told(hop(), *rules).changes[0].rule
    assert [str(host) for host in added.hosts] == ["orders"]
    assert [str(network) for network in added.networks] == ["10.0.0.9/32"]
    assert added.ports == ("http",)
    bare = told(hop(host="", source=None, listener="", port=9), rule("a", "cart", host=["x"], method=["POST"])).changes[
        0
    ]
    assert bare.rule.hosts == ()
    assert told(hop(host="not a host"), rule("a", "x", "y", host=["x"])).changes[0].rule.hosts == ()


def test_on_tcp_a_proposal_always_names_the_port() -> None:
    first, second = told(tcp(), rule("r", "cart")).changes
    assert first.yaml == "- name: web-tcp-db\n  from: [web]\n  port: [db]\n"
    assert second.note == "permits this: web may call"
    (only,) = told(tcp(), rule("r", "cart", port=["db"])).changes
    assert (only.kind, only.rule.ports) == ("extend", ("db",))
    (port,) = told(tcp(), rule("r", "web", port=["http"])).changes
    assert (port.kind, port.rule.ports) == ("extend", ("http", "db"))
    (http,) = told(tcp(), rule("r", "web", method=["GET"])).changes
    assert http.kind == "add"


@pytest.mark.parametrize(
    ("segments", "path", "note"),
    [
        (("a", "", "b"), ("/a/**",), "empty segment"),
        ((), (), "every path"),
        (("{id}", "x*"), ("/%7Bid%7D/x%2A",), ""),
    ],
)
def test_the_proposed_path_is_literal_where_that_can_be_said(
    segments: tuple[str, ...], path: tuple[str, ...], note: str
) -> None:
    change = told(hop(segments=segments, target="", method="OPTIONS")).changes[0]
    assert tuple(map(str, change.rule.paths)) == path
    assert note in change.note
    assert bool(change.note) is bool(note)


NAMES = [
    # caller, namespace told, another rule's caller, how it is named
    ("spiffe://demo.mesh/ns/default/sa/web", None, None, "web"),
    ("spiffe://demo.mesh/ns/shop/sa/web", None, None, "shop/web"),
    ("spiffe://demo.mesh/ns/shop/sa/web", "shop", None, "web"),
    ("spiffe://demo.mesh/ns/default/sa/web", "shop", None, "default/web"),
    ("spiffe://demo.mesh/ns/default/sa/web", None, "cart", "web"),
    ("spiffe://demo.mesh/ns/default/sa/web", None, "**", "web"),
    ("spiffe://far.mesh/ns/default/sa/web", None, None, "spiffe://far.mesh/ns/default/sa/web"),
    ("spiffe://demo.mesh/batch/7", None, None, "spiffe://demo.mesh/batch/7"),
]


@pytest.mark.parametrize(("caller", "namespace", "other", "text"), NAMES)
def test_a_caller_is_named_as_shortly_as_is_safe(
    caller: str, namespace: str | None, other: str | None, text: str
) -> None:
    others = [rule("r", other, method=["POST"])] if other else []
    changes = told(hop(peer=SpiffeId.parse(caller)), *others, namespace=namespace).changes
    assert [str(pattern) for pattern in changes[0].rule.callers] == [text]


def test_without_a_destination_nothing_is_guessed() -> None:
    said = told(hop(destination=None, peer=workload_id(TD, "shop", "web")))
    assert str(said.changes[0].rule.callers[0]) == "spiffe://demo.mesh/ns/shop/sa/web"
    assert said.request.startswith("spiffe://demo.mesh/ns/shop/sa/web GET")
    ours = SpiffeId.parse("spiffe://demo.mesh/gateway")
    assert str(told(hop(destination=ours)).changes[0].rule.callers[0]) == "default/web"


def test_a_new_rule_gets_a_name_of_its_own() -> None:
    taken = [rule(name, "cart", "x") for name in ("web-get-orders", "web-get-orders-2")]
    assert told(hop(), *taken).changes[0].rule.name == "web-get-orders-3"
    assert told(hop(segments=("\u00e9" * 3,), target="")).changes[0].rule.name == "web-get"
    assert len(told(hop(segments=("x" * 500,))).changes[0].rule.name) <= 48


def test_a_change_touches_one_rule_only() -> None:
    allow = [rule("other", "cart", method=["POST"]), rule("near", "web", method=["POST"])]
    (change,) = told(hop(), *allow).changes
    assert [each.name for each in change.applied_to(allow)] == ["other", "near"]
    assert change.applied_to(allow)[0] is allow[0]
    assert change.to_json() == {
        "kind": "extend",
        "rule": "near",
        "where": "mesh.yaml:7",
        "sentence": "add GET to `method` of rule 'near'",
        "note": "",
        "yaml": "- name: near\n  from: [web]\n  method: [POST, GET]\n",
    }


def test_a_rule_is_printed_whole() -> None:
    whole = rule(
        "r", "web", "**", method=["GET"], path=["/a"], host=["*.x.example"], source=["10.0.0.0/8"], port=["9"],
        shadow=True, headers={"x-a": "on", "x-b": {"prefix": "\u00e9\"\\"}, "x-c": {"present": True}},
    )  # fmt: skip
    assert rule_yaml(whole) == (
        "- name: r\n"
        '  from: [web, "**"]\n'
        "  method: [GET]\n"
        "  path: [/a]\n"
        '  host: ["*.x.example"]\n'
        '  source: ["10.0.0.0/8"]\n'
        '  port: ["9"]\n'
        '  headers: {x-a: "on", x-b: {prefix: "\\U000000e9\\"\\\\"}, x-c: {present: true}}\n'
        "  shadow: true\n"
    )
    assert sentence(whole) == (
        "web, ** may GET /a of host *.x.example with header x-a exact 'on', x-b prefix '\u00e9\"\\\\', x-c present"
        " from network 10.0.0.0/8 on port 9"
    )
    assert sentence(rule("r", "web", host=["a"])) == "web may use any method on any path of host a"
    assert sentence(rule("r")) == "nobody may call"


@pytest.mark.parametrize(
    "text", ["", "on", "No", "null", "1.5", "1:30", "a b", "a: b", "-", "*", "{x}", "#", "\n", "y"]
)
def test_text_that_yaml_could_take_for_something_else_is_quoted(text: str) -> None:
    assert scalar(text).startswith('"')


def test_what_is_printed_cannot_drive_a_terminal() -> None:
    said = told(hop(target="/a\x1b[2J\u202e", host="h\x07"), rule("r", "cart", path=["/x"]))
    assert said.render().replace("\n", "").isprintable()
    assert "\\x1b[2J\\u202e" in said.render()
    assert safe("plain \u00e9") == "plain \u00e9"
