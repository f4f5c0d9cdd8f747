"""Two sidecars, real processes: a service that breaks its own contract, and a caller that sees only what it may."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.kit.fleet import TRUST_DOMAIN, Fleet, spiffe
from tests.kit.free_ports import Ports
from tests.kit.processes import eventually
from tests.kit.programs import echo_app

CONTRACT = """\
openapi: 3.0.3
info: {title: shop, version: "1"}
paths:
  /orders/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
    get: {operationId: getOrder, responses: {"200": {$ref: '#/components/responses/Order'}}}
    delete: {operationId: dropOrder, responses: {"204": {description: gone}}}
  /old:
    get:
      operationId: old
      deprecated: true
      x-deprecated-since: 2025-01-01
      x-sunset: 2099-01-01
      responses: {"200": {$ref: '#/components/responses/Order'}}
  /gone: {get: {operationId: gone, x-sunset: 2001-01-01, responses: {"200": {$ref: '#/components/responses/Order'}}}}
  /orders:
    post:
      operationId: placeOrder
      requestBody:
        required: true
        content:
          application/json:
            schema: {type: object, required: [sku], additionalProperties: false, properties: {sku: {type: string}}}
      responses: {"200": {$ref: '#/components/responses/Order'}}
components:
  responses:
    Order:
      description: one
      content: {application/json: {schema: {type: object, required: [id], properties: {id: {type: integer}}}}}
"""
TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound: [{{to: orders, listen: "127.0.0.1:{p.web}"}}]
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  orders:
    inbound:
      - port: {p.orders_in}
        bind: 127.0.0.1
        app: "127.0.0.1:{p.orders}"
        contract: {{openapi: contract.yaml, mode: enforce, after_sunset: [{late}]}}
    grants: {{web: {{operations: [getOrder, placeOrder, old, gone], fields: [id, customer.name]}}}}
    allow: [{{from: web, path: /beside/**}}]
    health: {{listen: "127.0.0.1:{p.orders_health}"}}
"""


class Shop(Fleet):
    """`web` calls `orders`, which has a contract."""

    def __init__(self, folder: Path) -> None:
        self.ports = Ports()
        (folder / "contract.yaml").write_text(CONTRACT)
        super().__init__(folder, self.text(late=""))

    def text(self, late: str) -> str:
        """The config; `late` may call what is past its sunset."""
        return TEXT.format(domain=TRUST_DOMAIN, p=self.ports, late=late)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes, dict[str, str]]:
        """One request on a connection of its own: status, body and header."""
        connection = HTTPConnection("127.0.0.1", self.ports.web, timeout=30)
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Host": "orders"} | ({"Content-Type": "application/json"} if body is not None else {})
        connection.request(method, path, body=data, headers=headers)
        answer = connection.getresponse()
        found = answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("contracts")
    mesh = Shop(folder)
    with echo_app(folder, mesh.ports.orders, "contract_app.py"), mesh:
        mesh.start_all()
        yield mesh
        mesh.assert_well()


def test_a_caller_sees_its_fields_alone(mesh: Shop) -> None:
    status, body, headers = mesh.ask("GET", "/orders/1")
    assert (status, json.loads(body)) == (200, {"id": 1, "customer": {"name": "Ann"}})
    assert "etag" not in headers
    assert mesh.ask("POST", "/orders", {"sku": "tea"})[0] == 200


@pytest.mark.parametrize(("number", "status"), [(2, 502), (3, 502), (4, 502), (5, 500)])
def test_nothing_leaks_of_a_broken_answer(mesh: Shop, number: int, status: int) -> None:
    found, body, _ = mesh.ask("GET", f"/orders/{number}")
    assert found == status
    assert b"secret" not in body


def test_requests_outside_of_it_are_refused_and_explained(mesh: Shop) -> None:
    status, body, _ = mesh.ask("POST", "/orders", {"sku": "tea", "admin": True})
    assert status == 400
    told = mesh.explain(json.loads(body)["decision"])
    assert ".admin: is not in the contract" in told
    assert [mesh.ask("DELETE", "/orders/1")[0], mesh.ask("GET", "/nowhere")[0]] == [403, 403]


def test_what_was_called_is_told(mesh: Shop) -> None:
    mesh.ask("GET", "/orders/2")
    (contract,) = mesh["orders"].admin("GET", "/contracts")[1]["contracts"]
    rows = {row["operation"]: row for row in contract["operations"]}
    assert rows["dropOrder"]["calls"] == 0
    assert rows["getOrder"]["last"] == "the answer.id: is no integer"
    assert mesh["orders"].metrics().total("mesh_contract_broken_total", operation="getOrder", part="answer") >= 1


