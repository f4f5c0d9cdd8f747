"""`mesh run`: one service's sidecar, alone or around a command of yours."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sidecar.cli.console import Code, Failure
from sidecar.cli.sidecars import named_instead, run_dir_option

if TYPE_CHECKING:
    from sidecar.admin.pod_health import PodHealth
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.runtime.orders import Orders

EXAMPLES = """\b
Examples:
  mesh run -f mesh.yaml --service orders --enrolment orders.json
  mesh run --service orders -- ./orders --port 8080

SIGHUP reads the config again; so does a change of its files (docs/operations.md).

\b
With a command: it starts once the sidecar is ready, gets the signals that we get, and when it ends the sidecar drains
and we exit with its code, or 128+n where signal n ended it. 127 means that there is no such program."""


@click.command(epilog=EXAMPLES, context_settings={"ignore_unknown_options": False})
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), default=Path("mesh.yaml"), show_default=True, help="The config."
)
@click.option("--service", help="Which of its services; may be left out where there is only one.")
@click.option("--enrolment", type=click.Path(path_type=Path), help="Who we are and whom to trust at first contact.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Folder of the sidecar's own memory.  [default: $MESH_STATE_DIR/SERVICE, ~/.local/state/mesh/SERVICE]",
)
@click.option(
    "--hygiene",
    type=click.Choice(["required", "best-effort", "unsafe-off"]),
    default="best-effort",
    show_default=True,
    help="How much the process must confine itself (docs/security.md); never the command.",
)
@click.option("--with-app", is_flag=True, help="Run the command that stands in the file under `run:`.")
@click.option("--pod", envvar="MESH_POD", hidden=True, help="What `mesh inject` says of our pod, as JSON.")
@run_dir_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    file: Path,
    service: str | None,
    enrolment: Path | None,
    state: Path | None,
    hygiene: str,
    with_app: bool,
    pod: str | None,
    run_dir: Path | None,
    command: tuple[str, ...],
) -> int:
    """Run one service's sidecar, and the COMMAND after `--` if you name one."""
    from sidecar.admin.client import run_folder
    from sidecar.config.load import load_config

    config = load_config(str(file), time.time())
    chosen = choose(config, service, file)
    if with_app:
        if command:
            raise Failure("--with-app and a command of your own exclude each other.", "Leave one out.", Code.USAGE)
        command = chosen.run
    if chosen.identity_source is None:
        _check_enrolment(enrolment, config)
    state = state or default_state_dir() / chosen.name
    run_dir = run_dir or run_folder()
    confine = partial(_confine, hygiene, config, chosen, enrolment, state, run_dir)
    return _run(config, chosen, enrolment, state, run_dir, command, confine, file, _pod_health(pod))


def _pod_health(text: str | None) -> PodHealth | None:
    """What is said of our pod, where we are in one. Raises BadPodHealth."""
    if not text:
        return None
    from sidecar.admin.pod_health import PodHealth

    return PodHealth.parse(text)


def choose(config: MeshConfig, name: str | None, file: Path) -> Service:
    """The service of this name, or the only one. Raises Failure."""
    names = list(config.services)
    if not names:
        raise Failure(f"{file} has no services.", "Name at least one under `services:`.", Code.USAGE)
    if name is None:
        if len(names) == 1:
            return config.services[names[0]]
        raise Failure(f"{file} has {len(names)} services; which one?", f"--service: {', '.join(names)}.", Code.USAGE)
    if name not in config.services:
        raise Failure(f"{file} has no service {name!r}.", named_instead(name, "It has", names), Code.USAGE)
    return config.services[name]


def default_state_dir() -> Path:
    """Where sidecars keep enrolment keys and bundles: $MESH_STATE_DIR, else the XDG state folder."""
    if folder := os.environ.get("MESH_STATE_DIR"):
        return Path(folder)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "mesh"


def _endpoint(service: Service) -> dict[str, str]:
    """Where SPIFFE libraries look for a Workload API (SPIFFE_Workload_Endpoint.md section 4)."""
    api = service.workload_api
    return {} if api is None else {"SPIFFE_ENDPOINT_SOCKET": str(api.listen)}


