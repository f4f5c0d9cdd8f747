"""The YAML that `mesh explain` proposes, applied to the file: that very request passes, and nothing in it is idle.

A random mesh.yaml, a random request that it refuses; each proposal is written into the file as an operator would, the
file is read anew, and the question asked again. What "smallest" means:

  - an extension adds one value to one field of one rule; without it the file is the old one, and refuses;
  - a new rule is one rule; without its caller it matches nobody, and each further field holds one value, without which
    it would let in a request that differs in just this field.
"""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certs.spiffe import SpiffeId
from sidecar.config.load import load_text
from sidecar.config.schema import Service
from sidecar.config.schema_inbound import Rule
from sidecar.hop import Hop, Permit
from sidecar.policy.authz import CompiledRule, RuleSet
from sidecar.policy.explain import explain
from sidecar.policy.propose import Change, rule_yaml
from tests.kit.admission import WALL
from tests.properties.test_one_decision import a_config, asked, question_of
from tests.properties.test_policy import OURS, PEERS, a_hop

SEEDS = st.integers(0, 2**63)
SLOW = [HealthCheck.too_slow]
ELSEWHERE = {
    "methods": {"method": "PATCH"},
    "paths": {"segments": ("nobody", "asked", "for", "this")},
    "hosts": {"host": "elsewhere.test"},
    "networks": {"source": ip_address("203.0.113.9")},
    "ports": {"listener": "elsewhere", "port": 1},
}


def applied(text: str, service: Service, change: Change) -> str:
    """The file with this change made, as a person would make it."""
    lines = text.splitlines()
    item = [f"      {line}" for line in change.yaml.splitlines()]
    if change.kind == "extend":
        old = next(rule for rule in service.allow if rule.name == change.rule.name)
        first = change.rule.where.line - 1
        lines[first : first + len(rule_yaml(old).splitlines())] = item
    elif "    allow:" in lines:
        at = lines.index("    allow:") + 1
        lines[at:at] = item
    else:
        lines += ["    allow:", *item]
    return "\n".join(lines) + "\n"


def is_small(change: Change, service: Service, hop: Hop) -> None:
    """Nothing in the change could be left out."""
    if change.kind == "extend":
        old = next(rule for rule in service.allow if rule.name == change.rule.name)
        differing = [each.name for each in fields(Rule) if getattr(old, each.name) != getattr(change.rule, each.name)]
        assert len(differing) == 1
        before, after = getattr(old, differing[0]), getattr(change.rule, differing[0])
        assert after[:-1] == before
        return
    rule = change.rule
    assert len(rule.callers) == 1
    assert CompiledRule(replace(rule, callers=())).match(hop) is None
    assert rule.headers == ()
    for name, elsewhere in ELSEWHERE.items():
        values = getattr(rule, name)
        assert len(values) <= 1
        if values and not (name == "ports" and hop.protocol == "tcp"):
            other = replace(hop, **elsewhere)
            assert CompiledRule(rule).match(other) is None, (change, name)
            assert CompiledRule(replace(rule, **{name: ()})).match(other) is not None, (change, name)


def proposals_work(seed: int, hops: int) -> int:
    """How many proposals were made, written down and found to work."""
    dice, made = Random(seed), 0
    text = a_config(dice)
    service = load_text(text).services["orders"]
    rules = RuleSet.compile(service.allow, service.deny)
    for _ in range(hops):
        hop = a_hop(dice)
        if hop.peer is None:
            hop = replace(hop, peer=SpiffeId.parse(dice.choice([peer for peer in PEERS if peer])))
        if hop.protocol == "http":
            segments = dice.choice((("orders", "7"), ("static", "a"), ("x",)))
            hop = replace(hop, segments=segments, host=hop.host or "orders")
            hop = replace(hop, target="/" + "/".join(hop.segments), method=hop.method.upper())
        assert hop.destination == OURS
        hop = replace(hop, token=None, operation="")  # of which a question like this says nothing
        explanation = explain(rules, hop, WALL)
        question = question_of(hop, hop.listener, hop.host)
        for change in explanation.changes:
            assert asked(service, rules, question)[0] == "deny"
            again = load_text(applied(text, service, change)).services["orders"]
            verdict = asked(again, RuleSet.compile(again.allow, again.deny), question)
            assert verdict == ("permit", change.rule.name), (text, change.yaml, hop)
            assert isinstance(RuleSet.compile(change.applied_to(service.allow), service.deny).check(hop, WALL), Permit)
            is_small(change, service, hop)
            made += 1
    return made


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_a_proposal_written_into_the_file_makes_that_request_pass(seed: int) -> None:
    proposals_work(seed, hops=4)


@pytest.mark.deep
@settings(max_examples=3000, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_a_proposal_written_into_the_file_makes_that_request_pass_at_length(seed: int) -> None:
    proposals_work(seed, hops=5)


def test_proposals_are_made_often_enough_to_mean_something() -> None:
    assert sum(proposals_work(seed, hops=4) for seed in range(20)) > 50


def one_step(seed: int, hops: int) -> int:
    """Of permits: each field that is said to hold one up does; each deny rule that is one field away refuses then."""
    dice, steps = Random(seed), 0
    service = load_text(a_config(dice)).services["orders"]
    rules = RuleSet.compile(service.allow, service.deny)
    attributes = {"method": "methods", "path": "paths", "host": "hosts", "source": "networks", "port": "ports"}
    for _ in range(hops):
        hop = a_hop(dice)
        found = explain(rules, hop).why_not
        decided = rules.rule(found.rule) if found is not None else None
        if found is None or decided is None:
            continue
        for field in found.because:
            if field.key in attributes:
                other = replace(hop, **ELSEWHERE[attributes[field.key]])
                if field.key == "method":
                    other.method = "NOBODYS"
                if field.key == "path" and any(path.rest and not path.segments for path in decided.source.paths):
                    continue
                assert decided.match(other) is None, (found, field)
                steps += 1
        for deny in found.denies:
            if len(deny.differences) == 1 and deny.differences[0].key == "method":
                verdict = rules.check(replace(hop, method=deny.rule.methods[0]), 0.0)
                assert not isinstance(verdict, Permit), (deny, hop)
                steps += 1
    return steps


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_what_holds_a_permit_up_does(seed: int) -> None:
    one_step(seed, hops=20)


def test_permits_are_asked_often_enough_to_mean_something() -> None:
    assert sum(one_step(seed, hops=20) for seed in range(40)) > 50
