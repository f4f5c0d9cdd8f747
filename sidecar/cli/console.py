"""How verbs speak: exit codes, one-line errors with advice, tables, JSON, durations.

Light on purpose: click and the standard library. Only the live table of `mesh up` is drawn by rich.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Output = Literal["text", "json"]


class Code(IntEnum):
    """What `mesh` exits with. `mesh run -- CMD` exits with the command's own code instead, 128+n after signal n."""

    OK = 0
    NEGATIVE = 1  # the answer is no: refused, not ready, invalid, not found
    USAGE = 2  # the arguments or the config are wrong; nothing was done
    UNREACHABLE = 3  # somebody we must talk to does not answer: no sidecar, no CA, a port taken
    INTERNAL = 70  # a fault of ours (sysexits.h EX_SOFTWARE)
    INTERRUPTED = 130  # 128 + SIGINT


class Failure(click.ClickException):
    """The verb cannot go on: one line of what happened, one of what to do about it."""

    def __init__(self, what: str, advice: str = "", code: Code = Code.NEGATIVE) -> None:
        super().__init__(what)
        self.advice = advice
        self.code = code

    def show(self, file: Any = None) -> None:
        """Print both lines on standard error."""
        click.secho(f"mesh: {self.message}", file=file or sys.stderr, fg="red", bold=True)
        for line in self.advice.splitlines():
            click.echo(f"      {line}", file=file or sys.stderr)


def output_option(command: F) -> F:
    """Give a verb `-o json`; its function receives `output`."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        help="text for people, json for programs.",
    )
    return option(command)


def list_whole(group: click.Group) -> None:
    """Let `--help` of this group say of each command its whole first sentence; click would cut it to fit one line."""
    for command in group.commands.values():
        command.short_help = command.get_short_help_str(limit=1000)
        if isinstance(command, click.Group):
            list_whole(command)


def print_json(value: object) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, colour: Callable[[int], str] | None = None
) -> None:
    """Print rows under headings; `colour` names a row's colour, for a terminal.

    On a terminal that is too narrow for the table each row becomes a block of `name  value` lines: an address or a
    serial that is broken in two can neither be read nor pasted.
    """
    heading, *lines = plain_table(columns, rows)
    colours = [colour(number) if colour else None for number in range(len(rows))]
    if sys.stdout.isatty() and max(map(len, (heading, *lines))) > shutil.get_terminal_size().columns:
        for row, shade in zip(rows, colours, strict=True):
            click.secho(row[0], bold=True, fg=shade or None)
            print_facts([(f"  {name}", cell) for name, cell in zip(columns[1:], row[1:], strict=True)])
        return
    click.secho(heading, bold=True)
    for line, shade in zip(lines, colours, strict=True):
        click.secho(line, fg=shade or None)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The same as lines of text, columns aligned by blanks."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print `name  value` lines; an empty value leaves its line out."""
    shown = [(name, value) for name, value in facts if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name:<{width}}  {value}")


def safe(text: object) -> str:
    """What a caller wrote, so that it does not move our terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text or ""))


def span(seconds: float) -> str:
    """A duration for people, without its sign, in its two largest units: `45 s`, `23 h 59 m`, `2 d 3 h`."""
    seconds = abs(seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} m {int(seconds % 60)} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} m"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def remaining(not_after: float | None, now: float) -> str:
    """How long a certificate still holds: `23 h 59 m`, `expired 5 m 0 s ago`, or `-` where there is none."""
    if not not_after:
        return "-"
    return span(not_after - now) if not_after > now else f"expired {span(now - not_after)} ago"


def our_name() -> str:
    """How this very command can be called again from here: `mesh`, or where that is not on the PATH its place."""
    called = Path(sys.argv[0])
    if shutil.which("mesh") == str(called.absolute()) or called.name != "mesh":
        return "mesh"
    try:
        return str(called.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(called)


def parse_duration(text: str) -> float:
    """Read `20s`, `500ms`, `5m`, `1h` or bare seconds. Raises click.BadParameter."""
    for suffix, unit in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0), ("", 1.0)):
        if text.endswith(suffix):
            try:
                value = float(text[: len(text) - len(suffix)]) * unit
            except ValueError:
                break
            if 0 < value < float("inf"):
                return value
            break
    raise click.BadParameter(f"{text!r} is not a duration: say 20s, 500ms, 5m or 1h")


class Duration(click.ParamType[float]):
    """A click parameter in seconds, written like durations in `mesh.yaml`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of this text."""
        return value if isinstance(value, float) else parse_duration(str(value))
