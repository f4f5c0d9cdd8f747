"""An identity that somebody else keeps, in files or behind a Workload API: what both have in common.

We are handed certificates, keys and roots, and judge them as a CA's: the SPIFFE ID must be ours, the key the
certificate's, the chain must lead to a root of the bundle that came with it. What does not hold changes nothing: the
last good identity stays, and the status says why.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Protocol

from certs.bundle import BundleSet
from certs.errors import IdentityError, MeshError
from certs.jwt_svid import JwtSvid
from certs.source import Source
from certs.spiffe import SpiffeId
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import Clock

_log = logging.getLogger("mesh.identity")


class NotOurs(IdentityError):
    """What we were handed cannot be our identity. The message says which rule it breaks."""

    name: ClassVar[str] = "not_ours"


class NoTokens(IdentityError):
    """Where this identity comes from there are no JWT-SVIDs."""

    name: ClassVar[str] = "no_tokens"


class Keeper(Protocol):
    """Whoever keeps our identity: the CA's client, or one of those that take it from elsewhere."""

    async def run(self) -> None:
        """Keep it until cancelled."""

    def renew_soon(self) -> None:
        """Look for a new one now."""

    async def fetch_jwt(self, audience: tuple[str, ...]) -> JwtSvid:
        """A JWT-SVID for this audience. Raises MeshError."""
        ...


class Held:
    """The sources that such an identity is published in, and what is said of it."""

    def __init__(
        self,
        spiffe_id: SpiffeId,
        svids: Source[X509Svid],
        bundles: Source[BundleSet],
        clock: Clock,
        status: Source[IdentityStatus],
    ) -> None:
        self.spiffe_id = spiffe_id
        self.clock = clock
        self._svids, self._bundles, self._status = svids, bundles, status
        self._failures = 0
        status.publish(IdentityStatus(spiffe_id.text))

    def accept(self, svid: X509Svid, bundles: BundleSet) -> None:
        """Publish this identity, the bundles first, each only where it differs. Raises NotOurs."""
        if svid.spiffe_id != self.spiffe_id:
            raise NotOurs(f"the certificate is of {svid.spiffe_id}, and we are {self.spiffe_id}")
        try:
            verify_chain(svid.chain, bundles, self.clock.wall())
        except MeshError as error:
            raise NotOurs(f"the certificate does not hold under the bundle beside it: {error}") from None
        if not self._bundles.number or self._bundles.current != bundles:
            self._bundles.publish(bundles)
        if not self._svids.number or self._svids.current.serial != svid.serial:
            self._svids.publish(svid)
            _log.info("certificate %s of %s", svid.serial, svid.spiffe_id)
        self._failures = 0
        own = bundles.of(self.spiffe_id.trust_domain)
        self._say(svid, "", None if own is None else own.sequence)

    def fail(self, error: Exception) -> None:
        """Say why nothing better could be had; what we hold stays."""
        self._failures += 1
        _log.warning("no new identity, try %d: %s", self._failures, error)
        self._say(self._svids.current if self._svids.number else None, str(error), None)

    @property
    def failures(self) -> int:
        """How many times in a row."""
        return self._failures

    def _say(self, svid: X509Svid | None, error: str, sequence: int | None) -> None:
        known = self._status.current
        self._status.publish(
            IdentityStatus(
                self.spiffe_id.text,
                serial="" if svid is None else svid.serial,
                not_after=0.0 if svid is None else svid.not_after,
                consecutive_failures=self._failures,
                last_error=error,
                bundle_sequence=known.bundle_sequence if sequence is None else sequence,
                ca_connected=not error,
            )
        )
