"""A new CA on disk: all of it, or nothing.

A CA is one directory, 0700: `ca.json`, the store with the certificates and states, and `keys/` with one encrypted
PKCS #8 file per signing key, named by its certificate's hash. `create_ca` builds it beside its final place and renames
it there, so a directory holds a whole CA or none, and an existing one is never overwritten: rename(2) refuses to
replace a directory that is not empty.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ca.config import ENROLMENT_DIR, KEYS_DIR, SETTINGS_FILE, STORE_FILE, CaSettings, load_settings
from ca.errors import CaExists
from ca.jwt_keys import JwtKeys
from ca.roots import key_path, load_bundle, slot_of
from ca.signers import ISSUER_TTL, ROOT_TTL, check_lifetimes, make_issuer, make_root
from ca.store.base import Store
from ca.store.sqlite import SqliteStore
from certs.bundle import TrustBundle, root_hash
from certs.keys import make_key, save_key
from certs.spiffe import TrustDomain
from certs.store import write_private


def create_ca(
    directory: Path,
    settings: CaSettings,
    passphrase: bytes,
    now: float,
    *,
    root_ttl: float = ROOT_TTL,
    issuer_ttl: float = ISSUER_TTL,
    furnish: Callable[[Path, Store, TrustBundle], None] | None = None,
) -> None:
    """Make a whole CA in `directory`, or nothing. Raises CaExists, InvalidEntry, KeyUnavailable.

    `furnish` may add to it (entries, enrolment files) before it appears in its place.
    """
    check_lifetimes(root_ttl, issuer_ttl)
    with workshop_for(directory) as workshop:
        store = _build(workshop, replace(settings, issuer_ttl=issuer_ttl), passphrase, now, root_ttl)
        try:
            if furnish is not None:
                furnish(workshop, store, load_bundle(store, settings.trust_domain))
        finally:
            store.close()
        appear(workshop, directory)


@contextmanager
def workshop_for(directory: Path) -> Iterator[Path]:
    """A folder beside a CA's final place, to build it in; it is gone at the end. Raises CaExists, OSError."""
    target = directory.absolute()
    refuse_existing(target)
    _make_parents(target.parent)
    workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))  # mkdtemp makes it 0700
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def appear(workshop: Path, directory: Path) -> None:
    """Put what the workshop holds into its place, durably and at once. Raises CaExists."""
    target = directory.absolute()
    for folder in (workshop, workshop / KEYS_DIR):
        _sync_directory(folder)
    try:
        workshop.rename(target)
    except OSError as error:
        raise CaExists(f"{target} appeared meanwhile, or cannot be written: {error.strerror}") from error
    _sync_directory(target.parent)


def _build(directory: Path, settings: CaSettings, passphrase: bytes, now: float, root_ttl: float) -> SqliteStore:
    for name in (KEYS_DIR, ENROLMENT_DIR):
        (directory / name).mkdir(mode=0o700)
    root_key, issuer_key = make_key(settings.key_kind), make_key(settings.key_kind)
    root = make_root(settings.trust_domain, root_key, now, root_ttl)
    issuer = make_issuer(settings.trust_domain, issuer_key, root, root_key, now, settings.issuer_ttl)
    save_key(key_path(directory, root), root_key, passphrase, settings.kdf_rounds)
    save_key(key_path(directory, issuer), issuer_key, passphrase, settings.kdf_rounds)
    write_private(directory / SETTINGS_FILE, settings.to_json())
    store = SqliteStore(directory / STORE_FILE, create=True)
    JwtKeys(directory, store, passphrase).round(now)
    store.add_slot(slot_of(root, "root", now))
    store.add_slot(slot_of(issuer, "issuer", now, root=root_hash(root)))
    return store


def holds(directory: Path, trust_domain: TrustDomain) -> bool:
    """Whether the CA of this trust domain is there, whole. Raises CaExists for another's, DamagedCa."""
    if not (directory / SETTINGS_FILE).exists():
        return False
    found = load_settings(directory).trust_domain
    if found != trust_domain:
        raise CaExists(f"{directory} holds the CA of {found}, not of {trust_domain}; it is never overwritten")
    return True


def refuse_existing(target: Path) -> None:
    """Raise CaExists unless nothing, or an empty directory, is in this place."""
    if (target / SETTINGS_FILE).exists():
        raise CaExists(f"{target} holds a CA already; it is never overwritten. Choose another --dir, or move it away")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise CaExists(f"{target} is not an empty directory; choose another --dir")


def _make_parents(folder: Path) -> None:
    if not folder.exists():
        _make_parents(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
