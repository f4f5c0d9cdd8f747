"""A whole CA in one call, for `mesh up`: root, issuing CA, entries, and an enrolment-key file for each of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ca.config import ENROLMENT_DIR, SETTINGS_FILE, STORE_FILE, CaSettings, load_settings
from ca.create import create_ca
from ca.enrolling import file_name, grant_key, register
from ca.entries import Entry, NewEntry, check_entry
from ca.errors import DamagedCa
from ca.roots import load_bundle, load_issuer
from ca.schedule import Schedule
from ca.store.base import Store
from ca.store.sqlite import SqliteStore
from certs.enrolment import Enrolment, EnrolmentKey, InvalidEnrolment, check_address
from certs.errors import PrivateFileUnavailable
from certs.keys import RANDOM_KDF_ROUNDS
from certs.spiffe import SpiffeId, TrustDomain
from certs.store import ensure_private_dir, write_private


def prepare(
    directory: Path,
    trust_domain: TrustDomain,
    passphrase: bytes,
    entries: Sequence[NewEntry],
    ca_address: str,
    now: float | None = None,
) -> None:
    """Make a CA with these entries and an enrolment-key file for each (`enrolment_file`), or complete the one there is.

    The passphrase is a random one of 256 bits: it is not stretched much, so that this takes no second. An existing CA
    keeps its keys and entries; what is missing is added, an entry whose DNS names or lifetime changed is
    replaced, an issuing CA in its last days is renewed, files learn a new address. Raises InvalidEntry, DamagedCa
    (another trust domain), IssuerUnusable (the root is at its end), KeyUnavailable (wrong passphrase), CaExists (the
    directory holds something else). Blocks on disk, for about 50 ms.
    """
    moment = time.time() if now is None else now
    check_address(ca_address)
    for entry in entries:
        check_entry(entry, trust_domain)
    if (directory / SETTINGS_FILE).exists():
        _complete(directory, trust_domain, passphrase, entries, ca_address, moment)
        return

    def furnish(workshop: Path, store: Store, _: object) -> None:
        _furnish(workshop / ENROLMENT_DIR, store, trust_domain, entries, ca_address, moment)

    settings = CaSettings(trust_domain, ca_address, kdf_rounds=RANDOM_KDF_ROUNDS)
    create_ca(directory, settings, passphrase, moment, furnish=furnish)


def enrolment_file(directory: Path, spiffe_id: SpiffeId) -> Path:
    """Where `prepare` puts the enrolment file of this identity: `<directory>/enrolment/orders.json`."""
    return directory / ENROLMENT_DIR / file_name(spiffe_id)


def _complete(
    directory: Path,
    trust_domain: TrustDomain,
    passphrase: bytes,
    entries: Sequence[NewEntry],
    ca_address: str,
    now: float,
) -> None:
    settings = load_settings(directory)
    if settings.trust_domain != trust_domain:
        raise DamagedCa(f"{directory} holds the CA of {settings.trust_domain}, not of {trust_domain}")
    store = SqliteStore(directory / STORE_FILE)
    try:
        load_issuer(directory, store, passphrase)  # a wrong passphrase ends here
        Schedule(directory, store, trust_domain, passphrase, settings.issuer_ttl).round(now)
        if settings.address != ca_address:
            write_private(directory / SETTINGS_FILE, replace(settings, address=ca_address).to_json())
        ensure_private_dir(directory / ENROLMENT_DIR)
        _furnish(directory / ENROLMENT_DIR, store, trust_domain, entries, ca_address, now)
    finally:
        store.close()


def _furnish(
    folder: Path, store: Store, trust_domain: TrustDomain, entries: Sequence[NewEntry], ca_address: str, now: float
) -> None:
    known = {entry.spiffe_id: entry for entry in store.entries()}
    for new in entries:
        entry = known.get(new.spiffe_id)
        if entry is not None and (entry.dns_names, entry.ttl) != (new.dns_names, new.ttl):
            store.remove_entry(entry.id, now)
            entry = None
        if entry is None:
            entry = register(store, trust_domain, new, now)
        path = folder / file_name(entry.spiffe_id)
        if not _refresh(path, store, entry, ca_address):
            grant_key(store, entry, ca_address, now).save(path)


def _refresh(path: Path, store: Store, entry: Entry, ca_address: str) -> bool:
    """Bring address and roots of an existing file up to date; false where its key is not a live one of this entry."""
    try:
        file = Enrolment.load(path)
    except (InvalidEnrolment, PrivateFileUnavailable):
        return False
    live = {key.public_bytes for key in store.keys(entry.id) if key.revoked_at is None}
    if file.entry != entry.id or not isinstance(file.proof, EnrolmentKey) or file.proof.public_bytes not in live:
        return False
    roots = load_bundle(store, entry.spiffe_id.trust_domain).root_hashes()
    if (file.ca_address, file.root_sha256) != (ca_address, roots):
        replace(file, ca_address=ca_address, root_sha256=roots).save(path)
    return True
