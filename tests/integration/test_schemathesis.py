"""schemathesis as client through two sidecars, against a service that keeps its contract and one that breaks it.

What it makes by the schema passes and comes back by the schema; what it makes against it never reaches the application;
and of an application that breaks its contract in every way nothing reaches it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from tests.kit.fleet import TRUST_DOMAIN, Fleet
from tests.kit.free_ports import Ports
from tests.kit.programs import echo_app
from tests.kit.wild_app import BREAKAGES, PET

schemathesis = pytest.importorskip("schemathesis")

CONTRACT = """\
openapi: 3.1.0
info: {title: pets, version: "1"}
paths:
  /pets:
    get:
      operationId: listPets
      parameters:
        - {name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 100}}
        - {name: tag, in: query, schema: {type: array, maxItems: 3, items: {type: string, pattern: '^[a-z]{1,8}$'}}}
        - {name: alive, in: query, schema: {anyOf: [{type: boolean}, {type: 'null'}]}}
        - {name: X-Shard, in: header, schema: {type: string, enum: [north, south]}}
      responses:
        "200":
          description: all
          content: {application/json: {schema: {type: array, items: {$ref: '#/components/schemas/Pet'}}}}
    post:
      operationId: addPet
      requestBody: {required: true, content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}
      responses:
        "201": {description: made, content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}
  /pets/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: integer, minimum: 1, maximum: 1000000}}]
    get:
      operationId: getPet
      responses: {"200": {$ref: '#/components/responses/Pet'}, "404": {$ref: '#/components/responses/Wrong'}}
    put:
      operationId: putPet
      requestBody: {required: true, content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}
      responses: {"200": {$ref: '#/components/responses/Pet'}}
    delete: {operationId: dropPet, responses: {"204": {description: gone}}}
components:
  responses:
    Pet: {description: one, content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}
    Wrong:
      description: none
      content: {application/json: {schema: {type: object, required: [title], properties: {title: {type: string}}}}}
  schemas:
    Pet:
      type: object
      required: [id, name]
      additionalProperties: false
      properties:
        id: {type: integer, minimum: 1, maximum: 1000000}
        name: {type: string, maxLength: 40}
        kind: {enum: [cat, dog]}
        weight: {type: number, minimum: 0, maximum: 1000}
        password: {type: string, writeOnly: true}
        tags: {type: array, maxItems: 5, uniqueItems: true, items: {type: string, maxLength: 10}}
        owner:
          type: object
          additionalProperties: false
          required: [name]
          properties: {name: {type: string}, mail: {type: string, format: email}}
"""
TEXT = """\
trust_domain: {domain}
ca: {{address: "127.0.0.1:{p.ca}"}}
services:
  web:
    outbound: [{{to: pets, listen: "127.0.0.1:{p.web}"}}]
    health: {{listen: "127.0.0.1:{p.web_health}"}}
  pets:
    inbound:
      - {{port: {p.pets_in}, bind: 127.0.0.1, app: "127.0.0.1:{p.pets}",
         contract: {{openapi: contract.yaml, mode: enforce}}}}
    allow: [{{from: web}}]
    health: {{listen: "127.0.0.1:{p.pets_health}"}}
"""
MADE = settings(
    max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


class Shop(Fleet):
    """`web` calls `pets`, which has a contract."""

    def __init__(self, folder: Path) -> None:
        self.ports = Ports()
        (folder / "contract.yaml").write_text(CONTRACT)
        super().__init__(folder, TEXT.format(domain=TRUST_DOMAIN, p=self.ports))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.web}"

    def broken(self) -> int:
        """How many requests and answers were outside of the contract."""
        (contract,) = self["pets"].admin("GET", "/contracts")[1]["contracts"]
        return sum(row["broken"] for row in contract["operations"])


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("pets")
    mesh = Shop(folder)
    with echo_app(folder, mesh.ports.pets, "wild_app.py"), mesh:
        mesh.start_all()
        yield mesh
        mesh.assert_well()


def operations() -> list[Any]:
    """The operations of the contract as schemathesis knows them."""
    found = schemathesis.openapi.from_dict(yaml.safe_load(CONTRACT)).get_all_operations()
    return [each.ok() for each in found]


def made(operation: Any, mode: str, test: Callable[[Any], None]) -> None:
    """Have schemathesis make calls, and give each to the test."""
    strategy = operation.as_strategy(getattr(schemathesis.GenerationMode, mode))
    MADE(given(strategy)(test))()


@pytest.mark.parametrize("operation", operations(), ids=lambda each: each.label)
def test_what_is_made_by_the_schema_passes(mesh: Shop, operation: Any) -> None:
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    def call(case: Any) -> None:
        answer = case.call(base_url=mesh.url, headers={"Host": "pets"}, timeout=20)
        why = "" if answer.status_code < 400 else mesh.explain(answer.json()["decision"])
        assert answer.status_code in (200, 201, 204), (case.as_curl_command(), why)
        case.validate_response(answer, checks=[response_schema_conformance, status_code_conformance])

    made(operation, "POSITIVE", call)


@pytest.mark.parametrize("operation", operations(), ids=lambda each: each.label)
def test_what_is_made_against_it_is_refused(mesh: Shop, operation: Any) -> None:
    from schemathesis.specs.openapi.checks import negative_data_rejection

    def call(case: Any) -> None:
        answer = case.call(base_url=mesh.url, headers={"Host": "pets"}, timeout=20)
        assert answer.status_code < 500, (case.as_curl_command(), answer.content)
        case.validate_response(answer, checks=[negative_data_rejection])

    made(operation, "NEGATIVE", call)


@pytest.mark.parametrize("wild", BREAKAGES)
def test_nothing_of_a_broken_answer_reaches_the_client(mesh: Shop, wild: str) -> None:
    before = mesh.broken()
    for method, path in (("GET", "/pets/7"), ("PUT", "/pets/7"), ("GET", "/pets"), ("POST", "/pets")):
        connection = HTTPConnection("127.0.0.1", mesh.ports.web, timeout=30)
        body = json.dumps({"id": 7, "name": "Tom"}) if method in ("PUT", "POST") else None
        headers = {"Host": "pets", "X-Break": wild} | ({"Content-Type": "application/json"} if body else {})
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        told, status = answer.read(), answer.status
        assert b"secret" not in told + str(answer.getheaders()).encode()
        if wild in ("teapot", "error") and status != 502:
            assert (status, told) == (418 if wild == "teapot" else 404, b"")  # an error goes on as its status
        else:
            assert status == 502, wild
            assert mesh["pets"].decision(json.loads(told)["decision"])["flag"] == "SV"
        connection.close()
    assert mesh.broken() - before == 4


def test_the_application_can_keep_it(mesh: Shop) -> None:
    connection = HTTPConnection("127.0.0.1", mesh.ports.web, timeout=30)
    connection.request("GET", "/pets/1", headers={"Host": "pets", "Accept-Encoding": "gzip"})
    assert json.loads(connection.getresponse().read()) == PET
    connection.close()
