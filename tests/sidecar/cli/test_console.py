"""How verbs speak: durations read and written, tables without a terminal."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from sidecar.cli.console import Failure, our_name, parse_duration, plain_table, print_table, remaining, span


@pytest.mark.parametrize(
    ("text", "seconds"), [("20s", 20.0), ("500ms", 0.5), ("5m", 300.0), ("1h", 3600.0), ("2d", 172800.0), ("1.5", 1.5)]
)
def test_a_duration_is_written_as_in_the_config(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "20 parsecs", "-1s", "0", "inf", "nan", "1e999", "s20"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 m 0 s"), (3599, "59 m 59 s"), (86399, "23 h 59 m"), (200000, "2 d 7 h")],
)
def test_a_span_is_told_in_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(("not_after", "text"), [(160.0, "1 m 0 s"), (95.0, "expired 5 s ago"), (None, "-"), (0, "-")])
def test_what_remains_of_a_certificate(not_after: float | None, text: str) -> None:
    assert remaining(not_after, 100.0) == text


def test_columns_are_aligned_without_trailing_blanks() -> None:
    assert plain_table(("a", "long"), [("xyz", "1"), ("", "22")]) == ["a    long", "xyz  1", "     22"]


@pytest.mark.parametrize(
    ("terminal", "columns", "shown"),
    [
        (True, 20, "name   serial\nweb    0a1b2c3d4e5f"),
        (True, 12, "web\n  serial  0a1b2c3d4e5f"),  # a line of a block may be longer still, but breaks where it likes
        (False, 12, "name   serial\nweb    0a1b2c3d4e5f"),
    ],
)
def test_no_cell_is_broken_in_two_on_a_narrow_terminal(
    terminal: bool, columns: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(("name ", "serial"), [("web", "0a1b2c3d4e5f")], colour=lambda _: "red")
    assert click.unstyle(capsys.readouterr().out) == shown + "\n"


def test_a_failure_says_what_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    Failure("port 1 is taken.", "take another\nor wait").show()
    assert capsys.readouterr().err == "mesh: port 1 is taken.\n      take another\n      or wait\n"


def test_a_command_to_paste_names_the_program_as_it_can_be_called_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / ".venv" / "bin" / "mesh"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(program), "up"])
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    assert our_name() == ".venv/bin/mesh"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert our_name() == str(program)
    monkeypatch.setenv("PATH", f"/usr/bin:{program.parent}")
    assert our_name() == "mesh"
