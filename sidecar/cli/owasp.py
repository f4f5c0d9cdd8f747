"""`mesh owasp`: what stands against each risk of the OWASP API Security Top 10, by the config alone."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

import click

from sidecar.cli.console import Code, Failure, output_option, print_json

if TYPE_CHECKING:
    from sidecar.policy.owasp import Line

COLOURS = {"on": "green", "partly": "yellow", "shadow": "yellow", "off": "red"}
EXAMPLES = "\b\nExamples:\n  mesh owasp\n  mesh owasp orders --missing\n  mesh owasp -f deploy/mesh.yaml -o json"


@click.command(epilog=EXAMPLES)
@click.argument("service", required=False)
@click.option("-f", "--file", default="mesh.yaml", show_default=True, help="The config.")
@click.option("--missing", is_flag=True, help="Only what is off or in shadow.")
@output_option
def owasp(service: str | None, file: str, missing: bool, output: str) -> int:
    """The ten risks of the OWASP API Security Top 10 (2023), and for each service what is on against them, in shadow
    (it looks and records, and stops nobody) or off, with the YAML that would turn it on.

    It is read from the config alone: what the application does itself is not known.
    """
    from sidecar.config.load import load
    from sidecar.policy.owasp import RISKS, lines, overall

    config = load(file, time.time()).config
    if service is not None and service not in config.services:
        from sidecar.cli.sidecars import named_instead

        raise Failure(f"{file} has no service {service!r}.", named_instead(service, "It has", [*config.services]))
    found = [line for line in lines(config, service) if not missing or line.state != "on"]
    if output == "json":
        print_json({"file": file, "measures": [line.to_json() for line in found]})
        return Code.OK
    for name, of_service in groupby(found, lambda line: line.service):
        click.secho(name, bold=True)
        for risk, of_risk in groupby(of_service, lambda line: line.risk):
            measures = list(of_risk)
            state = overall(measures)
            click.secho(f"  {risk:<6} {RISKS[risk]}: ", nl=False)
            click.secho(state, fg=COLOURS[state])
            for line in measures:
                _print(line)
    return Code.OK


def _print(line: Line) -> None:
    click.secho(f"    {line.state:<7}", nl=False, fg=COLOURS[line.state])
    click.echo(f"{line.measure}: {line.covers}")
    if line.yaml:
        click.secho(f"           {line.yaml}", dim=True)
