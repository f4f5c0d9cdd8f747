"""`mesh up`: a whole mesh on this machine, for as long as you watch it.

Theory of operation. The CA and each service's sidecar are processes of their own, exactly those that `mesh ca serve`
and `mesh run` would be; nothing is simulated. This process only plans, starts, asks the admin sockets and draws. It
never acts in a signal handler: a signal raises a flag, every wait looks at it, and so there is one way out, the `with`
blocks of `_up`, which end the processes first and remove the folders after them.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from sidecar.admin import client
from sidecar.cli.console import Code, Duration, Failure, output_option, print_json
from sidecar.cli.fleet import Fleet, Member
from sidecar.cli.live import LiveTable, print_rows
from sidecar.cli.plan import Plan, demo_plan, file_plan
from sidecar.cli.preflight import check_ports, wanted_ports
from sidecar.cli.rows import HopRow, Watcher
from sidecar.cli.sidecars import Sidecar, run_dir_option
from sidecar.cli.workspace import Workspace
from sidecar.demo.config import DEFAULT_BASE, DemoPorts, demo_yaml

READY_WITHIN = 30.0  # seconds; a sidecar needs about one, but the machine may be busy
TICK = 0.05  # seconds between looks while starting
REDRAW = 1.0  # seconds between readings of the admin sockets
EXAMPLES = """\b
Examples:
  mesh up
  mesh up --port-base 27000
  mesh up --for 20s -o json
  mesh up --show-config > mesh.yaml && mesh up -f mesh.yaml"""


@dataclass(slots=True)
class Stop:
    """Whether somebody asked us to end, and since when we run."""

    asked: bool = False
    started: float = field(default_factory=time.monotonic)

    def __call__(self, number: int, frame: object) -> None:
        """The signal handler."""
        self.asked = True

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


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
    seconds: float | None,
    port_base: int | None,
    logs: bool,
    show_config: bool,
    run_dir: Path | None,
    output: str,
) -> int:
    """Start a whole mesh on this machine and watch its hops: the demo, or your own services with -f.

    A CA, a sidecar for each service, the services themselves. No root, no container; all on 127.0.0.1. Ctrl-C ends
    everything and leaves nothing behind.
    """
    if file is not None and port_base is not None:
        raise Failure("--port-base moves the demo; the ports of a file stand in the file.", "", Code.USAGE)
    base = port_base or DEFAULT_BASE
    if show_config:
        click.echo(demo_yaml(base), nl=False)
        return Code.OK
    stop = Stop()
    with _signals(stop):
        return _up(stop, file, base, seconds, run_dir or client.run_folder(), logs=logs, as_json=output == "json")


def _up(
    stop: Stop, file: Path | None, base: int, seconds: float | None, run_dir: Path, *, logs: bool, as_json: bool
) -> int:
    with Workspace(run_dir) as space:
        plan = demo_plan(base, space.folder) if file is None else file_plan(file)
        _nobody_there(plan, run_dir)
        check_ports(wanted_ports(plan.config, plan.ca), demo_base=plan.demo_base)
        space.claim(plan.config.services)
        with Fleet(space.folder / "logs") as fleet:
            echo = _LogTail(fleet) if logs else None
            watcher = Watcher([Sidecar(name, run_dir / f"{name}.sock") for name in plan.config.services])
            if _start(plan, space, fleet, stop):
                _try_next(plan, run_dir)
            rows = _watch(watcher, fleet, stop, seconds, echo, draw=not as_json)
            if as_json:
                print_json(_document(plan, rows, stop))
            elif not sys.stdout.isatty():
                print_rows(rows, time.time())
    _say("stopped; nothing is left running")
    return Code.OK


def _say(text: str) -> None:
    click.echo(text, err=True)


def _nobody_there(plan: Plan, run_dir: Path) -> None:
    """Raise Failure where a sidecar of the same name answers already: its socket would be taken from it."""
    for service in plan.config.services:
        path = run_dir / f"{service}.sock"
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                continue
        raise Failure(
            f"a sidecar of {service} is running already ({path}).",
            "End that one first, or keep this mesh apart from it: mesh up --run-dir /tmp/other --port-base 27000",
            Code.UNREACHABLE,
        )


# ---- start ---------------------------------------------------------------------------------------------------------


def _start(plan: Plan, space: Workspace, fleet: Fleet, stop: Stop) -> bool:
    """Start everything and wait until it is ready; False where we were asked to end before. Raises Failure."""
    _prepare_ca(plan, space.folder)
    ca = fleet.start("ca", plan.ca_command(space.folder))
    members = {
        service: fleet.start(service, plan.service_command(service, space.folder, space.run_dir))
        for service in plan.config.services
    }
    _wait([ca], stop, lambda: ["the CA"] if not _listens(plan.ca.host, plan.ca.port) else [])
    if not stop.asked:
        domain = plan.config.trust_domain
        _say(f"{stop.elapsed:5.1f} s  CA ready            https://{plan.ca}, trust domain {domain}")
    waiting = {name: Sidecar(name, space.run_dir / f"{name}.sock") for name in members}
    _wait([ca, *members.values()], stop, lambda: _still_starting(waiting, plan, stop))
    return not stop.asked


def _prepare_ca(plan: Plan, folder: Path) -> None:
    from ca.bootstrap import prepare
    from ca.entries import NewEntry

    passphrase = secrets.token_urlsafe(32).encode()
    secret = folder / "passphrase"
    secret.touch(mode=0o600)
    secret.write_bytes(passphrase)
    entries = [NewEntry(service.identity, (service.name,)) for service in plan.config.services.values()]
    prepare(folder / "ca", plan.config.trust_domain, passphrase, entries, str(plan.ca))


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.2):
            return True
    except OSError:
        return False


def _still_starting(waiting: dict[str, Sidecar], plan: Plan, stop: Stop) -> list[str]:
    """Who is not ready yet; those who have become so are named on the terminal and taken off the list."""
    for name, sidecar in list(waiting.items()):
        if not sidecar.socket.exists():
            continue
        try:
            state = sidecar.get("/status").get("state")
        except Failure:
            continue  # its socket is bound before it answers
        if state == "ready":
            del waiting[name]
            _say(f"{stop.elapsed:5.1f} s  {name + ' ready':<18}  {plan.config.services[name].identity}")
    return list(waiting)


def _wait(members: list[Member], stop: Stop, missing: Callable[[], list[str]]) -> None:
    """Return once nothing is missing, or we were asked to end. Raises Failure where a member falls or time runs out."""
    deadline = time.monotonic() + READY_WITHIN
    while not stop.asked and (names := missing()):
        for member in members:
            if member.exit_code is not None:
                raise _fallen(member)
        if time.monotonic() > deadline:
            late = next((member for member in members if member.name in names), members[0])
            raise Failure(
                f"{', '.join(names)} not ready after {READY_WITHIN:.0f} s.", late.last_words(), Code.UNREACHABLE
            )
        time.sleep(TICK)


def _fallen(member: Member) -> Failure:
    words = member.last_words() or "It wrote nothing."
    return Failure(f"{member.name} ended with code {member.exit_code}; its last words:", words)


# ---- watch ---------------------------------------------------------------------------------------------------------


def _watch(
    watcher: Watcher, fleet: Fleet, stop: Stop, seconds: float | None, echo: _LogTail | None, *, draw: bool
) -> list[HopRow]:
    """Draw the hops until asked to end, or the time is over, or a member falls; returns the last rows read."""
    rows: list[HopRow] = []
    next_reading = 0.0
    with LiveTable() if draw else _Undrawn() as table:
        while not stop.asked and (seconds is None or stop.elapsed < seconds):
            if fallen := fleet.fallen():
                raise _fallen(fallen)
            if time.monotonic() >= next_reading:
                rows = watcher.read(time.monotonic())
                next_reading = time.monotonic() + REDRAW
                table.show(rows, time.time())
            if echo is not None:
                echo.print_new()
            time.sleep(TICK)
        return watcher.read(time.monotonic()) or rows


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
                    _say(f"{member.name} | {line.decode(errors='replace').rstrip()}")


def _document(plan: Plan, rows: list[HopRow], stop: Stop) -> dict[str, object]:
    return {
        "trust_domain": str(plan.config.trust_domain),
        "seconds": round(stop.elapsed, 3),
        "services": {name: str(service.identity) for name, service in plan.config.services.items()},
        "hops": [row.to_json() for row in rows],
    }


# ---- what to try next ----------------------------------------------------------------------------------------------


def _try_next(plan: Plan, run_dir: Path) -> None:
    """Print what to try in another terminal; for the demo with calls that are let through and one that is not."""
    mesh = _our_name()
    where = "" if run_dir == client.run_folder() else f" --run-dir {run_dir}"
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
    _say("\nTry in another terminal:")
    for command, meaning in lines:
        _say(f"  {command:<{width}}  {meaning}")
    _say(f"  config: {plan.file}    logs: {plan.file.parent / 'logs' if plan.demo_base is not None else '--logs'}\n")


def _our_name() -> str:
    """How this very command can be called again from here."""
    called = Path(sys.argv[0])
    if shutil.which("mesh") == str(called.absolute()) or called.name != "mesh":
        return "mesh"
    try:
        return str(called.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(called)