def test_what_ends_is_told_refused_and_listed_by_caller(mesh: Shop) -> None:
    status, _, headers = mesh.ask("GET", "/old")
    assert (status, headers["deprecation"]) == (200, "@1735689600")
    assert headers["sunset"] == "Thu, 01 Jan 2099 00:00:00 GMT"
    assert mesh.ask("GET", "/gone")[0] == 410
    mesh.file.write_text(mesh.text(late="web"))
    eventually("the grace list", lambda: mesh.ask("GET", "/gone")[0] != 410)
    mesh.file.write_text(mesh.text(late=""))
    eventually("no grace list", lambda: mesh.ask("GET", "/gone")[0] == 410)
    assert mesh.ask("GET", "/old")[0] == 200
    (contract,) = mesh["orders"].admin("GET", "/contracts")[1]["contracts"]
    callers = {row["operation"]: row["caller"] for row in contract["deprecated"]}
    assert callers == {"old": spiffe("web"), "gone": spiffe("web")}


def test_status_as_somebody_at_a_terminal_sees_it(mesh: Shop) -> None:
    for path in ("/beside/x7", "/beside/x8", "/orders/2", "/old"):
        mesh.ask("GET", path)
    mesh.ask("POST", "/orders", {"sku": "tea", "\x1b[31m": 1})
    done = mesh.mesh("contract", "status", "--service", "orders")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert lines[0] == "service mode operation calls what"
    assert "orders enforce dropOrder 0 unused" in lines
    assert any(line.startswith("orders enforce GET /beside/{} ") and line.endswith(" undocumented") for line in lines)
    assert any(line.endswith("outside: the answer.id: is no integer") for line in lines)
    assert any(f"deprecated, called by {spiffe('web')}" in line for line in lines)
    assert "\x1b" not in done.stdout
    told = json.loads(mesh.mesh("contract", "status", "-o", "json").stdout)["sidecars"]
    rows = {each["service"]: each["contracts"] for each in told}
    assert rows["web"] == []
    assert {row["path"]: row["calls"] for row in rows["orders"][0]["undocumented"]}["/beside/{}"] >= 2
    assert mesh.mesh("contract", "status", "--service", "web").stdout.startswith("No contract is declared")
    nobody = mesh.mesh("contract", "status", "--service", "nobody")
    assert (nobody.returncode, "nobody" in nobody.stderr) == (3, True)


def test_a_document_that_changes_under_load_judges_nobody_by_half(mesh: Shop) -> None:
    """By one document `sku` and a number go together, by the other `name` and a text; the application answers a number.
    So a request that is let in by the first gets its answer, and one by the second a 502, whatever happens meanwhile.
    """
    document, found, ended = mesh.folder / "contract.yaml", set[tuple[bool, int]](), Event()
    other = CONTRACT.replace("sku", "name").replace("id: {type: integer}}}}}", "id: {type: string}}}}}")

    def load(first: bool) -> None:
        while not ended.is_set():
            found.add((first, mesh.ask("POST", "/orders", {"sku" if first else "name": "tea"})[0]))

    threads = [Thread(target=load, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for text in (other, CONTRACT, other, CONTRACT):
        document.write_text(text)
        name, status = ("name", 502) if text is other else ("sku", 200)
        eventually(
            "the new document",
            lambda name=name, status=status: mesh.ask("POST", "/orders", {name: "tea"})[0] == status,  # type: ignore[misc]
        )
    ended.set()
    for thread in threads:
        thread.join()
    assert found == {(True, 200), (True, 400), (False, 502), (False, 400)}


def test_a_document_that_changes_is_in_force_after_a_reload_and_a_broken_one_is_not(mesh: Shop) -> None:
    document = mesh.folder / "contract.yaml"
    document.write_text("openapi: 9\n")
    document.write_text(CONTRACT.replace("required: [sku]", "required: [sku, count]"))
    eventually("the new one", lambda: mesh.ask("POST", "/orders", {"sku": "tea"})[0] == 400)
    document.write_text("openapi: 9\n")
    assert mesh.ask("GET", "/orders/1")[0] == 200
    document.write_text(CONTRACT)
    eventually("the first one", lambda: mesh.ask("POST", "/orders", {"sku": "tea"})[0] == 200)
