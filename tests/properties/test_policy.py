"""One decision function: `RuleSet.check` agrees with a naive evaluator, and every proposal does what it says.

The second evaluator below was written from the sentences of D3 and S20 alone and shares no code with the first: it
works on the texts of the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certs.spiffe import SpiffeId, TrustDomain
from sidecar.config.conditions import Condition
from sidecar.config.load import load_text
from sidecar.config.schema_inbound import Rule
from sidecar.config.terms import Effect, Where
from sidecar.hop import Headers, Hop, Permit, Token
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate
from sidecar.policy.authz import RuleSet
from sidecar.policy.explain import explain

TD: Final = TrustDomain("demo.mesh")
OURS: Final = SpiffeId.parse("spiffe://demo.mesh/ns/default/sa/orders")

# ---- a small world: every rule and every hop is one number --------------------------------------------------------

CALLERS: Final = (
    ("web",), ("web",), ("web",), ("cart",), ("web", "cart"), ("*",), ("**",), ("shop/web",), ("shop/*", "cart"),
    ("spiffe://demo.mesh/ns/*/sa/web",), ("spiffe://far.mesh/ns/default/sa/web",), ("spiffe://far.mesh/**",), (),
)  # fmt: skip
METHODS: Final = ((), (), ("GET",), ("GET",), ("GET", "POST"), ("PURGE",), ("POST", "CONNECT"))
PATHS: Final = (
    (), (), ("/",), ("/orders",), ("/orders/{id}",), ("/orders/",), ("/**",), ("/static/**",),
    ("/orders", "/orders/{id}"), ("/orders/{id}/items",), ("/a%2Fb",), ("/{a}/{b}", "/**"),
)  # fmt: skip
HOSTS: Final = ((), (), (), ("orders",), ("*.example",), ("orders", "10.0.0.1"))
HEADERS: Final[tuple[tuple[tuple[str, Any], ...], ...]] = (
    (), (), (), (("x-env", "prod"),), (("x-env", {"prefix": "p"}),), (("x-env", {"present": True}), ("x-b", "1")),
)  # fmt: skip
NETWORKS: Final = ((), (), (), ("10.0.0.0/8",), ("fd00::/8", "192.168.1.0/24"))
PORTS: Final = ((), (), (), ("http",), ("db",), ("17443",), ("http", "admin", "db"))

OPERATIONS: Final = ((), (), (), (), ("getOrder",), ("getOrder", "listOrders"))
SCOPES: Final = ((), (), (), (), ("read",), ("read", "write"))
WHENS: Final = (
    (), (), (), (), ("path id is claim order",), ("path id is not 8",), ("path a in [orders, static]", "path b is 7"),
    ("claim role is admin",), ("claim role is not admin",), ("claim roles has admin",), ("claim roles is admin",),
    ("header x-env is prod",), ("header x-env is not prod",), ("service in [web, cart]",), ("claim order is 7",),
    ("claim role exists", "service is web"), ("time between 10:00 and 12:00",), ("time between 22:00 and 06:00",),
)  # fmt: skip
HOP_OPERATIONS: Final = ("", "", "getOrder", "dropOrder")
TOKENS: Final = (
    None, None, ("", {}), ("read", {"order": "7", "role": "admin"}), ("read write", {"order": 7, "roles": ["admin"]}),
    ("write", {"order": ["7"], "role": "clerk", "roles": []}), ("read", {"role": True, "order": 7.0, "roles": "admin"}),
)  # fmt: skip
PEERS: Final = (
    "spiffe://demo.mesh/ns/default/sa/web", "spiffe://demo.mesh/ns/default/sa/cart",
    "spiffe://demo.mesh/ns/shop/sa/web", "spiffe://far.mesh/ns/default/sa/web", "spiffe://demo.mesh/mesh/ca", None,
)  # fmt: skip
HOP_METHODS: Final = ("GET", "POST", "DELETE", "PURGE", "get", "CONNECT")
SEGMENTS: Final[tuple[tuple[str, ...], ...]] = (
    ("",), ("orders",), ("orders", "7"), ("orders", ""), ("orders", "7", "items"), ("Orders", "7"),
    ("static", "a", "b"), ("static", ""), ("a/b",), ("{id}", "caf\u00e9 *"), ("x", "", "y"), (),
)  # fmt: skip
HOP_HOSTS: Final = ("orders", "eu.example", "a.eu.example", "10.0.0.1", "")
LINES: Final[tuple[Headers, ...]] = (
    [], [(b"x-env", b"prod")], [(b"x-env", b"prod"), (b"x-env", b"dev")], [(b"x-env", b"pre"), (b"x-b", b"1")],
    [(b"x-b", b"1, 2")],
)  # fmt: skip
SOURCES: Final = (*map(ip_address, ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "192.168.2.2")), None)
NOW: Final = 11 * 3600.0  # 11:00 UTC
LISTENERS: Final = (("http", 17443), ("admin", 17444), ("db", 17445))


def a_rule(dice: Random, name: str, effect: Effect) -> Rule:
    """A random rule of the small world."""
    return Rule(
        name=name,
        effect=effect,
        callers=tuple(IdentityPattern.parse(text, TD, "default") for text in dice.choice(CALLERS)),
        methods=dice.choice(METHODS),
        paths=tuple(map(PathTemplate.parse, dice.choice(PATHS))),
        hosts=tuple(map(HostPattern.parse, dice.choice(HOSTS))),
        headers=tuple(HeaderPattern.parse(*item) for item in dice.choice(HEADERS)),
        networks=tuple(map(ip_network, dice.choice(NETWORKS))),
        ports=dice.choice(PORTS),
        operations=dice.choice(OPERATIONS),
        scopes=dice.choice(SCOPES),
        when=tuple(map(Condition.parse, dice.choice(WHENS))),
        shadow=dice.random() < 0.15,
        where=Where("mesh.yaml", int(name[1:]) + 1),
    )


def a_policy(dice: Random) -> tuple[list[Rule], list[Rule]]:
    """Random allow and deny lists."""
    allow = [a_rule(dice, f"a{n}", "allow") for n in range(dice.randrange(7))]
    return allow, [a_rule(dice, f"d{n}", "deny") for n in range(dice.choice((0, 0, 0, 1, 2)))]


def a_large_policy(dice: Random) -> tuple[list[Rule], list[Rule]]:
    """Enough rules for an index, of which few match: each is narrowed by a caller and a method at the least."""
    allow = [a_rule(dice, f"a{n}", "allow") for n in range(dice.randrange(10, 80))]
    deny = [rule for n in range(dice.randrange(40)) if (rule := a_rule(dice, f"d{n}", "deny")).callers and rule.methods]
    return allow, deny


def a_hop(dice: Random) -> Hop:
    """A random hop of the small world; the listener `db` is TCP, the others are HTTP."""
    listener, port = dice.choice(LISTENERS)
    peer = dice.choice(PEERS)
    hop = Hop("inbound", listener, port, "tcp" if listener == "db" else "http", destination=OURS)
    hop.peer = SpiffeId.parse(peer) if peer else None
    hop.source = dice.choice(SOURCES)
    if hop.protocol == "http":
        hop.method, hop.segments = dice.choice(HOP_METHODS), dice.choice(SEGMENTS)
        hop.host, hop.headers = dice.choice(HOP_HOSTS), dice.choice(LINES)
        hop.operation, token = dice.choice(HOP_OPERATIONS), dice.choice(TOKENS)
        if token is not None:
            hop.token = Token("idp", "", token[1], frozenset(token[0].split()), 2e9, "0" * 16)
    return hop


# ---- the naive evaluator ------------------------------------------------------------------------------------------


def naive(allow: list[Rule], deny: list[Rule], hop: Hop) -> tuple[str, str, str, set[tuple[str, str]]]:
    """Verdict, rule, route and shadow verdicts, read off the sentences of D3 and S20."""
    shadow = {(rule.name, "deny") for rule in deny if rule.shadow and naive_route(rule, hop) is not None}
    shadow |= {(rule.name, "permit") for rule in allow if rule.shadow and naive_route(rule, hop) is not None}
    for rule in deny:
        if not rule.shadow and naive_route(rule, hop) is not None:
            return "deny", rule.name, "", shadow
    for rule in allow:
        route = None if rule.shadow else naive_route(rule, hop)
        if route is not None:
            return "permit", rule.name, route, shadow
    return "deny", "", "", shadow


def naive_route(rule: Rule, hop: Hop) -> str | None:
    """The template by which a rule matches, None where it does not."""
    denies = rule.effect == "deny"
    who = [str(caller) for caller in rule.callers]
    if not (any(naive_caller(text, hop) for text in who) or (denies and not who)):
        return None
    when = [str(condition) for condition in rule.when]
    about_http = any(text.split()[0] in ("path", "claim", "header") for text in when)
    if hop.protocol == "tcp" and (
        rule.methods or rule.paths or rule.hosts or rule.headers or rule.scopes or rule.operations or about_http
    ):
        return None
    if rule.ports and hop.listener not in rule.ports and str(hop.port) not in rule.ports:
        return None
    if rule.networks and not naive_source(rule, hop, denies):
        return None
    if rule.scopes and not (hop.token and set(rule.scopes) <= hop.token.scopes):
        return None
    if rule.operations and hop.operation not in rule.operations:
        return None
    if hop.protocol == "tcp":
        return "/**" if all(naive_when(text, {}, hop, denies) for text in when) else None
    known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    if hop.method not in (rule.methods or ([hop.method] if denies else known)):
        return None
    if rule.hosts and not any(naive_host(str(host), hop.host) for host in rule.hosts):
        return None
    for header in rule.headers:
        verdicts = [naive_value(header, value) for name, value in hop.headers if name == header.name]
        if not verdicts or not (any(verdicts) if denies else all(verdicts)):
            return None
    if not rule.paths:
        return "/**" if all(naive_when(text, {}, hop, denies) for text in when) else None
    for path in map(str, rule.paths):
        if hop.segments and naive_path(path[1:], hop.segments):
            names = dict(zip(path[1:].split("/"), hop.segments, strict=False))
            if all(naive_when(text, names, hop, denies) for text in when):
                return path
    return None


def naive_when(text: str, names: dict[str, str], hop: Hop, denies: bool) -> bool:
    """One condition of WHENS, from the sentences of docs/conditions.md; it is 11:00 UTC."""
    kind, rest = text.split(" ", 1)
    if kind == "time":
        return rest == "between 10:00 and 12:00"
    claims = hop.token.claims if hop.token else {}
    if kind == "service":
        words = str(hop.peer).split("/") if hop.peer else []
        service = words[-1] if words[3:4] == ["ns"] else None
        return service in rest.replace("in [", "").replace("is ", "").replace("]", "").split(", ")
    name, rest = rest.split(" ", 1)
    if kind == "path":
        brace = "{" + name + "}"
        values = [names[brace]] if brace in names else []
    elif kind == "header":
        values = [value.decode() for key, value in hop.headers if key == name.encode()]
    else:
        found = claims.get(name)
        if rest == "exists":
            return bool(found) and not isinstance(found, float)
        if rest.startswith("has"):
            return rest[4:] in found if isinstance(found, list) else denies and found == rest[4:]
        if isinstance(found, list) and not denies:
            return False
        values = found if isinstance(found, list) else [found]
        values = [str(value) if type(value) is int else value for value in values if type(value) in (int, str, bool)]
    wanted = rest.replace("is not ", "").replace("is ", "").replace("in [", "").replace("]", "").split(", ")
    if wanted[0].startswith("claim "):
        order = claims.get(wanted[0][6:])
        listed = order if isinstance(order, list) else [order]
        if isinstance(order, list) and not denies:
            return False
        wanted = [str(value) if type(value) is int else value for value in listed if type(value) in (int, str)]
        if not wanted:
            return False
    negated = rest.startswith("is not")
    if not values:
        return negated and denies
    fits = [(value in wanted) is not negated for value in values]
    return any(fits) if denies else all(fits)


def naive_caller(text: str, hop: Hop) -> bool:
    if hop.peer is None:
        return False
    if text == "**":
        text = "spiffe://demo.mesh/**"
    elif "://" not in text:
        namespace, _, service = text.rpartition("/")
        text = f"spiffe://demo.mesh/ns/{namespace or 'default'}/sa/{service}"
    want, seen = text.split("/"), str(hop.peer).split("/")
    if want[-1] == "**":
        return len(seen) >= len(want) and naive_caller_words(want[:-1], seen[: len(want) - 1])
    return len(seen) == len(want) and naive_caller_words(want, seen)


def naive_caller_words(want: list[str], seen: list[str]) -> bool:
    return all(w in ("*", s) for w, s in zip(want, seen, strict=True))


def naive_source(rule: Rule, hop: Hop, denies: bool) -> bool:
    address: IPv4Address | IPv6Address | None = hop.source
    if address is None:
        return denies
    if str(address).startswith("::ffff:"):
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    return any(address in network for network in rule.networks)


def naive_host(want: str, seen: str) -> bool:
    return seen == want if want[0] != "*" else seen.endswith(want[1:]) and seen.count(".") == want.count(".")


def naive_value(header: HeaderPattern, value: bytes) -> bool:
    return {"exact": value == header.value, "prefix": value.startswith(header.value), "present": True}[header.kind]


def naive_path(want: str, seen: tuple[str, ...]) -> bool:
    first, slash, rest = want.partition("/")
    if first == "**":
        return bool(seen)
    if not seen or not ((seen[0] != "") if first.startswith("{") else seen[0] == first.replace("%2F", "/")):
        return False
    return naive_path(rest, seen[1:]) if slash else len(seen) == 1


# ---- the properties -----------------------------------------------------------------------------------------------


def agree(seed: int, hops: int) -> None:
    """The proxy's function and the naive one give the same verdict, rule, route and shadow verdicts."""
    dice = Random(seed)
    allow, deny = a_policy(dice)
    rules = RuleSet.compile(allow, deny)
    for _ in range(hops):
        hop = a_hop(dice)
        verdict = rules.check(hop, NOW)
        permitted = isinstance(verdict, Permit)
        route = verdict.route if isinstance(verdict, Permit) else ""
        shadow = {(each.rule, each.effect) for each in verdict.shadow}
        assert ("permit" if permitted else "deny", verdict.rule, route, shadow) == naive(allow, deny, hop), (hop, allow)
        explanation = explain(rules, hop, NOW)
        assert (explanation.verdict == "permit", explanation.rule) == (permitted, verdict.rule)


