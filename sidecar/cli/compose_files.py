"""Compose files on disk, for the verbs: read, made, given back; nothing is written unless all of it can be."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.console import Code, Failure

if TYPE_CHECKING:
    from sidecar.deploy.compose.inject import Injected, Options

# What of the command line stands in the options that are sealed into a made file.
_CHOICES = {"trust_domain": "trust_domain", "image": "image", "publish": "host", "metrics_to": "metrics_to",
            "mesh_folder": "folder"}  # fmt: skip


def read_file(file: Path) -> bytes:
    """The bytes of a compose file. Raises Failure."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}.", "Name the project's compose file.", Code.USAGE) from None


def make(
    file: Path, data: bytes, chosen: Mapping[str, object], *, force: bool = False
) -> tuple[Injected, bytes, Options]:
    """Inject a file, or anew the original of one that was injected. Raises Failure, ConfigErrors.

    Options that are not given are those it was made with before.
    """
    from sidecar.config.load import load_text
    from sidecar.deploy.compose.callers import env_file_names
    from sidecar.deploy.compose.document import read
    from sidecar.deploy.compose.folder import namespace, project_name
    from sidecar.deploy.compose.inject import Options, decoded, inject
    from sidecar.deploy.compose.sealed import unseal

    sealed = unseal(data)
    if sealed is not None and sealed.edited and not force:
        advice = "`--undo` first and edit the original, or lose the edits with --force."
        raise Failure(f"{file} was injected before, and has been edited since.", advice, Code.USAGE)
    original = data if sealed is None else sealed.original
    document = read(decoded(original, str(file)), str(file))
    before = sealed.options if sealed is not None else {}
    said = {place: chosen[name] for name, place in _CHOICES.items() if chosen.get(name)}
    if scale := chosen.get("scale"):
        said["scale"] = dict(scale)  # type: ignore[call-overload]
    name = chosen.get("project_name")
    if name or "project" not in before:
        said["project"] = namespace(project_name(file, str(name) if name else None, document.get("name")))
    options = Options(**{**before, **said})
    services = document.get("services") or {}
    wanted = {each for spec in services.values() if isinstance(spec, Mapping) for each in env_file_names(spec)}
    injected = inject(original, str(file), options, _env_files(file.parent, wanted))
    load_text(injected.mesh)  # what we have written is a config, or it is not written at all
    return injected, original, options


def _env_files(folder: Path, names: set[str]) -> dict[str, str]:
    """The texts of env files; Compose itself complains of those that are not there."""
    found = {}
    for name in names:
        path = folder / name
        if path.is_file() and path.stat().st_size < 1 << 20:
            found[name] = path.read_text(errors="replace")
    return found


def give_back(file: Path, data: bytes, target: Path | None, *, force: bool) -> int:
    """Write the original that a made file holds, or print it. Raises Failure."""
    from sidecar.deploy.compose.sealed import unseal

    sealed = unseal(data)
    if sealed is None:
        raise Failure(f"{file} was not made by `mesh compose inject`.", "There is nothing to undo.", Code.NEGATIVE)
    if sealed.edited and not force:
        advice = "--force gives the original back without them."
        raise Failure(f"{file} has been edited since; the edits would be lost.", advice, Code.USAGE)
    if target is None:
        sys.stdout.buffer.write(sealed.original)
        return Code.OK
    target.write_bytes(sealed.original)
    click.echo(f"{target} is as it was", err=True)
    return Code.OK


def find_file(file: Path | None) -> Path:
    """This file, or the one that Compose would find here. Raises Failure."""
    from sidecar.deploy.compose.folder import FILES, find

    found = file or find(Path.cwd())
    if found is None or not found.is_file():
        what = f"there is no file {file}" if file is not None else f"there is none of {', '.join(FILES)} here"
        raise Failure(f"{what}.", "Name the project's compose file.", Code.USAGE)
    return found


def named_project(file: Path | None, name: str | None) -> str:
    """The project that is meant. Raises Failure, ConfigErrors."""
    from sidecar.deploy.compose.document import read
    from sidecar.deploy.compose.folder import project_name
    from sidecar.deploy.compose.inject import decoded

    if name:
        return name
    found = find_file(file)
    document = read(decoded(read_file(found), str(found)), str(found))
    return project_name(found, None, document.get("name"))
