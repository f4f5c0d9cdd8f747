"""The keys of JWT-SVIDs: one more kind of signing key, with the states and the schedule of issuing CAs (D19).

A key lives 30 days. Its successor is prepared, and with that published in every bundle, at half of its life; it takes
over when a sixth is left; the old one stays published to its end, which is long after the last token that it signed.
Keys are always P-256, whatever kind the CA's own are: ES256 is what every library reads. They lie encrypted beside the
CA's other keys, named by the SHA-256 of the public key, which is the `kid` too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from ca.config import ISSUER_TTL, load_settings
from ca.errors import DamagedCa, IssuerUnusable, SlotTaken
from ca.roots import key_file, load_issuer
from ca.signers import CA_BACKDATE
from ca.slots import Activate, Life, Prepare, Retire, Step, next_step
from ca.store.base import JwtSlot, Store
from certs.keys import load_key, new_key, public_bytes, save_key

JWT_KEY_TTL = ISSUER_TTL
MAX_STEPS = 16

_log = logging.getLogger("mesh.ca")


@dataclass(frozen=True, slots=True)
class JwtSigner:
    """The key that signs now."""

    kid: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    ends_at: float


@dataclass(slots=True)
class JwtKeys:
    """The keys of one CA. Everything here blocks on disk."""

    directory: Path
    store: Store
    passphrase: bytes = field(repr=False)
    ttl: float = JWT_KEY_TTL
    _signer: JwtSigner | None = None

    def round(self, now: float) -> tuple[Step, ...]:
        """Prepare, activate and retire what is due; what was done. Raises StoreUnavailable, KeyUnavailable."""
        done: list[Step] = []
        while len(done) < MAX_STEPS and (step := next_step(_lives(self.store.jwt_keys()), now)) is not None:
            try:
                self._do(step, now)
            except SlotTaken:
                break  # another process was quicker
            done.append(step)
        if done:
            self.destroy_keys()
        return tuple(done)

    def signer(self, now: float) -> JwtSigner:
        """The active key, opened once. Raises IssuerUnusable, KeyUnavailable, DamagedCa."""
        active = next((key for key in self.store.jwt_keys() if key.state == "active"), None)
        if active is None or now >= active.ends_at:
            raise IssuerUnusable("no key of JWT-SVIDs can sign now; `mesh ca serve` makes one within the minute")
        if self._signer is None or self._signer.kid != active.kid:
            key = load_key(key_file(self.directory, active.kid), self.passphrase)
            if not isinstance(key, ec.EllipticCurvePrivateKey) or kid_of(key) != active.kid:
                raise DamagedCa(f"{key_file(self.directory, active.kid)} is not the key of JWT-SVIDs {active.kid[:16]}")
            self._signer = JwtSigner(active.kid, key, active.ends_at)
        return self._signer

    def renew(self, now: float, *, revoke: bool) -> tuple[str, tuple[str, ...]]:
        """Let another key take over now; with `revoke` a fresh one, and all others are worth nothing from here on.

        Its kid, and the kids that are revoked. Raises StoreUnavailable, KeyUnavailable: a key is never made under a
        passphrase that does not open the issuing CA's, for the server would not open it.
        """
        load_issuer(self.directory, self.store, self.passphrase)
        prepared = next((key for key in self.store.jwt_keys() if key.state == "prepared"), None)
        if prepared is not None and revoke:
            self.store.set_jwt_key_state(prepared.kid, "revoked", now)
            prepared = None
        kid = prepared.kid if prepared is not None else self._prepare(now)
        self.store.activate_jwt_key(kid, now)
        gone = tuple(key.kid for key in self.store.jwt_keys() if revoke and key.state == "retiring")
        for each in gone:
            self.store.set_jwt_key_state(each, "revoked", now)
        self.destroy_keys()
        return kid, gone

    def _do(self, step: Step, now: float) -> None:
        match step:
            case Prepare():
                _log.info("key of JWT-SVIDs %s is prepared", self._prepare(now)[:16])
            case Activate(kid):
                self.store.activate_jwt_key(kid, now)
                _log.info("key of JWT-SVIDs %s signs from now on", kid[:16])
            case Retire(kid):
                self.store.set_jwt_key_state(kid, "retired", now)
                _log.info("key of JWT-SVIDs %s is retired", kid[:16])

    def _prepare(self, now: float) -> str:
        key = new_key()
        kid = kid_of(key)
        rounds = load_settings(self.directory).kdf_rounds
        save_key(key_file(self.directory, kid), key, self.passphrase, rounds)
        self.store.add_jwt_key(JwtSlot(kid, "prepared", public_bytes(key.public_key()), now, now, now + self.ttl))
        return kid

    def destroy_keys(self) -> None:
        """Delete the keys that will never sign again."""
        for key in self.store.jwt_keys():
            if key.state in ("retired", "revoked"):
                key_file(self.directory, key.kid).unlink(missing_ok=True)


def kid_of(key: ec.EllipticCurvePrivateKey) -> str:
    """The name under which this key is published: SHA-256 of its SubjectPublicKeyInfo, hex."""
    return hashlib.sha256(public_bytes(key.public_key())).hexdigest()


def _lives(keys: Sequence[JwtSlot]) -> tuple[Life, ...]:
    return tuple(
        Life(key.kid, key.state, key.created_at, key.created_at - CA_BACKDATE, key.ends_at) for key in keys
    )
