"""What every `mesh ca` command shares: the directory, the passphrase, JSON or a table, errors and exit codes.

0 is done, 1 refused or failed, 2 a mistake in the command line. Results go to standard output, all else to standard
error.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from ca.config import STORE_FILE, CaSettings, load_settings
from ca.durations import parse_duration
from ca.store.sqlite import SqliteStore
from certs.enrolment import check_address
from certs.errors import IdentityError, InvalidSpiffeId, MeshError
from certs.spiffe import TrustDomain

MIN_PASSPHRASE = 8  # characters: the floor of NIST SP 800-63B; a generated one should be far longer
MAX_PASSPHRASE = 1024

A_FILE = click.Path(path_type=Path, dir_okay=False)
READABLE = click.Path(path_type=Path, dir_okay=False, exists=True)

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except MeshError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{place}{error.strerror or error}") from error


class CaCommand(click.Command):
    """A command whose understood errors end as one line on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. Raises click's own exceptions only."""
        with _plain_errors():
            return super().invoke(ctx)


class CaGroup(click.Group):
    """A group that does something by itself, with errors like those of a command."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. Raises click's own exceptions only."""
        with _plain_errors():
            return super().invoke(ctx)


class Duration(click.ParamType[float]):
    """`24h`, `30d`, …, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail with exit code 2."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class HostPort(click.ParamType[str]):
    """`127.0.0.1:17012`."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it, or fail with exit code 2."""
        try:
            return check_address(value) if not value.endswith(":0") else value
        except IdentityError as error:
            self.fail(str(error), param, ctx)


class Domain(click.ParamType[TrustDomain]):
    """A trust domain."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> TrustDomain:
        """Read it, or fail with exit code 2."""
        if isinstance(value, TrustDomain):
            return value
        try:
            return TrustDomain.parse(value)
        except InvalidSpiffeId as error:
            self.fail(str(error), param, ctx)


def default_directory() -> Path:
    """`$MESH_STATE_DIR/ca`, else `~/.local/state/mesh/ca`."""
    state = os.environ.get("MESH_STATE_DIR")
    return (Path(state) if state else Path.home() / ".local" / "state" / "mesh") / "ca"


def to_paste(verb: str, directory: Path) -> str:
    """`mesh ca VERB`, as it can be pasted: with `--dir` where this is not the usual directory."""
    where = "" if directory.absolute() == default_directory().absolute() else f" --dir {shlex.quote(str(directory))}"
    return f"mesh ca {verb}{where}"


def dir_option(command: F) -> F:
    """`--dir`: which CA."""
    path = click.Path(path_type=Path, file_okay=False)
    text = "The CA's directory.  [default: $MESH_STATE_DIR/ca, else ~/.local/state/mesh/ca]"
    return click.option("--dir", "directory", type=path, default=default_directory, help=text)(command)


def output_option(command: F) -> F:
    """`-o json`."""
    kinds = click.Choice(["text", "json"])
    text = "text for people, json for programs."
    return click.option("-o", "--output", type=kinds, default="text", help=text)(command)


def enrolment_file_options(command: F) -> F:
    """`--ca-address`, `--out` and `--force`, of whatever writes an enrolment file."""
    out = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
    command = click.option("--force", is_flag=True, help="Replace an existing file.")(command)
    command = click.option("--out", type=out, help="File to write; - prints.")(command)
    text = "Where sidecars reach the CA.  [default: as given to init]"
    return click.option("--ca-address", type=HostPort(), help=text)(command)


def passphrase_option(command: F) -> F:
    """`--passphrase-file`."""
    path = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)
    text = "File with the passphrase on its first line (- for standard input). Without it you are asked."
    return click.option("--passphrase-file", type=path, envvar="MESH_CA_PASSPHRASE_FILE", help=text)(command)


def read_passphrase(file: Path | None, *, new: bool) -> bytes:
    """The passphrase, from a file or a prompt; a new one is asked for twice and must be long enough."""
    if file is not None:
        text = _first_line(file)
    elif sys.stdin.isatty():
        text = click.prompt("Passphrase of the CA", hide_input=True, confirmation_prompt=new, err=True)
    else:
        raise click.UsageError("no passphrase: give --passphrase-file FILE, or run this on a terminal to be asked")
    if not text or len(text) > MAX_PASSPHRASE:
        raise click.ClickException("the passphrase is empty" if not text else "the passphrase is too long")
    if new and len(text) < MIN_PASSPHRASE:
        raise click.ClickException(f"the passphrase is too short: at least {MIN_PASSPHRASE} characters are needed")
    return text.encode()


def _first_line(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.readline().rstrip("\r\n")
    mode = file.stat().st_mode
    # the group may read it: Kubernetes gives a secret's files to root, and to the group of the pod (`fsGroup`)
    if stat.S_ISREG(mode) and mode & (stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO):
        click.echo(f"warning: {file} is open to others; make it private: chmod 600 {file}", err=True)
    try:
        with file.open(encoding="utf-8") as lines:
            return lines.readline(MAX_PASSPHRASE + 2).rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8 text") from None


@contextmanager
def opened(directory: Path) -> Iterator[tuple[CaSettings, SqliteStore]]:
    """The CA in this directory, its store open. The server need not run. Raises NoCa, DamagedCa, StoreUnavailable."""
    settings = load_settings(directory)
    store = SqliteStore(directory / STORE_FILE)
    try:
        yield settings, store
    finally:
        store.close()


def print_result(output: str, document: Any, lines: Iterable[str]) -> None:
    """The result: the document as JSON, or the lines for people."""
    if output == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        for line in lines:
            click.echo(line)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> list[str]:
    """Aligned columns under their titles, or the sentence for none."""
    if not rows:
        return [empty]
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (titles, *rows)]
    if sys.stdout.isatty() and max(map(len, lines)) > shutil.get_terminal_size().columns:
        return list(_blocks(titles, rows))
    return [line.rstrip() for line in lines]


def _blocks(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows one under another: a serial that is broken in two can neither be read nor pasted."""
    width = max(map(len, titles))
    for row in rows:
        yield f"{titles[0]} {row[0]}".lstrip()
        for title, cell in zip(titles[1:], row[1:], strict=True):
            yield f"  {title.ljust(width)}  {cell}".rstrip()


def moment(seconds: float) -> str:
    """A time for people: UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
