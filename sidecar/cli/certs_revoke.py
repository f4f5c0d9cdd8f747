"""`mesh certs revoke` and `mesh certs unrevoke`: what holds no more, said on the CA's machine, in force within seconds.

Both write into the CA's directory; a running `mesh ca serve` tells every sidecar within a second or two. `--watch`
shows who has put it to use, from the acknowledgements that the CA keeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sidecar.cli.console import Code, Duration, Failure, output_option, print_json, print_table

if TYPE_CHECKING:
    from ca.config import CaSettings
    from ca.store.base import Store

REASONS = (
    "unspecified", "key-compromise", "affiliation-changed", "superseded", "cessation-of-operation", "hold",
    "privilege-withdrawn",
)  # fmt: skip
POLL_SECONDS = 0.1


def _ca_dir_option(command: Any) -> Any:
    path = click.Path(path_type=Path, file_okay=False)
    text = "The CA's directory.  [default: $MESH_STATE_DIR/ca, else ~/.local/state/mesh/ca]"
    return click.option("--ca-dir", "directory", type=path, help=text)(command)


@click.command(
    epilog="\b\nExamples:\n  mesh certs revoke 5f3a91…          one certificate; its sidecar enrols again by itself\n"
    "  mesh certs revoke orders --reason key-compromise --watch\n  mesh certs revoke --list"
)
@click.argument("target", metavar="SERIAL|SPIFFE-ID", required=False)
@click.option("--reason", type=click.Choice(REASONS), help="Why; goes into the log and the CRL.")
@click.option("--list", "listing", is_flag=True, help="Show what is revoked now.")
@click.option("--watch", is_flag=True, help="Wait, and show when each connected sidecar has put it to use.")
@click.option("--timeout", type=Duration(), default=10.0, help="How long --watch waits.  [default: 10s]")
@_ca_dir_option
@output_option
def revoke(
    target: str | None,
    reason: str | None,
    listing: bool,
    watch: bool,
    timeout: float,
    directory: Path | None,
    output: str,
) -> int:
    """Deny a certificate, or all of an identity's, before their time.

    By SERIAL: that certificate only. By SPIFFE-ID (or a service's name): whatever it has, and nothing new is issued to
    it until `mesh certs unrevoke`. Run it where the CA's directory is. Exit code 1: --watch ran out of time.

    Every connected sidecar cuts what it has open with the revoked within a second or two, in the middle of whatever is
    on it, and lets it in no more; one that is not connected does so when it returns.
    """
    if listing:
        return _with_store(directory, lambda _, store: _list(store, output))
    if target is None:
        raise Failure("Name a serial or a SPIFFE ID, or give --list.", "", Code.USAGE)
    wanted = target

    def act(settings: CaSettings, store: Store) -> int:
        from ca.revocation import find_target

        began = time.time()
        found = find_target(store, settings.trust_domain, wanted, began, reason or "")
        if not found.reason:
            found = _with_default_reason(found)
        new = store.revoke(found)
        found = store.revocation(found.kind, found.target) or found
        document: dict[str, Any] = {
            "revoked": found.target, "by": found.kind, "reason": found.reason, "new": new,
            "sequence": store.denylist_sequence(),
        }  # fmt: skip
        if output != "json":
            click.echo(f"{found.target} is {'' if new else 'already '}revoked ({found.reason})")
        told = True
        if watch:
            document["sidecars"] = rows = _watch(store, document["sequence"], began, timeout, quiet=output == "json")
            told = all(row["seconds"] is not None or not row["connected"] for row in rows)
        if output == "json":
            print_json(document)
        return Code.OK if told else Code.NEGATIVE

    return _with_store(directory, act)


@click.command(epilog="\b\nExample:\n  mesh certs unrevoke orders")
@click.argument("target", metavar="SERIAL|SPIFFE-ID")
@_ca_dir_option
@output_option
def unrevoke(target: str, directory: Path | None, output: str) -> int:
    """Lift a revocation: an identity can enrol again, a certificate that has not ended holds again."""

    def act(settings: CaSettings, store: Store) -> int:
        from ca.revocation import find_lifted

        found = find_lifted(store, settings.trust_domain, target)
        store.unrevoke(found.kind, found.target, time.time())
        if output == "json":
            print_json({"unrevoked": found.target, "by": found.kind, "sequence": store.denylist_sequence()})
        else:
            click.echo(f"{found.target} is no longer revoked")
        return Code.OK

    return _with_store(directory, act)


def _with_default_reason(found: Any) -> Any:
    """A revoked identity is a hold, which RFC 5280 (5.3.1) lets be lifted; a certificate's reason stays unsaid."""
    from dataclasses import replace

    return replace(found, reason="hold" if found.kind == "spiffe_id" else "unspecified")


def _list(store: Store, output: str) -> int:
    found = store.revocations(time.time())
    if output == "json":
        rows = [{"target": one.target, "by": one.kind, "reason": one.reason, "at": one.revoked_at} for one in found]
        print_json({"sequence": store.denylist_sequence(), "revoked": rows})
    elif not found:
        click.echo("nothing is revoked")
    else:
        when = [time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(one.revoked_at)) for one in found]
        lines = [(one.target, one.kind, one.reason, at) for one, at in zip(found, when, strict=True)]
        print_table(("revoked", "by", "reason", "since"), lines)
    return Code.OK


