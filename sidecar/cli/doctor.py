"""`mesh doctor`: what is wrong on a host, in a compose project or in a cluster, and the command that mends it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Failure, output_option, print_json
from sidecar.cli.sidecars import run_dir_option, running

if TYPE_CHECKING:
    from sidecar.deploy.doctor import Finding

FAIL_BEFORE = 30 * 86400.0  # seconds, as `mesh certs check` has it: how long a root must still hold
EXAMPLES = """\b
Examples:
  mesh doctor                                  the sidecars of this machine
  mesh doctor --compose docker-compose.yml     a compose project, looked at from outside too
  mesh doctor --cluster                        pods that escaped injection
  mesh doctor -o json || page somebody"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--compose", "compose", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="The compose project of this file, instead of this machine.",
)  # fmt: skip
@click.option("-p", "--project-name", help="With --compose: the project, where it is not named after its folder.")
@click.option("--cluster", is_flag=True, help="The cluster of your kubeconfig, instead of this machine.")
@click.option("--kubeconfig", default="", help="With --cluster: another file.  [default: $KUBECONFIG, ~/.kube/config]")
@click.option("--context", default="", help="With --cluster: another context.  [default: the current one]")
@run_dir_option
@output_option
def doctor(
    compose: Path | None, project_name: str | None, cluster: bool, kubeconfig: str, context: str, run_dir: Path | None,
    output: str,
) -> int:  # fmt: skip
    """Say what is wrong, and the command that mends it.

    On a machine: sidecars (ready, configuration, CA in reach, versions, descriptors), certificates up to the root and
    what listeners really show, clocks, postures that are not strict, applications that neighbours reach past their
    sidecar. In a compose project: its containers, and every port as somebody without an identity meets it. In a
    cluster: pods without a sidecar, or with one that does not guard them.

    Exit codes: 0 nothing is wrong (warnings may stand), 1 something is, 3 there is nobody to ask.
    """
    if compose is not None and cluster:
        raise Failure("--compose and --cluster exclude each other.", "Ask twice.", Code.USAGE)
    if compose is not None:
        findings, looked = _compose(compose, project_name)
    elif cluster:
        findings, looked = _cluster(kubeconfig, context)
    else:
        findings, looked = _machine(run_dir)
    findings.sort(key=lambda found: (found.level != "wrong", found.where))
    wrong = any(found.level == "wrong" for found in findings)
    if output == "json":
        print_json({"ok": not wrong, "looked_at": looked, "findings": [found.as_json() for found in findings]})
    else:
        _tell(findings, looked)
    return Code.NEGATIVE if wrong else Code.OK


def _tell(findings: list[Finding], looked: str) -> None:
    for found in findings:
        click.secho(f"{found.level:<7}  {found.where}: {found.what}", fg="red" if found.level == "wrong" else "yellow")
        click.echo(f"         {found.mend}")
    if findings:
        click.echo()
    wrong = sum(found.level == "wrong" for found in findings)
    counts = ((wrong, "wrong"), (len(findings) - wrong, "to look at"))
    said = ", ".join(f"{count} {word}" for count, word in counts if count)
    click.echo(f"looked at {looked}: {said or 'nothing to mend'}")


def _machine(run_dir: Path | None) -> tuple[list[Finding], str]:
    """What the sidecars' sockets tell; one that does not answer is a finding like others. Raises Failure."""
    from sidecar import __version__
    from sidecar.cli.certs_check import rows_of
    from sidecar.deploy.doctor import of_certificates, of_sidecar, of_versions

    findings: list[Finding] = []
    statuses: list[dict[str, Any]] = []
    sidecars = running(run_dir)
    if not sidecars:
        advice = "--run-dir looks elsewhere; --compose FILE and --cluster look at what runs in containers."
        raise Failure("no sidecar is running on this machine.", advice, Code.UNREACHABLE)
    now = time.time()
    for sidecar in sidecars:
        try:
            statuses.append(sidecar.get("/status"))
            findings += of_certificates(rows_of(sidecar, now, FAIL_BEFORE))
        except Failure as failure:
            statuses.append({"service": sidecar.service, "state": "unreachable", "detail": failure.message})
    for status in statuses:
        findings += of_sidecar(status)
    findings += of_versions(statuses, __version__)
    return findings, f"{len(sidecars)} sidecar{'' if len(sidecars) == 1 else 's'}"


def _compose(file: Path, name: str | None) -> tuple[list[Finding], str]:
    """The containers of a project, and who answers whom there. Raises Failure."""
    from sidecar.cli.compose_files import named_project
    from sidecar.deploy.compose.engine import Docker, EngineFailed
    from sidecar.deploy.compose.verify import verify
    from sidecar.deploy.doctor import of_containers, of_knocks
    from sidecar.deploy.names import IMAGE

    project = named_project(file, name)
    try:
        docker = Docker()
        containers = docker.containers(project)
        if not containers:
            raise Failure(f"nothing of project {project} runs.", f"mesh up --compose {file}", Code.UNREACHABLE)
        knocks, _ = verify(docker, project)
    except EngineFailed as error:
        raise Failure(f"{error}.", "", Code.UNREACHABLE) from None
    findings = [*of_containers(containers, IMAGE, str(file)), *of_knocks(knocks)]
    return findings, f"{len(containers)} containers of {project}, {len(knocks)} ports from outside"


def _cluster(kubeconfig: str, context: str) -> tuple[list[Finding], str]:
    """Pods that escaped injection. Raises Failure."""
    import trio

    from sidecar.cli.uninjected import ask
    from sidecar.deploy.cluster.access import find
    from sidecar.deploy.cluster.escaped import escapes, namespaces_to_look_at
    from sidecar.deploy.doctor import of_pods
    from sidecar.deploy.names import IMAGE
    from sidecar.net.kube_api import CannotAsk

    try:
        access = find("", kubeconfig, context, os.environ)
        namespaces, pods = trio.run(ask, access)
    except CannotAsk as error:
        raise Failure(f"{error}.", "", Code.UNREACHABLE) from None
    looked_at = namespaces_to_look_at(namespaces)
    findings = list(of_pods(escapes(pods, looked_at, IMAGE)))
    return findings, f"{len(pods)} pods of {len(looked_at)} namespaces"
