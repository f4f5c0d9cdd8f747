"""`mesh check`: every mistake in a config at once, like a compiler; or what the config says, in plain English.

Each finding has a code; `--explain CODE` says why it matters and how to mend it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.console import Code, Failure, output_option, print_json

if TYPE_CHECKING:
    from sidecar.config.load import Loaded
    from sidecar.config.mistakes import ConfigErrors, Mistake

WIDTH = 100  # of a quoted line


EXAMPLES = """\b
Examples:
  mesh check
  mesh check -f deploy/mesh.yaml -o json
  mesh check --ca-dir ca
  mesh check --explain MESH031"""


@click.command(epilog=EXAMPLES)
@click.option("-f", "--file", default="mesh.yaml", show_default=True, help="The config; what it includes is read too.")
@click.option(
    "--ca-dir", type=click.Path(path_type=Path), help="The CA's folder: with whom it federates is no warning then."
)
@click.option("--explain", "code", metavar="CODE", help="Why a finding like MESH031 matters, and how to mend it.")
@click.option("--codes", is_flag=True, help="Every code there is, in Markdown (docs/lint.md).")
@output_option
def check(file: str, ca_dir: Path | None, code: str | None, codes: bool, output: str) -> int:
    """Every mistake in a config with its place, and what its rules say in plain English.

    Exit code 0: no mistakes (warnings do not count). 1: mistakes.
    """
    if code is not None or codes:
        return _show_codes(code, output)
    from sidecar.config.load import load
    from sidecar.config.mistakes import ConfigErrors

    try:
        loaded = load(file, time.time())
    except ConfigErrors as errors:
        _show_mistakes(file, errors, output)
        return Code.NEGATIVE
    _show_reading(file, loaded if ca_dir is None else _settled(loaded, ca_dir), output)
    return Code.OK


def _settled(loaded: Loaded, ca_dir: Path) -> Loaded:
    """The same without the warnings about trust domains that this CA federates with."""
    from ca.cli_common import opened
    from sidecar.config.foreign import still_open

    with opened(ca_dir) as (_, store):
        federated = [partner.trust_domain for partner in store.partners()]
    return replace(loaded, warnings=still_open(loaded.warnings, federated))


def _show_codes(wanted: str | None, output: str) -> int:
    """One code, or all of them. Raises Failure for one that does not exist."""
    from sidecar.config.codes import CODES, lint_markdown
    from sidecar.config.mistakes import meant

    if wanted is None:
        if output == "json":
            print_json([code.to_json() for code in CODES.values()])
        else:
            click.echo(lint_markdown(), nl=False)
        return Code.OK
    found = CODES.get(wanted.upper())
    if found is None:
        raise Failure(f"there is no code {wanted!r}.", meant(wanted.upper(), list(CODES), what="there are"), Code.USAGE)
    if output == "json":
        print_json(found.to_json())
    else:
        click.echo(found.render(), nl=False)
    return Code.OK


def _show_mistakes(file: str, errors: ConfigErrors, output: str) -> None:
    if output == "json":
        mistakes = [mistake.to_json() for mistake in errors.mistakes]
        print_json({"file": file, "ok": False, "mistakes": mistakes, "warnings": [], "rules": []})
        return
    for mistake in errors.mistakes:
        _quote(mistake, errors.sources, "red", "")
    click.secho(_count(len(errors.mistakes), "mistake"), bold=True)


def _show_reading(file: str, loaded: Loaded, output: str) -> None:
    from sidecar.config.sentences import sentences

    rules = sentences(loaded.config)
    if output == "json":
        warnings = [warning.to_json() for warning in loaded.warnings]
        files = list(loaded.config.files)
        print_json({"file": file, "ok": True, "mistakes": [], "warnings": warnings, "rules": rules, "files": files})
        return
    for warning in loaded.warnings:
        _quote(warning, loaded.sources, "yellow", "warning: ")
    for line in rules:
        click.echo(line)
    services = _count(len(loaded.config.services), "service")
    warned = f", {_count(len(loaded.warnings), 'warning')}" if loaded.warnings else ""
    click.secho(f"{file}: no mistakes in {services}{warned}", bold=True)


def _quote(mistake: Mistake, sources: Mapping[str, str], colour: str, prefix: str) -> None:
    """One mistake, its line, and a caret under the place."""
    place, _, rest = str(mistake).partition(": ")
    click.echo(click.style(f"{place}: ", bold=True) + click.style(f"{prefix}{rest}", fg=colour))
    for line in excerpt(mistake, sources):
        click.echo(line)


def excerpt(mistake: Mistake, sources: Mapping[str, str]) -> Sequence[str]:
    """The line that is meant and a caret under its column; nothing where the place is no line of a file."""
    from sidecar.config.document import lines_of

    lines = lines_of(sources.get(mistake.where.file, ""))
    if not 0 < mistake.where.line <= len(lines) or not lines[mistake.where.line - 1].strip():
        return ()
    line = lines[mistake.where.line - 1].replace("\t", " ")
    column = max(mistake.where.column - 1, 0)
    start = max(0, column - WIDTH + 20) if len(line) > WIDTH else 0
    number = f"{mistake.where.line:>5} | "
    return (f"{number}{line[start : start + WIDTH]}", f"{' ' * (len(number) - 2)}| {' ' * (column - start)}^")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