def _watch(store: Store, sequence: int, began: float, timeout: float, *, quiet: bool) -> list[dict[str, Any]]:
    """Wait until every connected sidecar has put this denylist to use; who did, when, and who is not connected."""
    told: set[str] = set()
    while True:
        rows = _effects(store, sequence, began)
        for row in rows:
            if row["seconds"] is not None and row["serial"] not in told and not quiet:
                click.echo(f"  {row['seconds']:5.1f} s  {row['spiffe_id']}")
                told.add(row["serial"])
        waiting = [row for row in rows if row["connected"] and row["seconds"] is None]
        if not waiting or time.time() - began > timeout:
            break
        time.sleep(POLL_SECONDS)
    if not quiet:
        for row in rows:
            if row["seconds"] is None:
                state = "does not answer" if row["connected"] else "is not connected: it applies this when it returns"
                click.echo(f"      -    {row['spiffe_id']} {state}")
    return rows


def _effects(store: Store, sequence: int, began: float) -> list[dict[str, Any]]:
    """A line for each sidecar that was heard of; whoever is revoked itself, or has renewed since, only while it is
    connected: nobody waits for the return of a certificate that is worth nothing, or that nobody holds any more.
    """
    acks: dict[str, dict[str, Any]] = {}
    for ack in store.acks():
        acks.setdefault(ack.serial, {"spiffe_id": ack.spiffe_id})[ack.topic] = ack
    known = {serial: issued for serial in acks if (issued := store.issuance(serial)) is not None}
    gone = {one.target for one in store.revocations(began)}
    gone |= {one.proof_detail for one in known.values() if one.proof == "renewal"}
    rows = []
    for serial, topics in acks.items():
        if serial not in known or known[serial].not_after <= began:
            continue
        applied, watch = topics.get("denylist"), topics.get("watch")
        done = applied is not None and applied.sequence >= sequence
        connected = watch is not None and watch.sequence == 1
        if not connected and not done and gone & {serial, str(topics["spiffe_id"])}:
            continue
        row = {"spiffe_id": topics["spiffe_id"], "serial": serial, "connected": connected}
        rows.append({**row, "seconds": max(0.0, applied.at - began) if done and applied is not None else None})
    return sorted(rows, key=lambda row: (str(row["spiffe_id"]), str(row["serial"])))


def _with_store(directory: Path | None, act: Callable[[CaSettings, Store], int]) -> int:
    """Do this with the CA in the directory; what it refuses is a Failure."""
    from ca.cli_common import default_directory, opened
    from ca.errors import BadRequest, NoCa
    from certs.errors import MeshError

    try:
        with opened(directory or default_directory()) as (settings, store):
            return act(settings, store)
    except NoCa as error:
        hint = "Run it on the CA's machine, or name its folder with --ca-dir; `mesh up` prints where its own is."
        raise Failure(str(error), hint, Code.USAGE) from None
    except BadRequest as error:
        raise Failure(str(error), "", Code.USAGE) from None
    except MeshError as error:
        raise Failure(str(error)) from None
