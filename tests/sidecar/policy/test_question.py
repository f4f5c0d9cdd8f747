"""A question is read as the wire would read it: the same strictness, the same leniency, the same verdict."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from sidecar.config.load import load_text
from sidecar.config.schema import Service
from sidecar.errors import AmbiguousPath, HeadTooLarge, HostMismatch, ProtocolViolation
from sidecar.hop import Permit
from sidecar.policy.authz import RuleSet
from sidecar.policy.question import BadQuestion, hop_of, moment_of

CONFIG = """\
    trust_domain: demo.mesh
    services:
      web: {}
      orders:
        inbound:
          - name: database
            port: 17500
            app: 127.0.0.1:5432
            protocol: tcp
          - name: http
            port: 17443
            app: 127.0.0.1:8080
            routes: [{path: "/files/**", method: GET, unsafe_encoded_slash: true}]
          - {name: second, port: 17444, app: "127.0.0.1:8081"}
        allow:
          - {name: reads, from: web, path: ["/orders/{id}", "/files/**"], method: GET}
          - {name: tagged, from: shop/web, headers: {x-tag: gold}, port: http}
          - {name: of-a-network, from: admin, source: 192.0.2.0/24}
          - {name: sql, from: web, port: database}
      database:
        inbound: [{name: sql, port: 17501, app: "127.0.0.1:5433", protocol: tcp}]
        allow: [{name: web-may, from: web}]
      anything:
        inbound: [{app: "127.0.0.1:8082"}]
        allow: [{name: all, from: "*"}]
    """


def service(name: str = "orders") -> Service:
    return load_text(textwrap.dedent(CONFIG), "mesh.yaml").services[name]


def rule(question: dict[str, Any], name: str = "orders") -> str:
    """The rule that permits this question; empty where none does."""
    asked = service(name)
    verdict = RuleSet.compile(asked.allow, asked.deny).check(hop_of(question, asked), 0.0)
    return verdict.rule if isinstance(verdict, Permit) else ""


QUESTIONS = [
    ({"from": "web", "path": "/orders/7"}, "reads"),
    ({"from": "web", "path": "/orders/7?q=1"}, "reads"),
    ({"from": "spiffe://demo.mesh/ns/default/sa/web", "path": "/orders/7"}, "reads"),
    ({"from": "default/web", "path": "/orders/7"}, "reads"),
    ({"from": "web", "path": "/orders/7", "method": "POST"}, ""),
    ({"from": "web", "path": "/orders/7", "method": "get"}, ""),  # methods are case-sensitive
    ({"from": "web", "path": "/orders/7/lines"}, ""),
    ({"from": "shop/web", "path": "/orders/7"}, ""),
    ({"from": "spiffe://other.mesh/ns/default/sa/web", "path": "/orders/7"}, ""),
    ({"path": "/orders/7"}, ""),  # nobody
    ({"from": "shop/web", "headers": {"X-Tag": "gold"}}, "tagged"),
    ({"from": "shop/web", "headers": {"x-tag": ["gold", "gold"]}}, "tagged"),
    ({"from": "shop/web", "headers": {"x-tag": ["silver", "gold"]}}, ""),  # every line must satisfy an allow rule
    ({"from": "shop/web", "headers": {"x-tag": "silver, gold"}}, ""),  # lines are not split at commas (D3)
    ({"from": "shop/web", "headers": {"x-tag": "gold"}, "port": "second"}, ""),
    ({"from": "shop/web", "headers": {"x-tag": "gold"}, "port": "17443"}, "tagged"),
    ({"from": "admin", "source": "192.0.2.9"}, "of-a-network"),
    ({"from": "admin", "source": "192.0.3.9"}, ""),
    ({"from": "admin"}, ""),  # an address that is not known satisfies no network
    ({"from": "web", "port": "database"}, "sql"),
    ({"from": "web", "port": "database", "path": "/orders/7"}, "sql"),
]


@pytest.mark.parametrize(("question", "permits"), QUESTIONS)
def test_the_verdict_is_the_one_of_the_wire(question: dict[str, Any], permits: str) -> None:
    assert rule(question) == permits


def test_a_question_without_a_port_is_for_the_first_http_listener() -> None:
    assert hop_of({"from": "web"}, service()).listener == "http"


def test_a_service_of_raw_tcp_needs_no_port_even_where_a_path_is_given() -> None:
    hop = hop_of({"from": "web", "method": "GET", "path": "/"}, service("database"))
    assert (hop.listener, hop.protocol, hop.method, hop.target) == ("sql", "tcp", "", "")
    assert rule({"from": "web", "method": "GET", "path": "/"}, "database") == "web-may"


def test_the_host_is_the_services_name_unless_another_is_asked_for() -> None:
    assert hop_of({}, service()).host == "orders"
    assert hop_of({"host": "Orders.Example:8080"}, service()).host == "orders.example"
    assert hop_of({"path": "http://orders/orders/7"}, service()).segments == ("orders", "7")


REFUSED_BEFORE_ANY_RULE = [
    ({"path": "/orders/../admin"}, AmbiguousPath),
    ({"path": "/orders//7"}, AmbiguousPath),
    ({"path": "/orders/%2e%2e/7"}, AmbiguousPath),
    ({"path": "/orders/a%2Fb"}, AmbiguousPath),
    ({"path": "/orders/7;v=1"}, AmbiguousPath),
    ({"path": "/files/a%2Fb", "method": "PUT"}, AmbiguousPath),  # the route is for GET
    ({"path": "/files/a//b"}, AmbiguousPath),
    ({"path": "/orders/ü"}, ProtocolViolation),
    ({"path": "/orders/a b"}, ProtocolViolation),
    ({"path": "orders"}, ProtocolViolation),
    ({"method": "GE T"}, ProtocolViolation),
    ({"host": "or ders"}, HostMismatch),
    ({"host": "orders."}, HostMismatch),
    ({"path": "http://other/orders/7"}, HostMismatch),
    ({"headers": {"host": "admin"}}, ProtocolViolation),  # a second Host line
    ({"headers": {"x tag": "gold"}}, ProtocolViolation),
    ({"headers": {"x-large": "x" * 40_000}}, HeadTooLarge),
    ({"headers": {f"x-{number}": "1" for number in range(101)}}, HeadTooLarge),
]


@pytest.mark.parametrize(("question", "error"), REFUSED_BEFORE_ANY_RULE)
def test_what_the_wire_refuses_a_question_refuses(question: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        hop_of({"from": "web"} | question, service())


def test_what_a_route_accepts_a_question_accepts() -> None:
    hop = hop_of({"from": "web", "path": "/files/a%2Fb"}, service())
    assert hop.segments == ("files", "a/b")
    assert rule({"from": "web", "path": "/files/a%2Fb"}) == "reads"


def test_where_nothing_looks_at_paths_a_semicolon_passes_as_on_the_wire() -> None:
    assert rule({"from": "web", "path": "/a;b=c"}, "anything") == "all"


BAD_QUESTIONS = [
    ({"from": "no such name"}, "no such name"),
    ({"from": "spiffe://Demo.Mesh/x"}, "Demo.Mesh"),
    ({"from": "a/b/c"}, "a/b"),
    ({"source": "somewhere"}, "'somewhere' is not an IP address"),
    ({"port": "grpc"}, "no inbound listener 'grpc'; it has: database, http, second"),
    ({"headers": ["x-tag"]}, "headers is a mapping"),
    ({"headers": {"x-tag": "gold\r\nx-forged: 1"}}, "a line break or NUL"),
    ({"path": "/\r\nx-forged: 1"}, "a line break or NUL"),
    ({"method": "GET / HTTP/1.1\r\nx: "}, "a line break or NUL"),
    ({"host": "orders\0"}, "a line break or NUL"),
]


@pytest.mark.parametrize(("question", "says"), BAD_QUESTIONS)
def test_a_question_that_makes_no_sense_is_refused_with_words(question: dict[str, Any], says: str) -> None:
    with pytest.raises(BadQuestion) as failure:
        hop_of(question, service())
    assert says in str(failure.value)


def test_a_service_without_listeners_cannot_be_asked() -> None:
    with pytest.raises(BadQuestion, match=r"web has no inbound listener; it has: none"):
        hop_of({"from": "orders"}, service("web"))


def test_a_question_is_about_now_or_about_its_own_moment() -> None:
    assert moment_of({}, 7.0) == 7.0
    assert moment_of({"time": "1970-01-02"}, 7.0) == 86400.0
    assert moment_of({"time": "1970-01-01T01:00:00+01:00"}, 7.0) == 0.0
    for bad in ("yesterday", "2026-01-05T12:00:00", "2026-02-30"):
        with pytest.raises(BadQuestion):
            moment_of({"time": bad}, 7.0)
