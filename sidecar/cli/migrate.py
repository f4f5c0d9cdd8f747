"""`mesh migrate`: on the way from plaintext to a mesh that takes none, who is not there yet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sidecar.cli.console import Code, Duration, list_whole, output_option, print_json, print_table, span
from sidecar.cli.sidecars import moment, run_dir_option, some

COLUMNS = ("service", "direction", "with", "let by", "open", "connections", "first seen", "last seen")


@dataclass(frozen=True, slots=True)
class Spoken:
    """Plaintext between a service and an address, or an upstream that is declared unmeshed."""

    service: str
    direction: str
    other: str
    let_by: str
    open: int
    connections: int
    first: float | None  # seconds since the epoch
    last: float | None  # None: not yet

    def since(self, earliest: float) -> bool:
        """Whether there was any from this moment on."""
        return self.open > 0 or (self.last is not None and self.last >= earliest)

    def cells(self, now: float) -> tuple[str, ...]:
        """The row of the table."""
        last = "now" if self.open else _ago(self.last, now)
        return (
            self.service, self.direction, self.other, self.let_by, str(self.open), str(self.connections),
            _ago(self.first, now), last,
        )  # fmt: skip


@click.group(epilog="\b\nExamples:\n  mesh migrate status\n  mesh migrate status --within 1h || echo not yet")
def migrate() -> None:
    """From plaintext to strict mTLS, service by service; docs/migrate.md has the steps."""


@migrate.command(
    epilog="\b\nExamples:\n  mesh migrate status\n  mesh migrate status --service orders --within 24h -o json"
)
@click.option("--service", help="Only this one.")
@click.option(
    "--within", type=Duration(), default=None, help="Only what was seen so lately.  [default: since each sidecar began]"
)
@run_dir_option
@output_option
def status(service: str | None, within: float | None, run_dir: Path | None, output: str) -> int:
    """Who still speaks plaintext to whom, as the sidecars on this machine see it.

    Inbound: callers without identity whom a listener's posture let in, by address. Outbound: where plaintext has left
    for, by leave of redirect.passthrough or to an upstream with `unmeshed: passthrough`. What stays on this machine
    does not count. Then each listener that is not strict, and what strict would have refused.

    Exit code 0: nobody speaks plaintext. 1: somebody does, or did within that time.
    """
    answers = [sidecar.get("/plaintext") for sidecar in some(run_dir, service)]
    now = time.time()
    earliest = now - within if within is not None else 0.0
    spoken = [row for answer in answers for row in _spoken(answer)]
    still = [row for row in spoken if row.since(earliest)]
    if output == "json":
        print_json({"plaintext": bool(still), "sidecars": answers})
    else:
        _show(answers, still, now, within)
    return Code.NEGATIVE if still else Code.OK


list_whole(migrate)


def _spoken(answer: dict[str, Any]) -> Iterator[Spoken]:
    service = str(answer["service"])
    postures = {row["name"]: row for row in answer["listeners"]}
    for row in answer["connections"]:
        inbound = row["direction"] == "inbound"
        let_by = _posture(row["listener"], postures.get(row["listener"])) if inbound else str(row["listener"])
        yield Spoken(
            service, "in from" if inbound else "out to", str(row["address"]), let_by, int(row["open"]),
            int(row["connections"]), moment(row["first"]), moment(row["last"]),
        )  # fmt: skip
    for row in answer["upstreams"]:
        other = f"{row['name']} ({', '.join(row['endpoints'][:3])}{', …' * (len(row['endpoints']) > 3)})"
        yield Spoken(
            service, "out to", other, "unmeshed: passthrough", int(row["open"]), int(row["connections"]), None,
            moment(row["last"]),
        )  # fmt: skip


def _posture(name: str, listener: dict[str, Any] | None) -> str:
    if listener is None:
        return f"{name}, which is gone"
    if listener["posture"] == "strict":
        return f"{name}, strict now"
    return f"{name}, {listener['posture']} until {_until(listener)}"


def _until(listener: dict[str, Any]) -> str:
    return f"{str(listener['until'])[:16]}Z"


def _ago(at: float | None, now: float) -> str:
    return "-" if at is None else f"{span(now - at)} ago"


def _show(answers: Sequence[dict[str, Any]], still: Sequence[Spoken], now: float, within: float | None) -> None:
    if still:
        print_table(COLUMNS, [row.cells(now) for row in still], colour=lambda n: "red" if still[n].open else "yellow")
    for answer in answers:
        for listener in answer["listeners"]:
            if listener["posture"] != "strict":
                click.echo(_not_strict(answer["service"], listener, still))
        if answer["forgotten"]:
            count = answer["forgotten"]
            click.echo(f"{answer['service']}: {count} more, seen before these, had to make room; there is a bound")
    when = "since the sidecars began" if within is None else f"in the last {span(within)}"
    if still:
        click.echo(f"Plaintext {when}: {len(still)} kind{'s' if len(still) != 1 else ''} of connection, see above.")
    else:
        click.echo(f"Nobody has spoken plaintext {when}.")


def _not_strict(service: str, listener: dict[str, Any], still: Sequence[Spoken]) -> str:
    """What a listener's posture was good for, and what can be done about it."""
    count = int(listener.get("would_refuse") or 0)
    said = f"{service}: listener {listener['name']} is {listener['posture']} until {_until(listener)}; "
    said += f"strict would have refused {count} hop{'' if count == 1 else 's'}"
    used = any(row.service == service and row.let_by.startswith(f"{listener['name']},") for row in still)
    return said if count or used else f"{said}: remove posture: and until:, nobody needs them"
