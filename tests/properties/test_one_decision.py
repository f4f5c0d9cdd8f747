"""One decision function: proxy, `RuleSet.check`, `explain`, `mesh explain`, `mesh check` and shadow say the same.

Random policies are written as a mesh.yaml and read by the real reader; random requests are written as bytes. Each pair
is judged

  - by the proxy: `InboundSide.admit` after the strict reading, `_authorize` for raw TCP;
  - by `RuleSet.check` on the hop that came of it, and by `explain` on the same;
  - by the question `mesh explain --from … --path …`, which makes a hop of its own;
  - by the same rules all marked `shadow`: what they would have done, deny before allow, is what they do in force;
  - by `mesh check`: a rule of which it says that it never decides, or has no effect, never decides.

`tests/properties/test_policy.py` holds `RuleSet.check` against a second evaluator that shares no code with it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any
from urllib.parse import quote

import pytest

from certs.spiffe import SpiffeId
from sidecar.config.load import load_bytes
from sidecar.config.schema import Service
from sidecar.config.schema_inbound import Rule
from sidecar.errors import HopError, PolicyDenied, ProtocolViolation, TokenMissing, UnsupportedFeature
from sidecar.hop import Hop, Permit
from sidecar.net.memory import MemoryClock
from sidecar.policy.authz import RuleSet
from sidecar.policy.explain import explain
from sidecar.policy.propose import rule_yaml
from sidecar.policy.question import hop_of
from sidecar.telemetry.record import Recorder
from tests.kit.admission import WALL, Admission
from tests.properties.test_policy import LISTENERS, PEERS, a_hop, a_policy

NEVER = re.compile(r"services\.orders\.(allow|deny)\[(\d+)\]")
POLICIES, REQUESTS = 200, 50  # 10,000 pairs
RECORDER = Recorder(instance="0d0e0f01", clock=MemoryClock(wall=WALL))


def a_config(dice: Random) -> str:
    """A whole mesh.yaml with a random policy; sometimes a route accepts what is usually refused."""
    allow, deny = a_policy(dice)
    text = "trust_domain: demo.mesh\nservices:\n  web: {}\n  cart: {}\n  orders:\n    inbound:\n"
    for name, port in LISTENERS:
        routes = ", routes: [{path: /**, unsafe_encoded_slash: true, unsafe_empty_segments: true}]"
        lenient = routes if name != "db" and dice.random() < 0.3 else ""
        protocol = "tcp" if name == "db" else "http"
        app = f"127.0.0.1:{port + 1000}"
        text += f"      - {{name: {name}, port: {port}, app: '{app}', protocol: {protocol}{lenient}}}\n"
    for key, rules in (("allow", allow), ("deny", deny)):
        written = [_writable(dice, rule) for rule in rules if rule.callers]  # a file cannot leave out `from`
        if written:
            text += f"    {key}:\n"
        for rule in written:
            text += "".join(f"      {line}\n" for line in rule_yaml(rule).splitlines())
    return text


def _writable(dice: Random, rule: Rule) -> Rule:
    """A rule that `mesh check` does not refuse: none with an HTTP field for the raw listener alone, none that asks for
    a path parameter that it has not. Of an allow rule half of what it names is dropped, and of what any rule asks for
    more than half, so that enough is permitted.
    """
    for field in ("methods", "paths", "hosts", "headers", "networks", "ports"):
        if rule.effect == "allow" and dice.random() < 0.5:
            rule = replace(rule, **{field: ()})
    for field in ("operations", "scopes", "when"):
        if dice.random() < 0.7:
            rule = replace(rule, **{field: ()})
    asked = [subject for condition in rule.when for subject in condition.subjects() if subject.kind == "path"]
    if asked and not (rule.paths and all(subject.name in path.names for subject in asked for path in rule.paths)):
        rule = replace(rule, when=())
    return replace(rule, ports=()) if rule.http_only and rule.ports == ("db",) else rule


def bytes_of(hop: Hop) -> bytes:
    """The request that a random hop describes, as bytes."""
    target = "/" + "/".join(quote(segment, safe="") for segment in hop.segments)
    if hop.method == "CONNECT":
        target = "orders:80"
    elif not hop.segments:
        target = "*" if hop.method == "OPTIONS" else "/"
    lines = [f"{hop.method} {target} HTTP/1.1".encode(), b"host: " + (hop.host or "orders").encode()]
    lines += [name + b": " + value for name, value in hop.headers]
    return b"\r\n".join((*lines, b"", b""))


def question_of(hop: Hop, listener: str, host: str) -> dict[str, Any]:
    """The same as a question."""
    headers: dict[str, list[str]] = {}
    for name, value in hop.headers:
        if name != b"host":
            headers.setdefault(name.decode(), []).append(value.decode())
    asked = {"from": str(hop.peer), "source": str(hop.source) if hop.source else "", "port": listener}
    if hop.protocol == "http":
        asked |= {"method": hop.method, "path": hop.target, "host": host or "orders"}
    return asked | {"headers": headers}


def shadowed(service: Service) -> RuleSet:
    """The live rules of a service, all on trial."""
    allow, deny = (
        [replace(rule, shadow=True) for rule in rules if not rule.shadow] for rules in (service.allow, service.deny)
    )
    return RuleSet.compile(allow, deny)


def on_trial(rules: RuleSet, hop: Hop) -> tuple[str, str]:
    """Verdict and rule that follow from what the rules on trial would have done."""
    would = rules.check(hop, WALL).shadow
    for effect in ("deny", "permit"):
        for verdict in would:
            if verdict.effect == effect:
                return effect, verdict.rule
    return "deny", ""


def said(answer: Hop | HopError) -> tuple[str, str]:
    """Verdict and rule of a hop that the proxy has judged; the error's name where it did not come to that."""
    error = answer.error if isinstance(answer, Hop) else answer
    if error is None or isinstance(error, UnsupportedFeature):  # CONNECT is refused after the rules
        return "permit", answer.rule if isinstance(answer, Hop) else ""
    if type(error) in (PolicyDenied, TokenMissing):
        return "deny", getattr(error, "rule", None) or ""
    return error.name, ""


