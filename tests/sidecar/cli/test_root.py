"""`mesh` itself: every verb is there and documented, mistakes are two lines, and it answers fast."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from sidecar import __version__
from sidecar.cli.root import VERBS, mesh, run_command

HERE = Path(__file__).resolve().parents[3]
HEAVY = ("trio", "cryptography", "OpenSSL", "rich", "yaml")


def test_the_version_is_the_distribution_s() -> None:
    assert tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["version"] == __version__


@pytest.mark.parametrize("name", list(VERBS))
def test_each_verb_can_be_imported_and_has_help_with_its_first_line(name: str) -> None:
    context = click.Context(mesh)
    command = mesh.get_command(context, name)
    assert command is not None
    assert command.help
    assert command.get_short_help_str(200)


def test_help_lists_every_verb_in_its_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0
    text = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert f"{verb.section}:" in text
        assert f"  {name} " in text
    assert "Exit codes" in text


def test_an_unknown_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["stauts"]) == 2
    assert "Did you mean `mesh status`?" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["status", "--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err


def test_our_own_fault_keeps_its_traceback_and_has_its_own_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(mesh, "main", broken)
    assert run_command([]) == 70
    assert "RuntimeError: a bug" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_the_program(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["completion", shell]) == 0
    assert "_MESH_COMPLETE" in capfd.readouterr().out


def mesh_process(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "sidecar.cli", *arguments]


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["status", "--ready"], 3)])
def test_health_checks_import_nothing_heavy(arguments: list[str], code: int, tmp_path: Path) -> None:
    """The 120 ms of the decisions, held by what costs the time: these modules take 30 to 200 ms each."""
    script = (
        "import sys; from sidecar.cli.root import run_command; code = run_command(sys.argv[2:]);"
        "print(*(name for name in sys.argv[1].split(',') if name in sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, ",".join(HEAVY), *arguments],
        capture_output=True, text=True, timeout=30, env={"MESH_RUN_DIR": str(tmp_path), "PYTHONPATH": str(HERE)},
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == ""


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" | true; exit 0', "sh", *mesh_process("--help")],
        stderr=subprocess.PIPE, cwd=HERE,
    )  # fmt: skip
    _, errors = process.communicate(timeout=30)
    assert errors == b""
