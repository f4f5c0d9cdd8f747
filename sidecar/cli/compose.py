"""`mesh compose`: the mesh into a docker-compose project, out of it again, and a look from outside at what runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.console import Code, Failure, list_whole, output_option, print_json, print_table

if TYPE_CHECKING:
    from sidecar.deploy.compose.inject import Injected, Options
    from sidecar.deploy.compose.verify import Door, Finding

COLUMNS = ("service", "from", "address", "port", "answer", "")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def compose() -> None:
    """docker-compose: the mesh into your project, out of it again, and the proof that nothing answers in plaintext."""


class Scale(click.ParamType[tuple[str, int]]):
    """`orders=3`."""

    name = "service=number"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """The service and how many."""
        if isinstance(value, tuple):
            return value
        service, equals, number = str(value).partition("=")
        if not equals or not service or not number.isascii() or not number.isdigit():
            self.fail(f"{value!r}: write SERVICE=NUMBER, as orders=3", param, ctx)
        return service, int(number)


INJECT = """\b
Examples:
  mesh compose inject docker-compose.yml --diff
  mesh compose inject docker-compose.yml --in-place && docker compose up -d
  mesh compose inject docker-compose.yml -o mesh-compose.yml --scale orders=3
  mesh compose inject docker-compose.yml --undo"""


@compose.command(epilog=INJECT)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write here; a name in the same folder.")
@click.option("--in-place", is_flag=True, help="Write into FILE itself; the original stays inside it, for --undo.")
@click.option("--diff", "only_diff", is_flag=True, help="Show what would change, and write nothing.")
@click.option("--undo", is_flag=True, help="Give the original back, byte for byte; with --in-place into FILE.")
@click.option("-p", "--project-name", help="The project, as for Compose; its namespace in SPIFFE IDs.")
@click.option("--trust-domain", help="The name of the root of trust.  [default: PROJECT.mesh]")
@click.option("--image", help="The image of mesh.  [default: that of this version]")
@click.option("--publish", metavar="ADDRESS", help="The host's address for published ports.  [default: 127.0.0.1]")
@click.option("--scale", type=Scale(), multiple=True, help="So many replicas of a service, each in a namespace.")
@click.option("--metrics-to", metavar="SERVICE", help="Who may read the metrics of every sidecar: Prometheus, say.")
@click.option("--mesh-folder", metavar="NAME", help="Where mesh.yaml goes, beside FILE.  [default: .mesh]")
@click.option("--force", is_flag=True, help="Overwrite a mesh.yaml, or an injected file, that was edited by hand.")
@click.option("--keep-mesh", is_flag=True, help="Leave the mesh.yaml that is there as it is.")
def inject(
    file: Path,
    out: Path | None,
    in_place: bool,
    only_diff: bool,
    undo: bool,
    force: bool,
    keep_mesh: bool,
    **chosen: object,
) -> int:
    """Give back a compose file with CA, keys, holders, sidecars and strict default policy; applications stay unedited.

    Without --in-place or -o it is printed, and nothing is written. Labels `sidecar.mesh/…` of a service say what the
    file does not tell (docs/compose.md).

    Exit codes: 0 done; 2 mistakes in the file, or it was edited since: nothing was written.
    """
    from sidecar.cli.compose_files import give_back, make, read_file

    if sum((in_place, out is not None, only_diff)) > 1:
        raise Failure("--in-place, -o and --diff exclude each other.", "Choose one.", Code.USAGE)
    target = file if in_place else out
    if target is not None and target.absolute().parent != file.absolute().parent:
        advice = "Relative paths in it start from its folder: choose a name there."
        raise Failure(f"{target} is in another folder than {file}.", advice, Code.USAGE)
    data = read_file(file)
    if undo:
        return give_back(file, data, target, force=force)
    injected, original, options = make(file, data, chosen, force=force)
    if only_diff:
        _show_diff(file, original, injected)
        return Code.OK
    if target is None:
        sys.stdout.write(injected.compose.decode())
        _say_notes(injected, options)
        click.echo("nothing was written: -o FILE or --in-place does so", err=True)
        return Code.OK
    _write(file, target, injected, options, force=force, keep_mesh=keep_mesh)
    _say_notes(injected, options)
    return Code.OK


def _write(
    file: Path, target: Path, injected: Injected, options: Options, *, force: bool, keep_mesh: bool
) -> None:
    from sidecar.deploy.compose.folder import Beside, EditedByHand

    beside = Beside.of(file, options.folder)
    try:
        beside.write(injected.mesh, {target: injected.compose}, force=force, keep=keep_mesh)
    except EditedByHand as error:
        raise Failure(f"{error}.", "", Code.USAGE) from None
    click.echo(f"wrote {target} and {beside.mesh.parent.parent.name}/config/mesh.yaml", err=True)


def _say_notes(injected: Injected, options: Options) -> None:
    """On standard error: what the user should know, and where their published ports are now."""
    for note in injected.project.notes:
        click.echo(f"note: {note}", err=True)
    for member in injected.project.members.values():
        for door in member.doors:
            host = door.host or options.host
            click.echo(
                f"note: {member.name}:{door.number} is published at {host}:{door.host_port or 'a free port'} by its "
                f"door, which speaks as {member.name}-edge", err=True,
            )  # fmt: skip


def _show_diff(file: Path, original: bytes, injected: Injected) -> None:
    import difflib

    pairs = ((str(file), original.decode(), injected.compose.decode().partition("# ---- made by")[0]),
             ("mesh.yaml", "", injected.mesh))  # fmt: skip
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for name, before, after in pairs:
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="")
        for line in lines:
            click.secho(line, fg=colours.get(line[0]) if sys.stdout.isatty() else None)


VERIFY = """\b
Examples:
  mesh compose verify
  mesh compose verify docker-compose.yml -p shop -o json"""


@compose.command(epilog=VERIFY)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("-p", "--project-name", help="The project that runs.  [default: as for Compose]")
@output_option
def verify(file: Path | None, project_name: str | None, output: str) -> int:
    """Knock at every port of the running project from outside, and prove that none answers in plaintext.

    Whom to ask comes from docker, not from the file. On each network a container without rights or identity knocks,
    in plaintext as HTTP, PostgreSQL and Redis clients do, and by TLS without a certificate.

    Exit codes: 0 nothing answers; 1 something does, or cannot be told; 3 docker or the project is not there.
    """
    from sidecar.cli.compose_files import named_project

    return look(named_project(file, project_name), output)


def look(project: str, output: str) -> int:
    """Knock, show what came of it, and say it by the exit code. Raises Failure."""
    from sidecar.deploy.compose.engine import Docker, EngineFailed
    from sidecar.deploy.compose.verify import verify as knock

    try:
        findings, doors = knock(Docker(), project)
    except EngineFailed as error:
        raise Failure(f"{error}", "Start it first: mesh up --compose FILE.", Code.UNREACHABLE) from None
    if output == "json":
        print_json({
            "project": project, "good": all(each.good for each in findings),
            "findings": [each.to_json() for each in findings],
            "doors": [{"service": d.service, "host": d.host, "port": d.port, "inside": d.inside} for d in doors],
        })  # fmt: skip
    else:
        _show_findings(project, findings, doors)
    return Code.OK if all(each.good for each in findings) else Code.NEGATIVE


def _show_findings(project: str, findings: list[Finding], doors: list[Door]) -> None:
    from sidecar.deploy.compose.verify import MEANS

    rows = [
        (each.service, each.network, each.address, str(each.port),
         MEANS[each.answer] + (" (outside the mesh, by its label)" if each.declared else ""), each.detail)
        for each in findings
    ]  # fmt: skip
    print_table(COLUMNS, rows, colour=lambda number: "" if findings[number].good else "red")
    for door in doors:
        click.echo(f"door: {door.host}:{door.port} leads to {door.service}:{door.inside}, as {door.service}-edge")
    bad = [each for each in findings if not each.good]
    if bad:
        click.echo(f"{project}: {len(bad)} of {len(findings)} can be reached past the mesh, or it cannot be told")
    else:
        click.echo(f"{project}: nothing answers in plaintext; {len(findings)} ports were knocked at from outside")


# ---- inside the containers -----------------------------------------------------------------------------------------


@compose.command(hidden=True)
@click.option("-f", "--file", type=click.Path(path_type=Path), required=True)
@click.option("--ca-address", required=True)
def keys(file: Path, ca_address: str) -> int:
    """Make or complete the project's CA and a key for each sidecar, in their volumes."""
    from sidecar.cli.compose_keys import Rooms, become_sidecar, make_keys
    from sidecar.config.load import load_config

    rooms = Rooms()
    become_sidecar(rooms)
    config = load_config(str(file), time.time())
    changed = make_keys(config, ca_address, rooms)
    click.echo(f"{len(config.services)} identities, {len(changed)} keys written: {', '.join(changed) or 'none'}")
    return Code.OK


@compose.command(hidden=True)
@click.argument("port", type=int)
def listens(port: int) -> int:
    """Exit code 0 where somebody in this namespace listens on PORT; no connection is made."""
    from sidecar.net.proc_net import listening

    return Code.OK if any(row.port == port for row in listening()) else Code.NEGATIVE


@compose.command(hidden=True)
def sockets() -> int:
    """The TCP ports that are listened on in this namespace, as JSON."""
    from sidecar.net.proc_net import listening

    print_json(sorted({row.port for row in listening()}))
    return Code.OK


@compose.command(hidden=True)
def dial() -> int:
    """Knock at the targets on standard input, both as JSON."""
    import json

    from sidecar.deploy.compose.dial import dial as knock

    print_json(knock(json.load(sys.stdin)))
    return Code.OK


list_whole(compose)
