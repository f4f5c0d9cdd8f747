"""The sidecars that run on this machine, as the verbs see them: a name and an admin socket to ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from sidecar.admin import client
from sidecar.cli.console import Code, Failure

F = TypeVar("F", bound=Callable[..., Any])


def run_dir_option(command: F) -> F:
    """Give a verb `--run-dir`; its function receives `run_dir`, None for the usual place."""
    return click.option(
        "--run-dir",
        type=click.Path(path_type=Path),
        help="Folder of the sidecars' sockets.  [default: $MESH_RUN_DIR, $XDG_RUNTIME_DIR/mesh, /tmp/mesh-UID]",
    )(command)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One sidecar's admin socket; its file is named after the service."""

    service: str
    socket: Path

    def ask(
        self, method: str, path: str, body: object = None, *, timeout: float = 10.0
    ) -> tuple[int, dict[str, Any]]:
        """One exchange: status and document. Raises Failure where nobody answers within so many seconds."""
        try:
            return client.call(self.socket, method, path, body, timeout=timeout)
        except client.NoSidecar as error:
            raise Failure(
                f"the sidecar of {self.service} does not answer ({error}).",
                "If its process is gone, the socket's file may be removed.",
                Code.UNREACHABLE,
            ) from None

    def get(self, path: str, *, timeout: float = 10.0) -> dict[str, Any]:
        """The document at this path. Raises Failure where there is none."""
        status, document = self.ask("GET", path, timeout=timeout)
        if status != 200:
            raise Failure(f"the sidecar of {self.service} answers {status} to GET {path}.", _detail(document))
        return document


def _detail(document: dict[str, Any]) -> str:
    return str(document.get("detail") or document.get("error") or "")


def running(run_dir: Path | None) -> list[Sidecar]:
    """Every socket under the run folder, by service name; whether somebody answers is not asked."""
    return [Sidecar(path.stem, path) for path in client.sockets(run_dir)]


def some(run_dir: Path | None, service: str | None = None) -> list[Sidecar]:
    """The sidecars, or the one of this service. Raises Failure where there are none: exit 3."""
    folder = run_dir or client.run_folder()
    found = running(folder)
    if service is not None:
        named = [sidecar for sidecar in found if sidecar.service == service]
        if not named:
            names = [sidecar.service for sidecar in found]
            advice = named_instead(service, "Running here", names) or f"None is running here (looked in {folder})."
            raise Failure(f"no sidecar of {service!r} is running.", advice, Code.UNREACHABLE)
        return named
    if not found:
        raise Failure(
            f"no sidecar is running here (looked in {folder}).",
            "Start the demo with `mesh up`, or one service with `mesh run`. --run-dir looks elsewhere.",
            Code.UNREACHABLE,
        )
    return found


def named_instead(word: str, where: str, names: Sequence[str]) -> str:
    """The hint for a name that is not one of these: all of them, and the one that was probably meant; empty of none."""
    from sidecar.config.mistakes import nearest

    near = nearest(word, names)
    meant = f"Did you mean {near}? " if near else ""
    return f"{meant}{where}: {', '.join(names)}." if names else ""


def one(run_dir: Path | None, service: str) -> Sidecar:
    """The sidecar of this service. Raises Failure: exit 3."""
    return some(run_dir, service)[0]


def moment(value: object) -> float | None:
    """Seconds since the epoch, of a number or an RFC 3339 text as the admin API writes both; None for neither."""
    if isinstance(value, int | float) and value > 0:
        return float(value)
    if isinstance(value, str) and value:
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    return None


def short(identity: str) -> str:
    """What people call a SPIFFE ID: `web`, `shop/web`, or the text itself where it is none."""
    from certs.errors import InvalidSpiffeId
    from certs.spiffe import SpiffeId

    try:
        return SpiffeId.parse(identity).short
    except InvalidSpiffeId:
        return identity or "-"
