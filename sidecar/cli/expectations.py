"""`mesh test`: whether what files expect of the rules holds. How they are written is in
`sidecar.config.expectations`, how each is judged in `sidecar.policy.expected`.
"""
# ruff: noqa: PTH207 - patterns stay text, absolute or not; pathlib's glob knows only one kind

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from sidecar.cli.console import Code, Failure, output_option, print_json, print_table

if TYPE_CHECKING:
    from sidecar.config.expectations import Expectation
    from sidecar.config.mistakes import Mistake
    from sidecar.config.schema import MeshConfig
    from sidecar.policy.expected import Said

NAMES = ("mesh-test.yaml", "*.mesh-test.yaml")  # what is looked for in folders
EXAMPLES = """\b
Examples:
  mesh test
  mesh test orders/mesh-test.yaml -f deploy/mesh.yaml
  mesh test 'services/*/policy/*.yaml' --junit mesh-test.xml
  mesh test -o json"""


@dataclass(frozen=True, slots=True)
class Tried:
    """An expectation and what was said."""

    test: Expectation
    said: Said
    status: int  # that the refusal has; 0 for none

    @property
    def holds(self) -> bool:
        """Whether it is as expected, and by that rule."""
        as_expected = self.test.expect in (self.said.verdict, str(self.status))
        return as_expected and self.test.rule in ("", self.said.rule)

    @property
    def expected(self) -> str:
        """In words, like `deny by rule 'no-admin'`."""
        return _by(self.test.expect, self.test.rule)

    @property
    def instead(self) -> str:
        """The same of what was said."""
        status = f" {self.status}" if self.status else ""
        return _by(f"{self.said.verdict}{status}", self.said.rule)

    @property
    def line(self) -> str:
        """What failed, in a line."""
        from sidecar.policy.differences import safe

        test = self.test
        return safe(f"{test.where}: {test.name}: expected {self.expected}, said {self.instead}: {self.said.why}")

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        test, said = self.test, self.said
        return {
            "file": test.where.file, "line": test.where.line, "name": test.name, "from": test.caller,
            "to": test.called, "holds": self.holds, "expect": test.expect, "expect_rule": test.rule,
            "verdict": said.verdict, "status": self.status, "rule": said.rule,
            "error": said.error.name if said.error is not None else "", "why": said.why,
        }  # fmt: skip


def _complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    return [CompletionItem(begun, type="file")]


@click.command(epilog=EXAMPLES)
@click.argument("places", nargs=-1, metavar="[FILE|FOLDER|PATTERN]...", shell_complete=_complete)
@click.option("-f", "--file", default="mesh.yaml", show_default=True, help="The config, for files that name none.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Also write a JUnit XML file.")
@output_option
def test(places: tuple[str, ...], file: str, junit: Path | None, output: str) -> int:
    """Whether the rules say what files beside your code expect, by the proxy's own decision; for CI.

    In a FOLDER (without any: this one and those in it) mesh-test.yaml and *.mesh-test.yaml are read. Exit code 0: all
    hold, 1: some do not, 2: a file or the config has mistakes.
    """
    rows = _tried(_files(places), file)
    if junit is not None:
        _write(junit, _junit(rows))
    if output == "json":
        print_json({"ok": all(row.holds for row in rows), "tests": [row.to_json() for row in rows]})
    else:
        _show(rows)
    return Code.OK if all(row.holds for row in rows) else Code.NEGATIVE


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as error:
        why = f"{file} cannot be written: {error.strerror}."
        raise Failure(why, "Its folder has to be there.", Code.USAGE) from None


def _files(places: Sequence[str]) -> list[str]:
    """The files that are meant, each once. Raises Failure where a place means none."""
    found: dict[str, None] = {}
    for place in places or (".",):
        here = [place] if os.path.lexists(place) else sorted(glob.glob(place, recursive=True))
        files = [file for each in here for file in (sorted(_below(each)) if Path(each).is_dir() else [each])]
        if not files:
            wanted = f"In folders, {' and '.join(NAMES)} are read; see `mesh test --help`."
            where = "this folder" if place == "." else place
            raise Failure(f"there are no expectations in {where}.", wanted, Code.USAGE)
        found.update(dict.fromkeys(map(os.path.normpath, files)))
    return list(found)


