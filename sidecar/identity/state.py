"""What a sidecar keeps on disk between two lives: its enrolment key, the last trust bundles and the last denylist, each
0600 (D14).

Never the SVID's key: that one lives and dies with the process. The files are named for the entry, so sidecars may share
a folder. The denylist is kept as it came, signed, and is believed again only by its signature. The bundle is kept with
the pins under which it was obtained: as long as the enrolment file names the same roots, the bundle alone says whom to
trust (a root that has left it stays out); a new enrolment file with other pins, as issued after a root rotation, speaks
louder than what we kept.

Everything here blocks on the disk.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from certs.bundle import BundleSet, TrustBundle
from certs.enrolment import KEY_BYTES, Enrolment, EnrolmentKey, JoinToken, decode_base64
from certs.errors import IdentityError, PrivateFileUnavailable
from certs.spiffe import TrustDomain
from certs.store import ensure_private_dir, read_private, write_private


class DamagedState(IdentityError):
    """A file in the state folder cannot be read as what it should be."""

    name: ClassVar[str] = "damaged_state"


@dataclass(frozen=True, slots=True)
class KeptKey:
    """An enrolment key that we made for one join token. `confirmed` once the CA has accepted it."""

    key: EnrolmentKey
    token_sha256: str
    confirmed: bool


def token_hash(token: JoinToken) -> str:
    """What tells one join token from another without keeping it."""
    return hashlib.sha256(token.token.encode()).hexdigest()


class StateFolder:
    """The files of one enrolment in one folder, which is made (0700) where it is missing."""

    def __init__(self, path: Path, enrolment: Enrolment) -> None:
        self._enrolment = enrolment
        self._folder = path
        self._key_path = path / f"{enrolment.entry}.enrolment-key.json"
        self._bundle_path = path / f"{enrolment.entry}.bundle.json"
        self._denylist_path = path / f"{enrolment.entry}.denylist.json"
        self._federation_path = path / f"{enrolment.entry}.federation.json"

    def load_key(self) -> KeptKey | None:
        """The enrolment key that we made, None where there is none. Raises DamagedState, PrivateFileUnavailable."""
        if not self._key_path.exists():
            return None
        try:
            return _kept_key(read_private(self._key_path))  # never in a variable here, which a crash report may show
        except PrivateFileUnavailable:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IdentityError):
            raise _damaged(self._key_path) from None

    def save_key(self, kept: KeptKey) -> None:
        """Keep the key, durably. Raises OSError, PrivateFileUnavailable."""
        encoded = base64.b64encode(kept.key.private_bytes).decode()
        document = {"enrolment_key": encoded, "token_sha256": kept.token_sha256, "confirmed": kept.confirmed}
        self._write(self._key_path, document)

    def load_bundle(self) -> TrustBundle | None:
        """The bundle we kept, None where there is none or the enrolment file has named other roots since."""
        document = _read(self._bundle_path)
        if document is None or document.get("pins") != sorted(self._enrolment.root_sha256):
            return None
        try:
            jwks = json.dumps(document["bundle"]).encode()
            return TrustBundle.parse_jwks(self._enrolment.trust_domain, jwks)
        except (KeyError, IdentityError) as error:
            raise _damaged(self._bundle_path) from error

    def save_bundle(self, bundle: TrustBundle) -> None:
        """Keep the bundle, durably. Raises OSError, PrivateFileUnavailable."""
        pins = sorted(self._enrolment.root_sha256)
        self._write(self._bundle_path, {"pins": pins, "bundle": json.loads(bundle.to_jwks())})

    def load_denylist(self) -> dict[str, Any] | None:
        """The signed denylist that we kept, None where there is none. Raises DamagedState, PrivateFileUnavailable."""
        return _read(self._denylist_path)

    def save_denylist(self, document: dict[str, Any]) -> None:
        """Keep a signed denylist, durably. Raises OSError, PrivateFileUnavailable."""
        self._write(self._denylist_path, document)

    def load_federation(self) -> BundleSet:
        """The bundles of other trust domains that we kept. Raises DamagedState, PrivateFileUnavailable."""
        document = _read(self._federation_path)
        if document is None or document.get("pins") != sorted(self._enrolment.root_sha256):
            return BundleSet()
        try:
            kept = ((name, json.dumps(bundle).encode()) for name, bundle in document["bundles"].items())
            return BundleSet.of_all(TrustBundle.parse_jwks(TrustDomain.parse(name), jwks) for name, jwks in kept)
        except (KeyError, AttributeError, IdentityError) as error:
            raise _damaged(self._federation_path) from error

    def save_federation(self, others: BundleSet) -> None:
        """Keep the bundles of other trust domains, durably. Raises OSError, PrivateFileUnavailable."""
        bundles = {bundle.trust_domain.name: json.loads(bundle.to_jwks()) for bundle in others}
        self._write(self._federation_path, {"pins": sorted(self._enrolment.root_sha256), "bundles": bundles})

    def _write(self, path: Path, document: dict[str, Any]) -> None:
        ensure_private_dir(self._folder)
        write_private(path, json.dumps(document, indent=2).encode() + b"\n")


def _kept_key(data: bytes) -> KeptKey:
    document = json.loads(data)
    key = EnrolmentKey(decode_base64(document["enrolment_key"], KEY_BYTES))
    return KeptKey(key, str(document["token_sha256"]), document["confirmed"] is True)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        document = json.loads(read_private(path))
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(document, dict):
        raise _damaged(path)
    return document


def _damaged(path: Path) -> DamagedState:
    return DamagedState(f"{path} is damaged; remove it, and enrol anew if it held the only enrolment key")
