"""Routes between real processes: a canary, changed headers and paths, faults that meet those they are meant for."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.kit.fleet import TRUST_DOMAIN, Fleet, spiffe
from tests.kit.free_ports import Ports
from tests.kit.grpc_calls import Calls, failure
from tests.kit.processes import eventually
from tests.kit.programs import echo_app

TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound:
      - to: orders
        listen: "127.0.0.1:{p.web}"
        routes:
          - {{name: slow, path: /slowed, fault: {{delay: 300ms, delay_share: 1}}}}
          - {{name: broken, path: /broken, fault: {{status: 500, abort_share: 1}}}}
          - name: old-api
            rewrite: {{prefix: /api/v1, to: /}}
            request_headers: {{remove: x-debug, set: {{x-team: shop}}}}
            response_headers: {{add: {{x-served-by: mesh}}}}
          - {{name: beta, headers: {{x-beta: {{present: true}}}}, split: [{{to: orders-v2, weight: 1}}]}}
          - {{name: canary, split: [{{to: orders-v2, weight: 5}}, {{to: orders, weight: 95}}]}}
      - {{to: orders-v2}}
      - to: calls
        listen: "127.0.0.1:{p.web_calls}"
        routes: [{{path: /kit.Echo/Squeeze, fault: {{status: 503, abort_share: 1}}}}]
    access_log: {{path: {folder}/web.access}}
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  cart:
    outbound: [{{to: orders, listen: "127.0.0.1:{p.cart}"}}]
    health: {{listen: "127.0.0.1:{p.cart_health}"}}
  orders:
    inbound:
      - port: {p.orders_in}
        bind: 127.0.0.1
        app: "127.0.0.1:{p.orders}"
        routes: [{{path: /**, fault: {{status: 503, abort_share: {share}, from: cart}}}}]
    allow: [{{name: web-may, from: web, path: ["/orders/{{id}}", /canary, /slowed]}}, {{name: cart-may, from: cart}}]
    access_log: {{path: {folder}/orders.access}}
    health: {{listen: "127.0.0.1:{p.orders_health}"}}
  orders-v2:
    inbound: [{{port: {p.v2_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.v2}"}}]
    allow: [{{from: web}}]
    health: {{listen: "127.0.0.1:{p.v2_health}"}}
  calls:
    inbound: [{{port: {p.calls_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.calls}"}}]
    allow: [{{from: web}}]
    health: {{listen: "127.0.0.1:{p.calls_health}"}}
"""


class Shop(Fleet):
    """`web` and `cart` call `orders`, which has a second version; `web` makes gRPC calls too."""

    def __init__(self, folder: Path) -> None:
        self.ports = Ports()
        super().__init__(folder, self.text(folder, 0))

    def text(self, folder: Path, share: int) -> str:
        return TEXT.format(domain=TRUST_DOMAIN, p=self.ports, folder=folder, share=share)

    def ask(self, caller: str, *paths: str, **headers: str) -> list[tuple[int, dict[str, str], Any]]:
        """GET these on one connection: status, header and what the application tells in JSON."""
        connection = HTTPConnection("127.0.0.1", getattr(self.ports, caller), timeout=30)
        found = []
        for path in paths:
            connection.request("GET", path, headers={"Host": "orders"} | headers)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            found.append((answer.status, fields, json.loads(answer.read())))
        connection.close()
        return found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("routes")
    mesh = Shop(folder)
    with (
        echo_app(folder, mesh.ports.orders), echo_app(folder, mesh.ports.v2),
        echo_app(folder, mesh.ports.calls, "grpc_server.py"), mesh,
    ):  # fmt: skip
        mesh.start_all()
        yield mesh
        mesh.assert_well()


def test_a_canary_gets_its_five_percent_and_every_request_an_answer(mesh: Shop) -> None:
    """Of 2000 requests 100 are expected, with a standard deviation of 9.7; five of them are beyond chance."""
    answers = mesh.ask("web", *["/canary"] * 2000)
    assert {status for status, *_ in answers} == {200}
    hosts = Counter(dict(seen["headers"])["host"] for *_, seen in answers)
    assert set(hosts) == {"orders", "orders-v2"}
    assert 52 <= hosts["orders-v2"] <= 148, hosts
    metrics = mesh["web"].metrics()
    to = {
        service: metrics.total("mesh_requests_total", direction="outbound", destination=spiffe(service), route="canary")
        for service in ("orders", "orders-v2")
    }
    assert to == dict(hosts)
    assert metrics.total("mesh_split_requests_total", route="canary", to="orders-v2") == hosts["orders-v2"]


