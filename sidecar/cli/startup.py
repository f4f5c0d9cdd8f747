"""From a plan to a mesh that is ready: the CA's folder, the processes, and the wait for every one of them.

The sidecars start together with the CA, not after it: they need half a second to load, and ask again quickly where the
CA is not there yet. A sidecar is ready when its own admin socket says so; whoever falls meanwhile has the last word.
"""

from __future__ import annotations

import secrets
import shlex
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from sidecar.cli.console import Code, Failure, our_name
from sidecar.cli.fleet import Fleet, Member, fallen_words
from sidecar.cli.plan import Plan
from sidecar.cli.sidecars import Sidecar
from sidecar.cli.workspace import Workspace

READY_WITHIN = 30.0  # seconds; a sidecar needs about one, but the machine may be busy
TICK = 0.05  # seconds between looks
CA_READY = b"ca ready on "  # what `mesh ca serve` prints once it listens


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


def say(text: str) -> None:
    """Print progress, on standard error: standard output is for what was asked for."""
    click.echo(text, err=True)


def nobody_there(plan: Plan, run_dir: Path) -> None:
    """Raise Failure where a sidecar of the same name answers already: its socket would be taken from it."""
    for service in plan.config.services:
        path = run_dir / f"{service}.sock"
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                continue
        apart = f"{our_name()} up --run-dir /tmp/other --port-base 27000"
        if plan.demo_base is None:  # its ports are the file's own
            apart = f"{our_name()} up -f {shlex.quote(str(plan.file))} --run-dir /tmp/other"
        raise Failure(
            f"a sidecar of {service} is running already ({path}).",
            f"End that one first, or keep this mesh apart from it: {apart}",
            Code.UNREACHABLE,
        )


def start(plan: Plan, space: Workspace, fleet: Fleet, stop: Stop) -> bool:
    """Start everything and wait until it is ready; False where we were asked to end before. Raises Failure."""
    _prepare_ca(plan, space.folder)
    ca = fleet.start("the CA", plan.ca_command(space.folder))
    members = {
        service: fleet.start(service, plan.service_command(service, space.folder, space.run_dir))
        for service in plan.config.services
    }
    _wait([ca], stop, lambda: [] if CA_READY in ca.log.read_bytes() else [ca.name])
    if not stop.asked:
        domain = plan.config.trust_domain
        say(f"{stop.elapsed:5.1f} s  CA ready            https://{plan.ca}, trust domain {domain}")
    waiting = {name: Sidecar(name, space.run_dir / f"{name}.sock") for name in members}
    _wait([ca, *members.values()], stop, lambda: _still_starting(waiting, members, plan, stop))
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


def _still_starting(
    waiting: dict[str, Sidecar], members: Mapping[str, Member], plan: Plan, stop: Stop
) -> list[str]:
    """Who is not ready yet; those who have become so are named on the terminal and taken off the list, as are those
    whose command has ended well already.
    """
    for name, sidecar in list(waiting.items()):
        if members[name].exit_code == 0:
            del waiting[name]
            continue
        if not sidecar.socket.exists():
            continue
        try:
            state = sidecar.get("/status").get("state")
        except Failure:
            continue  # its socket is bound before it answers
        if state == "ready":
            del waiting[name]
            say(f"{stop.elapsed:5.1f} s  {name + ' ready':<18}  {plan.config.services[name].identity}")
    return list(waiting)


def _wait(members: list[Member], stop: Stop, missing: Callable[[], list[str]]) -> None:
    """Return once nothing is missing, or we were asked to end. Raises Failure where a member falls or time runs out.

    The first member is the CA, whose end is never a good one.
    """
    deadline = time.monotonic() + READY_WITHIN
    while not stop.asked and (names := missing()):
        for member in members:
            if member.exit_code or (member is members[0] and member.exit_code is not None):
                raise fallen_words(member)
        if time.monotonic() > deadline:
            late = next((member for member in members if member.name in names), members[0])
            raise Failure(
                f"{', '.join(names)} not ready after {READY_WITHIN:.0f} s.", late.last_words(), Code.UNREACHABLE
            )
        time.sleep(TICK)
