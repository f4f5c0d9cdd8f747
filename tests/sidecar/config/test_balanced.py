"""What an operator may say of endpoints, affinity and health checks; what contradicts itself, what can never act."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config import balanced
from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors, Mistake
from sidecar.config.schema_outbound import EndpointEntry, Outbound
from sidecar.config.terms import Address, Affinity, StatusRange
from sidecar.traffic import endpoints

TWO = "endpoints: [10.0.0.7:17443, 10.0.0.8:17443], "


def config(said: str, service: str = "", rule: str = "{from: web}") -> str:
    return (
        f"trust_domain: demo.mesh\nservices:\n  web:\n{service}    forward_proxy: 127.0.0.1:9000\n"
        f"    outbound: [{{to: orders, {said}}}]\n"
        f"  orders: {{inbound: [{{app: '127.0.0.1:8080'}}], allow: [{rule}]}}\n"
    )


def read(said: str, service: str = "") -> Outbound:
    return load_text(config(said, service)).services["web"].outbound[0]


def mistakes(said: str, service: str = "") -> tuple[Mistake, ...]:
    with pytest.raises(ConfigErrors) as caught:
        load_text(config(said, service))
    return caught.value.mistakes


def warnings(said: str, service: str = "", rule: str = "{from: web}") -> list[tuple[str, str]]:
    loaded = load_bytes(config(said, service, rule).encode())
    return [(each.code, each.path.removeprefix("services.web.outbound[0].")) for each in loaded.warnings]


def test_an_endpoint_is_an_address_or_says_more() -> None:
    entries = read("endpoints: ['[fd00::1]:1', {address: 'a.test:2', weight: 100, zone: eu-1b}]").endpoints
    assert entries == (EndpointEntry(Address("fd00::1", 1)), EndpointEntry(Address("a.test", 2), 100, "eu-1b"))
    assert read("endpoints: 10.0.0.7:1").endpoints == (EndpointEntry(Address("10.0.0.7", 1)),)


@pytest.mark.parametrize(("said", "path", "message", "hint"), [
    ("endpoints: [{address: 'a.test:1', weight: 0}]", "endpoints[0].weight", "0 is not a weight", "from 1 to 100"),
    ("endpoints: [{address: 'a.test:1', weight: 101}]", "endpoints[0].weight", "101 is not a weight", "1 to 100"),
    ("endpoints: [{weight: 3}]", "endpoints[0].address", "is required", "Where it is"),
    ("endpoints: [{adress: 'a.test:1'}]", "endpoints[0].adress", "unknown key", 'did you mean "address"?'),
    ("endpoints: [a.test]", "endpoints[0]", "not host:port", "a.test:8080"),
    ("endpoints: {a: b}", "endpoints", "expected a list", '"- "'),
    ("endpoints: []", "endpoints", "is empty", "remove the key"),
    (f"{TWO}affinity: client", "affinity", "nothing that requests can stick to", "did you mean caller?"),
    (f"{TWO}affinity: x-user", "affinity", "nothing that requests", "did you mean header x-user?"),
    (f"{TWO}affinity: header cookie", "affinity", "holds many cookies", "cookie session"),
    (f"{TWO}affinity: header host", "affinity", "the same for all requests", "another header"),
    (f"{TWO}affinity: cookie a=b", "affinity", "nothing that requests", "cookie session"),
    (f"{TWO}affinity: caller, balance: weighted", "balance", "takes no notice of affinity: caller", "remove"),
    (f"{TWO}balance: maglev", "balance", "nothing says what requests stick by", "add affinity"),
    ("endpoints: [10.0.0.7:1, 10.0.0.7:1]", "endpoints[1]", "10.0.0.7:1 is listed twice", "endpoints[0] already"),
    ("endpoints: ['localhost:9000']", "endpoints[0]", "is the forward proxy of this very service", "itself listens"),
    ("listen: 127.0.0.1:9001, endpoints: 127.0.0.1:9001", "endpoints", "local listener for orders", "itself listens"),
    ("health: {}", "health", "does not say how to ask", "http: /healthz"),
    ("health: {http: /, tcp: true}", "health", "http and tcp at once", "one of"),
    ("health: {http: healthz}", "health.http", "no path to ask for", "did you mean /healthz?"),
    ("health: {http: '/a b'}", "health.http", "no path to ask for", "write /healthz"),
    ("health: {http: '/a#b'}", "health.http", "no path to ask for", "write /healthz"),
    ("health: {grpc: a/b}", "health.grpc", "is not allowed", "package.Service"),
    ("health: {http: /, expect: 2xx}", "health.expect", "no range of HTTP statuses", "did you mean 200-299?"),
    ("health: {http: /, expect: 399-200}", "health.expect", "no status is in", "did you mean 200-399?"),
    ("health: {http: /, expect: 100-299}", "health.expect", "no final answer", "below 200"),
    ("health: {http: /, every: 0s}", "health.every", "no time at all", "1ms"),
    ("health: {http: /, unhealthy: 0}", "health.unhealthy", "0 is not a count", "from 1"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_what_was(said: str, path: str, message: str, hint: str) -> None:
    (mistake,) = mistakes(said)
    assert mistake.path == f"services.web.outbound[0].{path}"
    assert message in mistake.message
    assert hint in mistake.hint


def test_our_own_inbound_listener_is_another_upstream_only_for_our_own_replicas() -> None:
    inbound = "    inbound: [{app: '127.0.0.1:8081', port: 17999, bind: 0.0.0.0}]\n    address: 10.0.0.1\n"
    (mistake,) = mistakes("endpoints: [10.0.0.1:17999]", inbound)
    assert mistake.code == "MESH007"
    assert "is the inbound listener http of this very service, not of orders" in mistake.message
    own = config("endpoints: [10.0.0.1:17999, 10.0.0.2:17999], identity: web", inbound).replace("to: orders", "to: us")
    assert len(load_text(own).services["web"].outbound[0].endpoints) == 2


def test_what_is_tcp_has_no_headers_and_answers_no_http() -> None:
    raw = "protocol: tcp, unmeshed: passthrough, endpoints: ['db.test:5432', 'db2.test:5432'], "
    other = config(raw + "%s").replace("to: orders", "to: db")
    for said, path in (("affinity: cookie a", "affinity"), ("health: {http: /}", "health.http")):
        with pytest.raises(ConfigErrors) as caught:
            load_text(other % said)
        assert [each.path for each in caught.value.mistakes] == [f"services.web.outbound[0].{path}"]
    assert load_text(other % "affinity: caller, health: {tcp: true}").services["web"].outbound[0].balance == "maglev"


def test_more_endpoints_than_are_kept_are_refused() -> None:
    assert balanced.MOST == endpoints.MOST
    many = ", ".join(f"10.{n >> 8}.{n & 255}.1:80" for n in range(balanced.MOST + 1))
    (mistake,) = mistakes(f"endpoints: [{many}]")
    assert mistake.message == "4097 endpoints, and 4096 are the most"


@pytest.mark.parametrize(("said", "service", "found"), [
    (f"{TWO}balance: weighted", "", [("MESH090", "balance")]),
    ("endpoints: [{address: 'a.test:1', weight: 2}, 'b.test:1'], balance: round_robin", "",
     [("MESH090", "endpoints[0].weight")]),
    ("endpoints: [{address: '10.0.0.7:1', weight: 2}, {address: '10.0.0.8:1', weight: 2}]", "",
     [("MESH090", "endpoints[0].weight")]),
    ("endpoints: [{address: '10.0.0.7:1', weight: 2}]", "", [("MESH090", "endpoints[0].weight")]),
    ("endpoints: [{address: '10.0.0.7:1', weight: 2}, '10.0.0.8:1']", "", []),  # the load is divided by it
    ("endpoints: [{address: 'a.test:1', zone: x}, 'b.test:1']", "", [("MESH091", "endpoints[0].zone")]),
    ("endpoints: [{address: 'a.test:1', zone: x}, 'b.test:1']", "    zone: z\n", [("MESH091", "endpoints")]),
    ("endpoints: [{address: 'a.test:1', zone: x}, 'b.test:1']", "    zone: x\n", []),
    (f"{TWO}retries: {{resends: 1}}", "    zone: x\n", []),  # others may list endpoints with zones
    ("affinity: caller", "", [("MESH092", "affinity")]),
    ("endpoints: 'orders.test:1', affinity: caller", "", []),  # a name stands for many
    ("slow_start: 1s", "", [("MESH092", "slow_start")]),
    ("health: {tcp: true, within: 10s}", "", [("MESH093", "health.within")]),
    ("health: {tcp: true, every: 1s}", "", [("MESH093", "health.every")]),
    ("health: {tcp: true, expect: 200}", "", [("MESH093", "health.expect")]),
])  # fmt: skip
def test_what_can_never_act_is_found(said: str, service: str, found: list[tuple[str, str]]) -> None:
    assert warnings(said, service) == found


@pytest.mark.parametrize(("said", "rule", "found"), [
    ("health: {http: '/healthz?x=1'}", "{from: web, path: /orders}", True),
    ("health: {http: /healthz}", "{from: web, method: POST}", True),
    ("health: {http: /healthz}", "{from: web, path: /healthz, shadow: true}, {from: web, path: /a}", True),
    ("health: {http: /healthz}", "{from: web, path: '/{x}', method: GET}", False),
    ("health: {http: /a%20b}", "{from: web, path: /x}", False),  # not judged here
    ("health: {grpc: ''}", "{from: web, path: /orders}", True),
    ("health: {grpc: ''}", "{from: web, path: /grpc.health.v1.Health/Check}", False),
    ("health: {tcp: true}", "{from: web, path: /orders}", False),
])  # fmt: skip
def test_a_check_that_the_target_refuses_is_told_with_the_rule_to_add(said: str, rule: str, found: bool) -> None:
    assert [code for code, _ in warnings(said, rule=rule)] == ["MESH094"] * found


@settings(deadline=None)  # two whole configs each
@given(st.text(max_size=12))
def test_no_text_breaks_the_readers(text: str) -> None:
    for said in ("affinity: ", "health: {http: "):
        try:
            read(f"{TWO}{said}'{text}'" + "}" * ("{" in said))
        except ConfigErrors:
            continue


def test_they_are_shown_as_they_are_written() -> None:
    assert [str(each) for each in (Affinity("cookie", "Id"), Affinity("caller"))] == ["cookie Id", "caller"]
    assert [str(each) for each in (StatusRange(200, 399), StatusRange(204, 204))] == ["200-399", "204"]
    assert 399 in StatusRange(200, 399)
    assert 400 not in StatusRange(200, 399)
