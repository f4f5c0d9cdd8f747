"""The CRLs that a serving CA has at hand: one for each issuing CA whose certificates still hold, made on demand."""

from __future__ import annotations

from pathlib import Path

from ca.revocation import make_crl
from ca.roots import certificate_of, load_slot
from ca.signers import Issuer
from ca.store.threads import StoreThreads

CRL_SECONDS = 60.0  # how long one CRL serves everybody who asks, unless the denylist changes


class Crls:
    """Makes and keeps the CRLs of the active issuing CA and of those that retire."""

    def __init__(self, store: StoreThreads, directory: Path, passphrase: bytes) -> None:
        self._store = store
        self._directory = directory
        self._passphrase = passphrase
        self._made: dict[str, tuple[int, float, bytes]] = {}  # issuer's serial → denylist sequence, when, DER
        self._retiring: dict[str, Issuer] = {}

    async def of(self, serial: str | None, active: Issuer, sequence: int, now: float) -> bytes | None:
        """The CRL (DER) of the issuing CA with this serial, by default the active one; None where it signs none here.

        `sequence` is that of the denylist in force. Raises StoreUnavailable, KeyUnavailable.
        """
        issuer = active if serial in (None, active.serial) else await self._open(serial or "", now)
        if issuer is None:
            return None
        made_for, made_at, crl = self._made.get(issuer.serial, (-1, 0.0, b""))
        if made_for != sequence or not 0 <= now - made_at < CRL_SECONDS:
            crl = await self._store.call(make_crl, self._store.store, issuer, now)
            self._made[issuer.serial] = (sequence, now, crl)
        return crl

    async def _open(self, serial: str, now: float) -> Issuer | None:
        """The retiring issuing CA with this serial; its key is opened once."""
        if serial not in self._retiring:
            slots = await self._store.call(self._store.store.slots)
            for slot in slots:
                wanted = slot.kind == "issuer" and slot.state == "retiring"
                if wanted and f"{certificate_of(slot).serial_number:x}" == serial:
                    opened = await self._store.call(load_slot, self._directory, slots, slot, self._passphrase)
                    self._retiring[serial] = opened
        found = self._retiring.get(serial)
        return found if found is not None and now < found.not_after else None