def test_a_header_leads_to_the_other_version(mesh: Shop) -> None:
    ((status, _, seen),) = mesh.ask("web", "/whatever", **{"X-Beta": "1"})
    assert (status, dict(seen["headers"])["host"]) == (200, "orders-v2")


def test_the_application_sees_the_new_path_and_the_changed_headers(mesh: Shop) -> None:
    ask = {"X-Debug": "1", "X-Team": "mine"}
    (first, second) = mesh.ask("web", "/api/v1/orders/7?full=1", "/api/v1/secrets", **ask)
    status, fields, seen = first
    headers = dict(seen["headers"])
    assert (status, seen["target"], fields["x-served-by"]) == (200, "/orders/7?full=1", "mesh")
    assert (headers["x-team"], headers.get("x-debug")) == ("shop", None)
    assert second[0] == 403  # by the path that the receiver gets
    told = mesh.explain(second[2]["decision"])
    assert "GET http://orders/secrets" in told


def test_a_delay_and_a_refusal_are_told_apart_from_failures(mesh: Shop) -> None:
    began = time.monotonic()
    ((status, fields, _),) = mesh.ask("web", "/slowed")
    assert status == 200
    assert 0.3 <= time.monotonic() - began < 5
    assert "DI fault_injected" in fields["proxy-status"]
    ((status, fields, problem),) = mesh.ask("web", "/broken")
    assert status == 500
    assert 'error=proxy_internal_response; details="FI fault_injected' in fields["proxy-status"]
    told = mesh.explain(problem["decision"])
    assert "flag FI, fault_injected" in told
    assert "route     broken" in told
    slow, broken = (
        next(line for line in mesh["web"].access_log() if line["uri"] == uri) for uri in ("/slowed", "/broken")
    )
    assert (slow["flags"], slow["error"], slow["delayed_ms"], slow["status"]) == ("DI", "", 300, 200)
    assert (broken["flags"], broken["attempt"], broken["endpoint"]) == ("FI", 0, "")
    assert "held for 0.3 s on purpose (flag DI)" in mesh.explain(slow["decision_id"])
    metrics = mesh["web"].metrics()
    assert metrics.total("mesh_faults_total", route="slow", kind="delay") == 1
    assert metrics.total("mesh_faults_total", route="broken", kind="abort") == 1
    assert metrics.total("mesh_requests_total", route="broken", flag="FI") == 1
    assert metrics.total("mesh_endpoints", listener="orders", state="available") == 1
    assert "faults are injected on purpose" in mesh["web"].process.text()


def test_a_call_is_refused_as_a_call_and_its_neighbours_are_not(mesh: Shop) -> None:
    with Calls(mesh.ports.web_calls) as calls:
        error = failure(lambda: calls.squeeze(b"x", timeout=30))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert calls.echo(b"beside", timeout=30) == b"beside"


def test_explain_says_where_a_request_would_go(mesh: Shop) -> None:
    told = mesh.mesh("explain", "--from", "web", "--to", "orders", "--path", "/api/v1/orders/7").stdout
    assert "permit: web GET http://orders/orders/7" in told
    assert "out of web: old-api" in told
    assert "its path gets the front /" in told
    told = mesh.mesh("explain", "-f", "mesh.yaml", "--from", "web", "--to", "orders", "--path", "/canary").stdout
    assert "to orders-v2 (0.05) or orders (0.95)" in told
    assert "ask with --to orders-v2 too" in told
    warned = mesh.mesh("check").stdout
    assert "warning: services.web.outbound[0].routes[1].fault: faults are injected on orders: 1 are refused" in warned


def test_a_fault_for_one_caller_leaves_the_others_alone_and_ends_with_a_reload(mesh: Shop) -> None:
    assert [status for status, *_ in mesh.ask("cart", "/orders/7", "/orders/7")] == [200, 200]
    mesh.file.write_text(mesh.text(mesh.folder, 1))
    eventually("the reload", lambda: mesh["orders"].status()["config"]["generation"] == 2)
    (status, fields, problem) = mesh.ask("cart", "/orders/7")[0]
    assert status == 503
    assert "refused by the peer" in fields["proxy-status"]
    assert "fault" not in json.dumps([fields, problem]).lower()
    assert {status for status, *_ in mesh.ask("web", *["/api/v1/orders/7"] * 20)} == {200}
    assert "flag FI, fault_injected" in mesh.explain(problem["decision"])
    (line,) = [line for line in mesh["orders"].access_log() if line["flags"] == "FI"]
    assert line["client.id"] == spiffe("cart")
    mesh.file.write_text(mesh.text(mesh.folder, 0))
    eventually("the reload", lambda: mesh["orders"].status()["config"]["generation"] == 3)
    assert [status for status, *_ in mesh.ask("cart", "/orders/7")] == [200]
