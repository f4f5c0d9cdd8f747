"""A rotation of the root, done: begun and turned back by the operator, taken from phase to phase by `mesh ca serve`.

`ca.rotation` says what each phase waits for; here slots move, keys are made and enrolment files written anew. A key is
on disk before the store names it, and every phase is one transaction; so a CA that is killed anywhere goes on from the
last whole phase, and what is left over is at most a key that no certificate names. Blocks on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.config import load_settings
from ca.enrolment_files import refresh_files
from ca.errors import IssuerUnusable, RotationRefused
from ca.live import live_leaves
from ca.roots import active, certificate_of, find, key_file, key_path, life_of, load_issuer, load_signing_key, slot_of
from ca.rotation import Laggard, Phase, Rotation, Skip, next_phase, turned_back, waited_for
from ca.signers import ISSUER_TTL, ROOT_TTL, Issuer, make_issuer, make_root
from ca.slots import SlotState
from ca.store.base import Slot, Store
from certs.errors import MeshError
from certs.keys import make_key, save_key
from certs.spiffe import TrustDomain

RENEWALS_A_SECOND = 25  # a quarter of what the issuance bucket allows (D19): the rest is for whoever starts meanwhile
MAX_SPREAD = 3600.0  # seconds

Move = tuple[str, SlotState]

_log = logging.getLogger("mesh.ca")


@dataclass(frozen=True, slots=True)
class RenewOrder:
    """What the watch tells: whoever holds a certificate of these issuing CAs renews it at some moment of `within` s.

    `sequence` grows with each order; 0, with no issuers, is none.
    """

    sequence: int = 0
    issuers: frozenset[str] = frozenset()
    within: float = 0.0


@dataclass(slots=True)
class RootRotation:
    """The rotation of one CA's root. `issuer_ttl`, in seconds, is for the issuing CA that it makes."""

    directory: Path
    store: Store
    trust_domain: TrustDomain
    passphrase: bytes = field(repr=False)
    issuer_ttl: float = ISSUER_TTL
    problem: str | None = None
    """Why the next phase could not begin, for the operator."""

    def begin(
        self, now: float, *, root_ttl: float = ROOT_TTL, imported: Issuer | None = None, skips: Sequence[Skip] = ()
    ) -> Rotation:
        """Announce a new root: our own, or that of `imported`, whose issuing CA's key is on disk already.

        Raises RotationRefused where one is under way, KeyUnavailable (wrong passphrase), SlotTaken.
        """
        before, old = self.store.rotation(), active(self.store, "root")
        if before is not None and before.under_way:
            raise RotationRefused("a rotation is under way already; see `mesh ca rotate-root --status`")
        load_issuer(self.directory, self.store, self.passphrase)  # a wrong passphrase ends here
        root = self._make_root(now, root_ttl) if imported is None else imported.root
        new = slot_of(root, "root", now, "prepared", has_key=imported is None)
        pem = "" if imported is None else _pem(imported)
        rotation = Rotation("announced", old.sha256, new.sha256, now, now, issuer_pem=pem, skipped=tuple(skips))
        rotation = self.store.advance_rotation(before, rotation, [new])
        self.refresh_files()
        return rotation

    def skip(self, skips: Sequence[Skip], now: float) -> Rotation:
        """Wait no more for these. Raises RotationRefused where nothing is under way."""
        before = self._under_way()
        known = {skip.target: skip for skip in (*before.skipped, *skips)}
        return self.store.advance_rotation(before, replace(before, since=now, skipped=tuple(known.values())))

    def abort(self, now: float) -> Rotation:
        """Turn back. Raises RotationRefused from the last phase on, IssuerUnusable where the old root signs no more."""
        before = self._under_way()
        after = turned_back(before, now)
        if after is None:
            why = "it is being turned back already" if before.aborted else "the old root has left the bundle"
            raise RotationRefused(f"there is no way back: {why}. To go on, see `mesh ca rotate-root --status`")
        if after.phase == "withdrawn":
            rotation = self._withdraw(before, after)
            for one in parse_waiting(before)[:1]:
                key_path(self.directory, one).unlink(missing_ok=True)
        else:
            rotation = self._switch(before, after, now)
        self.refresh_files()
        return rotation

    def round(self, now: float) -> bool:
        """Begin the next phase if nobody is waited for; whether it did. Raises StoreUnavailable, KeyUnavailable."""
        rotation = self.store.rotation()
        if rotation is None or (phase := next_phase(rotation, self.laggards(rotation, now))) is None:
            return False
        try:
            self._go_to(phase, rotation, now)
        except (IssuerUnusable, RotationRefused) as error:
            if str(error) != self.problem:
                _log.warning("the rotation of the root cannot go on: %s", error)
            self.problem = str(error)
            return False
        self.problem = None
        _log.warning("the rotation of the root is in phase %r: root %s goes", phase, rotation.outgoing[:16])
        self.refresh_files()
        return True

    def laggards(self, rotation: Rotation, now: float) -> tuple[Laggard, ...]:
        """Whom this phase waits for, and who was skipped."""
        sequence = self.store.bundle_sequence()
        return waited_for(rotation, live_leaves(self.store, now), sequence) if rotation.under_way else ()

    def order(self, now: float) -> RenewOrder:
        """What sidecars are told about renewing early."""
        rotation = self.store.rotation()
        if rotation is None or rotation.phase != "switched":
            return RenewOrder()
        old = [slot for slot in self.store.slots() if slot.kind == "issuer" and slot.root == rotation.outgoing]
        count = len(self.laggards(rotation, now))
        serials = frozenset(f"{certificate_of(slot).serial_number:x}" for slot in old)
        return RenewOrder(rotation.line, serials, min(MAX_SPREAD, max(1.0, count / RENEWALS_A_SECOND)))

    def refresh_files(self) -> None:
        """Write the enrolment files in the CA's folder anew, with the roots of the bundle (D15); best effort."""
        try:
            refresh_files(self.directory, self.store, self.trust_domain)
        except (OSError, MeshError) as error:
            _log.error("the enrolment files cannot be written anew: %s", error)

    # ---- phases ------------------------------------------------------------------------------------------------------

    def _go_to(self, phase: Phase, rotation: Rotation, now: float) -> None:
        match phase:
            case "switched":
                self._switch(rotation, rotation.at(phase, now), now)
            case "withdrawn":
                self._withdraw(rotation, rotation.at(phase, now))
            case _:
                self.store.advance_rotation(rotation, rotation.at(phase, now))

    def _switch(self, before: Rotation, after: Rotation, now: float) -> Rotation:
        """Let an issuing CA under the incoming root take over, and the root itself."""
        slots = [slot for slot in self.store.slots() if slot.kind in ("root", "issuer")]
        issuer = self._next_issuer(after, now)
        steps: list[Slot | Move] = []
        if (prepared := find(slots, "issuer", "prepared")) is not None:
            steps.append((prepared.sha256, "retired"))  # it never signed anything, and is under the wrong root
        if issuer.state == "prepared":
            steps.append(issuer)
        steps += [(one.sha256, "retiring") for one in slots if one.state == "active"]
        steps += [(after.incoming, "active"), (issuer.sha256, "active")]
        return self.store.advance_rotation(before, replace(after, issuer_pem=""), steps)

    def _withdraw(self, before: Rotation, after: Rotation) -> Rotation:
        """Take the outgoing root out of the bundle, and the issuing CAs under it out of use."""
        under_it = [slot for slot in self.store.slots() if slot.root == after.outgoing]
        gone = [slot for slot in under_it if slot.state in ("prepared", "retiring")]
        moves: list[Move] = [(slot.sha256, "retired") for slot in sorted(gone, key=lambda slot: slot.kind)]
        rotation = self.store.advance_rotation(before, after, moves)
        for slot in gone:
            key_file(self.directory, slot.sha256).unlink(missing_ok=True)
        return rotation

    def _next_issuer(self, rotation: Rotation, now: float) -> Slot:
        """The issuing CA that takes over under the incoming root: retiring, or prepared and not in the store yet."""
        for slot in reversed(self.store.slots()):
            under_it = (slot.kind, slot.state, slot.root) == ("issuer", "retiring", rotation.incoming)
            if under_it and self._can_sign(slot, now):
                return slot
        if chain := parse_waiting(rotation):
            load_signing_key(self.directory, chain[0], self.passphrase)
            return slot_of(chain[0], "issuer", now, "prepared", root=rotation.incoming, chain=chain[1:])
        return self._make_issuer(rotation.incoming, now)

    def _can_sign(self, slot: Slot, now: float) -> bool:
        return life_of(slot).can_sign(now) and key_file(self.directory, slot.sha256).exists()

    def _make_issuer(self, root_sha256: str, now: float) -> Slot:
        root_slot = next(slot for slot in self.store.slots() if slot.sha256 == root_sha256)
        if not root_slot.has_key:
            raise IssuerUnusable("this root's key is not on this machine, and no issuing CA under it can sign now")
        settings, root = load_settings(self.directory), certificate_of(root_slot)
        root_key, key = load_signing_key(self.directory, root, self.passphrase), make_key(settings.key_kind)
        certificate = make_issuer(self.trust_domain, key, root, root_key, now, self.issuer_ttl)
        save_key(key_path(self.directory, certificate), key, self.passphrase, settings.kdf_rounds)
        return slot_of(certificate, "issuer", now, "prepared", root=root_sha256)

    def _make_root(self, now: float, ttl: float) -> x509.Certificate:
        settings = load_settings(self.directory)
        key = make_key(settings.key_kind)
        root = make_root(self.trust_domain, key, now, ttl)
        save_key(key_path(self.directory, root), key, self.passphrase, settings.kdf_rounds)
        return root

    def _under_way(self) -> Rotation:
        rotation = self.store.rotation()
        if rotation is None or not rotation.under_way:
            raise RotationRefused("no rotation of the root is under way; begin one with `mesh ca rotate-root --go`")
        return rotation


def _pem(issuer: Issuer) -> str:
    return b"".join(one.public_bytes(Encoding.PEM) for one in (issuer.certificate, *issuer.chain)).decode("ascii")


def parse_waiting(rotation: Rotation) -> list[x509.Certificate]:
    """The issuing CA that waits to take over with its root, and the CAs above it; nothing where none does."""
    return x509.load_pem_x509_certificates(rotation.issuer_pem.encode("ascii")) if rotation.issuer_pem else []
