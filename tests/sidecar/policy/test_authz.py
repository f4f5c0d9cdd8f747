"""Explicit deny, then allow, then deny (S20, D3): each sentence with both verdicts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from certs.spiffe import SpiffeId, TrustDomain, workload_id
from sidecar.config.schema_inbound import Rule
from sidecar.config.terms import Effect, Where
from sidecar.errors import PolicyDenied
from sidecar.hop import Deny, Hop, Permit, ShadowVerdict
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate
from sidecar.policy import authz
from sidecar.policy.authz import RuleSet

TD = TrustDomain("demo.mesh")
WEB = workload_id(TD, "default", "web")
CART = workload_id(TD, "default", "cart")
NOW = 1_700_000_000.0


def rule(name: str, *callers: str, effect: Effect = "allow", **fields: Any) -> Rule:
    """A rule in few words; fields by their YAML keys."""
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
        where=Where("mesh.yaml", fields.get("line", 1)),
    )


def hop(**fields: Any) -> Hop:
    """A GET of /orders/7 by web, but for what is said otherwise."""
    made = Hop("inbound", "http", 17443, "http", peer=WEB, method="GET", host="orders", segments=("orders", "7"))
    return replace(made, **({"source": ip_address("10.0.0.9")} | fields))


def tcp(**fields: Any) -> Hop:
    """A raw TCP connection by web."""
    return hop(**({"protocol": "tcp", "listener": "db", "method": "", "host": "", "segments": ()} | fields))


def line(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode(), value.encode()


PURGE = {"method": "PURGE"}
JUDGED: list[tuple[str, Rule, Hop, bool]] = [
    # sentence; an allow rule; hop; is it permitted
    ("a caller by name", rule("r", "web"), hop(), True),
    ("nobody else", rule("r", "web"), hop(peer=CART), False),
    ("a caller by pattern", rule("r", "*"), hop(peer=CART), True),
    ("another namespace", rule("r", "*"), hop(peer=workload_id(TD, "shop", "web")), False),
    ("another trust domain", rule("r", "**"), hop(peer=SpiffeId.parse("spiffe://evil.mesh/ns/default/sa/web")), False),
    ("any of several callers", rule("r", "cart", "web"), hop(), True),
    ("no identity satisfies no caller", rule("r", "**"), hop(peer=None), False),
    ("a rule without callers allows nobody", rule("r"), hop(), False),
    ("a rule without callers allows nobody, least of all strangers", rule("r"), hop(peer=None), False),
    ("a known method without a list", rule("r", "web"), hop(method="DELETE"), True),
    ("an unknown method without a list", rule("r", "web"), hop(**PURGE), False),
    ("an unknown method in the list", rule("r", "web", method=["PURGE"]), hop(**PURGE), True),
    ("methods are case-sensitive", rule("r", "web"), hop(method="get"), False),
    ("TRACE only where listed", rule("r", "web"), hop(method="TRACE"), False),
    ("CONNECT only where listed", rule("r", "web"), hop(method="CONNECT", segments=()), False),
    ("CONNECT listed", rule("r", "web", method=["CONNECT"]), hop(method="CONNECT", segments=()), True),
    ("a listed method", rule("r", "web", method=["GET", "POST"]), hop(), True),
    ("a method off the list", rule("r", "web", method=["POST"]), hop(), False),
    ("a path template", rule("r", "web", path=["/orders/{id}"]), hop(), True),
    ("the second path template", rule("r", "web", path=["/carts", "/orders/7"]), hop(), True),
    ("a trailing slash is significant", rule("r", "web", path=["/orders"]), hop(segments=("orders", "")), False),
    ("paths are case-sensitive", rule("r", "web", path=["/orders/{id}"]), hop(segments=("Orders", "7")), False),
    ("`OPTIONS *` has no path", rule("r", "web", path=["/**"]), hop(method="OPTIONS", segments=()), False),
    ("`OPTIONS *` with a rule on no path", rule("r", "web"), hop(method="OPTIONS", segments=()), True),
    ("an exact host", rule("r", "web", host=["orders"]), hop(), True),
    ("another host", rule("r", "web", host=["carts"]), hop(), False),
    ("one label", rule("r", "web", host=["*.shop.example"]), hop(host="eu.shop.example"), True),
    ("two labels", rule("r", "web", host=["*.shop.example"]), hop(host="a.eu.shop.example"), False),
    ("no host satisfies no host", rule("r", "web", host=["orders"]), hop(host=""), False),
    ("a header", rule("r", "web", headers={"x-env": "prod"}), hop(headers=[line("x-env", "prod")]), True),
    ("an absent header", rule("r", "web", headers={"x-env": {"prefix": "p"}}), hop(), False),
    ("every line", rule("r", "web", headers={"a": "1"}), hop(headers=[line("a", "1"), line("a", "2")]), False),
    ("every header", rule("r", "web", headers={"a": "1", "b": "2"}), hop(headers=[line("a", "1")]), False),
    ("the source narrows", rule("r", "web", source=["10.0.0.0/8"]), hop(), True),
    ("another source", rule("r", "web", source=["192.168.0.0/16"]), hop(), False),
    ("one of several sources", rule("r", "web", source=["fd00::/8", "10.0.0.0/8"]), hop(), True),
    ("IPv6", rule("r", "web", source=["fd00::/8"]), hop(source=ip_address("fd00::1")), True),
    ("IPv6 is not IPv4", rule("r", "web", source=["::/0"]), hop(), False),
    ("IPv4 is not IPv6", rule("r", "web", source=["0.0.0.0/0"]), hop(source=ip_address("fd00::1")), False),
    ("IPv4 in IPv6", rule("r", "web", source=["10.0.0.0/8"]), hop(source=ip_address("::ffff:10.1.2.3")), True),
    ("a mapped network", rule("r", "web", source=["::ffff:10.0.0.0/104"]), hop(), True),
    ("an unknown source satisfies none", rule("r", "web", source=["0.0.0.0/0"]), hop(source=None), False),
    ("a listener by name", rule("r", "web", port=["http"]), hop(), True),
    ("a listener by port", rule("r", "web", port=["17443"]), hop(), True),
    ("another listener", rule("r", "web", port=["admin"]), hop(), False),
    ("one AND: all hold", rule("r", "web", method=["GET"], host=["orders"], path=["/**"], port=["http"]), hop(), True),
    ("one AND: the last fails", rule("r", "web", method=["GET"], path=["/orders/{id}"], port=["x"]), hop(), False),
    ("TCP by caller", rule("r", "web"), tcp(), True),
    ("TCP by another", rule("r", "cart"), tcp(), False),
    ("TCP and source", rule("r", "web", source=["10.0.0.0/8"], port=["db"]), tcp(), True),
    ("TCP and another source", rule("r", "web", source=["10.1.0.0/16"]), tcp(), False),
    ("TCP and another port", rule("r", "web", port=["http"]), tcp(), False),
    ("TCP never matches a method", rule("r", "web", method=["GET"]), tcp(), False),
    ("TCP never matches a path", rule("r", "web", path=["/**"]), tcp(), False),
    ("TCP never matches a host", rule("r", "web", host=["orders"]), tcp(), False),
    ("TCP never matches a header", rule("r", "web", headers={"a": {"present": True}}), tcp(), False),
]


@pytest.mark.parametrize(("sentence", "allow", "given", "permitted"), JUDGED, ids=[row[0] for row in JUDGED])
def test_an_allow_rule(sentence: str, allow: Rule, given: Hop, permitted: bool) -> None:
    rules = RuleSet.compile([allow])
    for _ in range(2):  # the second time from what is kept for this caller
        assert isinstance(rules.check(given, NOW), Permit) is permitted
    assert (rules.rules[0].match(given) is not None) is permitted


def deny(*callers: str, **fields: Any) -> Rule:
    return rule("no", *callers, effect="deny", **fields)


FORBIDDEN: list[tuple[str, Rule, Hop, bool]] = [
    # sentence; a deny rule beside one that allows everybody everything; hop; does it deny
    ("a caller by name", deny("web"), hop(), True),
    ("nobody else", deny("cart"), hop(), False),
    ("without callers it means everybody", deny(), hop(), True),
    ("a method", deny("web", method=["DELETE"]), hop(method="DELETE"), True),
    ("another method", deny("web", method=["DELETE"]), hop(), False),
    ("without methods it means unknown ones too", deny("web", path=["/orders/{id}"]), hop(**PURGE), True),
    ("a path", deny("web", path=["/orders/**"]), hop(), True),
    ("another path", deny("web", path=["/admin/**"]), hop(), False),
    ("one header line is enough", deny("web", headers={"a": "1"}), hop(headers=[line("a", "0"), line("a", "1")]), True),
    ("an absent header is not", deny("web", headers={"a": "1"}), hop(), False),
    ("an unknown source is in doubt", deny("web", source=["10.0.0.0/8"]), hop(source=None), True),
    ("a known source is not", deny("web", source=["192.168.0.0/16"]), hop(), False),
    ("TCP", deny("web"), tcp(), True),
    ("TCP is no HTTP", deny("web", path=["/**"]), tcp(), False),
    ("shadow has no effect", deny("web", shadow=True), hop(), False),
]


@pytest.mark.parametrize(("sentence", "forbid", "given", "denied"), FORBIDDEN, ids=[row[0] for row in FORBIDDEN])
def test_a_deny_rule_beats_every_allow_rule(sentence: str, forbid: Rule, given: Hop, denied: bool) -> None:
    rules = RuleSet.compile([rule("all", "**"), rule("odd", "**", method=["PURGE"])], [forbid])
    verdict = rules.check(given, NOW)
    assert isinstance(verdict, Deny) is denied
    if isinstance(verdict, Deny):
        assert isinstance(verdict.error, PolicyDenied)
        assert verdict.rule == verdict.error.rule == "no"


def test_no_policy_and_no_match_give_the_same_answer() -> None:
    nothing = RuleSet.compile([]).check(hop(), NOW)
    no_match = RuleSet.compile([rule("r", "cart")]).check(hop(), NOW)
    assert isinstance(nothing, Deny)
    assert isinstance(no_match, Deny)
    assert isinstance(nothing.error, PolicyDenied)
    assert (type(nothing.error), nothing.error.detail, nothing.error.rule, nothing.rule) == (
        type(no_match.error), no_match.error.detail, None, no_match.rule,
    )  # fmt: skip
    assert nothing.rule == ""


def test_the_first_rule_in_the_file_lends_its_name_and_route() -> None:
    rules = RuleSet.compile(
        [rule("others", "cart"), rule("narrow", "web", path=["/x", "/orders/{id}"]), rule("wide", "web")]
    )
    assert rules.check(hop(), NOW) == Permit("narrow", "/orders/{id}")
    assert rules.check(hop(segments=("else",)), NOW) == Permit("wide", "/**")
    assert rules.check(tcp(), NOW) == Permit("wide", "/**")


def test_the_first_deny_rule_in_the_file_is_named() -> None:
    one, two = replace(deny("web"), name="one"), replace(deny(), name="two")
    rules = RuleSet.compile([rule("all", "**")], [deny("cart"), one, two])
    assert rules.check(hop(), NOW).rule == "one"


def test_shadow_rules_are_judged_apart() -> None:
    rules = RuleSet.compile(
        [rule("live", "web"), rule("would-allow", "**", shadow=True), rule("not-this", "cart", shadow=True)],
        [rule("would-deny", "web", effect="deny", path=["/orders/{id}"], shadow=True)],
    )
    shadow = (ShadowVerdict("would-deny", "deny"), ShadowVerdict("would-allow", "permit"))
    assert rules.check(hop(), NOW) == Permit("live", "/**", shadow)
    refused = rules.check(hop(peer=workload_id(TD, "default", "x")), NOW)
    assert isinstance(refused, Deny)
    assert refused.shadow == (ShadowVerdict("would-allow", "permit"),)
    assert rules.check(hop(segments=("other",)), NOW).shadow == shadow[1:]
    assert rules.check(tcp(), NOW) == Permit("live", "/**", shadow[1:])
    denied = RuleSet.compile([], [deny("web"), replace(deny("web", shadow=True), name="s")]).check(hop(), NOW)
    assert (denied.rule, denied.shadow) == ("no", (ShadowVerdict("s", "deny"),))


def test_a_rule_stands_in_the_list_of_its_effect() -> None:
    for allow, forbid in (([deny("web")], []), ([], [rule("r", "web")])):
        with pytest.raises(ValueError, match="in the list of"):
            RuleSet.compile(allow, forbid)


def test_rules_are_found_by_name() -> None:
    rules = RuleSet.compile([rule("r", "web")], [deny("cart")])
    found = rules.rule("no")
    assert found is not None
    assert repr(found) == "<deny rule 'no'>"
    assert rules.rule("r") is rules.rules[1]
    assert rules.rule("x") is None


def test_what_is_kept_per_caller_is_bounded_and_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authz, "_MAX_CALLERS", 3)
    rules = RuleSet.compile([rule("r", "web")])
    for _ in range(2):
        for number in range(5):
            assert isinstance(rules.check(hop(peer=workload_id(TD, "default", f"c{number}")), NOW), Deny)
            assert isinstance(rules.check(hop(), NOW), Permit)
            assert len(rules._http) <= 3
