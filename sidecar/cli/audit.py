"""`mesh audit`: whether the record still says what was written, and what it says."""

from __future__ import annotations

import gzip
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from sidecar.cli.console import Code, Failure, list_whole, output_option, print_json

if TYPE_CHECKING:
    from sidecar.telemetry.audit_verify import Report, Witness

A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PROGRESS_BYTES = 64 * 1024 * 1024
EXAMPLES = "\b\nExamples:\n  mesh audit verify audit.jsonl\n  mesh audit show audit.jsonl --kind refusal"


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """The record of who was let in and who was not (`audit` of a service): verify it, or look for something in it."""


@audit.command(
    epilog="\b\nExamples:\n  mesh audit verify audit.jsonl.2.gz audit.jsonl.1 audit.jsonl\n"
    "  mesh audit verify audit.jsonl --witness orders.heads --root 3f5c…"
)
@click.argument("files", nargs=-1, required=True, type=A_FILE)
@click.option(
    "--witness", "kept", multiple=True, type=A_FILE, help="Heads that the CA has witnessed (`mesh ca log audits`)."
)
@click.option("--root", "roots", multiple=True, metavar="SHA256", help="The mesh's root, which must vouch for them.")
@output_option
def verify(files: tuple[Path, ...], kept: tuple[Path, ...], roots: tuple[str, ...], output: str) -> int:
    """Find any line that was changed, dropped, moved or slipped in, in these files of one sidecar (also .gz). Their
    order does not matter.

    By its chain alone a record cannot show that its end was cut off, or that all of it from some line on was written
    anew. With --witness it can, up to the last line that the CA has witnessed.

    Exit code 1: it does not hold; 2: a file cannot be read.
    """
    from sidecar.telemetry.audit_verify import Verifier, in_order

    witnesses, shown = _witnesses(kept, roots)
    names = {str(path): path for path in files}
    try:
        verifier = Verifier(witnesses)
        for name in in_order((name, _beginning(path)) for name, path in names.items()):
            with _opened(names[name]) as file:
                verifier.read(name, file, _Progress(name))
    except (OSError, EOFError) as error:
        raise click.UsageError(f"{name}: {error}") from None
    report = verifier.finish()
    if output == "json":
        print_json({**report.as_json(), "root_sha256": shown})
    else:
        _print(report, shown, bool(roots))
    return Code.OK if report.ok else Code.NEGATIVE


@audit.command(epilog="\b\nExamples:\n  mesh audit show audit.jsonl --kind refusal --since 1h\n"
               "  mesh audit show audit.jsonl --caller spiffe://demo.mesh/web")
@click.argument("files", nargs=-1, required=True, type=A_FILE)
@click.option("--kind", "kinds", multiple=True, help="Only lines of this kind: refusal, handshake, admin …")
@click.option("--caller", help="Only lines that name this caller or peer, a SPIFFE ID or its last part.")
@click.option("--since", help="Only lines after this: 15m, 2h, 7d ago, or the beginning of an RFC 3339 time.")
def show(files: tuple[Path, ...], kinds: tuple[str, ...], caller: str | None, since: str | None) -> int:
    """Print lines of the record as they are, one JSON object each."""
    after = _moment(since)
    for path in files:
        with _opened(path) as file:
            for line in file:
                found = _object(line)
                if found is not None and _wanted(found, kinds, caller, after):
                    click.echo(line.rstrip(b"\n"))
    return Code.OK


def _wanted(line: dict[str, Any], kinds: tuple[str, ...], caller: str | None, after: str) -> bool:
    if kinds and line.get("kind") not in kinds:
        return False
    if caller is not None:
        who = [str(line.get(key, "")) for key in ("caller", "peer")]
        if not any(name and (name == caller or name.endswith(f"/{caller}")) for name in who):
            return False
    return str(line.get("time", "")) >= after


def _moment(since: str | None) -> str:
    from sidecar.cli.console import parse_duration
    from sidecar.telemetry.clock import rfc3339

    if since is None:
        return ""
    return since if since[:4].isdigit() and "-" in since else rfc3339(time.time() - parse_duration(since))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _witnesses(kept: tuple[Path, ...], roots: tuple[str, ...]) -> tuple[list[Witness], list[str]]:
    """The heads in these files, and the roots that vouch for them. Raises Failure."""
    if not kept:
        if roots:
            raise click.UsageError("--root is about files of --witness")
        return [], []
    from certs.audit_heads import WitnessFile
    from certs.signed import InvalidStatement
    from sidecar.telemetry.audit_verify import Witness

    found, shown = [], []
    for path in kept:
        try:
            read = WitnessFile.read(json.loads(path.read_bytes()))
        except InvalidStatement as error:
            raise Failure(f"{path} cannot be believed: {error}", "export it anew: mesh ca log audits") from None
        except (ValueError, OSError) as error:
            raise click.UsageError(f"{path}: {error}") from None
        if roots and not set(read.roots) <= {root.lower() for root in roots}:
            raise Failure(f"{path} is vouched for by other roots: {', '.join(read.roots)}", "is it of another mesh?")
        shown += [root for root in read.roots if root not in shown]
        found += [
            Witness(head.service.text, head.chain, head.number, head.hash, each.at) for head, each in read.heads
        ]
    return found, shown


def _print(report: Report, roots: list[str], pinned: bool) -> None:
    from sidecar.telemetry.clock import rfc3339

    for finding in report.findings:
        click.secho(f"BROKEN {finding}", fg="red")
    if report.more:
        click.secho(f"BROKEN and {report.more} more", fg="red")
    for note in report.notes:
        click.echo(f"note: {note}")
    for chain in report.chains.values():
        click.echo(f"chain {chain.chain}: lines {chain.first} to {chain.last}")
        if chain.witnessed_to:
            at = rfc3339(chain.witnessed_at)
            click.echo(f"  witnessed by the CA to line {chain.witnessed_to}, at {at} ({chain.witnesses} heads)")
        if (alone := chain.last - chain.witnessed_to) > 0:
            click.echo(f"  only chained: the last {alone} lines; a cut or another writing of them would not show")
    if roots:
        click.echo(f"witnesses lead to root {', '.join(roots)}" + ("" if pinned else ": is this yours? (--root)"))
    if report.ok:
        click.secho("the record holds", fg="green")


def _opened(path: Path) -> BinaryIO:
    return io.BufferedReader(gzip.GzipFile(path)) if path.suffix == ".gz" else path.open("rb")


def _beginning(path: Path) -> bytes:
    with _opened(path) as file:
        return b"".join(_until_chained(file))


def _until_chained(file: BinaryIO) -> Iterator[bytes]:
    from sidecar.telemetry.chain import link_of

    for line in file:
        if link_of(line.rstrip(b"\n")) is not None:
            yield line
            return


class _Progress:
    """Says on standard error how far it is, where somebody looks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = 0
        self._on = sys.stderr.isatty()

    def __call__(self, size: int) -> None:
        if self._on and size - self._told >= PROGRESS_BYTES:
            self._told = size
            click.echo(f"{self._name}: {size >> 20} MiB", err=True)


list_whole(audit)
