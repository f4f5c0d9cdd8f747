"""The enrolment files that lie in the CA's own folder, and what they pin (decision D15)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ca.config import ENROLMENT_DIR
from ca.roots import load_bundle
from ca.slots import IN_BUNDLE
from ca.store.base import Store
from certs.enrolment import Enrolment, EnrolmentKey, InvalidEnrolment
from certs.errors import PrivateFileUnavailable
from certs.spiffe import SpiffeId, TrustDomain


@dataclass(frozen=True, slots=True)
class Stale:
    """A live enrolment key that was handed out before the newest root: its file, wherever it is, does not pin it."""

    spiffe_id: SpiffeId
    key_id: str
    created_at: float


def refresh_files(directory: Path, store: Store, trust_domain: TrustDomain) -> int:
    """Let every file pin the roots of the bundle as it is now; how many were written. Raises OSError."""
    roots = load_bundle(store, trust_domain).root_hashes()
    written = 0
    for path, file in _files(directory):
        if file.trust_domain == trust_domain and set(file.root_sha256) != set(roots):
            replace(file, root_sha256=roots).save(path)
            written += 1
    return written


def stale(directory: Path, store: Store) -> tuple[Stale, ...]:
    """The keys whose files were carried away before the newest root of the bundle was made.

    A sidecar that keeps its state folder goes on all the same, by the bundle that it keeps there. One that starts
    without it is told of no root that the CA can show once the old one is gone: give it a new file.
    """
    roots = (slot for slot in store.slots() if slot.kind == "root" and slot.state in IN_BUNDLE)
    newest = max((slot.created_at for slot in roots), default=0.0)
    here = {file.proof.public_bytes for _, file in _files(directory) if isinstance(file.proof, EnrolmentKey)}
    return tuple(
        Stale(entry.spiffe_id, key.key_id, key.created_at)
        for entry in store.entries()
        for key in store.keys(entry.id)
        if key.origin == "operator" and key.revoked_at is None and key.created_at < newest
        if key.public_bytes not in here
    )


def _files(directory: Path) -> Iterator[tuple[Path, Enrolment]]:
    for path in sorted((directory / ENROLMENT_DIR).glob("*.json")):
        try:
            yield path, Enrolment.load(path)
        except (InvalidEnrolment, PrivateFileUnavailable):
            continue  # not one of ours, or damaged: `mesh up` makes it anew
