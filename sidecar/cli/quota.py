"""`mesh quota`: what callers have used of their quotas, and how one gets its own anew."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from certs.errors import MeshError
from sidecar.cli.console import Code, Failure, list_whole, output_option, print_json, print_table, span
from sidecar.cli.sidecars import Sidecar, moment, named_instead, run_dir_option, short, some

COLUMNS = ("service", "quota", "per", "who", "used", "left", "window ends", "")
BAR = 20  # characters
NEARLY, ALL = 0.8, 1.0  # shares from which on a row is yellow, and red


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def quota() -> None:
    """Quotas over an hour, a day or a month: who has used how much, and a new start for one who needs it."""


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The quotas of the sidecars that run here."""
    found = {row["name"]: f"{row['limit']} per {row['per']}" for _, row in _known(ctx)}
    return [CompletionItem(name, help=about) for name, about in found.items() if name.startswith(incomplete)]


def _callers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Who has used any of them, by the short name."""
    keys = {short(each["key"]) for _, row in _known(ctx) if row["per"] == "caller" for each in row["keys"]}
    return [CompletionItem(key) for key in sorted(keys) if key.startswith(incomplete)]


def _known(ctx: click.Context) -> list[tuple[str, dict[str, Any]]]:
    """Every quota that can be seen; none where no sidecar answers: a completion must not fail."""
    try:
        return [
            (sidecar.service, row)
            for sidecar in some(ctx.params.get("run_dir"))
            for row in sidecar.get("/quotas")["quotas"]
        ]
    except (click.ClickException, MeshError, OSError):
        return []


SHOWN = (
    "\b\nExamples:\n  mesh quota show\n  mesh quota show orders --quota daily --caller web\n"
    "  mesh quota show -o json"
)


@quota.command(epilog=SHOWN)
@click.argument("service", required=False)
@click.option("--quota", "name", shell_complete=_names, help="Only this one.")
@click.option("--caller", shell_complete=_callers, help="Only this caller: web, shop/web or a whole SPIFFE ID.")
@run_dir_option
@output_option
def show(service: str | None, name: str | None, caller: str | None, run_dir: Path | None, output: str) -> int:
    """Who has used how much of each quota in the window of now, and when the next one begins.

    Without SERVICE of all sidecars on this machine. Exit code 1: there is no such quota, or what has been used cannot
    be read; 3: no sidecar answers.
    """
    answers = [sidecar.get("/quotas") for sidecar in some(run_dir, service)]
    rows = [{"service": answer["service"], **row} for answer in answers for row in answer["quotas"]]
    if name is not None:
        names = sorted({row["name"] for row in rows})
        rows = [row for row in rows if row["name"] == name]
        if not rows:
            raise Failure(f"there is no quota {name!r}.", named_instead(name, "There are", names))
    if caller is not None:
        rows = [{**row, "keys": [key for key in row["keys"] if _is(caller, key)]} for row in rows]
    problems = {answer["service"]: answer["problem"] for answer in answers if answer["problem"]}
    if output == "json":
        print_json({"quotas": rows, "problems": problems})
    elif not rows:
        click.echo("No quota is declared (quotas) in any of them.")
    else:
        _print(rows)
    for sidecar, problem in problems.items():
        raise Failure(
            f"what {sidecar} has counted cannot be read: {problem}.",
            "Until that is mended, callers that are known go on to their limit and others are refused.",
        )
    return Code.OK


def _print(rows: list[dict[str, Any]]) -> None:
    cells, colours = [], []
    for row in rows:
        ends = span((moment(row["window_end"]) or 0.0) - time.time())
        for key in row["keys"] or [{"shown": "(nobody yet)", "used": 0, "left": row["limit"]}]:
            share = key["used"] / row["limit"]
            cells.append((
                row["service"], row["name"], row["per"], short(key["shown"]), str(key["used"]), str(key["left"]),
                f"in {ends}", bar(share),
            ))  # fmt: skip
            colours.append("red" if share >= ALL else "yellow" if share >= NEARLY else "")
    print_table(COLUMNS, cells, colour=lambda number: colours[number])


def bar(share: float) -> str:
    """`[########------------]  40 %`"""
    full = min(BAR, int(share * BAR + 1e-9))
    return f"[{'#' * full}{'-' * (BAR - full)}] {int(share * 100):3d} %"


RESET = (
    "\b\nExamples:\n  mesh quota reset daily --caller web\n  mesh quota reset daily --caller spiffe://demo.mesh/ns/shop/sa/web"
    " --yes\n  mesh quota reset keys --key '#9c56cc51b374c3ba189210d5b6d4bf57790d351c' --service orders"
)


@quota.command(epilog=RESET)
@click.argument("name", shell_complete=_names)
@click.option("--caller", shell_complete=_callers, help="Whose: web, shop/web or a whole SPIFFE ID.")
@click.option("--key", help="Of a quota that is not per caller: whose, as `mesh quota show` writes it.")
@click.option("--service", help="Where several services have a quota of this name: whose it is.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@run_dir_option
def reset(
    name: str, caller: str | None, key: str | None, service: str | None, yes: bool, run_dir: Path | None
) -> int:
    """Give one caller its quota anew, in the window of now. The audit says who did it.

    Exit code 1: there is no such quota, or nobody of that name has used any of it; 2: it has to be said whose; 3: no
    sidecar answers.
    """
    if (caller is None) == (key is None):
        advice = "Name one with --caller, or with --key as `mesh quota show` writes it."
        raise Failure("whose quota?", advice, Code.USAGE)
    sidecar, row = _which(run_dir, service, name)
    wanted = caller or key or ""
    found = [each for each in row["keys"] if _is(wanted, each)]
    if len(found) != 1:
        known = [short(each["shown"]) for each in row["keys"]][:20]
        none = "has used nothing of it in this window"
        what = "is the short name of several; write the SPIFFE ID" if found else none
        raise Failure(f"{wanted} {what}.", named_instead(wanted, "Who has", known))
    (whose,) = found
    if not yes:
        _ask(f"Give {whose['shown']} its quota {name} anew? It has used {whose['used']} of {row['limit']}.")
    status, document = sidecar.ask("POST", "/quotas/reset", {"quota": name, "key": whose["key"]})
    if status != 200:
        raise Failure(f"the quota was not reset: {document.get('detail') or document.get('error')}.")
    who, had = short(whose["shown"]), document["was"]
    click.echo(f"{sidecar.service}: {who} has all {row['limit']} of {name} again; it had used {had}.")
    return Code.OK


def _which(run_dir: Path | None, service: str | None, name: str) -> tuple[Sidecar, dict[str, Any]]:
    """The one sidecar here that has a quota of this name, and what it says of it."""
    seen = [(sidecar, row) for sidecar in some(run_dir, service) for row in sidecar.get("/quotas")["quotas"]]
    found = [(sidecar, row) for sidecar, row in seen if row["name"] == name]
    if not found:
        names = sorted({row["name"] for _, row in seen})
        raise Failure(f"there is no quota {name!r}.", named_instead(name, "There are", names))
    if len(found) > 1:
        services = ", ".join(sidecar.service for sidecar, _ in found)
        raise Failure(f"several services have a quota {name!r}: {services}.", "Say which with --service.", Code.USAGE)
    return found[0]


def _is(wanted: str, key: dict[str, Any]) -> bool:
    """Whether that is meant: the key itself, as it is shown, or its short name."""
    return wanted in (key["key"], key["shown"], short(key["key"]))


def _ask(question: str) -> None:
    """Go on only after a yes."""
    if not sys.stdin.isatty():
        raise Failure("there is nobody to ask.", "Say --yes.", Code.USAGE)
    if not click.confirm(question):
        raise Failure("nothing was done.")


list_whole(quota)
