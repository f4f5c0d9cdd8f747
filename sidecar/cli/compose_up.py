"""`mesh up --compose`: a user's compose project, injected, started, ready and verified; their file is not touched."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.console import Code, Failure, our_name

if TYPE_CHECKING:
    from sidecar.deploy.compose.engine import Container, Docker
    from sidecar.deploy.compose.folder import Beside

READY_WITHIN = 120.0  # seconds after `up`: the user's own health checks count too
TICK = 0.5  # seconds between looks


def up_compose(file: Path, project_name: str | None, output: str) -> int:
    """Inject FILE into our own folder beside it, start that, wait until all is ready, and knock from outside.

    Raises Failure, ConfigErrors. Returns the exit code of the verification.
    """
    from sidecar.cli.compose import look
    from sidecar.cli.compose_files import make, read_file
    from sidecar.deploy.compose.document import read
    from sidecar.deploy.compose.engine import Compose, Docker, EngineFailed
    from sidecar.deploy.compose.folder import UP_FILE, Beside, EditedByHand
    from sidecar.deploy.compose.folder import project_name as named

    started = time.monotonic()
    injected, original, options = make(file, read_file(file), {"project_name": project_name})
    project = named(file, project_name, read(original.decode(), str(file)).get("name"))
    beside = Beside.of(file, options.folder)
    ready = beside.path / UP_FILE
    try:
        docker = Docker()
        compose = Compose(ready, file.absolute().parent, project)
        beside.write(injected.mesh, {ready: injected.compose}, keep=_edited(beside))
        _say(started, f"{len(injected.project.members)} services get a sidecar: {beside.mesh} says who may call whom")
        for note in injected.project.notes:
            click.echo(f"note: {note}", err=True)
        compose("up", "-d")
        _say(started, "started")
        wait_ready(docker, project, started)
    except EngineFailed as error:
        advice = f"What there is of it can be removed: {our_name()} down {shlex.quote(str(file))}"
        raise Failure(f"{error}", advice, Code.UNREACHABLE) from None
    except EditedByHand as error:
        raise Failure(f"{error}.", "", Code.USAGE) from None
    code = look(project, output)
    _say(started, f"done; it runs on. Its end: {our_name()} down {shlex.quote(str(file))}")
    return code


def _edited(beside: Beside) -> bool:
    """Whether somebody has edited the mesh.yaml that is there: then it is theirs, and stays."""
    from sidecar.deploy.compose.folder import EditedByHand

    try:
        beside.check_untouched()
    except EditedByHand:
        click.echo(f"note: {beside.mesh} was edited, and stays as it is", err=True)
        return True
    return False


def wait_ready(docker: Docker, project: str, started: float) -> None:
    """Return once every container runs and is healthy that should be. Raises EngineFailed with whose fault it is."""
    from sidecar.deploy.compose.engine import EngineFailed

    deadline = time.monotonic() + READY_WITHIN
    while waiting := not_ready(containers := docker.containers(project)):
        fallen = [each for each in containers if each.status == "exited" and each.exit_code and each.part]
        if fallen or time.monotonic() > deadline:
            worst = fallen[0] if fallen else next(each for each in containers if each.service in waiting)
            words = docker("logs", "--tail", "8", worst.id)
            raise EngineFailed(f"{', '.join(waiting)} not ready; {worst.service} is {worst.status}:\n{words}")
        time.sleep(TICK)
    _say(started, "all ready")


def not_ready(containers: Sequence[Container]) -> list[str]:
    """Those that are not yet what they should be: healthy where they have a check, running, or well ended."""
    return [
        each.service for each in containers
        if each.health not in ("", "healthy") or each.status not in ("running", "exited")
        or (each.status == "exited" and each.part not in ("", "keys"))
    ]  # fmt: skip


def _say(started: float, text: str) -> None:
    click.echo(f"{time.monotonic() - started:5.1f} s  {text}", err=True)
