"""docker and Compose, by their own command lines: what runs of a project, and how it is started, asked and ended.

Whichever Compose there is will do: `docker compose` (v2), else `docker-compose` (1.29). Which daemon is meant they know
themselves (DOCKER_HOST, contexts).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from certs.errors import MeshError
from sidecar.deploy.compose.places import OF, PART

_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
LONG = 900.0  # seconds that one command may take: images are pulled and built by `up`


class EngineFailed(MeshError):
    """docker or Compose is not there, or says no; the message has its last words."""

    name = "engine"


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the project, in docker's own words."""

    id: str
    name: str
    service: str
    part: str  # of ours: holder, sidecar, door, ca, keys; empty for the user's
    of: str
    image: str
    status: str  # created, running, exited, …
    health: str  # healthy, starting, unhealthy; empty without a check
    exit_code: int
    mode: str  # its network mode
    labels: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)  # network → address
    published: tuple[tuple[str, int, int], ...] = ()  # the host's address and port, its own port

    @classmethod
    def read(cls, facts: dict[str, Any]) -> Container:
        """From one element of `docker inspect`."""
        labels = facts["Config"].get("Labels") or {}
        state, settings = facts["State"], facts["NetworkSettings"]
        networks = settings.get("Networks") or {}
        published = tuple(
            (binding.get("HostIp") or "0.0.0.0", int(binding["HostPort"]), int(inside.partition("/")[0]))  # noqa: S104
            for inside, bindings in (settings.get("Ports") or {}).items()
            for binding in bindings or ()
        )
        return cls(
            facts["Id"], facts["Name"].lstrip("/"), labels.get(_SERVICE, ""), labels.get(PART, ""), labels.get(OF, ""),
            facts["Config"]["Image"], state["Status"], (state.get("Health") or {}).get("Status", ""),
            int(state.get("ExitCode", 0)), facts["HostConfig"]["NetworkMode"], labels,
            {name: each["IPAddress"] for name, each in networks.items() if each.get("IPAddress")}, published,
        )  # fmt: skip


class Docker:
    """The docker client."""

    def __init__(self) -> None:
        program = shutil.which("docker")
        if program is None:
            raise EngineFailed("there is no `docker` on the PATH")
        self.program = program

    def __call__(self, *arguments: str, text: str | None = None, seconds: float = 60.0) -> str:
        """Run one command; returns what it prints. Raises EngineFailed."""
        return _run([self.program, *arguments], None, text, seconds)

    def containers(self, project: str) -> list[Container]:
        """All containers of a project, those that have ended too."""
        ids = self("ps", "-aq", "--no-trunc", "--filter", f"label={_PROJECT}={project}").split()
        return [Container.read(facts) for facts in json.loads(self("inspect", *ids))] if ids else []

    def our_volumes(self, project: str) -> list[str]:
        """The volumes that we added to a project, by our label; none of the user's."""
        theirs = ("--filter", f"label={_PROJECT}={project}")
        return self("volume", "ls", "-q", *theirs, "--filter", f"label={PART}=volume").split()


class Compose:
    """One project: its file, the folder that relative paths in it start from, and its name."""

    def __init__(self, file: Path, folder: Path, project: str) -> None:
        where = ["-f", str(file), "--project-directory", str(folder), "-p", project]
        self.command = [*_compose(), *where]
        self.folder = folder

    def __call__(self, *arguments: str, seconds: float = LONG) -> str:
        """Run one command; returns what it prints. Raises EngineFailed."""
        return _run([*self.command, *arguments], self.folder, None, seconds)


def _compose() -> list[str]:
    docker = shutil.which("docker")
    if docker is not None:
        known = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
        if known.returncode == 0 and b"ompose" in known.stdout:
            return [docker, "compose"]
    old = shutil.which("docker-compose")
    if old is None:
        raise EngineFailed("there is neither `docker compose` nor `docker-compose`")
    return [old]


def _run(command: Sequence[str], folder: Path | None, text: str | None, seconds: float) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, input=text, capture_output=True, text=True, timeout=seconds, check=False,
            stdin=subprocess.DEVNULL if text is None else None,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EngineFailed(f"`{' '.join(command[:3])} …` took longer than {seconds:.0f} s") from None
    except OSError as error:
        raise EngineFailed(f"{command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        last = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
        raise EngineFailed(f"`{Path(command[0]).name} {_verb(command)}` failed:\n{last}")
    return done.stdout


def _verb(command: Sequence[str]) -> str:
    """The words of a command without what follows a dash."""
    words = [word for before, word in pairwise(command) if word[0] != "-" and before[0] != "-"]
    return " ".join(words[:2])
