"""`mesh contract`: how what is called compares with what was promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sidecar.cli.console import Code, output_option, print_json, print_table, safe
from sidecar.cli.sidecars import run_dir_option, some


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def contract() -> None:
    """Contracts in OpenAPI: what is called of them, and what beside them."""


@contract.command(epilog="\b\nExamples:\n  mesh contract status\n  mesh contract status --service orders -o json")
@click.option("--service", help="Only this one.")
@run_dir_option
@output_option
def status(service: str | None, run_dir: Path | None, output: str) -> int:
    """Since the last reload: operations that nobody calls, routes that no contract has, what was outside of it and
    why last, and who still calls what is deprecated.
    """
    answers = [sidecar.get("/contracts") for sidecar in some(run_dir, service)]
    if output == "json":
        print_json({"sidecars": answers})
        return Code.OK
    rows = [row for answer in answers for each in answer["contracts"] for row in _rows(answer["service"], each)]
    if rows:
        print_table(("service", "mode", "operation", "calls", "what"), rows)
    else:
        click.echo("No contract is declared (inbound[].contract) in any of them.")
    return Code.OK


def _rows(service: str, contract: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    at = (service, contract["mode"])
    for row in contract["operations"]:
        what = f"{row['broken']} outside: {safe(row['last'])}" if row["broken"] else "" if row["calls"] else "unused"
        yield (*at, row["operation"], str(row["calls"]), what)
    for row in contract["undocumented"]:
        yield (*at, safe(f"{row['method']} {row['path']}"), str(row["calls"]), "undocumented")
    if contract["overlooked"]:
        yield (*at, "…", str(contract["overlooked"]), "undocumented, beyond those that are remembered")
    for row in contract["deprecated"]:
        yield (*at, row["operation"], str(row["calls"]), f"deprecated, called by {row['caller']}")
