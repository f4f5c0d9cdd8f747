"""What a sidecar holds of its identity at this moment, and the one place where any of it changes.

The renewal loop and the watch loop share it. Publishing is instant and in memory; keeping on disk comes after, and may
fail without taking back what was published.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from certs.bundle import BundleSet, TrustBundle
from certs.denylist import Denylist, Why
from certs.enrolment import Enrolment, UnixSocket
from certs.errors import MeshError
from certs.keys import KEY_KINDS
from certs.signed import InvalidStatement
from certs.source import Source
from certs.svid import X509Svid
from certs.verify import chain_ends
from sidecar.identity.ca_client import CaSession, Dial, Trust, connect
from sidecar.identity.state import StateFolder
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import Clock

_log = logging.getLogger("mesh.identity")

FORGOTTEN = (
    "if the CA was copied back from an older state, it has forgotten what came after: take a `mesh ca backup` of it "
    "and `mesh ca restore` that, which counts on past all that was told, and revoke again what was revoked since"
)


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """What there is to know beforehand. `ca_address` (`host:port`), where not empty, overrides the enrolment file's.

    `key_kind` is one of `certs.keys.KEY_KINDS`: of which kind the keys of our certificates are.
    """

    enrolment: Enrolment
    state_dir: Path
    ca_address: str = ""
    key_kind: str = KEY_KINDS[0]

    @property
    def address(self) -> str:
        """Where the CA is."""
        return self.ca_address or self.enrolment.ca_address


class Holdings:
    """The current SVID and bundles, the state folder, the status, and the way to the CA that they open."""

    def __init__(
        self,
        config: IdentityConfig,
        svids: Source[X509Svid],
        bundles: Source[BundleSet],
        clock: Clock,
        status: Source[IdentityStatus],
        dial: Dial,
        disk: Any,
        denylists: Source[Denylist] | None = None,
    ) -> None:
        self.enrolment = config.enrolment
        self.svids = svids
        self.clock = clock
        self.disk = disk
        self.key_kind = config.key_kind
        self.state = StateFolder(config.state_dir, config.enrolment)
        self._address = config.address
        self._bundles = bundles
        self._status = status
        self._dial = dial
        self._kept: TrustBundle | None = None
        self._kept_denylist: object = None  # the signed document that is on disk
        self.denylists: Source[Denylist] = denylists if denylists is not None else Source("denylist")
        self._federated = BundleSet()
        self._known = IdentityStatus(config.enrolment.spiffe_id.text)
        status.publish(self._known)

    def valid_svid(self) -> X509Svid | None:
        """The SVID in hand, None where there is none or it has ended by our wall clock."""
        svid = self.svids.current if self.svids.number else None
        return svid if svid is not None and self.clock.wall() < svid.not_after else None

    @property
    def watch_error(self) -> str:
        """Why the watch is not connected; empty while it is."""
        return self._known.watch_error

    def bundle(self) -> TrustBundle | None:
        """The bundle of our own trust domain, None before the first."""
        return self._bundles.current.of(self.enrolment.trust_domain) if self._bundles.number else None

    async def connect_with(self, svid: X509Svid) -> CaSession:
        """A connection to the CA that shows this certificate. Raises CaUnreachable, CaUntrusted."""
        return await self._connect(Trust(svid.spiffe_id.trust_domain, self.bundle(), denied=self.denylist()), svid)

    async def connect_to_enrol(self) -> CaSession:
        """A connection to the CA that shows no certificate. Raises CaUnreachable, CaUntrusted, DamagedState.

        The CA is known by the bundle we hold, else by the one we kept, else by the roots that the enrolment file pins.
        """
        bundle = self.bundle() or await self.disk(self.state.load_bundle)
        trust_domain, pins, proof = self.enrolment.trust_domain, self.enrolment.root_sha256, self.enrolment.proof
        address = f"unix:{proof.path}" if isinstance(proof, UnixSocket) else self._address
        trust = Trust(trust_domain, bundle, pins, self.denylist())
        return await connect(address, trust, None, self.clock, self._dial)

    def expired_svid(self) -> X509Svid | None:
        """The SVID in hand that has ended, None where there is none."""
        svid = self.svids.current if self.svids.number else None
        return svid if svid is not None and self.valid_svid() is None else None

    async def _connect(self, trust: Trust, svid: X509Svid | None) -> CaSession:
        return await connect(self._address, trust, svid, self.clock, self._dial)

    def publish_bundle(self, bundle: TrustBundle) -> bool:
        """Make a bundle that differs from the current one the next generation; false where it is older than that.

        Its sequence never falls (S3): a lower one is replayed, or of a CA that was copied back without `mesh ca
        restore`, and roots that have left must not return that way.
        """
        current = self.bundle()
        if bundle == current:
            self.say(bundle_error="")
            return True
        if current is not None and bundle.sequence < current.sequence:
            error = f"the CA sends trust bundle {bundle.sequence}, and {current.sequence} is in force; {FORGOTTEN}"
            self.say(bundle_error=error)
            _log.error("a trust bundle is refused: %s", error)
            return False
        others = self._bundles.current if self._bundles.number else self._federated
        self._bundles.publish(others.with_bundle(bundle))
        self.say(bundle_sequence=bundle.sequence, bundle_error="", **self._chain_ends())
        _log.info("trust bundle %d with %d roots", bundle.sequence, len(bundle.roots))
        return True

    def publish_svid(self, svid: X509Svid) -> None:
        """Make this certificate the next generation."""
        self.svids.publish(svid)
        ends = self._chain_ends()
        self.say(
            serial=svid.serial, not_after=svid.not_after, consecutive_failures=0, last_error="",
            revoked=self.revoked() or "", **ends,
        )  # fmt: skip
        _log.info("certificate %s of %s", svid.serial, svid.spiffe_id)

    def _chain_ends(self) -> dict[str, float]:
        """When the links above our certificate end."""
        if not self.svids.number or (bundle := self.bundle()) is None:
            return {}
        issuer, root = chain_ends(self.svids.current, bundle)
        return {"issuer_not_after": issuer, "root_not_after": root}

    def publish_federation(self, others: BundleSet) -> None:
        """Make these the bundles of other trust domains, all of them; those that are missing are trusted no longer."""
        if set(others) == set(self._federated):
            return
        self._federated, own = others, self.bundle()
        if own is not None:
            self._bundles.publish(others.with_bundle(own))
        for one in others:
            _log.info("trust domain %s: bundle %d with %d roots", one.trust_domain, one.sequence, len(one.roots))

    async def keep_federation(self, others: BundleSet) -> None:
        """Write the bundles of other trust domains to the state folder. Raises OSError, PrivateFileUnavailable."""
        await self.disk(lambda: self.state.save_federation(others))

    async def load_federation(self) -> None:
        """Begin with the bundles of other trust domains that were kept; damaged ones are left out, and said."""
        try:
            self.publish_federation(await self.disk(self.state.load_federation))
        except (MeshError, OSError) as error:
            _log.error("the bundles of other trust domains that were kept cannot be read: %s", error)

    async def keep_bundle(self, bundle: TrustBundle) -> None:
        """Write the bundle to the state folder, unless it is there. Raises OSError, PrivateFileUnavailable."""
        if bundle != self._kept:
            await self.disk(lambda: self.state.save_bundle(bundle))
            self._kept = bundle

    # ---- the denylist ------------------------------------------------------------------------------------------------

    def denylist(self) -> Denylist | None:
        """The denylist in force, None before the first."""
        return self.denylists.current if self.denylists.number else None

    def revoked(self) -> Why | None:
        """Why our own certificate is on the denylist; None where it is not, or there is neither."""
        denylist = self.denylist()
        if denylist is None or not self.svids.number:
            return None
        svid = self.svids.current
        return denylist.denies_chain(svid.spiffe_id, svid.chain)

    async def recall_denylist(self) -> None:
        """Put the denylist that an earlier life has kept in force, before anybody is met. Raises nothing.

        It is believed by its signature, which has to hold under the bundle that was kept with it.
        """
        try:
            document = await self.disk(self.state.load_denylist)
            bundle = self.bundle() or await self.disk(self.state.load_bundle)
            if document is None or bundle is None or self.denylist() is not None:
                return
            roots = BundleSet((bundle,))
            denylist = Denylist.open(document, self.enrolment.trust_domain, roots, None, None)
        except (MeshError, OSError) as error:
            self._refuse_denylist(f"the one kept on disk: {error}")
            return
        self._kept_denylist = document
        self._put_in_force(denylist)

    async def take_denylist(self, document: object) -> bool:
        """Put a denylist that the CA sends in force, then keep it; false where it cannot be believed."""
        bundles = self._bundles.current if self._bundles.number else BundleSet()
        last, now = self.denylist(), self.clock.wall()
        try:
            denylist = Denylist.open(document, self.enrolment.trust_domain, bundles, now, last)
        except InvalidStatement as error:
            self._refuse_denylist(f"{error}; {FORGOTTEN}" if error.reason == "lower_sequence" else str(error))
            return False
        self._put_in_force(denylist)
        self.say(denylist_heard_at=now, denylist_error="")
        if document == self._kept_denylist:
            return True
        try:
            assert isinstance(document, dict)
            await self.disk(lambda: self.state.save_denylist(document))
            self._kept_denylist = document
        except (MeshError, OSError) as error:
            _log.error("the denylist could not be kept on disk: %s", error)
        return True

    def _put_in_force(self, denylist: Denylist) -> None:
        before = self.denylist()
        self.denylists.publish(denylist)
        self.say(
            denylist_sequence=denylist.sequence, denylist_at=denylist.at, denylist_entries=len(denylist),
            revoked=self.revoked() or "",
        )  # fmt: skip
        if before is None or before.sequence != denylist.sequence:
            _log.info("denylist %d is in force: %d denied", denylist.sequence, len(denylist))

    def _refuse_denylist(self, why: str) -> None:
        in_force = self.denylist()
        stays = f"denylist {in_force.sequence} stays in force" if in_force is not None else "there is none in force"
        self.say(denylist_refused=self._known.denylist_refused + 1, denylist_error=why)
        _log.error("a denylist is refused, %s: %s", stays, why)

    def take_skew(self, skew: float) -> None:
        """Learn our clock minus the CA's."""
        self.say(clock_skew_seconds=round(skew, 3))

    def say(self, **changes: Any) -> None:
        """Change the status, which is a new generation of it."""
        known = replace(self._known, **changes)
        if known != self._known:
            self._known = known
            self._status.publish(known)


Dice = Callable[[], float]  # numbers in [0, 1)


def surprise(error: Exception) -> Exception | None:
    """The error, where nobody foresaw it, so that the log shows where it came from."""
    return None if isinstance(error, MeshError | OSError) else error


def describe(error: Exception) -> str:
    """What the status says of an error."""
    return str(error) if surprise(error) is None else f"a fault of this sidecar: {error!r}"
