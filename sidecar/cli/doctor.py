"""`mesh doctor`: what is wrong here, and the command that mends it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Failure, output_option, print_json
from sidecar.cli.sidecars import run_dir_option, running

if TYPE_CHECKING:
    from sidecar.deploy.doctor import Finding

EXAMPLES = """\b
Examples:
  mesh doctor                        the sidecars of this machine
  mesh doctor -f mesh.yaml           and the applications behind them: can they be reached past the mesh?"""


@click.command(epilog=EXAMPLES)
@click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Also the applications of this mesh.yaml that listen on this machine.",
)  # fmt: skip
@run_dir_option
@output_option
def doctor(file: Path | None, run_dir: Path | None, output: str) -> int:
    """Say what is wrong here, and the command that mends it.

    Looks at sidecars (ready, config, CA in reach, versions, descriptors), certificates up to the root and what the
    listeners really show, clocks, postures that are not strict, and applications that can be reached past the mesh.

    Exit code 0: nothing is wrong (warnings may stand), 1: something is.
    """
    looked: list[str] = []
    findings = _sidecars(run_dir, looked)
    if file is not None:
        findings += _applications(file, looked)
    findings.sort(key=lambda found: (found.level != "wrong", found.where))
    wrong = any(found.level == "wrong" for found in findings)
    if output == "json":
        print_json({"ok": not wrong, "looked_at": looked, "findings": [found.as_json() for found in findings]})
    else:
        _tell(findings, looked)
    return Code.NEGATIVE if wrong else Code.OK


def _tell(findings: list[Finding], looked: list[str]) -> None:
    for found in findings:
        click.secho(f"{found.level:<7}  {found.where}: {found.what}", fg="red" if found.level == "wrong" else "yellow")
        click.echo(f"         {found.mend}")
    if findings:
        click.echo()
    click.echo(f"looked at {', '.join(looked)}: {'nothing to mend' if not findings else _count(findings)}")


def _count(findings: list[Finding]) -> str:
    wrong = sum(found.level == "wrong" for found in findings)
    warnings = len(findings) - wrong
    return ", ".join(
        f"{count} {word}" for count, word in ((wrong, "wrong"), (warnings, "to look at")) if count
    )  # fmt: skip


def _sidecars(run_dir: Path | None, looked: list[str]) -> list[Finding]:
    """What the sidecars' sockets tell; one that does not answer is a finding like others."""
    from sidecar import __version__
    from sidecar.cli.certs_check import rows_of
    from sidecar.deploy.doctor import of_certificates, of_sidecar, of_versions

    findings: list[Finding] = []
    statuses: list[dict[str, Any]] = []
    sidecars = running(run_dir)
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
    looked.append(f"{len(sidecars)} sidecar{'' if len(sidecars) == 1 else 's'}")
    return findings


FAIL_BEFORE = 30 * 86400.0  # as `mesh certs check` has it: how long a root must still hold