def large_policies_agree(seed: int, hops: int) -> None:
    """The same where the rules are found by an index."""
    dice = Random(seed)
    allow, deny = a_large_policy(dice)
    rules = RuleSet.compile(allow, deny)
    for _ in range(hops):
        hop = a_hop(dice)
        verdict = rules.check(hop, NOW)
        word, route = ("permit", verdict.route) if isinstance(verdict, Permit) else ("deny", "")
        shadow = {(each.rule, each.effect) for each in verdict.shadow}
        assert (word, verdict.rule, route, shadow) == naive(allow, deny, hop), (hop, allow, deny)


def proposals_hold(seed: int, hops: int) -> None:
    """Each proposed change permits the very request; the first lets in no other caller and no other method."""
    dice = Random(seed)
    allow, deny = a_policy(dice)
    rules = RuleSet.compile(allow, deny)
    for _ in range(hops):
        hop = a_hop(dice)
        explanation = explain(rules, hop, NOW)
        if explanation.verdict == "permit" or explanation.rule:
            assert explanation.changes == ()
            continue
        nameable = hop.peer is not None and (hop.protocol == "tcp" or hop.method.isupper()) and hop.method != "CONNECT"
        assert bool(explanation.changes) is nameable
        for change in explanation.changes:
            changed = RuleSet.compile(change.applied_to(allow), deny)
            assert isinstance(changed.check(hop, NOW), Permit), change
        for change in explanation.changes[:1]:
            changed = RuleSet.compile(change.applied_to(allow), deny)
            for other in neighbours(hop):
                if isinstance(changed.check(other, NOW), Permit) and not isinstance(rules.check(other, NOW), Permit):
                    assert (other.peer, other.method) == (hop.peer, hop.method), change


