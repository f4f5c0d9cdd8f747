"""`mesh ca status`: the chain as a tree, what is about to end, what is under way, and who has which trust bundle."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ca.cli_common import CaCommand, dir_option, opened, output_option, print_result, table
from ca.cli_federation import facts
from ca.durations import format_duration
from ca.health import warnings
from ca.roots import active_slot, load_bundle
from ca.rotation_words import in_words, laggard_lines, rotation_facts
from ca.standing import standing, token_key_lines, token_key_warnings
from ca.store.base import Ack, Store
from ca.tree import chain_facts, draw, has_issuer, next_change, next_words
from certs.bundle import TrustBundle

NO_ISSUER = "there is no issuing CA yet: `mesh ca csr`, let your PKI sign it, then `mesh ca import`"


@click.command(cls=CaCommand)
@dir_option
@output_option
def status(directory: Path, output: str) -> None:
    """Draw the chain with its lifetimes; show what is about to end, and which sidecars have which trust bundle.

    \b
    Examples:
      mesh ca status
      mesh ca status -o json
    """
    now = time.time()
    with opened(directory) as (settings, store):
        bundle = load_bundle(store, settings.trust_domain)
        chain, due, ready = chain_facts(store, now), next_change(store, now), has_issuer(store)
        found = warnings(active_slot(store, "issuer"), active_slot(store, "root"), now) if ready else (NO_ISSUER,)
        entries, acks, issued = store.entries(), store.acks(), store.issued_count()
        sidecars, denied = _sidecars(store, acks, bundle, now), len(store.revocations(now))
        denylist, rotation = store.denylist_sequence(), store.rotation()
        turning, then = rotation_facts(directory, store, now), next_words(store, now)
        partners = [facts(partner) for partner in store.partners()]
        known = standing(store, now)
    found = (*found, *(token_key_warnings(known.jwt_keys, now) if ready else ()))
    ends = {slot["state"]: slot["not_after"] for root in chain for slot in root["issuers"]}
    document: dict[str, Any] = {
        "trust_domain": settings.trust_domain.name,
        "address": settings.address,
        "bundle_sequence": bundle.sequence,
        "root_sha256": list(bundle.root_hashes()),
        "root_not_after": next((root["not_after"] for root in chain if root["state"] == "active"), None),
        "issuer_not_after": ends.get("active"),
        "chain": chain,
        "next_change": due,
        "next": then,
        "rotation": turning,
        "federation": partners,
        "jwt_keys": [asdict(key) for key in known.jwt_keys],
        "log": {"lines": known.log_lines, "signed_to": known.log_signed},
        "denylist_sequence": denylist,
        "revoked": denied,
        "entries": len(entries),
        "issued": issued,
        "warnings": list(found),
        "sidecars": sidecars,
    }
    rows = [(one["spiffe_id"], one["serial"], one["bundle"], f"{format_duration(one['age'])} ago") for one in sidecars]
    lines = [
        f"trust domain {settings.trust_domain}, address {settings.address}, bundle {bundle.sequence}",
        *draw(chain, now),
        *(() if then is None else (then,)),
        *((in_words(rotation, now),) if rotation is not None and rotation.under_way else ()),
        *laggard_lines(turning),
        *token_key_lines(known.jwt_keys, now),
        *(f"trusts {one['trust_domain']} for its own: {_held(one, now)}" for one in partners),
        f"{len(entries)} entries, {document['issued']} certificates issued, {denied} revoked (denylist {denylist})",
        *(f"WARNING {warning}" for warning in found),
        *table(("SIDECAR", "SERIAL", "BUNDLE", "LAST HEARD"), rows, "no live sidecar has acknowledged a bundle yet"),
    ]
    print_result(output, document, lines)


def _held(partner: dict[str, Any], now: float) -> str:
    if partner["sequence"] is None:
        return f"no bundle yet, from {partner['url']}" if partner["url"] else "no bundle yet"
    roots, age = len(partner["root_sha256"]), format_duration(max(0.0, now - partner["accepted_at"]))
    noun = "root" if roots == 1 else "roots"
    seen = f"found good {age} ago" if partner["url"] else f"from a file, {age} old"
    return f"bundle {partner['sequence']}, {roots} {noun}, {seen}"


def _sidecars(store: Store, acks: tuple[Ack, ...], bundle: TrustBundle, now: float) -> list[dict[str, Any]]:
    """One line for each certificate that is still valid and was ever heard of on a watch."""
    found: dict[str, dict[str, Any]] = {}
    for ack in acks:
        issued = store.issuance(ack.serial)
        if issued is None or issued.not_after <= now:
            continue
        unheard = {"bundle": "none", "acks": {}, "heard_at": 0.0, "age": 0.0}
        line = found.setdefault(ack.serial, {"spiffe_id": ack.spiffe_id, "serial": ack.serial, **unheard})
        line["acks"][ack.topic] = ack.sequence
        line["heard_at"] = max(line["heard_at"], ack.at)
        line["age"] = max(0.0, now - line["heard_at"])
        if ack.topic == "bundle":
            line["bundle"] = "current" if ack.sequence >= bundle.sequence else f"old ({ack.sequence})"
    return sorted(found.values(), key=lambda line: (line["spiffe_id"], -line["heard_at"]))
