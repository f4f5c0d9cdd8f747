"""`mesh limits`: how the rate limits of the sidecars on this machine stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sidecar.cli.console import Code, output_option, print_json, print_table
from sidecar.cli.sidecars import run_dir_option, some

COLUMNS = ("service", "limit", "per", "rate", "keys", "refused", "delayed", "waiting", "blocked", "hottest")


@click.command(epilog="\b\nExamples:\n  mesh limits\n  mesh limits --service orders -o json")
@click.option("--service", help="Only this one.")
@run_dir_option
@output_option
def limits(service: str | None, run_dir: Path | None, output: str) -> int:
    """Each rate limit as its sidecar sees it: how many share it, what it has refused and delayed, who waits, who is
    shut out, and who has the least left. Of a limit per header or claim nobody is named: those are what callers sent.

    A limit that is shared stands with the Redis in which all sidecars count, and whether that answers.
    """
    answers = [sidecar.get("/limits") for sidecar in some(run_dir, service)]
    if output == "json":
        print_json({"sidecars": answers})
        return Code.OK
    rows = [{"service": answer["service"], **row} for answer in answers for row in answer["limits"]]
    if not rows:
        click.echo("No rate limit is declared (rates) in any of them.")
    else:
        print_table(COLUMNS, [_cells(row) for row in rows])
    for answer in answers:
        if redis := answer["redis"]:
            problem = f"does not answer: {redis['problem']} (when_away: {redis['when_away']})"
            click.echo(f"{answer['service']}: {redis['url']} {'answers' if redis['up'] else problem}")
    return Code.OK


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    hottest = [f"{each['key'] or 'somebody'} {each['remaining']} left" for each in row["hottest"][:2]]
    counts = (str(row[name]) for name in ("keys", "refused", "delayed", "waiting", "blocked"))
    shared = " (shared)" if row["shared"] == "redis" else ""
    return (row["service"], row["limit"], row["per"], f"{row['rate']}{shared}", *counts, ", ".join(hottest) or "-")
