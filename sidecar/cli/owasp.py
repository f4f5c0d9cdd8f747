"""`mesh owasp`: what stands against each risk of the OWASP API Security Top 10, by the config alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from sidecar.cli.console import Code, Failure, output_option, print_json

if TYPE_CHECKING:
    from sidecar.policy.owasp import Line, Overall

COLOURS = {"on": "green", "partly": "yellow", "shadow": "yellow", "off": "red", "none": ""}
EXAMPLES = """\b
Examples:
  mesh owasp
  mesh owasp orders --missing
  mesh owasp --missing --exit-code
  mesh owasp -f deploy/mesh.yaml -o json"""


@click.command(epilog=EXAMPLES)
@click.argument("service", required=False)
@click.option("-f", "--file", default="mesh.yaml", show_default=True, help="The config.")
@click.option("--missing", is_flag=True, help="Only what is off or in shadow.")
@click.option("--exit-code", is_flag=True, help="Exit code 1 where a risk is not on, for CI.")
@output_option
def owasp(service: str | None, file: str, missing: bool, exit_code: bool, output: str) -> int:
    """The ten risks of the OWASP API Security Top 10 (2023), and for each service what is on against them, in shadow
    (it looks and records, and stops nobody) or off, with the YAML that would turn it on.

    It is read from the config alone: what the application does itself is not known. `none` is a risk that a service
    cannot have: it is not called, say, or calls nobody.
    """
    from sidecar.config.load import load
    from sidecar.policy.owasp import lines, summary

    config = load(file, time.time()).config
    if service is not None and service not in config.services:
        from sidecar.cli.sidecars import named_instead

        raise Failure(f"{file} has no service {service!r}.", named_instead(service, "It has", [*config.services]))
    everything = lines(config, service)
    found = [line for line in everything if not missing or line.state != "on"]
    risks = {name: summary(everything, name) for name in config.services if service in (None, name)}
    if output == "json":
        print_json({"file": file, "risks": risks, "measures": [line.to_json() for line in found]})
    else:
        for name, states in risks.items():
            _print_service(name, states, [line for line in found if line.service == name], missing)
    open_ = any(state not in ("on", "none") for states in risks.values() for state in states.values())
    return Code.NEGATIVE if exit_code and open_ else Code.OK


def _print_service(name: str, states: Mapping[str, Overall], found: Sequence[Line], missing: bool) -> None:
    from sidecar.policy.owasp import RISKS

    click.secho(name, bold=True)
    for risk, state in states.items():
        mine = [line for line in found if line.risk == risk]
        if missing and not mine:
            continue
        click.secho(f"  {risk:<6} {RISKS[risk]}: ", nl=False)
        click.secho(state, fg=COLOURS[state] or None)
        for line in mine:
            _print(line)


def _print(line: Line) -> None:
    click.secho(f"    {line.state:<7}", nl=False, fg=COLOURS[line.state])
    click.echo(f"{line.measure}: {line.covers}")
    if line.yaml:
        click.secho(f"           {line.yaml}", dim=True)
