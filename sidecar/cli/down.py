"""`mesh down`: the end of a compose project, and of all that the mesh has added to it; the user's data stays."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.cli.console import Code, Failure

EXAMPLES = """\b
Examples:
  mesh down
  mesh down docker-compose.yml --keep-files"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("-p", "--project-name", help="The project that runs.  [default: as for Compose]")
@click.option("--keep-files", is_flag=True, help="Leave the folder .mesh with its mesh.yaml.")
@click.option("--keep-keys", is_flag=True, help="Leave the volumes of the CA and the keys: identities survive.")
def down(file: Path | None, project_name: str | None, keep_files: bool, keep_keys: bool) -> int:
    """End a compose project with its sidecars, and remove what we made: containers, networks, our volumes, .mesh.

    The project's own volumes stay, as with `docker compose down`. A file that was injected in place stays injected:
    `mesh compose inject FILE --in-place --undo`.

    Exit codes: 0 done; 3 docker is not there, or says no.
    """
    from sidecar.cli.compose_files import find_file, make, read_file
    from sidecar.deploy.compose.document import read
    from sidecar.deploy.compose.engine import Compose, Docker, EngineFailed
    from sidecar.deploy.compose.folder import UP_FILE, Beside
    from sidecar.deploy.compose.folder import project_name as named
    from sidecar.deploy.compose.sealed import unseal

    found = find_file(file)
    data = read_file(found)
    sealed = unseal(data)
    beside = Beside.of(found, str(sealed.options["folder"]) if sealed is not None else ".mesh")
    injected = found if sealed is not None else beside.path / UP_FILE
    original = sealed.original if sealed is not None else data
    project = named(found, project_name, read(original.decode(), str(found)).get("name"))
    try:
        docker = Docker()
        if not injected.is_file() and docker.containers(project):  # .mesh was removed by hand: make its file once more
            again, _, _ = make(found, data, {"project_name": project_name})
            beside.write(again.mesh, {injected: again.compose})
        if injected.is_file():
            Compose(injected, found.absolute().parent, project)("down", "--remove-orphans")
        ours = [] if keep_keys else docker.our_volumes(project)
        if ours:
            docker("volume", "rm", *ours)
    except EngineFailed as error:
        raise Failure(f"{error}", "Nothing of .mesh was removed: try again.", Code.UNREACHABLE) from None
    if not keep_files and sealed is None:
        beside.remove()
    click.echo(f"{project} is down; {len(ours)} volumes of ours are gone, yours are where they were", err=True)
    return Code.OK
