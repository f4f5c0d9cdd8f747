"""`mesh top`: hops, upstreams, endpoints, limits, sidecars and detections of this machine, live."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from sidecar.cli.console import Code, Duration, output_option, print_json, print_table
from sidecar.cli.sidecars import run_dir_option, some

EXAMPLES = """\b
Keys: 1-6 sheets, s and S sort by the next or previous column, r reverses, / filters,
      Enter shows all of a row, Space holds the picture still, ? lists the keys, q ends.

\b
Examples:
  mesh top
  mesh top --service web --every 500ms
  mesh top --once | grep -v available
  mesh top -o json | jq '.upstreams[] | select(.available == 0)'"""


@click.command(epilog=EXAMPLES)
@click.option("--service", help="Only this one.")
@click.option("--every", type=Duration(), default=1.0, show_default="1s", help="How often to read.")
@click.option("--once", is_flag=True, help="Print the tables once, and end; so it does where there is no terminal.")
@run_dir_option
@output_option
def top(service: str | None, every: float, once: bool, run_dir: Path | None, output: str) -> int:
    """Watch the mesh of this machine: hops, upstreams with their breakers and budgets, endpoints, limits, sidecars,
    and callers that detectors found conspicuous.

    Red is refused or gone, yellow is ailing. Rates are of the last five seconds.
    """
    from sidecar.cli.top_read import Reader

    some(run_dir, service)  # with none there is nothing to watch, and an exit code says so
    reader = Reader(run_dir, service)
    if output == "text" and not once and sys.stdin.isatty() and sys.stdout.isatty():
        from sidecar.cli.top_app import TopApp

        TopApp(reader.read, every).run()
        return Code.OK
    reader.read(time.monotonic())
    time.sleep(every)
    reading = reader.read(time.monotonic())
    if output == "json":
        print_json(reading.to_json())
        return Code.OK
    from sidecar.cli.top_sheets import SHEETS

    for sheet in SHEETS:
        rows = sheet.lines(reading.rows[sheet.name], sort=sheet.sort, descending=sheet.descending)
        click.secho(f"\n{sheet.name}" if sheet is not SHEETS[0] else sheet.name, bold=True, underline=True)
        if rows:
            cells = [tuple(column.text(row) for column in sheet.columns) for row in rows]
            styles = [sheet.style(row) for row in rows]
            print_table([column.title for column in sheet.columns], cells, colour=styles.__getitem__)
        else:
            click.echo(sheet.nothing)
    return Code.OK
