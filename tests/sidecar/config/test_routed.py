"""What an operator may say of routes and faults, what is proposed instead, and what of it can never act."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.config.diff import diff
from sidecar.config.kinds import LONGEST_PAUSE
from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors, Mistake
from sidecar.config.schema_outbound import Outbound
from sidecar.traffic.declared import outbound_route
from sidecar.traffic.faults import LONGEST

MESH = """\
trust_domain: demo.mesh
services:
  web:
    outbound:
      - {{to: orders, listen: "127.0.0.1:9001", retries: {{resends: 1, statuses: 503}}, routes: [{outbound}]}}
      - {{to: orders-v2}}
      - {{to: db, listen: "127.0.0.1:9002"}}
  cart: {{}}
  orders:
    inbound: [{{app: "127.0.0.1:8080", routes: [{inbound}]}}]
    allow: [{{from: web}}]
  orders-v2: {{inbound: [{{app: "127.0.0.1:8081"}}], allow: [{{from: web}}]}}
  db: {{inbound: [{{app: "127.0.0.1:5432", protocol: tcp}}], allow: [{{from: web}}]}}
"""
V2 = "split: [{to: orders-v2, weight: 1}]"


def text(*outbound: str, inbound: str = "") -> str:
    return MESH.format(outbound=", ".join(f"{{{each}}}" for each in outbound), inbound=inbound)


def upstream(*routes: str) -> Outbound:
    return load_text(text(*routes)).services["web"].outbound[0]


def mistakes(*outbound: str, inbound: str = "") -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigErrors) as caught:
        load_text(text(*outbound, inbound=inbound))
    return [(_short(each), each.message, each.hint) for each in caught.value.mistakes]


def warnings(*outbound: str, inbound: str = "") -> list[tuple[str, str]]:
    """Codes and places, but that `orders-v2` cannot be reached where no route leads there."""
    loaded = load_bytes(text(*outbound, inbound=inbound).encode())
    return [(each.code, _short(each)) for each in loaded.warnings if each.code != "MESH056"]


def _short(mistake: Mistake) -> str:
    path = mistake.path.removeprefix("services.")
    return path.removeprefix("web.outbound[0].").removeprefix("orders.inbound[0].")


# ---- what is filled in -----------------------------------------------------------------------------------------------


def test_names_and_the_paths_of_a_rewrite_are_filled_in() -> None:
    one, two, three, four = upstream(
        "path: /a", f"path: /a, method: GET, {V2}", "rewrite: {prefix: /v1/, to: /}", "rewrite: {prefix: /, to: /x}"
    ).routes
    assert [each.name for each in (one, two, three, four)] == ["/a", "route-2", "/v1", "/**"]
    assert [[path.text for path in each.paths] for each in (three, four)] == [["/v1", "/v1/**"], ["/**"]]


def test_retries_of_a_route_take_what_they_do_not_say_from_the_upstream() -> None:
    spec = upstream("path: /a, retries: {resends: 0}", "path: /b, retries: {statuses: [502]}", "path: /c")
    rules = [outbound_route(spec, each).retries for each in spec.routes]
    assert [each and (each.tries, set(each.statuses)) for each in rules] == [(1, {503}), (2, {502}), None]


def test_a_destination_of_a_split_needs_no_address_of_its_own() -> None:
    codes = [each.code for each in load_bytes(text(V2).encode()).warnings]
    assert "MESH056" not in codes


def test_a_reload_says_what_changes_of_routes() -> None:
    before = load_text(text(V2))
    after = load_text(text("split: [{to: orders-v2, weight: 5}, {to: orders, weight: 95}]"))
    assert [str(each) for each in diff(before, after, "web")] == [
        "web.outbound.orders.routes.route-1.split.orders-v2.weight: 1 → 5",
        "web.outbound.orders.routes.route-1.split: + branch orders {weight: 95}",
    ]


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "path", "message", "hint"), [
    ("split: [{to: order-v2, weight: 1}]", "split[0].to", 'no upstream of web is called "order-v2"',
     'did you mean "orders-v2"?'),
    ("split: [{to: db, weight: 1}]", "split[0].to", "db is raw TCP, which takes no requests", "name an http upstream"),
    ("split: [{to: orders, weight: 0}]", "split", "all weights are 0, so there is nowhere to go",
     "give one of them a weight"),
    ("split: [{to: orders, weight: 1}, {to: orders, weight: 1}]", "split[1].to", "orders stands here twice",
     "add the weights up in one of them"),
    ("split: [{to: orders, weight: 5%}]", "split[0].weight", '"5%" is not a whole number',
     "expected a whole number from 0 to 1000000"),
    ("split: []", "split", "is empty, and nothing can match that", "remove the key if all are meant"),
    ("path: /b/**, rewrite: {prefix: /a, to: /}", "path", "/b/** does not begin with /a",
     "write paths under /a, or leave path: out for all of them"),
    ("rewrite: {prefix: '/{id}', to: /}", "rewrite.prefix", "'/{id}': a prefix to be rewritten has no placeholders",
     ""),
    ("rewrite: {prefix: /a, to: /b/../c}", "rewrite.to",
     "'/b/../c': '..' is refused in every request; it can never match", ""),
    ("rewrite: {prefix: /a, to: /b;c}", "rewrite.to",
     "'/b;c': the path has a `;`, and such requests are refused", ""),
    ("rewrite: {prefix: /a, to: /b%2Fc}", "rewrite.to",
     "'/b%2Fc': the path has an encoded slash (%2F), and such requests are refused",
     ""),
    ("request_headers: {remove: Host}", "request_headers.remove",
     "Host: a field of the connection, the framing or the mesh is not for routes to change",
     ""),
    ("response_headers: {set: {mesh-decision-id: x}}", "response_headers.set.mesh-decision-id",
     "mesh-decision-id: a field of the connection, the framing or the mesh is not for routes to change",
     ""),
    ("request_headers: {add: {x-a: 'b '}}", "request_headers.add.x-a",
     "'b ' has control characters, or spaces at its ends", ""),
    ("response_headers: {set: {x-a: b, X-A: c}}", "response_headers.set.X-A", "x-a is named twice",
     "letters of a header's name have no case"),
    ("fault: {delay: 2m, delay_share: 1}", "fault.delay", '"2m" is longer than a request is held on purpose',
     "at most 60s"),
    ("fault: {status: 200, abort_share: 1}", "fault.status", "200 is not a status", "it goes from 400 to 599"),
    ("fault: {delay: 1s, delay_share: 10%}", "fault.delay_share", '"10%" is not a share', "did you mean 0.1?"),
    ("retries: {budget: 1}", "retries.budget", "unknown key", "valid here: resends, statuses"),
    ("query: {v: {present: false}}", "query.v",
     "parameter v: `present` can only be true; an absent one satisfies nothing",
     "write text, {prefix: text} or {present: true}"),
    ("query: [v]", "query", "expected a mapping, found a list", "parameter: value"),
])  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(route: str, path: str, message: str, hint: str) -> None:
    ((where, told, proposed),) = mistakes(route)
    assert (where.removeprefix("routes[0]."), told, proposed) == (path, message, hint)


def test_a_name_is_given_once() -> None:
    ((path, message, _),) = mistakes("name: a, path: /a", "name: a, path: /b")
    assert (path, message) == ("routes[1].name", 'duplicate route name "a"')


@pytest.mark.parametrize(("route", "path", "message"), [
    ("app: '127.0.0.1:1', split: [{app: '127.0.0.1:2', weight: 1}]", "split",
     "app: and split: both say where these requests go"),
    ("app: '192.0.2.1:80'", "app", "192.0.2.1:80 is not on loopback; the way to it would be plaintext"),
    ("split: [{app: '127.0.0.1:1', weight: 1}, {app: 'example.org:1', weight: 1}]", "split[1].app",
     "example.org:1 is not on loopback; the way to it would be plaintext"),
    ("split: [{app: '127.0.0.1:1', weight: 0}]", "split", "all weights are 0, so there is nowhere to go"),
    ("app: '127.0.0.1:9001'", "app", "127.0.0.1:9001 is the local listener for orders of web, not an application"),
])  # fmt: skip
def test_applications_of_routes_are_held_to_what_applications_are(route: str, path: str, message: str) -> None:
    found = mistakes(inbound=f"{{path: /**, {route}}}")
    assert [(where.removeprefix("routes[0]."), told) for where, told, _ in found] == [(path, message)]


def test_raw_tcp_has_no_routes() -> None:
    config = text().replace('9002"}', '9002", routes: [{path: /a}]}')
    with pytest.raises(ConfigErrors, match="db is raw TCP, which has no requests"):
        load_text(config)


# ---- what never acts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("routes", "found"), [
    ((f"path: /a, {V2}", f"path: /**, {V2}", f"path: /b, {V2}"), [("MESH110", "routes[2]")]),
    ((f"method: [GET, PUT], {V2}", f"path: /a, method: GET, {V2}"), [("MESH110", "routes[1]")]),
    ((f"headers: {{a: b}}, {V2}", f"headers: {{a: b, c: d}}, {V2}"), [("MESH110", "routes[1]")]),
    ((f"query: {{a: b}}, {V2}", f"query: {{a: c}}, {V2}"), []),
    ((f"headers: {{a: b}}, {V2}", V2), []),
    ((f"from: web, path: /a, {V2}",), []),
    ((f"from: [cart, orders], {V2}",), [("MESH111", "routes[0].from")]),
    (("fault: {delay: 1s, from: cart}",), [("MESH114", "routes[0].fault.delay"), ("MESH111", "routes[0].fault.from")]),
    (("retries: {resends: 0, statuses: 503}",), [("MESH112", "routes[0].retries.statuses")]),
    (("retries: {statuses: 502}",), []),
    (("request_headers: {remove: [a, b], set: {B: c}}",), [("MESH113", "routes[0].request_headers.remove[1]")]),
    (("fault: {}",), [("MESH114", "routes[0].fault")]),
    (("fault: {abort_share: 0.5}",), [("MESH114", "routes[0].fault.abort_share")]),
    (("fault: {delay: 1s, delay_share: 0}",), [("MESH114", "routes[0].fault.delay")]),
    (("fault: {delay: 1s, delay_share: 0.5}",), [("MESH115", "routes[0].fault")]),
])  # fmt: skip
def test_what_can_never_act_is_told_and_what_acts_on_purpose(
    routes: tuple[str, ...], found: list[tuple[str, str]]
) -> None:
    assert warnings(*routes) == found


@pytest.mark.parametrize(("route", "found"), [
    ("fault: {status: 503, abort_share: 1, from: web}", [("MESH115", "routes[0].fault")]),
    ("fault: {status: 503, abort_share: 1, from: cart}", [("MESH116", "routes[0].fault.from")]),
    ("fault: {status: 503, abort_share: 1, from: [web, cart]}",
     [("MESH115", "routes[0].fault"), ("MESH116", "routes[0].fault.from[1]")]),
    ("fault: {status: 503, abort_share: 1, from: '*'}", [("MESH115", "routes[0].fault")]),
])  # fmt: skip
def test_a_fault_on_the_way_in_meets_those_whom_a_rule_lets_in(route: str, found: list[tuple[str, str]]) -> None:
    assert warnings(inbound=f"{{path: /**, {route}}}") == found


def test_an_inbound_route_leaves_to_later_ones_what_its_conditions_leave() -> None:
    narrow, wide = "{path: /**, from: cart, max_body: 1B}", "{path: /**, max_body: 2B}"
    assert warnings(inbound=f"{narrow}, {wide}") == []
    assert warnings(inbound=f"{wide}, {narrow}") == [("MESH040", "routes[1]")]


def test_what_the_page_shows_can_be_used() -> None:
    page = (Path(__file__).parents[3] / "docs" / "routes.md").read_text()
    loaded = [load_bytes(example.encode()) for example in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert [[warning.code for warning in each.warnings] for each in loaded] == [[], [], [], ["MESH115"]]


def test_both_sides_agree_on_the_longest_delay() -> None:
    assert LONGEST_PAUSE == LONGEST