def neighbours(hop: Hop) -> Iterator[Hop]:
    """Hops that differ from this one in caller, method and place."""
    paths = {hop.segments, ("orders", "9")}
    for peer, method, segments, (listener, port) in product(PEERS, HOP_METHODS, paths, LISTENERS):
        other = replace(hop, peer=SpiffeId.parse(peer) if peer else None, listener=listener, port=port)
        if listener == "db":
            yield replace(other, protocol="tcp", method="", segments=(), host="", headers=[])
        else:
            yield replace(other, protocol="http", method=method, segments=segments)


def yaml_holds(seed: int) -> None:
    """The proposed YAML, read by the configuration's own reader, is the proposed rule."""
    dice = Random(seed)
    allow, deny = a_policy(dice)
    allow = [replace(rule, callers=rule.callers or (IdentityPattern.parse("web", TD, "default"),)) for rule in allow]
    hop = a_hop(dice)
    for change in explain(RuleSet.compile(allow, deny), hop, namespace="default").changes:
        read = in_a_file(change.yaml)
        names = tuple("http" if port == "17443" else port for port in change.rule.ports)  # a port means its listener
        assert replace(read, where=change.rule.where) == replace(change.rule, ports=names)
        assert isinstance(RuleSet.compile([read]).check(hop, 0.0), Permit)


