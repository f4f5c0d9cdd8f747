"""`mesh inventory`: who may call what and who does, since when; what nobody uses; signed, or as a page."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Failure, list_whole, print_json, print_table, span
from sidecar.cli.sidecars import Sidecar, run_dir_option, running, short

if TYPE_CHECKING:
    from sidecar.policy.inventory import Row, Seen

VERSION = 1
DAYS = 30.0
COLUMNS = ("from", "to", "route", "rule", "proved by", "state", "last use", "count", "owner")
EXAMPLES = """\b
Examples:
  mesh inventory
  mesh inventory --days 90 --diff
  mesh inventory --key inventory.key -o json > inventory.json
  mesh inventory -o html > inventory.html
  mesh inventory verify inventory.json --key inventory.pub --root 3f5c…"""


@click.group(invoke_without_command=True, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-f", "--file", default="mesh.yaml", show_default=True, help="The config: what is allowed.")
@click.option("--service", help="Only what this one is called for, or calls.")
@click.option("--days", type=click.FloatRange(min=0), default=DAYS, show_default=True, help="Unused so long: dormant.")
@click.option("--ca-dir", type=click.Path(path_type=Path), help="The CA's folder: its entries and keys are looked at.")
@click.option("--diff", "show_diff", is_flag=True, help="Print the changes that remove what is dormant, as a patch.")
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="With -o json: sign with this key (PEM).")
@click.option("-o", "--output", type=click.Choice(["text", "json", "html"]), default="text")
@run_dir_option
@click.pass_context
def inventory(
    ctx: click.Context, file: str, service: str | None, days: float, ca_dir: Path | None, show_diff: bool,
    key: Path | None, output: str, run_dir: Path | None,
) -> int:  # fmt: skip
    """Every edge that the config allows or that the sidecars running here have seen: who calls what, how it proved who
    it is, by which rule, when first and last, and who owns it. What was not used for --days is dormant.

    Sidecars that do not run here are not asked; what is known of their edges is then only what is allowed.
    """
    if ctx.invoked_subcommand is not None:
        return Code.OK
    if key is not None and output != "json":
        raise Failure("only the JSON is signed.", "Say -o json.", Code.USAGE)
    document = _document(file, service, days, ca_dir, run_dir)
    if show_diff:
        for change in document["changes"]:
            click.echo(f"# {change['where']}: {change['what']}{'' if change['diff'] else ' (by hand)'}")
        click.echo(document["patch"], nl=False)
    elif output == "json":
        print_json(_signed(document, key))
    elif output == "html":
        from sidecar.cli.inventory_page import page

        click.echo(page(document), nl=False)
    else:
        _print(document)
    return Code.OK


def _document(
    file: str, service: str | None, days: float, ca_dir: Path | None, run_dir: Path | None
) -> dict[str, Any]:
    """All of it, as data. Raises Failure, ConfigErrors."""
    from sidecar.config.load import load
    from sidecar.policy.dormant import patch, removals
    from sidecar.policy.inventory import rows
    from sidecar.telemetry.clock import rfc3339

    now = time.time()
    loaded = load(file, now)
    if service is not None and service not in loaded.config.services:
        from sidecar.cli.sidecars import named_instead

        names = [*loaded.config.services]
        raise Failure(f"{file} has no service {service!r}.", named_instead(service, "It has", names))
    seen, told = _ask(running(run_dir))
    found = rows(loaded.config, seen, now, days)
    changes = removals(loaded.config, found, loaded.sources)
    if service is not None:
        ours = loaded.config.services[service].identity.text
        found = [row for row in found if row.called == service or row.caller == ours]
        changes = [each for each in changes if each.what.startswith(f"{service}:")]
    return {
        "v": VERSION, "made": rfc3339(now), "trust_domain": loaded.config.trust_domain.name, "days": int(days),
        "asked": {name: rfc3339(each.since) for name, each in sorted(seen.items())},
        "edges": [_written(row) for row in found],
        "told": told,
        "credentials": _credentials(ca_dir, now, days) if ca_dir is not None else [],
        "changes": [each.to_json() for each in changes],
        "patch": patch(changes, loaded.sources),
    }  # fmt: skip


def _written(row: Row) -> dict[str, Any]:
    from sidecar.telemetry.clock import rfc3339

    times = {name: rfc3339(at) if (at := getattr(row, name)) is not None else None for name in ("first", "last")}
    return row.to_json() | times


def _ask(sidecars: Sequence[Sidecar]) -> tuple[dict[str, Seen], list[dict[str, Any]]]:
    """What each sidecar knows, and the same as it has signed it. One that does not answer is left out: its edges are
    then `unknown`.
    """
    from sidecar.policy.inventory import Seen

    found, told = {}, []
    for sidecar in sidecars:
        try:
            answer = sidecar.get("/inventory")
        except Failure as failure:
            click.echo(f"# {failure.message}", err=True)
            continue
        found[sidecar.service] = Seen(float(answer["since"]), tuple(answer["edges"]))
        if "signed" in answer:
            told.append(answer)
    return found, told


def _credentials(ca_dir: Path, now: float, days: float) -> list[dict[str, Any]]:
    """Entries and enrolment keys of this CA, with what was issued by them last. Raises NoCa, StoreUnavailable."""
    from ca.cli_common import opened
    from sidecar.telemetry.clock import rfc3339

    found, earliest = [], now - days * 86_400.0
    with opened(ca_dir) as (_, store):
        for entry in store.entries():
            issued = store.issuances(1000, entry.id)
            last = max((each.issued_at for each in issued), default=None)
            found.append(_credential("entry", entry.id, entry.spiffe_id.text, last, entry.created_at, earliest))
            for key in store.keys(entry.id):
                if key.revoked_at is None:
                    used = [each.issued_at for each in issued if each.proof_detail == key.key_id]
                    made = max(used, default=None)
                    found.append(_credential(
                        "enrolment key", key.key_id, entry.spiffe_id.text, made, key.created_at, earliest, entry.id
                    ))  # fmt: skip
    for each in found:
        each["last"] = rfc3339(each["last"]) if each["last"] is not None else None
        each["since"] = rfc3339(each["since"])
    return found


def _credential(
    kind: str, name: str, identity: str, last: float | None, since: float, earliest: float, entry: str = ""
) -> dict[str, Any]:
    dormant = max(last or 0.0, since) < earliest
    change = f"mesh ca entry remove {name}" if kind == "entry" else f"mesh ca entry revoke-key {entry} {name}"
    return {
        "kind": kind, "id": name, "spiffe_id": identity, "last": last, "since": since,
        "state": "dormant" if dormant else "used" if last is not None else "unused",
        "change": change if dormant else "",
    }  # fmt: skip


def _print(document: dict[str, Any]) -> None:
    from sidecar.policy.inventory import WORDS

    edges = document["edges"]
    colours = {"dormant": "yellow", "not_allowed": "red"}
    print_table(COLUMNS, [_cells(row) for row in edges], colour=lambda n: colours.get(edges[n]["state"], ""))
    counts = {state: sum(row["state"] == state for row in edges) for state in WORDS}
    click.echo()
    for state, words in WORDS.items():
        if counts[state]:
            click.echo(f"{counts[state]} {state.replace('_', ' ')}: {words}")
    for each in document["credentials"]:
        if each["change"]:
            click.echo(f"{each['kind']} {each['id']} of {short(each['spiffe_id'])} is dormant: {each['change']}")
    if document["changes"]:
        click.echo("What is dormant is removed by: mesh inventory --diff")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    what = f"{row['methods']} {row['route']}".strip() or "-"
    return (
        short(row["caller"]), short(row["called"]), what, row["rule"] or "-", row["auth"], row["state"],
        _ago(row["last"]), str(row["count"]), row["owner"] or "-",
    )  # fmt: skip


def _ago(moment: str | None) -> str:
    from sidecar.cli.sidecars import moment as seconds

    at = seconds(moment)
    return "never" if at is None else f"{span(max(0.0, time.time() - at))} ago"


def _signed(document: dict[str, Any], key: Path | None) -> dict[str, Any]:
    """The document with its signature, which is null without a key."""
    if key is None:
        return {"inventory": document, "jws": None}
    from certs.detached import sign
    from certs.keys import load_key

    return {"inventory": document, "jws": sign(document, load_key(key, None))}


@inventory.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="Public key or certificate.")
@click.option("--root", "roots", multiple=True, metavar="SHA256", help="The mesh's root, which vouches for sidecars.")
def verify(file: Path, key: Path | None, roots: tuple[str, ...]) -> int:
    """Whether an inventory is what the holder of a key has signed (--key), and what is in it of sidecars is what they
    have told, signed by the keys of their certificates (--root). Exit code 1: it is not.

    Each looks at its part: the table, with its rules and states, is vouched for by the key alone.
    """
    from certs.strict_json import unique

    if key is None and not roots:
        raise click.UsageError("say by what it is to be believed: --key, --root or both")
    try:
        document = json.loads(file.read_bytes(), object_pairs_hook=unique)
        inside, jws = document["inventory"], document["jws"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Failure(f"{file} is no inventory.", "Make one with: mesh inventory -o json --key KEY") from None
    if key is not None:
        _check_key(file, key, inside, jws)
    _check_told(file, inside, roots)
    return Code.OK


def _check_key(file: Path, key: Path, inside: Any, jws: object) -> None:
    from certs.detached import BadSignature, key_id, parse_public
    from certs.detached import verify as check

    public = parse_public(key.read_bytes())
    if not isinstance(jws, str):
        raise Failure(f"{file} is not signed.", "Make one that is with: mesh inventory -o json --key KEY")
    try:
        check(inside, jws, public)
    except BadSignature as error:
        raise Failure(f"{file} is not to be believed: {error}.") from None
    click.echo(f"{file}: signed by key {key_id(public)[:16]}…, made {inside['made']}, {len(inside['edges'])} edges.")


def _check_told(file: Path, inside: Any, roots: tuple[str, ...]) -> None:
    """Look at what sidecars have told."""
    from certs.signed import InvalidStatement
    from certs.told_edges import open_edges
    from sidecar.telemetry.clock import rfc3339

    told = inside.get("told", []) if isinstance(inside, dict) else []
    known = {root.lower() for root in roots}
    if roots and not told:
        raise Failure(f"{file} has nothing that a sidecar has signed.", "Were any running when it was made?")
    for each in told:
        try:
            found = open_edges(each, known)
        except InvalidStatement as error:
            raise Failure(f"{file} is not to be believed: {error}.") from None
        question = "" if roots else f", by root {', '.join(found.roots)}: is this yours? (--root)"
        click.echo(f"{found.service}: {found.edges} edges, told {rfc3339(found.at)}{question}")


list_whole(inventory)
