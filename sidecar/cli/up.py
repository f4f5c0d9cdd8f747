"""`mesh up`: a whole mesh on this machine, for as long as you watch it.

Theory of operation. The CA and each service's sidecar are processes of their own, exactly those that `mesh ca serve`
and `mesh run` would be; nothing is simulated. This process only plans, starts, asks the admin sockets and draws. It
never acts in a signal handler: a signal raises a flag, every wait looks at it, and so there is one way out, the `with`
blocks of `_up`, which end the processes first and remove the folders after them.
"""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from sidecar.admin import client
from sidecar.cli.console import Code, Duration, Failure, our_name, output_option, print_json
from sidecar.cli.fleet import Fleet
from sidecar.cli.live import LiveTable, print_rows
from sidecar.cli.plan import Plan, demo_plan, file_plan
from sidecar.cli.preflight import check_ports, wanted_ports
from sidecar.cli.rows import HopRow, Watcher
from sidecar.cli.sidecars import Sidecar, run_dir_option
from sidecar.cli.startup import Stop, nobody_there, say, start
from sidecar.cli.workspace import Workspace
from sidecar.demo.config import DEFAULT_BASE, DemoPorts, demo_yaml

TICK = 0.05  # seconds between looks at signals and members
REDRAW = 1.0  # seconds between readings of the admin sockets
EXAMPLES = """\b
Examples:
  mesh up
  mesh up --port-base 27000
  mesh up --for 20s -o json
  mesh up --compose docker-compose.yml
  mesh up --show-config > mesh.yaml && mesh up -f mesh.yaml"""


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command(epilog=EXAMPLES)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="Your own mesh.yaml, its commands included.")
@click.option(
    "--compose", "compose_file", type=click.Path(path_type=Path, dir_okay=False),
    help="Your docker-compose project: injected, started, verified; it runs on until `mesh down`.",
)  # fmt: skip
@click.option("-p", "--project-name", help="With --compose: the project's name.  [default: as for Compose]")
@click.option("--for", "seconds", type=Duration(), help="End by itself after this long, counted from the first start.")
@click.option(
    "--port-base", type=click.IntRange(1024, 65000), help=f"Move the demo's ports.  [default: {DEFAULT_BASE}]"
)
@click.option("--logs", is_flag=True, help="Print what sidecars and applications write, on standard error.")
@click.option("--show-config", is_flag=True, help="Print the demo's mesh.yaml and start nothing.")
@run_dir_option
@output_option
def up(
    file: Path | None,
    compose_file: Path | None,
    project_name: str | None,
    seconds: float | None,
    port_base: int | None,
    logs: bool,
    show_config: bool,
    run_dir: Path | None,
    output: str,
) -> int:
    """Start a whole mesh on this machine and watch its hops: the demo, or your own services with -f.

    A CA, a sidecar for each service, the services themselves. No root, no container; all on 127.0.0.1. Ctrl-C ends
    everything and leaves nothing behind. With --compose the same for a docker-compose project, in its containers.
    """
    if compose_file is not None:
        return _up_compose(compose_file, project_name, output, others=(file, seconds, port_base))
    if file is not None and port_base is not None:
        raise Failure("--port-base moves the demo; the ports of a file stand in the file.", "", Code.USAGE)
    base = port_base or DEFAULT_BASE
    if show_config:
        click.echo(demo_yaml(base), nl=False)
        return Code.OK
    stop = Stop()
    with _signals(stop):
        return _up(stop, file, base, seconds, run_dir or client.run_folder(), logs=logs, as_json=output == "json")


def _up_compose(file: Path, project: str | None, output: str, *, others: tuple[object, ...]) -> int:
    from sidecar.cli.compose_up import up_compose

    if any(each is not None for each in others):
        raise Failure("-f, --for and --port-base are of meshes on this machine, not of --compose.", "", Code.USAGE)
    return up_compose(file, project, output)


