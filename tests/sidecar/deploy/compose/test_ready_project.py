"""deploy/compose: made of its plain file by the verb that everybody has, and watched by what our metrics really are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sidecar.deploy.compose.inject import Options, inject
from sidecar.telemetry.definitions import DEFINITIONS, HOP_METRICS
from tests.kit.tools import need

HERE = Path(__file__).resolve().parents[4] / "deploy" / "compose"
OPTIONS = Options("shop", metrics_to="prometheus", folder="mesh")
BOARDS = sorted((HERE / "grafana" / "boards").glob("*.json"))
NAMES = {each.name for each in (*HOP_METRICS, *DEFINITIONS)}


def board(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def expressions() -> list[str]:
    """Every query of the boards, and of the alert rules."""
    found = [target["expr"] for path in BOARDS for panel in board(path)["panels"] for target in panel["targets"]]
    rules = (HERE / "prometheus" / "alerts.yml").read_text()
    return found + re.findall(r"expr: (?:>-\n)?([^\n]+(?:\n {10}[^\n]+)*)", rules)


def test_it_is_what_the_plain_file_becomes() -> None:
    made = inject((HERE / "plain.yml").read_bytes(), "plain.yml", OPTIONS)
    assert (HERE / "docker-compose.yml").read_bytes() == made.compose
    assert (HERE / "mesh" / "config" / "mesh.yaml").read_text().partition("\n")[2] == made.mesh


def test_compose_of_the_old_days_reads_it() -> None:
    subprocess.run([need("docker-compose"), "-f", str(HERE / "docker-compose.yml"), "config", "-q"], check=True)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_board_is_whole(path: Path) -> None:
    found = board(path)
    assert found["uid"] == path.stem
    assert found["title"]
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 8
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"prometheus"}


def test_every_metric_that_is_asked_for_is_one_of_ours() -> None:
    asked = {name for text in expressions() for name in re.findall(r"\bmesh_[a-z_]+", text)}
    assert len(asked) > 15
    assert {re.sub(r"_(bucket|sum|count)\Z", "", name) for name in asked} <= NAMES


def test_the_alert_rules_are_rules() -> None:
    done = subprocess.run(
        [need("promtool"), "check", "config", str(HERE / "prometheus" / "prometheus.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rules found" in done.stdout


def test_prometheus_asks_each_sidecar_that_lets_it() -> None:
    text = (HERE / "prometheus" / "prometheus.yml").read_text()
    asked = set(re.findall(r'"(\w+):17090"', text))
    mesh = (HERE / "mesh" / "config" / "mesh.yaml").read_text()
    told = set(re.findall(r"^  (\w+):\n    address", mesh, re.MULTILINE))
    assert asked == told - {"prometheus"}