def _below(folder: str) -> Iterator[str]:
    """The files with expectations in a folder and those in it; hidden ones are passed over."""
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "node_modules"]
        yield from (str(Path(here, name)) for name in names if any(Path(name).match(each) for each in NAMES))


def _tried(files: Sequence[str], default: str) -> list[Tried]:
    """Every expectation with what was said of it. Raises ConfigErrors with every mistake of files and configs."""
    from sidecar.config.mistakes import ConfigErrors
    from sidecar.policy.expected import said_of
    from sidecar.proxy.respond import status_of

    now = time.time()
    wrong: list[Mistake] = []
    configs = _Configs(now)
    asked: list[tuple[Expectation, MeshConfig]] = []
    for file in files:
        tests, mistakes = _read(file, default, configs)
        asked += tests
        wrong += mistakes
    if wrong or configs.mistakes:
        raise ConfigErrors((*configs.mistakes, *wrong))
    told = [(each, said_of(each, config, now)) for each, config in asked]
    return [Tried(each, said, status_of(said.error) if said.error and said.answered else 0) for each, said in told]


class _Configs:
    """The configs that files name, each read once."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._read: dict[str, MeshConfig | None] = {}
        self.mistakes: list[Mistake] = []

    def get(self, path: str) -> MeshConfig | None:
        """That of this path; None where it has mistakes, which are kept."""
        from sidecar.config.load import load_config
        from sidecar.config.mistakes import ConfigErrors

        if path not in self._read:
            try:
                self._read[path] = load_config(path, self._now)
            except ConfigErrors as errors:
                self._read[path] = None
                self.mistakes += errors.mistakes
        return self._read[path]


def _read(
    file: str, default: str, configs: _Configs
) -> tuple[list[tuple[Expectation, MeshConfig]], list[Mistake]]:
    """The expectations of a file, each with the config that it is about; and the file's mistakes."""
    from sidecar.config.expectations import complete, read_expectations
    from sidecar.config.mistakes import Book, TooMany
    from sidecar.policy.expected import mistakes

    book, tests = Book(), []
    try:
        draft = read_expectations(file, book)
        named = draft.values.get("config") if draft is not None else None
        config = configs.get(os.path.normpath(Path(file).parent / named) if named else default)
        book.stage = "MESH002"
        for path, test in complete(draft) if draft is not None else ():
            if config is not None:
                mistakes(test, path, config, book)
                tests.append((test, config))
    except TooMany:
        pass
    return tests, sorted(book.mistakes, key=lambda each: (each.where.line, each.where.column))


def _show(rows: Sequence[Tried]) -> None:
    from sidecar.policy.differences import safe

    cells = [
        ("holds" if row.holds else "FAILS", *map(safe, (
            row.test.name, f"{row.test.caller or 'nobody'} → {row.test.called}",
            f"{row.test.request.method} {row.test.request.path}", row.expected, row.instead,
        )))
        for row in rows
    ]  # fmt: skip
    print_table(
        ("", "test", "who", "request", "expected", "said"), cells,
        colour=lambda number: "green" if rows[number].holds else "red",
    )  # fmt: skip
    failing = [row for row in rows if not row.holds]
    for row in failing:
        click.secho(row.line, fg="red")
    count = f"{len(rows)} expectation{'s' if len(rows) != 1 else ''}"
    click.secho(f"{count}: {f'{len(failing)} not as expected' if failing else 'all hold'}", bold=True)


def _junit(rows: Sequence[Tried]) -> bytes:
    """As JUnit writes it: a suite for each file, a case for each expectation."""
    from xml.etree import ElementTree as Xml

    root = Xml.Element("testsuites", name="mesh test")
    for file in dict.fromkeys(row.test.where.file for row in rows):
        ours = [row for row in rows if row.test.where.file == file]
        failed = sum(not row.holds for row in ours)
        suite = Xml.SubElement(root, "testsuite", name=file, tests=str(len(ours)), failures=str(failed))
        for row in ours:
            line = str(row.test.where.line)
            case = Xml.SubElement(suite, "testcase", classname=file, name=row.test.name, file=file, line=line)
            if not row.holds:
                said = f"expected {row.expected}, said {row.instead}"
                Xml.SubElement(case, "failure", message=said, type="expectation").text = row.line
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True))


def _by(verdict: str, rule: str) -> str:
    return f"{verdict} by rule {rule!r}" if rule else verdict