def in_a_file(item: str) -> Rule:
    """The one rule of the service `orders` in a whole mesh.yaml."""
    listeners = ""
    for name, port in LISTENERS:
        protocol = "tcp" if name == "db" else "http"
        listeners += f"      - {{name: {name}, port: {port}, app: '127.0.0.1:{port + 1000}', protocol: {protocol}}}\n"
    others = "".join(f"  {name}: {{}}\n" for name in ("web", "cart"))
    rule = "".join(f"      {line}\n" for line in item.splitlines())
    text = f"trust_domain: demo.mesh\nservices:\n{others}  orders:\n    inbound:\n{listeners}    allow:\n{rule}"
    return load_text(text).services["orders"].allow[0]


SEEDS = st.integers(0, 2**63)
SLOW = [HealthCheck.too_slow]


@settings(max_examples=500, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_the_decision_is_that_of_a_naive_evaluator(seed: int) -> None:
    agree(seed, hops=20)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_the_decision_by_an_index_is_that_of_a_naive_evaluator(seed: int) -> None:
    large_policies_agree(seed, hops=25)


@pytest.mark.deep
@settings(max_examples=5000, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_the_decision_is_that_of_a_naive_evaluator_at_length(seed: int) -> None:
    agree(seed, hops=20)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_a_proposal_permits_that_request_and_nobody_else(seed: int) -> None:
    proposals_hold(seed, hops=4)


@pytest.mark.deep
@settings(max_examples=2000, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_a_proposal_permits_that_request_and_nobody_else_at_length(seed: int) -> None:
    proposals_hold(seed, hops=5)


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(SEEDS)
def test_proposed_yaml_is_what_the_configuration_reads(seed: int) -> None:
    yaml_holds(seed)
