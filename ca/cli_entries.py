"""`mesh ca entry …`, `mesh ca token`, `mesh ca key`: who may exist, and what they are handed to prove it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ca.cli_common import (
    CaCommand,
    Duration,
    dir_option,
    enrolment_file_options,
    moment,
    opened,
    output_option,
    print_result,
    table,
    to_paste,
)
from ca.config import ENROLMENT_DIR, CaSettings
from ca.durations import format_duration
from ca.enrolling import file_name, grant_key, grant_token, key_id, register
from ca.entries import DEFAULT_TTL, JOIN_TOKEN_TTL, EnrolmentKeyRecord, Entry, NewEntry, find_entry, parse_identity
from ca.errors import CaError, UnknownEntry
from ca.store.base import Store
from certs.enrolment import Enrolment, EnrolmentKey
from certs.store import ensure_private_dir

_ENTRY_HELP = "ENTRY is an entry's id, its service name, namespace/service, or its SPIFFE ID."


@click.group()
def entry() -> None:
    """Who may have an identity: add, list, show and remove registration entries."""


@entry.command("add", cls=CaCommand)
@click.argument("service")
@click.option("--dns", "dns_names", multiple=True, metavar="NAME", help="A DNS name for its certificates; repeatable.")
@click.option("--ttl", type=Duration(), default=DEFAULT_TTL, help="Lifetime of its certificates.  [default: 24h]")
@click.option(
    "--selector", "selectors", multiple=True, metavar="SELECTOR",
    help="What a proof must show, as k8s:ns:shop, k8s:sa:orders or unix:uid:1000; repeatable, all must hold.",
)
@click.option(
    "--expired-for", type=Duration(), default=0.0,
    help="How long after its end a certificate still proves who asks, at most 7d.  [default: not at all]",
)
@dir_option
@output_option
def add(
    service: str,
    dns_names: tuple[str, ...],
    ttl: float,
    selectors: tuple[str, ...],
    expired_for: float,
    directory: Path,
    output: str,
) -> None:
    """Let SERVICE have an identity. SERVICE is a name, namespace/name, or a whole SPIFFE ID.

    \b
    Examples:
      mesh ca entry add orders
      mesh ca entry add shop/orders --dns orders.internal --ttl 7d
      mesh ca entry add orders --selector k8s:cluster:prod --selector k8s:ns:shop --selector k8s:sa:orders
      mesh ca entry add laptop --selector unix:uid:1000 --expired-for 7d
    """
    with opened(directory) as (settings, store):
        identity = parse_identity(service, settings.trust_domain)
        added = register(
            store, settings.trust_domain, NewEntry(identity, dns_names, ttl, selectors, expired_for), time.time()
        )
    lines = [f"added {added.id}  {added.spiffe_id}"]
    if selectors:
        how = "kubernetes" if selectors[0][0] == "k" else "socket"
        lines.append(f"next: {to_paste(f'enrolment {added.id} --{how} …', directory)}")
    else:
        lines.append(f"next: {to_paste(f'key {added.id}', directory)}     (a reusable key)")
        lines.append(f"or:   {to_paste(f'token {added.id}', directory)}   (good for one sidecar, once)")
    print_result(output, _document(added, ()), lines)


@entry.command("list", cls=CaCommand)
@dir_option
@output_option
def list_entries(directory: Path, output: str) -> None:
    """List all entries.

    \b
    Examples:
      mesh ca entry list
      mesh ca entry list -o json
    """
    with opened(directory) as (_, store):
        found = [(item, store.keys(item.id)) for item in store.entries()]
    rows = [
        (item.id, str(item.spiffe_id), ", ".join(item.dns_names) or "-", format_duration(item.ttl), _count_live(keys))
        for item, keys in found
    ]
    none = "no entries; add one with `mesh ca entry add NAME`"
    lines = table(("ID", "SPIFFE ID", "DNS NAMES", "TTL", "KEYS"), rows, none)
    print_result(output, {"entries": [_document(item, keys) for item, keys in found]}, lines)


@entry.command("show", cls=CaCommand, epilog=_ENTRY_HELP)
@click.argument("name", metavar="ENTRY")
@dir_option
@output_option
def show(name: str, directory: Path, output: str) -> None:
    """Show one entry and its enrolment keys.

    \b
    Example:
      mesh ca entry show orders
    """
    with opened(directory) as (settings, store):
        found = _find(store, settings, name)
        keys = store.keys(found.id)
    rows = [
        (key.key_id[:16], key.origin, moment(key.created_at), "live" if key.revoked_at is None else "revoked")
        for key in keys
    ]
    lines = [
        f"{found.id}  {found.spiffe_id}",
        f"DNS names {', '.join(found.dns_names) or '-'}; certificates live {format_duration(found.ttl)}",
        *(f"selector {selector}" for selector in found.selectors),
        *([f"expired certificates are accepted for {format_duration(found.expired_for)}"] if found.expired_for else []),
        *table(("KEY", "MADE BY", "MADE AT", "STATE"), rows, "no enrolment keys"),
    ]
    print_result(output, _document(found, keys), lines)


@entry.command("remove", cls=CaCommand, epilog=_ENTRY_HELP)
@click.argument("name", metavar="ENTRY")
@dir_option
@output_option
def remove(name: str, directory: Path, output: str) -> None:
    """Remove an entry: no enrolment and no renewal from now on. Certificates that are out there live to their end.

    \b
    Example:
      mesh ca entry remove orders
    """
    with opened(directory) as (settings, store):
        found = _find(store, settings, name)
        if not store.remove_entry(found.id, time.time()):
            raise UnknownEntry(f"entry {found.id} was removed meanwhile")
    print_result(output, {"removed": found.id}, [f"removed {found.id}  {found.spiffe_id}"])


@entry.command("revoke-key", cls=CaCommand, epilog=_ENTRY_HELP)
@click.argument("name", metavar="ENTRY")
@click.argument("key")
@dir_option
@output_option
def revoke_key(name: str, key: str, directory: Path, output: str) -> None:
    """Make one enrolment key worthless. KEY is its id, or the beginning of it, from `mesh ca entry show`.

    \b
    Example:
      mesh ca entry revoke-key orders 3f9a2c
    """
    with opened(directory) as (settings, store):
        found = _find(store, settings, name)
        matching = [item.key_id for item in _live(store.keys(found.id)) if item.key_id.startswith(key.lower()) and key]
        if len(matching) != 1:
            what = "no live key" if not matching else "more than one live key"
            raise CaError(f"{what} of {found.id} begins with {key!r}; see `mesh ca entry show {found.id}`")
        store.revoke_key(found.id, matching[0], time.time())
    print_result(output, {"entry": found.id, "revoked": matching[0]}, [f"revoked key {matching[0][:16]} of {found.id}"])


@click.command(cls=CaCommand, epilog=_ENTRY_HELP)
@click.argument("name", metavar="ENTRY")
@click.option("--ttl", type=Duration(), default=JOIN_TOKEN_TTL, help="How long it may be used.  [default: 1h]")
@enrolment_file_options
@dir_option
@output_option
def token(
    name: str, ttl: float, ca_address: str | None, out: Path | None, force: bool, directory: Path, output: str
) -> None:
    """Write an enrolment file with a join token: good for one sidecar, once. Prints it without --out.

    \b
    Examples:
      mesh ca token orders --out orders.json
      mesh ca token orders --ttl 10m --ca-address ca.internal:17012 --out orders.json
    """
    with opened(directory) as (settings, store):
        found = _find(store, settings, name)
        _refuse_overwriting(out, force)
        enrolment = grant_token(store, found, ca_address or settings.address, time.time(), ttl)
    _hand_over(enrolment, out or Path("-"), output, f"good for one enrolment within {format_duration(ttl)}")


@click.command(cls=CaCommand, epilog=_ENTRY_HELP)
@click.argument("name", metavar="ENTRY")
@enrolment_file_options
@dir_option
@output_option
def key(name: str, ca_address: str | None, out: Path | None, force: bool, directory: Path, output: str) -> None:
    """Write an enrolment file with a fresh enrolment key: reusable until revoked, so guard it like a password.

    Without --out it goes to the folder `enrolment` of the CA's directory.

    \b
    Examples:
      mesh ca key orders --out secrets/orders.json
      mesh ca key orders --force
    """
    with opened(directory) as (settings, store):
        found = _find(store, settings, name)
        if out is None:
            ensure_private_dir(directory / ENROLMENT_DIR)
        target = out or directory / ENROLMENT_DIR / file_name(found.spiffe_id)
        _refuse_overwriting(target, force)
        enrolment = grant_key(store, found, ca_address or settings.address, time.time())
    assert isinstance(enrolment.proof, EnrolmentKey)
    revoke = to_paste(f"entry revoke-key {found.id} {key_id(enrolment.proof)[:16]}", directory)
    _hand_over(enrolment, target, output, f"reusable; `{revoke}` ends it")


def _find(store: Store, settings: CaSettings, name: str) -> Entry:
    return find_entry(name, store.entries(), settings.trust_domain)


def _refuse_overwriting(target: Path | None, force: bool) -> None:
    if target is not None and str(target) != "-" and target.exists() and not force:
        raise CaError(f"{target} exists; give --force to replace it")


def _hand_over(enrolment: Enrolment, target: Path, output: str, note: str) -> None:
    if str(target) == "-":
        click.echo(enrolment.to_json().decode(), nl=False)
        return
    enrolment.save(target)
    document = {"entry": enrolment.entry, "spiffe_id": enrolment.spiffe_id.text, "file": str(target)}
    print_result(output, document, [f"wrote {target} for {enrolment.spiffe_id} ({note})"])


def _count_live(keys: tuple[EnrolmentKeyRecord, ...]) -> str:
    return str(len(_live(keys)))


def _live(keys: tuple[EnrolmentKeyRecord, ...]) -> list[EnrolmentKeyRecord]:
    return [item for item in keys if item.revoked_at is None]


def _document(item: Entry, keys: tuple[EnrolmentKeyRecord, ...]) -> dict[str, Any]:
    return {
        "id": item.id,
        "spiffe_id": item.spiffe_id.text,
        "dns_names": list(item.dns_names),
        "ttl_seconds": item.ttl,
        "created_at": item.created_at,
        "selectors": list(item.selectors),
        "expired_for_seconds": item.expired_for,
        "keys": [
            {"id": one.key_id, "origin": one.origin, "created_at": one.created_at, "revoked_at": one.revoked_at}
            for one in keys
        ],
    }
