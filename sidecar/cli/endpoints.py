"""`mesh endpoints`: what the balancers of the sidecars on this machine see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from sidecar.cli.console import Code, output_option, print_json, print_table
from sidecar.cli.sidecars import run_dir_option, some

LISTS = ("service", "upstream", "learned from", "listed", "age", "it goes")
COLOURS = {"available": "", "half-open": "yellow"}


@click.command(epilog="\b\nExamples:\n  mesh endpoints\n  mesh endpoints --service web -o json")
@click.option("--service", help="Only this one.")
@run_dir_option
@output_option
def endpoints(service: str | None, run_dir: Path | None, output: str) -> int:
    """Where requests may go, as each sidecar sees it: latency (peak EWMA), attempts under way, and who is left alone.

    An endpoint is `available`; `open` or `ejected` after failures, with the time until it is asked again; `half-open`
    while one request finds out; `unhealthy` by its health check. What somebody has said of balancing, weights, zones
    (a star is our own) and health checks has columns of its own. Below the table stands why an endpoint is not asked,
    or what keeps its check from saying anything.

    Where endpoints are learned from elsewhere, a second table says from where, how many are listed, since when nobody
    has confirmed it, and what went wrong.
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
        columns = [column for column in COLUMNS if column.needed(rows)]
        cells = [tuple(column.cell(row) for column in columns) for row in rows]
        print_table([column.name for column in columns], cells, colour=lambda n: COLOURS.get(rows[n]["state"], "red"))
        for line in dict.fromkeys(map(_reason, rows)):
            if line:
                click.echo(line)
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


Row = dict[str, Any]


class Column(NamedTuple):
    """One column of the table, and which rows make it worth its place."""

    name: str
    cell: Callable[[Row], str]
    needed: Callable[[Sequence[Row]], bool] = bool


def _any(key: str, usual: object) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: any(row[key] != usual for row in rows)


def _state(row: Row) -> str:
    back = f" for {row['back_in_s']:g} s" if row["back_in_s"] is not None else ""
    return f"{row['state']}{back}"


def _balance(row: Row) -> str:
    return f"{row['balance']} by {row['affinity']}" if row["affinity"] else str(row["balance"])


def _health(row: Row) -> str:
    health = row["health"]
    if health is None:
        return "-"
    lasts = f" for {health['for_s']:.0f} s" if health["for_s"] is not None else ""
    word = "unhealthy" if row["state"] == "unhealthy" else "healthy"
    return f"{health['result']}, {word}{lasts}" if lasts else str(health["result"])


def _reason(row: Row) -> str:
    """Why an endpoint is not asked, or its check says nothing; empty where all is well."""
    health, where = row["health"], f"{row['upstream']} {row['endpoint']}"
    if health is not None and health["reason"]:
        return f"{where}: {health['reason']}"
    if row["state"] != "available" and row["last_failure"]:
        return f"{where}: its last failure: {row['last_failure']}"
    return ""


COLUMNS = (
    Column("service", lambda row: str(row["service"])),
    Column("upstream", lambda row: str(row["upstream"])),
    Column("balance", _balance, _any("balance", "least_loaded")),
    Column("endpoint", lambda row: str(row["endpoint"])),
    Column("weight", lambda row: str(row["weight"]), _any("weight", 1)),
    Column("zone", lambda row: (row["zone"] or "-") + ("*" * (row["zone"] == row["our_zone"] != "")), _any("zone", "")),
    Column("state", _state),
    Column("health", _health, _any("health", None)),
    Column("latency", lambda row: f"{row['latency_ms']:.1f} ms"),
    Column("active", lambda row: str(row["active"])),
    Column("connections", lambda row: str(row["connections"])),
    Column("retries left", lambda row: str(row["retries_left"])),
)
