"""`mesh owasp`: text, JSON and exit code; what is filtered from the list still counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar.cli.root import run_command
from tests.sidecar.policy.test_owasp import BARE, FULL, OPENAPI


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "openapi.json").write_text(OPENAPI)
    file = tmp_path / "mesh.yaml"
    file.write_text(FULL + "    grants: {web: {operations: [getOrder], fields: [id]}}\n")
    return file


def said(capsys: pytest.CaptureFixture[str], file: Path, *arguments: str) -> tuple[int, str]:
    code = run_command(["owasp", "-f", str(file), *arguments])
    return code, capsys.readouterr().out


def test_a_risk_is_not_worse_because_only_what_is_missing_is_listed(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace("stuffing: {action: block}", "stuffing: {}"))
    _, everything = said(capsys, config, "orders")
    _, missing = said(capsys, config, "orders", "--missing")
    head = "  API2   Broken Authentication: partly\n"
    assert head in everything
    assert head in missing
    assert "mutual TLS" in everything
    assert "mutual TLS" not in missing
    assert "    shadow stuffing detector" in missing
    assert "  API7   Server Side Request Forgery: none\n" in everything
    assert "API7" not in missing


def test_the_exit_code_is_for_ci(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, config, "web", "--exit-code")[0] == 0
    config.write_text(BARE)
    assert said(capsys, config)[0] == 0
    assert said(capsys, config, "--exit-code")[0] == 1
    assert said(capsys, config, "nobody")[0] == 1
    config.write_text("services: [")
    assert said(capsys, config)[0] == 2


def test_the_json_has_each_service_with_each_of_the_ten(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(said(capsys, config, "-o", "json")[1])
    assert {name: len(risks) for name, risks in document["risks"].items()} == {"web": 10, "orders": 10}
    assert document["risks"]["orders"]["API5"] == "on"
    assert {"service", "risk", "title", "measure", "state", "helps", "covers", "yaml"} == set(document["measures"][0])