def _check_enrolment(enrolment: Path | None, config: MeshConfig) -> None:
    """Fail before anything starts where the file that we were told to use is not there."""
    path = enrolment or (Path(config.ca.enrolment) if config.ca.enrolment else None)
    if path is None:
        raise Failure(
            "no enrolment file: this sidecar does not know which CA to trust, nor how to prove who it is.",
            "Make one where the CA is (mesh ca key SERVICE, or mesh ca token SERVICE) and name it with --enrolment.",
            Code.USAGE,
        )
    if not path.is_file():
        raise Failure(f"there is no enrolment file {path}.", "`mesh ca key SERVICE --out FILE` makes one.", Code.USAGE)


def _confine(
    mode: str, config: MeshConfig, service: Service, enrolment: Path | None, state: Path, run_dir: Path
) -> None:
    """Put the process's hygiene in force; the folders that it will write in must be there first. Raises MeshError."""
    from certs.store import ensure_private_dir
    from sidecar.admin.client import make_run_folder
    from sidecar.admin.workload_socket import make_folder
    from sidecar.config.egress import outside_files, secret_programs
    from sidecar.config.exported import audit_files
    from sidecar.runtime import hygiene

    ensure_private_dir(state)
    make_run_folder(run_dir)
    written = (service.access_log.path, service.audit.path, *(each.path for each in service.audit.export))
    logs = [path for path in written if path not in ("", "-")]
    listens = [each.listen for each in service.outbound if each.listen is not None]
    folders = [state, run_dir, *(Path(listen.path).parent for listen in listens if listen.unix)]
    if service.workload_api is not None:
        folders.append(make_folder(service.workload_api))
    read = [*config.files, *_proofs(service, enrolment or Path(config.ca.enrolment))]
    if service.redis is not None:
        read += [path for path in (service.redis.password_file, service.redis.ca_file) if path]
    read += [path for issuer in service.issuers for path in (issuer.file, issuer.ca_file) if path]
    read += outside_files(service) + audit_files(service.audit.export)
    around = hygiene.Folders.around(read=read, write=logs, folders=folders, run=secret_programs(service))
    hygiene.apply(around, hygiene.Mode(mode))


def _proofs(service: Service, enrolment: Path) -> list[str | Path]:
    """The files by which we come by our identity. Raises MeshError."""
    from certs.enrolment import Enrolment, KubernetesToken, UnixSocket

    source = service.identity_source
    if source is None:
        proof = Enrolment.load(enrolment).proof
        return [enrolment, *([proof.path] if isinstance(proof, KubernetesToken | UnixSocket) else [])]
    if source.files is not None:
        return [source.files.cert, source.files.key, source.files.bundle]
    return [source.workload_api.path] if source.workload_api is not None else []


def _run(
    config: MeshConfig,
    service: Service,
    enrolment: Path | None,
    state: Path,
    run_dir: Path,
    command: tuple[str, ...],
    confine: Callable[[], None],
    file: Path,
    pod: PodHealth | None,
) -> int:
    import trio

    from certs.enrolment import InvalidEnrolment
    from sidecar.cli.supervise import supervise
    from sidecar.runtime import heap
    from sidecar.runtime.keeper import WrongEnrolment
    from sidecar.runtime.worker import run_sidecar

    async def serve(ready: Callable[[], None], orders: Orders) -> None:
        heap.set_aside()
        await run_sidecar(
            config,
            service.name,
            enrolment=enrolment,
            state_dir=state,
            run_dir=run_dir,
            ready=ready,
            orders=orders,
            config_path=file,
            pod=pod,
        )

    env: Mapping[str, str] = {**os.environ, **_endpoint(service), **service.env}
    try:
        return trio.run(partial(supervise, serve, command, env, confine))
    except WrongEnrolment as error:
        advice = f"`mesh ca key {service.name} --out FILE` makes one, where the CA is."
        raise Failure(f"{error}.", advice, Code.USAGE) from None
    except InvalidEnrolment as error:
        raise Failure(f"{error}.", "", Code.USAGE) from None
