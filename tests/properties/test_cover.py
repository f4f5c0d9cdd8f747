"""`covers(a, b)` is a promise: no hop is ever matched by b and not by a."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certs.spiffe import TrustDomain
from sidecar.config.cover import (
    covers,
    host_covers,
    identity_covers,
    networks_cover,
    path_covers,
    route_covers,
    same,
    value_covers,
)
from sidecar.config.schema_inbound import Inbound, Route, Rule
from sidecar.config.terms import Effect
from sidecar.hop import Hop
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate
from sidecar.policy.authz import CompiledRule
from tests.properties.test_policy import LISTENERS, a_hop, a_rule

TD = TrustDomain("demo.mesh")
INBOUND = [
    Inbound(name=name, port=port, protocol="tcp" if name == "db" else "http") for name, port in LISTENERS
]
SEEDS = st.integers(0, 2**63)
SLOW = [HealthCheck.too_slow]


def possible(hop: Hop) -> bool:
    """Whether a proxy can make this hop: only OPTIONS and CONNECT come without a path."""
    return hop.protocol == "tcp" or bool(hop.segments) or hop.method in ("OPTIONS", "CONNECT")


def a_pair(dice: Random) -> tuple[Rule, Rule]:
    """Two rules, the second one often a variation of the first, so that covering happens."""
    effects: tuple[Effect, ...] = ("allow", "deny")
    one = a_rule(dice, "a0", dice.choice(effects))
    other = a_rule(dice, "a1", dice.choice(effects))
    for field in ("callers", "methods", "paths", "hosts", "headers", "networks", "ports"):
        if dice.random() < 0.6:
            other = replace(other, **{field: getattr(one, field)})
        elif dice.random() < 0.5:
            one = replace(one, **{field: ()}) if field != "callers" else one
    return one, other


def promise_holds(seed: int, hops: int) -> bool:
    dice = Random(seed)
    one, other = a_pair(dice)
    if not covers(one, other, INBOUND):
        return False
    wide, narrow = CompiledRule(one), CompiledRule(other)
    for _ in range(hops):
        hop = a_hop(dice)
        if possible(hop) and narrow.match(hop) is not None:
            assert wide.match(hop) is not None, (one, other, hop)
    return True


@settings(max_examples=600, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_a_rule_that_covers_another_matches_wherever_that_does(seed: int) -> None:
    promise_holds(seed, hops=40)


@pytest.mark.deep
@settings(max_examples=20_000, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_a_rule_that_covers_another_matches_wherever_that_does_at_length(seed: int) -> None:
    promise_holds(seed, hops=60)


def test_the_promise_is_made_often_enough_to_mean_something() -> None:
    assert sum(promise_holds(seed, hops=20) for seed in range(600)) > 30


def test_every_rule_covers_itself() -> None:
    dice = Random(7)
    for _ in range(300):
        rule = a_rule(dice, "a0", dice.choice(("allow", "deny")))
        assert same(rule, rule, INBOUND)


IDENTITIES = [
    ("**", "web", True), ("**", "*", True), ("**", "shop/web", True), ("*", "web", True), ("*", "shop/web", False),
    ("web", "web", True), ("default/web", "web", True), ("web", "*", False), ("*", "**", False),
    ("spiffe://demo.mesh/ns/*/sa/web", "web", True), ("spiffe://demo.mesh/ns/*/sa/web", "*", False),
    ("spiffe://demo.mesh/ns/**", "*", True), ("spiffe://demo.mesh/ns/**", "spiffe://demo.mesh/ns", False),
    ("spiffe://far.mesh/**", "web", False), ("spiffe://demo.mesh/*/**", "spiffe://demo.mesh/**", False),
    ("spiffe://demo.mesh/**", "spiffe://demo.mesh/*/**", True), ("**", "spiffe://far.mesh/x", False),
]  # fmt: skip


@pytest.mark.parametrize(("wide", "narrow", "expected"), IDENTITIES)
def test_identities(wide: str, narrow: str, expected: bool) -> None:
    one, other = (IdentityPattern.parse(text, TD, "default") for text in (wide, narrow))
    assert identity_covers(one, other) is expected


PATHS = [
    ("/**", "/", True), ("/**", "/a/b", True), ("/**", "/a/**", True), ("/a/**", "/**", False), ("/a/**", "/a", False),
    ("/a/**", "/a/", True), ("/a/**", "/a/{id}", True), ("/{x}", "/a", True), ("/{x}", "/{y}", True),
    ("/{x}", "/", False), ("/a/{x}", "/a/", False), ("/a", "/a/", False), ("/a", "/{x}", False),
    ("/{x}/b", "/a/{y}", False), ("/a/**", "/a/b/**", True), ("/{x}/**", "/a/b", True), ("/a%2Fb", "/a%2fb", True),
]  # fmt: skip


@pytest.mark.parametrize(("wide", "narrow", "expected"), PATHS)
def test_paths_and_routes(wide: str, narrow: str, expected: bool) -> None:
    one, other = PathTemplate.parse(wide), PathTemplate.parse(narrow)
    assert path_covers(one, other) is expected
    assert route_covers(Route(one), Route(other, ("GET",))) is expected
    assert not route_covers(Route(one, ("GET",)), Route(other))
    assert route_covers(Route(one, ("GET", "PUT")), Route(other, ("PUT",))) is expected


def test_hosts_values_and_networks() -> None:
    def host(wide: str, narrow: str) -> bool:
        return host_covers(HostPattern.parse(wide), HostPattern.parse(narrow))

    assert host("*.a.example", "x.a.example")
    assert host("*.a.example", "*.a.example")
    assert not host("*.a.example", "x.y.a.example")
    assert not host("x.a.example", "*.a.example")

    def value(wide: object, narrow: object) -> bool:
        return value_covers(HeaderPattern.parse("x-a", wide), HeaderPattern.parse("X-A", narrow))

    assert value({"present": True}, {"prefix": "p"})
    assert value({"prefix": "p"}, "prod")
    assert value({"prefix": "p"}, {"prefix": "pr"})
    assert not value({"prefix": "pr"}, {"prefix": "p"})
    assert not value("p", {"prefix": "p"})
    assert not value_covers(HeaderPattern.parse("x-a", "1"), HeaderPattern.parse("x-b", "1"))

    def network(wide: str, narrow: str) -> bool:
        return networks_cover(*(list(map(ip_network, each.split())) for each in (wide, narrow)))

    assert network("10.0.0.0/9 10.128.0.0/9", "10.0.0.0/8"), "two halves make a whole"
    assert network("10.0.0.0/8", "::ffff:10.1.0.0/112")
    assert not network("::/0", "10.0.0.0/8")
    assert not network("10.0.0.0/8", "10.0.0.0/8 11.0.0.0/8")
