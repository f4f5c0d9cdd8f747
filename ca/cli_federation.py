"""`mesh ca federation …`: other trust domains whose identities may call, where a rule names them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ca.cli_common import (
    READABLE,
    CaCommand,
    Domain,
    dir_option,
    moment,
    opened,
    output_option,
    print_result,
    table,
)
from ca.errors import FederationRefused
from ca.federation import Partner
from ca.store.base import Store
from certs.spiffe import TrustDomain


@click.group()
def federation() -> None:
    """Other trust domains: a root of theirs vouches for their own identities, never for ours.

    \b
    A start:
      mesh ca federation add partner.example --url https://spiffe.partner.example/bundle
      mesh ca federation list
    and in mesh.yaml:
      allow: [{from: spiffe://partner.example/ns/default/sa/billing}]
    """


@federation.command("add", cls=CaCommand)
@click.argument("trust_domain", type=Domain())
@click.option("--url", default="", help="Its SPIFFE bundle endpoint (profile https_web); fetched now and from then on.")
@click.option("--web-roots", type=READABLE, help="Roots (PEM) for the endpoint's certificate.  [default: the system's]")
@click.option("--file", "bundle_file", type=READABLE, help="Its bundle as a file (SPIFFE's JWK Set), not --url.")
@dir_option
@output_option
def add(
    trust_domain: TrustDomain,
    url: str,
    web_roots: Path | None,
    bundle_file: Path | None,
    directory: Path,
    output: str,
) -> None:
    """Federate with TRUST_DOMAIN. A bundle from a file is renewed by `mesh ca federation update`.

    \b
    Examples:
      mesh ca federation add partner.example --url https://spiffe.partner.example/bundle
      mesh ca federation add partner.example --file partner.json
    """
    from ca.federation import check_partner

    if bool(url) == (bundle_file is not None) or (web_roots is not None and not url):
        raise click.UsageError("give --url (and --web-roots, where needed), or --file")
    with opened(directory) as (settings, store):
        check_partner(trust_domain, url, settings.trust_domain)
        partner = Partner(trust_domain, url, b"" if web_roots is None else web_roots.read_bytes(), time.time())
        data = _read(partner, bundle_file)  # before anything is kept: an endpoint that never worked is a mistake
        store.add_partner(partner)
        try:
            _take(store, settings.trust_domain, trust_domain, data)
        except FederationRefused:
            store.remove_partner(trust_domain, time.time())
            raise
        _print(store, trust_domain, output)


@federation.command("update", cls=CaCommand)
@click.argument("trust_domain", type=Domain())
@click.option("--file", "bundle_file", type=READABLE, help="The next bundle, where the first one came from a file.")
@dir_option
@output_option
def update(trust_domain: TrustDomain, bundle_file: Path | None, directory: Path, output: str) -> None:
    """Take the next bundle of TRUST_DOMAIN now: from a file, or from its endpoint. Its sequence never goes back.

    \b
    Example:
      mesh ca federation update partner.example --file partner-2.json
    """
    with opened(directory) as (settings, store):
        partner = _find(store, trust_domain)
        if bool(partner.url) == (bundle_file is not None):
            raise click.UsageError("--file goes with a bundle that came from a file, and only with such a one")
        _take(store, settings.trust_domain, trust_domain, _read(partner, bundle_file))
        _print(store, trust_domain, output)


@federation.command("remove", cls=CaCommand)
@click.argument("trust_domain", type=Domain())
@dir_option
@output_option
def remove(trust_domain: TrustDomain, directory: Path, output: str) -> None:
    """Trust nothing of TRUST_DOMAIN any more. Sidecars hear of it within a second or two.

    \b
    Example:
      mesh ca federation remove partner.example
    """
    with opened(directory) as (_, store):
        if not store.remove_partner(trust_domain, time.time()):
            raise FederationRefused(f"{trust_domain} is not federated with; see `mesh ca federation list`")
    print_result(output, {"removed": trust_domain.name}, [f"{trust_domain} is trusted no longer"])


@federation.command("list", cls=CaCommand)
@dir_option
@output_option
def list_(directory: Path, output: str) -> None:
    """Every trust domain that is federated with, and the bundle that is in force.

    \b
    Example:
      mesh ca federation list -o json
    """
    with opened(directory) as (_, store):
        found = [facts(partner) for partner in store.partners()]
    titles = ("TRUST DOMAIN", "FROM", "BUNDLE", "ROOTS", "ACCEPTED")
    print_result(output, {"federation": found}, table(titles, [_row(one) for one in found], "nobody is federated with"))


def facts(partner: Partner) -> dict[str, Any]:
    """A partner as data."""
    bundle = partner.bundle
    return {
        "trust_domain": partner.trust_domain.name,
        "url": partner.url,
        "sequence": None if bundle is None else bundle.sequence,
        "root_sha256": [] if bundle is None else list(bundle.root_hashes()),
        "refresh_hint": None if bundle is None else bundle.refresh_hint,
        "accepted_at": partner.accepted_at,
    }


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    if one["sequence"] is None:
        return (one["trust_domain"], one["url"] or "a file", "none yet", "-", "-")
    roots = str(len(one["root_sha256"])) if one["root_sha256"] else "0: NOTHING IS TRUSTED"
    return (one["trust_domain"], one["url"] or "a file", str(one["sequence"]), roots, moment(one["accepted_at"]))


def _find(store: Store, trust_domain: TrustDomain) -> Partner:
    for partner in store.partners():
        if partner.trust_domain == trust_domain:
            return partner
    raise FederationRefused(f"{trust_domain} is not federated with; see `mesh ca federation list`")


def _read(partner: Partner, file: Path | None) -> bytes:
    import trio

    from ca.fetch import fetch_bundle

    return trio.run(fetch_bundle, partner.url, partner.web_roots) if file is None else file.read_bytes()


def _take(store: Store, own: TrustDomain, trust_domain: TrustDomain, data: bytes) -> None:
    from ca.federating import take

    take(store, own, _find(store, trust_domain), data, time.time())


def _print(store: Store, trust_domain: TrustDomain, output: str) -> None:
    one = facts(_find(store, trust_domain))
    lines = [
        f"{trust_domain}: bundle {one['sequence']} with {len(one['root_sha256'])} roots",
        *(f"root {root}" for root in one["root_sha256"]),
        f"next: a rule that names it, such as from: spiffe://{trust_domain}/ns/default/sa/NAME",
    ]
    print_result(output, one, lines)
