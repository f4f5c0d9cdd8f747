"""What a CA is told: `ca.json`, which lies beside its store, and how `mesh ca serve` was called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ca.durations import DAY
from ca.errors import DamagedCa, NoCa
from certs.enrolment import check_address
from certs.errors import IdentityError, PrivateFileUnavailable
from certs.jwt_svid import LIFETIME
from certs.keys import KEY_KINDS
from certs.spiffe import TrustDomain
from certs.store import read_private

SETTINGS_FILE = "ca.json"
STORE_FILE = "ca.sqlite3"
KEYS_DIR = "keys"
ENROLMENT_DIR = "enrolment"
DEFAULT_ADDRESS = "127.0.0.1:17012"  # sidecar.config.ports.CA; a test holds the two together

ISSUER_TTL = 30 * DAY  # the longest that semantics S6 takes

_VERSION = 1


@dataclass(frozen=True, slots=True)
class CaSettings:
    """The content of `ca.json`: what never changes, and the address that enrolment files name by default."""

    trust_domain: TrustDomain
    address: str = DEFAULT_ADDRESS
    issuer_ttl: float = ISSUER_TTL
    """How long each issuing CA that this CA makes for itself lives, in seconds."""

    key_kind: str = KEY_KINDS[0]
    """Of which kind the CA's own keys are (`certs.keys.KEY_KINDS`)."""

    kdf_rounds: int | None = None
    """How far the passphrase is stretched for each key; None means `certs.keys.KDF_ROUNDS`."""

    def to_json(self) -> bytes:
        """The content of the file."""
        document = {
            "version": _VERSION,
            "trust_domain": self.trust_domain.name,
            "address": self.address,
            "issuer_ttl": self.issuer_ttl,
            "key_kind": self.key_kind,
            **({} if self.kdf_rounds is None else {"kdf_rounds": self.kdf_rounds}),
        }
        return json.dumps(document, indent=2).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> CaSettings:
        """Read the content of the file. Raises DamagedCa."""
        try:
            document = json.loads(data)
            if not isinstance(document, dict) or document.get("version") != _VERSION:
                raise DamagedCa(f"{SETTINGS_FILE} is not of version {_VERSION}")
            ttl = float(document.get("issuer_ttl", ISSUER_TTL))  # files of version 0.1 do not say
            rounds = document.get("kdf_rounds")
            if rounds is not None and type(rounds) is not int:
                raise DamagedCa(f"`kdf_rounds` of {SETTINGS_FILE} is not a whole number")
            kind = document.get("key_kind", KEY_KINDS[0])
            if kind not in KEY_KINDS:
                raise DamagedCa(f"`key_kind` of {SETTINGS_FILE} is not one of {', '.join(KEY_KINDS)}")
            trust_domain, address = TrustDomain.parse(document["trust_domain"]), check_address(document["address"])
            return cls(trust_domain, address, ttl, kind, rounds)
        except (ValueError, KeyError, TypeError, AttributeError, IdentityError) as error:
            raise DamagedCa(f"{SETTINGS_FILE} cannot be read: {error}") from error


def load_settings(directory: Path) -> CaSettings:
    """Read `ca.json` of a CA's directory. Raises NoCa, DamagedCa, PrivateFileUnavailable."""
    path = directory / SETTINGS_FILE
    if not path.exists():
        raise NoCa(f"{directory} holds no CA; make one with `mesh ca init --trust-domain NAME --dir {directory}`")
    try:
        return CaSettings.parse(read_private(path))
    except PrivateFileUnavailable as error:
        raise DamagedCa(str(error)) from error


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """How the server runs. Times are seconds; limits are per process."""

    directory: Path
    host: str = "127.0.0.1"
    port: int = 17012
    socket: Path | None = None
    """A Unix socket on which callers of this machine enrol by who they are; None for none."""

    connections: int = 4096  # each sidecar holds one watch and now and then a second connection
    handshake_timeout: float = 5.0  # decision D8
    svid_ttl: float = 24 * 3600.0
    jwt_ttl: float = LIFETIME
    bundle_poll: float = 1.0  # how soon a change made by another process is on its way; D10 allows 5 s
    checkpoint_every: float = 10.0  # how long a line of the log may be without a signed head above it
    denylist_every: float = 600.0  # how often it is signed anew while nothing changes; at 3600 s sidecars alarm (D10)
    store_check: float = 5.0  # between two looks at whether the store takes a write
    watch_beat: float = 30.0  # the `time` topic, which is the heart-beat of a watch
