"""A whole CA in one file, taken while it serves, and a CA out of such a file on an empty machine.

The file is a tar: `manifest.json` first (version, trust domain, time, where the log ended, SHA-256 of each member),
then `ca.json`, the store as of one moment (SQLite's online back-up), and the key of each signing certificate that may
still sign, encrypted as it lies on disk: the passphrase is needed to use a back-up, not to take or restore one.
Enrolment files are not in it: they are plain secrets of others, and `mesh ca key` writes new ones.

A restored CA goes on where the copy ends, and some have seen more: so its sequences jump ahead of all that was told
since, join tokens are void (one may have been spent since), and the log says that it was restored. What was issued or
revoked after the copy is not known to it: those certificates cannot be renewed and enrol anew; revoke again what was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ca.checkpoints import verify_log
from ca.config import ENROLMENT_DIR, KEYS_DIR, SETTINGS_FILE, STORE_FILE, CaSettings, load_settings
from ca.create import appear, workshop_for
from ca.errors import CaExists, InvalidBackup, LogBroken, StoreUnavailable
from ca.roots import key_file
from ca.rotating import parse_waiting
from ca.store.base import Store
from ca.store.sqlite import SqliteStore
from certs.bundle import root_hash
from certs.spiffe import TrustDomain
from certs.store import read_private, write_private

VERSION = 1
MANIFEST = "manifest.json"
MAX_SMALL = 1 << 20  # bytes of a manifest, settings or key


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """What a back-up holds. Times in seconds since the epoch; `tokens_ended` is known after a restore."""

    trust_domain: TrustDomain
    taken_at: float
    log_number: int
    log_hash: str
    keys: int
    tokens_ended: int = 0


def back_up(directory: Path, target: Path, now: float, *, force: bool = False) -> BackupFacts:
    """Write the CA in this directory to one new file, 0600; it may be serving. Raises CaExists, StoreUnavailable.

    The copy is read again and its log verified before the file appears. Raises LogBroken where that fails: a CA whose
    log does not hold is not to replace a good back-up.
    """
    if target.exists() and not force:
        raise CaExists(f"{target} exists; give --force to replace it")
    settings = load_settings(directory)
    store = SqliteStore(directory / STORE_FILE)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.absolute().parent) as name:
            folder = Path(name)
            store.copy_to(folder / STORE_FILE)
            copy = SqliteStore(folder / STORE_FILE)
            try:
                report = verify_log(copy, settings.trust_domain)
                report.check()
                keys = _keys(directory, copy)
            finally:
                copy.close()
            members = {SETTINGS_FILE: folder / SETTINGS_FILE, STORE_FILE: folder / STORE_FILE}
            write_private(folder / SETTINGS_FILE, settings.to_json())
            for key in keys:
                write_private(folder / key.name, read_private(key))
                members[f"{KEYS_DIR}/{key.name}"] = folder / key.name
            facts = BackupFacts(settings.trust_domain, now, report.head.number, report.head.hash, len(keys))
            _write_tar(folder / "whole.tar", _manifest(facts, members), members)
            (folder / "whole.tar").replace(target)
            _sync(target.absolute().parent)
    finally:
        store.close()
    return facts


def restore(source: Path, directory: Path, now: float) -> BackupFacts:
    """Make a CA in this directory, which is empty or not there, out of a back-up; all of it or nothing.

    Raises CaExists (a CA, or anything else, is there), InvalidBackup, LogBroken.
    """
    with workshop_for(directory) as workshop:
        manifest = _unpack(source, workshop)
        try:
            settings = load_settings(workshop)
            store = SqliteStore(workshop / STORE_FILE)
        except (StoreUnavailable, OSError) as error:
            raise InvalidBackup(f"{source} holds no store that can be used: {error}") from error
        try:
            _check_restored(workshop, store, settings, manifest)
            ended = store.begin_again(now)
            head = store.head()
        finally:
            store.close()
        for leftover in (f"{STORE_FILE}-wal", f"{STORE_FILE}-shm"):
            (workshop / leftover).unlink(missing_ok=True)
        appear(workshop, directory)
    keys = sum(name.startswith(f"{KEYS_DIR}/") for name in manifest["members"])
    return BackupFacts(settings.trust_domain, float(manifest["taken_at"]), head.number - 1, head.hash, keys, ended)


def _keys(directory: Path, store: Store) -> list[Path]:
    """The key files of all that may still sign. One that is missing is told by name: PrivateFileUnavailable."""
    live = [slot for slot in store.slots() if slot.has_key and slot.state not in ("retired", "revoked")]
    rotation = store.rotation()
    waiting = () if rotation is None else parse_waiting(rotation)[:1]
    tokens = [key.kid for key in store.jwt_keys() if key.state not in ("retired", "revoked")]
    names = (*(slot.sha256 for slot in live), *map(root_hash, waiting), *tokens)
    return [key_file(directory, name) for name in names]


def _check_restored(workshop: Path, store: SqliteStore, settings: CaSettings, manifest: dict[str, Any]) -> None:
    if settings.trust_domain.name != manifest["trust_domain"]:
        raise InvalidBackup("the manifest names another trust domain than ca.json")
    store.check_integrity()
    store.check_schema()
    try:
        verify_log(store, settings.trust_domain).check()
    except LogBroken as error:
        raise LogBroken(f"the log in the back-up does not hold, so nothing is restored: {error}") from error
    for key in _keys(workshop, store):
        if not key.is_file():
            raise InvalidBackup(f"the key {key.name} of a signing certificate is not in the back-up")


def _manifest(facts: BackupFacts, members: dict[str, Path]) -> bytes:
    document = {
        "version": VERSION,
        "trust_domain": facts.trust_domain.name,
        "taken_at": facts.taken_at,
        "log_number": facts.log_number,
        "log_hash": facts.log_hash,
        "members": {name: _hash(path) for name, path in members.items()},
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _write_tar(path: Path, manifest: bytes, members: dict[str, Path]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(_member(MANIFEST, len(manifest)), io.BytesIO(manifest))
            for name, source in members.items():
                with source.open("rb") as content:
                    tar.addfile(_member(name, source.stat().st_size), content)
        file.flush()
        os.fsync(file.fileno())


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


def _unpack(source: Path, workshop: Path) -> dict[str, Any]:
    """Write what the manifest names, and nothing else, into the workshop. Raises InvalidBackup, OSError.

    Members are read by the names that we expect; a path that leads elsewhere, a link or a stray file never gets far.
    """
    for name in (KEYS_DIR, ENROLMENT_DIR):
        (workshop / name).mkdir(mode=0o700)
    try:
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            manifest = _read_manifest(tar)
            for name, sha256 in manifest["members"].items():
                with _content(tar, name) as content, _new_file(workshop / name) as copy:
                    shutil.copyfileobj(content, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
                if _hash(workshop / name) != sha256:
                    raise InvalidBackup(f"{source}: {name} is not what the manifest says; the file is damaged")
    except (tarfile.TarError, EOFError) as error:
        raise InvalidBackup(f"{source} is no back-up of a CA, or a damaged one: {error}") from error
    return manifest


def _read_manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    with _content(tar, MANIFEST) as content:
        data = content.read(MAX_SMALL)
    try:
        manifest = json.loads(data)
        members, version = manifest["members"], manifest["version"]
        if version != VERSION:
            raise InvalidBackup(f"the back-up has version {version}, this program knows {VERSION}; use a newer one")
        float(manifest["taken_at"])
        good = {SETTINGS_FILE, STORE_FILE} <= set(members) and all(map(_is_known, members))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidBackup("the manifest of the back-up cannot be read") from error
    if not good or not isinstance(manifest.get("trust_domain"), str):
        raise InvalidBackup("the manifest names other files than a CA has")
    assert isinstance(manifest, dict)
    return manifest


def _is_known(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    is_key = folder == KEYS_DIR and file.endswith(".pem") and set(file[:-4]) <= set("0123456789abcdef") and file[:-4]
    return name in (SETTINGS_FILE, STORE_FILE) or bool(is_key)


@contextmanager
def _content(tar: tarfile.TarFile, name: str) -> Iterator[Any]:
    try:
        found = tar.extractfile(name) if tar.getmember(name).isreg() else None
    except KeyError:
        found = None
    if found is None:
        raise InvalidBackup(f"the back-up has no {name}")
    with found:
        yield found


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
