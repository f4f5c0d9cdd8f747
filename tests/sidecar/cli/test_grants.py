"""`mesh grants diff` and what `mesh check` says of grants, as somebody at a terminal sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar.cli.root import run_command

DOCUMENT = """\
openapi: 3.1.0
info: {title: t, version: '1'}
paths:
  /orders/{id}:
    get:
      operationId: getOrder
      responses:
        '200':
          description: one
          content:
            application/json:
              schema:
                type: object
                properties: {id: {type: integer}, customer: {type: object, properties: {name: {}}}}
    delete: {operationId: dropOrder, responses: {'204': {description: gone}}}
"""
CONFIG = """\
trust_domain: demo.mesh
services:
  web:
    outbound: [{to: orders, listen: "127.0.0.1:9001", consumes: {operations: [%s], fields: [%s]}}]
  desk:
    outbound: [{to: orders, listen: "127.0.0.1:9002"}]
  orders:
    inbound: [{app: "127.0.0.1:8080", contract: {openapi: api.yaml, mode: enforce%s}}]
    grants:
      web: {operations: [%s], fields: [%s]}
"""


def written(folder: Path, consumes: str, wanted: str, operations: str, fields: str, more: str = "") -> str:
    """The config's path."""
    (folder / "api.yaml").write_text(DOCUMENT)
    (folder / "mesh.yaml").write_text(CONFIG % (consumes, wanted, more, operations, fields))
    return str(folder / "mesh.yaml")


@pytest.mark.parametrize(
    ("consumes", "wanted", "code", "said"),
    [
        ("getOrder, dropOrder", "id, customer.name", 0, "Everybody is granted what it consumes"),
        ("getOrder", "id, customer.name", 0, "dropOrder      unused"),
        ("getOrder, dropOrdre", "id", 1, 'dropOrdre      missing; did you mean "dropOrder"?'),
        ("getOrder", "id, customer.nam", 1, 'customer.nam   missing; did you mean "customer.name"?'),
        ("getOrder, somethingElse", "id", 1, "somethingElse  missing\n"),
        ("getOrder", "'**'", 1, "**             missing"),
    ],
)
def test_what_is_missing_and_what_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], consumes: str, wanted: str, code: int, said: str
) -> None:  # fmt: skip
    file = written(tmp_path, consumes, wanted, "getOrder, dropOrder", "id, customer.name")
    assert run_command(["grants", "diff", "-f", file]) == code
    assert " ".join(said.split()) in " ".join(capsys.readouterr().out.split())


def test_differences_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "getOrdr", "id", "getOrder", "id")
    assert run_command(["grants", "diff", "-f", file, "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"differences": [
        {"caller": "web", "service": "orders", "kind": "operation", "name": "getOrdr", "what": "missing",
         "near": "getOrder"},
        {"caller": "web", "service": "orders", "kind": "operation", "name": "getOrder", "what": "unused", "near": ""},
    ]}  # fmt: skip


@pytest.mark.parametrize(
    ("operations", "fields", "more", "code", "said"),
    [
        ("getOrdr", "id", "", 1, 'did you mean "getOrder"?'), ("getOrder", "a..b", "", 1, "names with dots between"),
        ("getOrder", "customer.nme", "", 0, "MESH194"), ("getOrder", "id", ", undocumented: pass", 0, "MESH156"),
    ],
)  # fmt: skip
def test_what_check_says_of_a_grant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], operations: str, fields: str, more: str, code: int, said: str
) -> None:  # fmt: skip
    file = written(tmp_path, "getOrder", "id", operations, fields, more)
    assert run_command(["check", "-f", file]) == code
    found = capsys.readouterr()
    assert said in found.out + found.err


def test_a_config_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["grants", "diff", "-f", str(tmp_path / "nowhere.yaml")]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_a_contract_that_cannot_be_held_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "getOrder", "id", "getOrder", "id")
    (tmp_path / "api.yaml").write_text(DOCUMENT.replace("application/json:", "text/event-stream:"))
    assert run_command(["check", "-f", file]) == 1
    found = capsys.readouterr()
    assert "api.yaml:11" in found.out + found.err
    assert "MESH164" in found.out + found.err
    assert "is a stream" in found.out + found.err


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_a_listener_that_is_not_http_has_no_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:  # fmt: skip
    file = Path(written(tmp_path, "getOrder", "id", "getOrder", "id"))
    file.write_text(file.read_text().replace('app: "127.0.0.1:8080"', f'app: "127.0.0.1:8080", protocol: {protocol}'))
    assert run_command(["check", "-f", str(file)]) == 1
    assert "MESH166" in capsys.readouterr().out
