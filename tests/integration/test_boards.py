"""Every query of the boards and alert rules, asked of a real Prometheus that reads real sidecars under traffic."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.free_ports import free_base
from tests.kit.processes import Process, eventually
from tests.kit.tools import need

pytestmark = pytest.mark.integration
HERE = Path(__file__).resolve().parents[2] / "deploy" / "compose"
# What nobody has asked for yet in a mesh that is well, and right so.
MAY_BE_EMPTY = ("mesh_tls_handshake_failures_total", "mesh_posture", "5xx")


def test_every_query_has_an_answer(prometheus: str) -> None:
    boards = [json.loads(path.read_text()) for path in sorted((HERE / "grafana" / "boards").glob("*.json"))]
    asked = [target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) >= 16
    wanted = [expression for expression in asked if not any(word in expression for word in MAY_BE_EMPTY)]

    def empty() -> list[str]:
        return [expression for expression in wanted if not ask(prometheus, expression)]

    try:
        eventually("each has an answer", lambda: not empty(), 40)  # a rate needs two scrapes with traffic
    except AssertionError:
        assert empty() == []
    for expression in asked:
        ask(prometheus, expression)  # those that may be empty can be asked, too


def test_every_alert_rule_is_evaluated_and_none_fires_while_all_is_well(prometheus: str) -> None:
    def health() -> list[tuple[str, str]]:
        groups = get(prometheus, "/api/v1/rules")["groups"]
        return [(rule["health"], rule["state"]) for group in groups for rule in group["rules"]]

    eventually("all rules were evaluated", lambda: {each for each, _ in health()} == {"ok"}, 20)
    assert {state for _, state in health()} <= {"inactive", "pending"}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus with the rules of deploy/compose, which reads the sidecars of the demo."""
    folder, base = tmp_path_factory.mktemp("boards"), free_base()
    program, port = need("prometheus"), base + 99
    targets = [(name, base + 90 + number)
               for number, name in enumerate(("web", "orders", "payments"))]  # fmt: skip
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(HERE / "prometheus" / "alerts.yml")],
        "scrape_configs": [{"job_name": "sidecars", "static_configs": [
            {"targets": [f"127.0.0.1:{number}"], "labels": {"service": name}} for name, number in targets
        ]}],
    }  # fmt: skip
    (folder / "prometheus.yml").write_text(json.dumps(config))
    check = [need("promtool"), "check", "config", str(folder / "prometheus.yml")]
    subprocess.run(check, check=True, capture_output=True)
    mesh = Process(
        "mesh up", [sys.executable, "-P", "-m", "sidecar.cli", "up", "--port-base", str(base), "--run-dir",
                    str(folder / "run"), "-o", "json"], folder / "mesh.log",
    )  # fmt: skip
    server = Process(
        "prometheus", [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                       f"--web.listen-address=127.0.0.1:{port}"], folder / "prometheus.log",
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        server.until("ready", lambda: _answers(address), 30)
        yield address
    finally:
        server.stop()
        mesh.stop()


def ask(address: str, expression: str) -> list[Any]:
    """The values of an expression; a mistake in it is an HTTP error."""
    result: list[Any] = get(address, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["result"]
    return result


def get(address: str, path: str) -> Any:
    """The data of an answer of Prometheus' API."""
    with urllib.request.urlopen(address + path, timeout=10) as answer:
        document = json.load(answer)
    assert document["status"] == "success"
    return document["data"]


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