def _up(
    stop: Stop, file: Path | None, base: int, seconds: float | None, run_dir: Path, *, logs: bool, as_json: bool
) -> int:
    with Workspace(run_dir) as space:
        plan = demo_plan(base, space.folder) if file is None else file_plan(file)
        nobody_there(plan, run_dir)
        check_ports(wanted_ports(plan.config, plan.ca), demo_base=plan.demo_base)
        space.claim(plan.config.services)
        with Fleet(space.folder / "logs") as fleet:
            echo = _LogTail(fleet) if logs else None
            watcher = Watcher([Sidecar(name, run_dir / f"{name}.sock") for name in plan.config.services])
            if start(plan, space, fleet, stop):
                _try_next(plan, run_dir, fleet.logs)
            rows = _watch(watcher, fleet, stop, seconds, echo, draw=not as_json)
            if as_json:
                print_json(_document(plan, rows, stop))
            elif not sys.stdout.isatty():
                print_rows(rows, time.time())
    say("stopped; nothing is left running")
    return Code.OK


# ---- watch ---------------------------------------------------------------------------------------------------------


def _watch(
    watcher: Watcher, fleet: Fleet, stop: Stop, seconds: float | None, echo: _LogTail | None, *, draw: bool
) -> list[HopRow]:
    """Draw the hops until asked to end, or the time is over, or a member falls; returns the last rows read."""
    rows: list[HopRow] = []
    next_reading = 0.0
    with LiveTable() if draw else _Undrawn() as table:
        while fleet.someone_left(on_end=lambda member: say(f"{member.name} has ended")):
            if stop.asked or (seconds is not None and stop.elapsed >= seconds):
                return watcher.read(time.monotonic()) or rows
            if time.monotonic() >= next_reading:
                rows = watcher.read(time.monotonic())
                next_reading = time.monotonic() + REDRAW
                table.show(rows, time.time())
            if echo is not None:
                echo.print_new()
            time.sleep(TICK)
        return rows


class _Undrawn(LiveTable):
    """A table that nobody sees."""

    def __enter__(self) -> LiveTable:
        return self


class _LogTail:
    """Prints what members write to their logs, a name before each line."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._read: dict[str, int] = {}

    def print_new(self) -> None:
        """Print the whole lines that came since the last call."""
        for member in self._fleet.members:
            with member.log.open("rb") as log:
                log.seek(self._read.get(member.name, 0))
                for line in log:
                    if not line.endswith(b"\n"):
                        break
                    self._read[member.name] = self._read.get(member.name, 0) + len(line)
                    say(f"{member.name} | {line.decode(errors='replace').rstrip()}")


def _document(plan: Plan, rows: list[HopRow], stop: Stop) -> dict[str, object]:
    return {
        "trust_domain": str(plan.config.trust_domain),
        "seconds": round(stop.elapsed, 3),
        "services": {name: str(service.identity) for name, service in plan.config.services.items()},
        "hops": [row.to_json() for row in rows],
    }


# ---- what to try next ----------------------------------------------------------------------------------------------


def _try_next(plan: Plan, run_dir: Path, logs: Path) -> None:
    """Print what to try in another terminal; for the demo with calls that are let through and one that is not."""
    mesh = our_name()
    where = "" if run_dir == client.run_folder() else f" --run-dir {shlex.quote(str(run_dir.absolute()))}"
    lines: list[tuple[str, str]] = []
    if plan.demo_base is not None:
        ports = DemoPorts(plan.demo_base)
        lines = [
            (f"curl -i http://127.0.0.1:{ports.web_to_orders}/orders/7", "as web, through its sidecar: 200"),
            (f"curl -i http://127.0.0.1:{ports.web_to_payments}/charges/1", "web may not: 403 and a decision id"),
            (f"{mesh} explain DECISION_ID{where}", "why, and what would change it"),
            (f"{mesh} explain --from web --to payments --method GET --path /charges/1{where}", "the same, asked ahead"),
        ]
    lines += [
        (f"{mesh} status{where}", "identities, listeners, notes"),
        (f"{mesh} certs list{where}", "who holds what"),
    ]
    width = max(len(command) for command, _ in lines if len(command) < 64)
    say("\nTry in another terminal:")
    for command, meaning in lines:
        say(f"  {command:<{width}}  {meaning}")
    say(f"  config: {plan.file}    logs: {logs}")
    say(f"  CA: {logs.parent / 'ca'}    for mesh certs revoke --ca-dir, mesh ca status --dir\n")
