"""`mesh endpoints`: what the balancers of the sidecars on this machine see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sidecar.cli.console import Code, output_option, print_json, print_table
from sidecar.cli.sidecars import run_dir_option, some

COLUMNS = ("service", "upstream", "endpoint", "state", "latency", "active", "connections", "retries left")
LISTS = ("service", "upstream", "learned from", "listed", "age", "it goes")
COLOURS = {"available": "", "half-open": "yellow"}


@click.command(epilog="\b\nExamples:\n  mesh endpoints\n  mesh endpoints --service web -o json")
@click.option("--service", help="Only this one.")
@run_dir_option
@output_option
def endpoints(service: str | None, run_dir: Path | None, output: str) -> int:
    """Where requests may go, as each sidecar sees it: latency (peak EWMA), attempts under way, and who is left alone.

    An endpoint is `available`; `open` or `ejected` after failures, with the time until it is asked again; `half-open`
    while one request finds out; `unhealthy` by its health check. Where endpoints are learned from elsewhere, a second
    table says from where, how many are listed, since when nobody has confirmed it, and what went wrong.
    """
    answers = _answers(run_dir, service)
    rows = [{"service": answer["service"], **row} for answer in answers for row in answer["endpoints"]]
    lists = [{"service": answer["service"], **row} for answer in answers for row in answer.get("sources", ())]
    if output == "json":
        print_json({"endpoints": rows, "sources": lists})
        return Code.OK
    if not rows:
        declared = "No upstream has an endpoint." if lists else "No upstream is declared (outbound) in any of them."
        click.echo(declared)
    else:
        print_table(COLUMNS, [_cells(row) for row in rows], colour=lambda n: COLOURS.get(rows[n]["state"], "red"))
    if lists:
        click.echo()
        print_table(LISTS, [_list_cells(row) for row in lists], colour=lambda n: "yellow" if lists[n]["error"] else "")
        for row in lists:
            _remarks(row)
    return Code.OK


def _list_cells(row: dict[str, Any]) -> tuple[str, ...]:
    listed = "never" if row["listed"] is None else str(row["listed"])
    told = "failed" if row["error"] else "well"
    return (
        str(row["service"]), str(row["upstream"]), f"{row['source']} {row['from']}", listed,
        f"{row['age_s']:g} s", told,
    )  # fmt: skip


def _remarks(row: dict[str, Any]) -> None:
    """What the table has no room for."""
    whose = f"{row['service']} → {row['upstream']}"
    if row["error"]:
        click.echo(f"{whose}: {row['error']}")
    for note in row["notes"]:
        click.echo(f"{whose}: {note}")
    if row["left_out"]:
        click.echo(f"{whose}: {row['left_out']} more are left out; there is a bound")
    if row["ourselves"]:
        click.echo(f"{whose}: {row['ourselves']} left out: this sidecar itself listens there")


def _answers(run_dir: Path | None, service: str | None) -> list[dict[str, Any]]:
    return [sidecar.get("/endpoints") for sidecar in some(run_dir, service)]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    back = f" for {row['back_in_s']:g} s" if row["back_in_s"] is not None else ""
    return (
        str(row["service"]), str(row["upstream"]), str(row["endpoint"]), f"{row['state']}{back}",
        f"{row['latency_ms']:.1f} ms", str(row["active"]), str(row["connections"]), str(row["retries_left"]),
    )  # fmt: skip
