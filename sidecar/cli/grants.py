"""`mesh grants`: what services say they consume of contracts, beside what they are granted."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sidecar.cli.console import Code, output_option, print_json, print_table

if TYPE_CHECKING:
    from sidecar.contract.differences import Difference


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def grants() -> None:
    """Grants of operations and fields of contracts."""


@grants.command(epilog="\b\nExamples:\n  mesh grants diff\n  mesh grants diff -f mesh.yaml -o json")
@click.option("-f", "--file", default="mesh.yaml", show_default=True, help="The config.")
@output_option
def diff(file: str, output: str) -> int:
    """What callers use (`outbound[].consumes`) and are not granted, and what they are granted and do not use. Exit code
    1 where something is missing.
    """
    from sidecar.config.load import load_config
    from sidecar.contract.differences import differences

    found = differences(load_config(file, time.time()))
    if output == "json":
        print_json({"differences": [asdict(each) for each in found]})
    elif found:
        columns = ("caller", "service", "kind", "name", "what")
        print_table(columns, [(each.caller, each.service, each.kind, each.name, _what(each)) for each in found])
    else:
        click.echo("Everybody is granted what it consumes, and nothing more.")
    return Code.NEGATIVE if any(each.what == "missing" for each in found) else Code.OK


def _what(found: Difference) -> str:
    return f'{found.what}; did you mean "{found.near}"?' if found.near else found.what
