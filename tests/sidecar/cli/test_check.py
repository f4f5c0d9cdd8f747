"""`mesh check` and `mesh schema`, as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.check import check
from sidecar.cli.console import Failure
from sidecar.cli.schema import schema
from sidecar.config.codes import CODES, lint_markdown
from sidecar.config.reference import json_schema, reference_markdown

ROOT = Path(__file__).parents[3]
BROKEN = "trust_domain: demo.mesh\nservices:\n  orders:\n    allow:\n      - form: web\n        method: get\n"
ODD = "trust_domain: demo.mesh\nservices:\n  orders:\n    inbound: [{app: '127.0.0.1:1'}]\n"
GOOD = ODD + "    allow: [{from: web, method: GET, path: '/orders/{id}'}]\n  web: {}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that we are in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    """`mesh check` with these arguments."""
    return CliRunner().invoke(check, arguments, standalone_mode=False)


def test_mistakes_are_printed_like_a_compilers_with_line_and_caret(folder: Path) -> None:
    (folder / "mesh.yaml").write_text(BROKEN)
    result = run()
    assert result.return_value == 1
    assert result.output == (
        'mesh.yaml:5:9: services.orders.allow[0].form: unknown key; did you mean "from"? [MESH001]\n'
        "    5 |       - form: web\n"
        "      |         ^\n"
        'mesh.yaml:6:17: services.orders.allow[0].method: "get" is not allowed; did you mean "GET"? [MESH001]\n'
        "    6 |         method: get\n"
        "      |                 ^\n"
        "2 mistakes\n"
    )


def test_mistakes_for_programs(folder: Path) -> None:
    (folder / "a.yaml").write_text(BROKEN)
    result = run("-f", "a.yaml", "-o", "json")
    assert result.return_value == 1
    document = json.loads(result.output)
    assert (document["file"], document["ok"], document["warnings"], document["rules"]) == ("a.yaml", False, [], [])
    assert document["mistakes"][0] == {
        "file": "a.yaml",
        "line": 5,
        "column": 9,
        "path": "services.orders.allow[0].form",
        "message": "unknown key",
        "hint": 'did you mean "from"?',
        "code": "MESH001",
    }


def test_a_good_config_is_read_back_in_plain_english(folder: Path) -> None:
    (folder / "mesh.yaml").write_text(GOOD)
    result = run()
    assert result.return_value == 0
    assert result.output == "orders: web may GET /orders/{id}\nmesh.yaml: no mistakes in 2 services\n"


def test_a_good_config_for_programs(folder: Path) -> None:
    (folder / "mesh.yaml").write_text(GOOD)
    result = run("-o", "json")
    assert result.return_value == 0
    assert json.loads(result.output) == {
        "file": "mesh.yaml",
        "ok": True,
        "mistakes": [],
        "warnings": [],
        "rules": ["orders: web may GET /orders/{id}"],
        "files": ["mesh.yaml"],
    }


def test_warnings_do_not_fail(folder: Path) -> None:
    (folder / "mesh.yaml").write_text(ODD)
    result = run()
    assert result.return_value == 0
    first, *_, last = result.output.splitlines()
    assert first.startswith("mesh.yaml:3:3: warning: services.orders: nobody may call this service")
    assert last == "mesh.yaml: no mistakes in 1 service, 1 warning"
    (warning,) = json.loads(run("-o", "json").output)["warnings"]
    assert (warning["path"], warning["code"]) == ("services.orders", "MESH020")


def test_a_code_is_explained_with_an_example_and_the_same_mended() -> None:
    result = run("--explain", "mesh031")
    assert result.return_value == 0
    for words in ("MESH031: a rule that never decides (warning)", "Why: The first rule", "To do: ", "Wrong:", "Right:"):
        assert words in result.output
    assert max(map(len, result.output.splitlines())) <= 120
    assert json.loads(run("--explain", "MESH012", "-o", "json").output)["severity"] == "mistake"


def test_a_code_that_does_not_exist_names_the_nearest() -> None:
    result = run("--explain", "MESH32")
    assert isinstance(result.exception, Failure)
    assert result.exception.code == 2
    assert 'did you mean "MESH0' in result.exception.advice


def test_all_codes_are_printed_for_people_and_for_programs() -> None:
    assert run("--codes").output == lint_markdown()
    assert [code["code"] for code in json.loads(run("--codes", "-o", "json").output)] == list(CODES)


def test_a_missing_file_is_one_mistake(folder: Path) -> None:
    result = run()
    assert result.return_value == 1
    assert result.output == (
        "mesh.yaml: cannot read: No such file or directory; name another with -f, or begin with the demo's: "
        "mesh up --show-config > mesh.yaml [MESH001]\n1 mistake\n"
    )


def test_lines_of_included_files_are_quoted_from_them(folder: Path) -> None:
    (folder / "mesh.yaml").write_text("trust_domain: demo.mesh\ninclude: a.yaml\n")
    (folder / "a.yaml").write_text("services:\n  a: {colour: 1}\n")
    assert run().output.splitlines()[:2] == [
        "a.yaml:2:7: services.a.colour: unknown key; valid here: identity, address, zone, run, env, inbound, "
        "outbound, forward_proxy, redirect, allow, deny, opa, grants, rates, quotas, redis, detectors, owner, health, "
        "unsafe_allow_bypass, workload_api, identity_source, timeouts, limits, access_log, audit, tls, revocation "
        "[MESH001]",
        "    2 |   a: {colour: 1}",
    ]


def test_a_long_line_is_cut_around_the_place(folder: Path) -> None:
    (folder / "mesh.yaml").write_text(f"trust_domain: demo.mesh\nservices: {{a: {{run: {'x' * 500}, colour: 1}}}}\n")
    _, line, caret, _ = run().output.splitlines()
    assert len(line) < 120
    assert line[caret.index("^") :].startswith("colour")


def test_schema_prints_what_the_reader_reads() -> None:
    assert json.loads(CliRunner().invoke(schema).output) == json_schema()
    assert CliRunner().invoke(schema, ["--markdown"]).output == reference_markdown()


def test_neither_verb_starts_trio() -> None:
    script = (
        "import sys, sidecar.cli.check, sidecar.cli.schema, sidecar.config.load, sidecar.config.reference;"
        "import sidecar.config.sentences; sys.exit('trio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
