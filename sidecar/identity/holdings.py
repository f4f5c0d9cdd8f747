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
from certs.enrolment import Enrolment, UnixSocket
from certs.errors import MeshError
from certs.source import Source
from certs.svid import X509Svid
from sidecar.identity.ca_client import CaSession, Dial, Trust, connect
from sidecar.identity.state import StateFolder
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import Clock

_log = logging.getLogger("mesh.identity")


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """What there is to know beforehand. `ca_address` (`host:port`), where not empty, overrides the enrolment file's."""

    enrolment: Enrolment
    state_dir: Path
    ca_address: str = ""

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
    ) -> None:
        self.enrolment = config.enrolment
        self.svids = svids
        self.clock = clock
        self.disk = disk
        self.state = StateFolder(config.state_dir, config.enrolment)
        self._address = config.address
        self._bundles = bundles
        self._status = status
        self._dial = dial
        self._kept: TrustBundle | None = None
        self._known = IdentityStatus(config.enrolment.spiffe_id.text)
        status.publish(self._known)

    def valid_svid(self) -> X509Svid | None:
        """The SVID in hand, None where there is none or it has ended by our wall clock."""
        svid = self.svids.current if self.svids.number else None
        return svid if svid is not None and self.clock.wall() < svid.not_after else None

    def bundle(self) -> TrustBundle | None:
        """The bundle of our own trust domain, None before the first."""
        return self._bundles.current.of(self.enrolment.trust_domain) if self._bundles.number else None

    async def connect_with(self, svid: X509Svid) -> CaSession:
        """A connection to the CA that shows this certificate. Raises CaUnreachable, CaUntrusted."""
        return await self._connect(Trust(svid.spiffe_id.trust_domain, self.bundle()), svid)

    async def connect_to_enrol(self) -> CaSession:
        """A connection to the CA that shows no certificate. Raises CaUnreachable, CaUntrusted, DamagedState.

        The CA is known by the bundle we hold, else by the one we kept, else by the roots that the enrolment file pins.
        """
        bundle = self.bundle() or await self.disk(self.state.load_bundle)
        trust, proof = Trust(self.enrolment.trust_domain, bundle, self.enrolment.root_sha256), self.enrolment.proof
        address = f"unix:{proof.path}" if isinstance(proof, UnixSocket) else self._address
        return await connect(address, trust, None, self.clock, self._dial)

    def expired_svid(self) -> X509Svid | None:
        """The SVID in hand that has ended, None where there is none."""
        svid = self.svids.current if self.svids.number else None
        return svid if svid is not None and self.valid_svid() is None else None

    async def _connect(self, trust: Trust, svid: X509Svid | None) -> CaSession:
        return await connect(self._address, trust, svid, self.clock, self._dial)

    def publish_bundle(self, bundle: TrustBundle) -> None:
        """Make a bundle that differs from the current one the next generation."""
        if bundle == self.bundle():
            return
        others = self._bundles.current if self._bundles.number else BundleSet()
        self._bundles.publish(others.with_bundle(bundle))
        self.say(bundle_sequence=bundle.sequence)
        _log.info("trust bundle %d with %d roots", bundle.sequence, len(bundle.roots))

    async def keep_bundle(self, bundle: TrustBundle) -> None:
        """Write the bundle to the state folder, unless it is there. Raises OSError, PrivateFileUnavailable."""
        if bundle != self._kept:
            await self.disk(lambda: self.state.save_bundle(bundle))
            self._kept = bundle

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
