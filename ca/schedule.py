"""Keeps the issuing CAs on their schedule: prepares the next, lets it take over, retires the old one. Blocks on disk.

What is due is decided by `ca.slots.next_step`, from the table and the time; here it is done, one step after another,
each of them whole in the store (and in the log) before the next. Killed anywhere, the next round finds the table as the
last whole step left it and goes on; two schedules at once are held apart by the store, which takes one prepared slot.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from ca.errors import IssuerUnusable, SlotTaken
from ca.roots import active, certificate_of, key_file, life_of, prepare_issuer
from ca.signers import ISSUER_TTL
from ca.slots import Activate, Life, Prepare, Retire, Step, next_date, next_step
from ca.store.base import Slot, Store
from certs.spiffe import TrustDomain

MAX_STEPS = 16  # in one round: far more than a CA that was off for years has to catch up with
TRY_AGAIN = 600.0  # seconds until the next try where nothing could be prepared

_log = logging.getLogger("mesh.ca")


@dataclass(slots=True)
class Schedule:
    """The schedule of one CA. `issuer_ttl`, in seconds, is for the issuing CAs that it makes."""

    directory: Path
    store: Store
    trust_domain: TrustDomain
    passphrase: bytes = field(repr=False)
    issuer_ttl: float = ISSUER_TTL
    problem: str | None = None
    """Why the next issuing CA could not be prepared, for the operator."""
    _not_before: float = 0.0

    def round(self, now: float) -> tuple[Step, ...]:
        """Do whatever is due; what was done. Raises StoreUnavailable, KeyUnavailable."""
        done: list[Step] = []
        while len(done) < MAX_STEPS:
            step = next_step(lives(self.store), now)
            if step is None or not self._do(step, now):
                break
            done.append(step)
        if done:
            self.destroy_keys()
        return tuple(done)

    def next_date(self, now: float) -> float | None:
        """When something will be due, in seconds since the epoch."""
        return next_date(lives(self.store), now)

    def _do(self, step: Step, now: float) -> bool:
        match step:
            case Prepare():
                return self._prepare(now)
            case Activate(sha256):
                self.store.activate_slot(sha256, now)
                _log.info("issuing CA %s signs from now on", sha256[:16])
            case Retire(sha256):
                self.store.set_slot_state(sha256, "retired", now)
                _log.info("issuing CA %s is retired", sha256[:16])
        return True

    def _prepare(self, now: float) -> bool:
        if self.problem is not None and 0 <= now - self._not_before < TRY_AGAIN:
            return False
        self._not_before, self.problem = now, None
        try:
            self._check_worth(now)
            slot = prepare_issuer(self.directory, self.store, self.trust_domain, self.passphrase, now, self.issuer_ttl)
            _log.info("issuing CA %s is prepared", slot.sha256[:16])
        except SlotTaken:
            pass  # another process was quicker: the next look at the table shows its slot
        except IssuerUnusable as error:
            self.problem = str(error)
            _log.warning("no issuing CA can be prepared: %s", error)
        return self.problem is None

    def _check_worth(self, now: float) -> None:
        """A new one must reach beyond the old one, or nothing is won: a root at its end is the operator's matter."""
        root, issuer = active(self.store, "root"), life_of(active(self.store, "issuer"))
        root_ends = certificate_of(root).not_valid_after_utc.timestamp()
        if root.has_key and issuer.begins <= now < root_ends <= issuer.ends:
            raise IssuerUnusable("the issuing CA lasts as long as the root: a new root is needed")

    def destroy_keys(self) -> None:
        """Delete the keys of issuing CAs that will never sign again. Done after each round; and once at the start."""
        for slot in self.store.slots():
            if slot.state in ("retired", "revoked"):
                key_file(self.directory, slot.sha256).unlink(missing_ok=True)


def lives(store: Store) -> tuple[Life, ...]:
    """The issuing CAs as the schedule sees them."""
    return tuple(life_of(slot) for slot in issuers(store))


def issuers(store: Store) -> tuple[Slot, ...]:
    """The slots of issuing CAs, oldest first."""
    return tuple(slot for slot in store.slots() if slot.kind == "issuer")
