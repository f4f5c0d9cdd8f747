"""`mesh detections`: callers that detectors found conspicuous, who is held for it, and how to let one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sidecar.cli.console import Code, Failure, list_whole, output_option, print_json, print_table, span
from sidecar.cli.sidecars import named_instead, run_dir_option, short, some

HELD = ("service", "caller", "user", "detector", "", "for", "refused", "what it did")
FOUND = ("at", "service", "caller", "user", "detector", "route", "", "what it did")
EXAMPLES = (
    "\b\nExamples:\n  mesh detections\n  mesh detections --service orders -o json\n  mesh detections unblock web"
)


@click.group(invoke_without_command=True, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--service", help="Only this one.")
@run_dir_option
@output_option
@click.pass_context
def detections(ctx: click.Context, service: str | None, run_dir: Path | None, output: str) -> int:
    """Callers that detectors (`detectors` of a service) found conspicuous, newest first; and who is held for it, to a
    rate or blocked, with what it did and for how long.
    """
    if ctx.invoked_subcommand is not None:
        return Code.OK
    answers = [sidecar.get("/detections") for sidecar in some(run_dir, service)]
    if output == "json":
        print_json({"sidecars": answers})
        return Code.OK
    if not any(answer["on"] for answer in answers):
        click.echo("No detector is declared (detectors) in any of them.")
        return Code.OK
    held = [_held(answer["service"], row) for answer in answers for row in answer["held"]]
    found = [_found(answer["service"], row) for answer in answers for row in answer["found"]]
    if held:
        print_table(HELD, held, colour=lambda _: "red")
        click.echo("Let one go: mesh detections unblock CALLER\n")
    if found:
        print_table(FOUND, sorted(found, reverse=True))
    else:
        click.echo("Nobody was conspicuous so far.")
    return Code.OK


def _held(service: str, row: dict[str, Any]) -> tuple[str, ...]:
    return (
        service, short(row["caller"]), row["user"] or "-", row["detector"], row["action"], span(row["seconds_left"]),
        str(row["refused"]), row["what"],
    )  # fmt: skip


def _found(service: str, row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["at"], service, short(row["caller"]), row["user"] or "-", row["detector"], row["route"] or "-",
        row["action"], row["what"],
    )  # fmt: skip


@detections.command(epilog="\b\nExamples:\n  mesh detections unblock web\n  mesh detections unblock web --user okta:jo")
@click.argument("caller")
@click.option("--user", help="Only this user of it, as `mesh detections` writes it.")
@click.option("--service", help="Only at this one.")
@run_dir_option
def unblock(caller: str, user: str | None, service: str | None, run_dir: Path | None) -> int:
    """Let a caller go, wherever a detector holds it: web, shop/web or a whole SPIFFE ID. It is counted anew from then
    on, and the audit says who did it.

    Exit code 1: nobody holds it; 3: no sidecar answers.
    """
    sidecars = some(run_dir, service)
    held = [(sidecar, row) for sidecar in sidecars for row in sidecar.get("/detections")["held"]]
    meant = {(sidecar, row["caller"]) for sidecar, row in held if caller in (row["caller"], short(row["caller"]))}
    if not meant:
        names = sorted({short(row["caller"]) for _, row in held})
        raise Failure(f"no detector holds {caller!r}.", named_instead(caller, "Who is held", names))
    for sidecar, whole in sorted(meant, key=lambda each: each[0].service):
        status, document = sidecar.ask("POST", "/detections/unblock", {"caller": whole, "user": user})
        if status != 200:
            raise Failure(f"it was not lifted: {document.get('detail') or document.get('error')}.")
        click.echo(f"{sidecar.service}: {short(whole)} is not held any more ({', '.join(document['lifted'])}).")
    return Code.OK


list_whole(detections)