def asked(service: Service, rules: RuleSet, question: dict[str, Any]) -> tuple[str, str]:
    """Verdict and rule as `mesh explain` tells them."""
    try:
        explanation = explain(rules, hop_of(question, service), WALL)
    except HopError as error:
        return error.name, ""
    return explanation.verdict, explanation.rule


def idle_rules(service: Service, warnings: Any) -> set[str]:
    """Names of the rules that `mesh check` says never decide."""
    found = set()
    for warning in warnings:
        place = NEVER.fullmatch(warning.path)
        if place is not None and warning.code in ("MESH030", "MESH031", "MESH032", "MESH033"):
            rules = service.allow if place[1] == "allow" else service.deny
            found.add(rules[int(place[2])].name)
    return found


def agree(seed: int, requests: int) -> tuple[int, int]:
    """One policy and its requests; returns how many were permitted, and how many rules were said never to decide."""
    dice = Random(seed)
    text = a_config(dice)
    loaded = load_bytes(text.encode())
    service = loaded.config.services["orders"]
    rules, trial = RuleSet.compile(service.allow, service.deny), shadowed(service)
    sidecar = Admission(service, RECORDER)
    idle, permitted = idle_rules(service, loaded.warnings), 0
    for _ in range(requests):
        drawn = a_hop(dice)
        if drawn.peer is None or drawn.method == "get":
            drawn = replace(drawn, peer=_a_peer(dice), method=drawn.method.upper())
        assert drawn.peer is not None
        if drawn.protocol == "tcp":
            judged = sidecar.connection(drawn.peer, drawn.listener, drawn.source)
        else:
            judged = sidecar.request(bytes_of(drawn), drawn.peer, drawn.listener, drawn.source)
        proxy = said(judged)
        assert asked(service, rules, question_of(judged, drawn.listener, drawn.host)) == proxy, (text, judged)
        if isinstance(judged.error, ProtocolViolation):  # refused before any rule is asked
            continue
        verdict = rules.check(judged, WALL)
        found = ("permit" if isinstance(verdict, Permit) else "deny", verdict.rule)
        explanation = explain(rules, judged, WALL)
        assert found == proxy == (explanation.verdict, explanation.rule) == on_trial(trial, judged), (text, judged)
        assert judged.shadow == verdict.shadow == explanation.shadow
        assert verdict.rule not in idle, (text, judged)
        permitted += found[0] == "permit"
    return permitted, len(idle)


def _a_peer(dice: Random) -> SpiffeId:
    return SpiffeId.parse(dice.choice([peer for peer in PEERS if peer]))


def test_everybody_who_judges_says_the_same() -> None:
    results = [agree(seed, REQUESTS) for seed in range(POLICIES)]
    permitted, idle = (sum(column) for column in zip(*results, strict=True))
    assert permitted > POLICIES * REQUESTS / 20, "too few permits to mean anything"
    assert idle > POLICIES / 10, "too few rules that never decide to mean anything"


@pytest.mark.deep
@pytest.mark.parametrize("first", range(10_000, 20_000, 1000))
def test_everybody_who_judges_says_the_same_at_length(first: int) -> None:
    for seed in range(first, first + 200):
        agree(seed, REQUESTS)
