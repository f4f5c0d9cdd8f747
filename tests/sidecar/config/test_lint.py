"""Mistakes between parts: what each means, where it is reported, and what is right in the same place."""

from __future__ import annotations

import pytest

from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors, Mistake

HEAD = "trust_domain: demo.mesh\nservices:\n"
ORDERS = "  orders: {inbound: [{app: '127.0.0.1:1'}]}\n"
TWO = "  orders: {inbound: [{name: http, app: '127.0.0.1:1'}, {name: admin, app: '127.0.0.1:1'}]}\n"
TCP = "protocol: tcp, app: '127.0.0.1:1'"


def found(services: str) -> list[Mistake]:
    """All mistakes of these services."""
    try:
        load_text(HEAD + services)
    except ConfigErrors as errors:
        return list(errors.mistakes)
    return []


UPSTREAMS = [
    ("{to: ordrs}", "to", 'no service "ordrs"', 'did you mean "orders"?'),
    ("{to: stripe}", "to", 'no service "stripe"', "needs identity: and endpoints:"),
    ("{to: web}", "to", "web has no inbound listener", "see mesh.yaml:4"),
    ("{to: abroad, identity: a/b}", "to", "has no endpoints", "host:port"),
    ("{to: abroad, endpoints: '10.0.0.1:1'}", "to", "no identity to check", "unmeshed: passthrough"),
    ("{to: abroad, unmeshed: passthrough}", "to", "has no endpoints", "host:port"),
    (
        "{to: a, unmeshed: passthrough, identity: a/b, endpoints: '10.0.0.1:1'}", "unmeshed", "proves no identity",
        "remove identity",
    ),
    ("{to: abroad, port: a, identity: a/b, endpoints: '10.0.0.1:1'}", "port", "only services of this", "endpoints"),
    ("{to: orders, unmeshed: passthrough}", "unmeshed", "would send it plaintext", ""),
    ("{to: orders, identity: mallory}", "identity", "orders in this file is spiffe://", "remove"),
    ("{to: orders, protocol: tcp}", "protocol", "speaks http", "remove"),
    ("{to: orders, port: htpp}", "port", 'no inbound listener "htpp"', 'did you mean "http"?'),
    ("{to: orders, port: 4711}", "port", 'no inbound listener "4711"', "orders has: http"),
    ("{to: orders, listen: '0.0.0.0:9000'}", "listen", "not on loopback", "127.0.0.1:9000"),
    ("{to: orders, listen: '127.0.0.1:1'}", "listen", "is the application of orders already", "see mesh.yaml:3"),
    ("{to: orders, listen: '127.0.0.1:17443'}", "", "", ""),  # a default port steps aside
    ("{to: orders, listen: '127.0.0.1:17099'}", "", "", ""),
    ("{to: abroad, identity: a/b, endpoints: '10.0.0.1:1'}", "", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("upstream", "path", "message", "hint"), UPSTREAMS)
def test_an_upstream_leads_somewhere_or_says_why_not(upstream: str, path: str, message: str, hint: str) -> None:
    mistakes = found(f"{ORDERS}  web: {{outbound: [{upstream}]}}\n")
    if not path:
        assert mistakes == []
        return
    (mistake,) = mistakes
    assert mistake.path == f"services.web.outbound[0].{path}"
    assert mistake.where.line == 4
    assert message in mistake.message
    assert hint in mistake.hint


def test_of_several_listeners_one_has_to_be_named() -> None:
    (mistake,) = found(TWO + "  web: {outbound: [{to: orders}]}\n")
    assert "has several listeners" in mistake.message
    assert mistake.hint == "say which one with port: http or port: admin"
    assert found(TWO + "  web: {outbound: [{to: orders, port: admin}]}\n") == []


DUPLICATES = [
    ("  a: {identity: x}\n  b: {identity: x}\n", "services.b.identity", "duplicate identity", "mesh.yaml:3"),
    ("  a: {}\n  b: {identity: a}\n", "services.b.identity", "duplicate identity", "mesh.yaml:3"),
    (
        "  a: {inbound: [{app: '127.0.0.1:1'}, {app: '127.0.0.1:1'}]}\n", "services.a.inbound[1].name",
        'duplicate listener name "http"', "mesh.yaml:3",
    ),
    (
        ORDERS + "  a: {outbound: [{to: orders}, {to: orders}]}\n", "services.a.outbound[1].to",
        'duplicate upstream "orders.http"', "mesh.yaml:4",
    ),
    (
        "  a:\n    inbound: [{app: '127.0.0.1:1'}]\n    allow: [{name: r, from: b}]\n    deny: [{name: r, from: c}]\n",
        "services.a.deny[0].name", 'duplicate rule name "r"', "mesh.yaml:5",
    ),
    (
        TWO + "  a: {forward_proxy: '127.0.0.1:9', outbound: [{to: orders, port: http}, {to: orders, port: admin}]}\n",
        "services.a.outbound[1].host", 'duplicate upstream host "orders"', "mesh.yaml:4",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("services", "path", "message", "hint"), DUPLICATES)
def test_names_are_unique_and_the_second_one_is_told_where_the_first_stands(
    services: str, path: str, message: str, hint: str
) -> None:
    (mistake,) = found(services)
    assert mistake.path == path
    assert message in mistake.message
    assert hint in mistake.hint


CLASHES = [
    ("port: 9, app: '127.0.0.1:1'", "port: 9, app: '127.0.0.1:2'", "port", "127.0.0.1:9 is listener http of a already"),
    ("port: 9, app: '127.0.0.1:1'", "port: 8, app: '127.0.0.1:9'", "app", "is listener http of a, not an application"),
    ("port: 9, app: '127.0.0.1:1'", "port: 8, app: '127.0.0.1:1'", "app", "is the application of a too"),
    ("port: 9, app: '127.0.0.1:1'", "port: 9, bind: 0.0.0.0, app: '127.0.0.1:2'", "port", "is listener http of a"),
    ("port: 9, app: 'localhost:1'", "port: 8, app: '127.0.0.1:1'", "app", "is the application of a too"),
    ("port: 9, app: '127.0.0.1:1'", "port: 1, app: '127.0.0.1:2'", "port", "is the application of a already"),
    ("port: 9, app: '127.0.0.1:1'", "port: 8, app: '127.0.0.1:2'", "", ""),
    ("port: 9, app: '127.0.0.1:1'", "port: 9, bind: 127.0.0.2, app: '127.0.0.1:2'", "", ""),
]


@pytest.mark.parametrize(("first", "second", "path", "message"), CLASHES)
def test_two_cannot_listen_at_one_address_of_one_host(first: str, second: str, path: str, message: str) -> None:
    both = f"  a: {{inbound: [{{{first}}}]}}\n  b: {{inbound: [{{{second}}}]}}\n"
    mistakes = found(both)
    if not path:
        assert mistakes == []
        return
    (mistake,) = mistakes
    assert mistake.path == f"services.b.inbound[0].{path}"
    assert message in mistake.message
    apart = both.replace("a: {", "a: {address: 10.0.0.1, ").replace("b: {", "b: {address: 10.0.0.2, ")
    assert found(apart.replace("bind: 0.0.0.0, ", "")) == [], "on two hosts the same ports are fine"


def test_an_application_on_its_own_sidecars_port_would_be_a_loop() -> None:
    (mistake,) = found("  a: {inbound: [{port: 9, app: '127.0.0.1:9'}]}\n")
    assert (mistake.path, mistake.message) == (
        "services.a.inbound[0].app",
        "127.0.0.1:9 is listener http of a, not an application",
    )


LOCAL = [
    ("forward_proxy: '10.0.0.1:9'", "forward_proxy"),
    ("inbound: [{app: '10.0.0.1:9'}]", "inbound[0].app"),
    ("inbound: [{app: 'orders.internal:9'}]", "inbound[0].app"),
    ("outbound: [{to: x, unmeshed: passthrough, endpoints: '192.0.2.1:9', listen: '[::]:9'}]", "outbound[0].listen"),
]


@pytest.mark.parametrize(("block", "path"), LOCAL)
def test_plaintext_never_leaves_the_machine(block: str, path: str) -> None:
    (mistake,) = found(f"  a: {{{block}}}\n")
    assert mistake.path == f"services.a.{path}"
    assert "not on loopback" in mistake.message
    assert mistake.hint == "write 127.0.0.1:9"


def test_an_identity_of_another_trust_domain_could_never_be_issued() -> None:
    (mistake,) = found("  a: {identity: spiffe://other.mesh/ns/x/sa/a}\n")
    assert mistake.path == "services.a.identity"
    assert "other.mesh" in mistake.message


@pytest.mark.parametrize("field", ["method: GET", "path: /a", "host: a", "headers: {x-a: b}"])
def test_a_rule_with_an_http_field_on_tcp_alone_never_matches(field: str) -> None:
    (mistake,) = found(f"  a: {{inbound: [{{{TCP}}}], allow: [{{from: b, {field}}}]}}\n")
    assert mistake.path == f"services.a.allow[0].{field.partition(':')[0]}"
    assert "every listener this rule applies to is tcp" in mistake.message
    both = f"  a: {{inbound: [{{{TCP}}}, {{app: '127.0.0.1:2'}}], allow: [{{from: b, {field}}}]}}\n"
    assert found(both) == []
    (mistake,) = found(both.replace("from: b", "from: b, port: tcp"))
    assert "never matches" in mistake.message


def test_routes_and_forwarded_certificates_are_http() -> None:
    mistakes = found(f"  a: {{inbound: [{{{TCP}, routes: [{{path: /}}], xfcc_forwarders: b}}]}}\n")
    assert [each.path for each in mistakes] == [
        "services.a.inbound[0].routes",
        "services.a.inbound[0].xfcc_forwarders",
    ]


@pytest.mark.parametrize("name", ["Authorization", "cookie", "set_cookie", "proxy-authorization"])
def test_credentials_are_never_logged(name: str) -> None:
    (mistake,) = found(f"  a: {{access_log: {{headers: [{name}]}}}}\n")
    assert "never logged" in mistake.message


# ---- warnings ------------------------------------------------------------------------------------------------------

A = "  a: {inbound: [{app: '127.0.0.1:1'}], allow: [%s], deny: [%s]}\n"
B = "  b: {inbound: [{app: '127.0.0.1:2'}], allow: [{from: a}]}\n"

WARNINGS = [
    ("  a: {inbound: [{app: '127.0.0.1:1'}]}\n", "services.a", "nobody may call this service"),
    (A % ("{from: a, shadow: true}", ""), "services.a", "nobody may call this service"),
    ("  a: {allow: [{from: a}]}\n", "services.a", "no inbound listener"),
    (A % ("{from: aa}", ""), "services.a.allow[0].from", "aa is no service of this file"),
    (A % ("{from: [a, other/a]}", ""), "services.a.allow[0].from[1]", "other/a is no service of this file"),
    (A % ("{from: a, method: GTE}", ""), "services.a.allow[0].method", "GTE is an unusual method"),
    (A % ("{from: a}", "{from: a}"), "services.a.allow[0]", "has no effect: deny-1 (mesh.yaml:3)"),
    (A % ("{from: a, method: GET}", "{from: a}"), "services.a.allow[0]", "has no effect"),
    (A % ("{from: a, path: /x}", "{from: '**', path: [/x, /y]}"), "services.a.allow[0]", "has no effect"),
    (A % ("{from: a, path: /x/y}", "{from: '*', path: /x/**}"), "services.a.allow[0]", "has no effect"),
    (A % ("{from: a}, {from: a, path: /x, shadow: true}", "{from: a, path: /x}"), "services.a.allow[1]", "no effect"),
    (A % ("{from: '*'}, {from: a, method: GET}", ""), "services.a.allow[1]", "never decides: allow-1 (mesh.yaml:3)"),
    (A % ("{from: a}", "{from: '*', method: PUT}, {from: a, method: PUT}"), "services.a.deny[1]", "never decides"),
    (A % ("{from: a}, {from: a}", ""), "services.a.allow[1]", "says the same as allow-1 (mesh.yaml:3)"),
    (
        A % ("{from: a, shadow: true}, {from: a, shadow: true}, {from: a, method: PUT}", ""), "services.a.allow[1]",
        "says the same",
    ),
    (A % ("{from: a, method: GET, shadow: true}, {from: a}", ""), "services.a.allow[0]", "shows nothing: allow-2"),
    (A % ("{from: a, path: [/x, '/a;b']}", ""), "services.a.allow[0].path[1]", "/a;b never matches: the path has"),
    (A % ("{from: a, path: [/x, '/a%2520']}", ""), "services.a.allow[0].path[1]", "never matches"),
    (A % ("{from: [a, a]}", ""), "services.a.allow[0].from[1]", "a stands here twice"),
    (A % ("{from: ['*', a]}", ""), "services.a.allow[0].from[1]", "a adds nothing to *"),
    (A % ("{from: a, path: ['/{id}', /x]}", ""), "services.a.allow[0].path[1]", "/x adds nothing to /{id}"),
    (A % ("{from: a, source: [10.0.0.0/8, 10.1.0.0/16]}", ""), "services.a.allow[0].source[1]", "adds nothing"),
    (A % ("{from: a, method: [GET, GET]}", ""), "services.a.allow[0].method[1]", "twice"),
    (
        f"  a: {{inbound: [{{{TCP}}}, {{app: '127.0.0.1:2'}}], allow: [{{from: a, method: GET}}]}}\n",
        "services.a.allow[0]", "never matches on the tcp listeners",
    ),
    (
        B + A % ("{from: a}", "") + "  c: {outbound: [{to: b, listen: '127.0.0.1:9'}]}\n",
        "services.c.outbound[0].to", "no rule of b allows c",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("services", "path", "message"), WARNINGS)
def test_what_is_odd_is_a_warning_and_still_loads(services: str, path: str, message: str) -> None:
    (warning,) = load_bytes((HEAD + services).encode()).warnings
    assert warning.path == path
    assert message in warning.message
    assert warning.where.line >= 3


SILENT = [
    A % ("{from: a, method: GET}, {from: a}", ""),
    A % ("{from: a}", "{from: a, path: /x/**}"),
    A % ("{from: a, path: ['/x', '/{id}']}", ""),
    A % ("{from: a, path: /x/y}, {from: a, shadow: true, path: /x}", ""),
    A % ("{from: a, path: /x}", "{from: a, path: /x, source: 10.0.0.0/8}"),
    A % ("{from: a, headers: {x-a: prod}}, {from: a, headers: {x-a: {prefix: p}}}", ""),
    A % ("{from: a}", ""),
    A % ("{from: '*'}, {from: spiffe://demo.mesh/ns/*/sa/z}", ""),
    A % ("{from: a, method: [GET, PROPFIND, PURGE]}", ""),
    A % ("{from: a}", "{from: a, method: GET}"),
    A % ("{from: a}", "{from: a, shadow: true}"),
    A % ("{from: a, method: [GET, PUT]}", "{from: a, method: GET}"),
    B + A % ("{from: a}", "") + "  c: {identity: a/c, outbound: [{to: d, listen: '127.0.0.1:9'}]}\n"
    "  d: {inbound: [{app: '127.0.0.1:4'}], allow: [{from: a/c}]}\n",
]


SETTINGS = [
    # what is written of a service with one HTTP listener, the key that is named, the code
    ("timeouts: {tcp_idle: 1h}", "timeouts.tcp_idle", "MESH050"),
    ("timeouts: {pool_idle_peer: 1m}", "timeouts.pool_idle_peer", "MESH050"),
    ("timeouts: {lame_duck: 1s, drain: 0s}", "timeouts.drain", "MESH052"),
    ("limits: {connections: 10, pool: 11}", "limits.pool", "MESH053"),
    ("limits: {head_bytes: 256B, head_lines: 100}", "limits.head_lines", "MESH054"),
    ("limits: {head_bytes: 64B}", "limits.head_bytes", "MESH059"),
    ("limits: {pending: 0s}", "limits.pending", "MESH059"),
    ("limits: {streams: 0}", "limits.streams", "MESH059"),
    ("timeouts: {slow: 5s}, limits: {body_rate: off}", "timeouts.slow", "MESH050"),
    ("access_log: {mode: 'off', path: /x}", "access_log.path", "MESH055"),
    ("access_log: {mode: 'off', headers: [x-a]}", "access_log.headers", "MESH055"),
    ("access_log: {mode: all, sample: 0.1}", "access_log.sample", "MESH055"),
    ("audit: {path: '-'}", "audit.path", "MESH060"),
    ("env: {A: b}", "env", "MESH058"),
    ("forward_proxy: '127.0.0.1:9'", "forward_proxy", "MESH057"),
    ("timeouts: {lame_duck: 1s}", "", ""),
    ("timeouts: {drain: 0s}", "", ""),
    ("limits: {connections: 10}", "", ""),
    ("limits: {head_lines: 8192}", "", ""),
    ("access_log: {mode: 'off'}", "", ""),
]


@pytest.mark.parametrize(("setting", "key", "code"), SETTINGS)
def test_a_setting_that_never_acts_is_named_where_it_was_written(setting: str, key: str, code: str) -> None:
    service = f"  a: {{inbound: [{{app: '127.0.0.1:1'}}], allow: [{{from: a}}], {setting}}}\n"
    warnings = load_bytes((HEAD + service).encode()).warnings
    assert [(each.path, each.code) for each in warnings] == ([(f"services.a.{key}", code)] if key else [])


def test_defaults_are_looked_at_over_all_services() -> None:
    defaults = "trust_domain: demo.mesh\ndefaults: {timeouts: {tcp_idle: 1h, idle: 1m}}\nservices:\n"
    http = "  a: {inbound: [{app: '127.0.0.1:1'}], allow: [{from: a}]}\n"
    (warning,) = load_bytes((defaults + http).encode()).warnings
    assert (warning.path, warning.code) == ("defaults.timeouts.tcp_idle", "MESH050")
    tcp = "  b: {inbound: [{app: '127.0.0.1:2', protocol: tcp}], allow: [{from: a}]}\n"
    assert load_bytes((defaults + http + tcp).encode()).warnings == ()


def test_a_limit_at_zero_is_refused_where_it_would_stop_everything() -> None:
    for limit in ("limits: {pool: 0}", "limits: {connections: 0}", "limits: {head_bytes: 0B}", "timeouts: {idle: 0s}"):
        (mistake,) = found(f"  a: {{{limit}}}\n")
        assert mistake.code == "MESH001"


def test_a_host_is_compared_with_what_its_callers_ask_for() -> None:
    calls = "  b: {outbound: [{to: a, listen: '127.0.0.1:9', host: a.example}]}\n"
    for rule, path in (
        ("{from: b, host: a}", "services.a.allow[0].host"),
        ("{from: b, host: '*.example'}", ""),
        ("{from: [b, '*'], host: a}", "services.a.allow[0].from[0]"),  # others may ask; only `b` is one too many
    ):
        warnings = load_bytes((HEAD + calls + A % (rule, "")).encode()).warnings
        assert [each.path for each in warnings] == ([path] if path else [])


@pytest.mark.parametrize("services", SILENT)
def test_what_is_not_odd_is_not_warned_of(services: str) -> None:
    assert load_bytes((HEAD + services).encode()).warnings == ()
