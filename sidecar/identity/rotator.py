"""The task that gets us an identity and keeps it: START HERE.

Two loops run until they are cancelled, and neither ever gives up; what they hold lies in `Holdings`:

* the *renewal* loop obtains a certificate, publishes it, sleeps until half of its time is over (±10 %), and obtains
  the next. A failure is followed by a back-off of 0.5 s, doubling to 150 s, with full jitter, cut so that the next try
  comes no later than the end of the certificate we hold (S5). That one stays published to its last second and beyond:
  whoever uses it looks at the wall clock. A CA that says 429 is obeyed, and nothing is counted (decision D19);
* the *watch* loop (`sidecar.identity.watching`) keeps the CA's watch open whenever we hold a valid certificate, and
  publishes the bundles and denylists it brings.

Renewal shows the current certificate first and the enrolment proof second; without a valid certificate (at the start,
or after too long an outage), or with one that is on the denylist, the proof is all there is. A certificate that is
denied by its serial, or by its issuing CA, is replaced at once (decision D10). Every certificate is for a key made on
the spot, which only this process ever holds.

Time. Waits are measured on the monotonic clock, validity on the wall clock, and every wait looks at the wall clock
again after at most 30 s, so that a laptop's sleep or a clock that was set is noticed. The difference from the CA's
clock is measured at each obtaining and by the watch; it is never used to correct anything, only to explain.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NoReturn

import trio

from certs.bundle import BundleSet
from certs.denylist import Denylist
from certs.errors import MeshError
from certs.rotation import RECHECK_SECONDS, Renewal, retry_wait
from certs.signed import Statement
from certs.source import Source
from certs.svid import X509Svid
from sidecar.identity.answers import Issued
from sidecar.identity.ca_client import Dial, dial_tcp
from sidecar.identity.enrol import enrol, in_thread, reenrol, renew
from sidecar.identity.errors import BadAnswer, CaBusy, CaRefused, CaUnreachable, CaUntrusted, NoToken
from sidecar.identity.holdings import Dice, Holdings, IdentityConfig, describe, surprise
from sidecar.identity.jwt_svids import JwtSvids
from sidecar.identity.status import IdentityStatus, describe_skew
from sidecar.identity.watching import keep_an_eye_on_age, keep_watching
from sidecar.net.clock import Clock

__all__ = ["IdentityConfig", "Rotator", "keep_identity"]

_log = logging.getLogger("mesh.identity")


async def keep_identity(
    config: IdentityConfig,
    svids: Source[X509Svid],
    bundles: Source[BundleSet],
    clock: Clock,
    dice: Dice,
    status: Source[IdentityStatus],
) -> NoReturn:
    """Obtain an identity and keep it until cancelled; generations appear in the sources. Never raises a MeshError."""
    await Rotator(config, svids, bundles, clock, dice, status).run()


class Rotator:
    """One sidecar's identity. `dice` gives numbers in [0, 1); `dial` and `disk` lead to the network and the disk."""

    def __init__(
        self,
        config: IdentityConfig,
        svids: Source[X509Svid],
        bundles: Source[BundleSet],
        clock: Clock,
        dice: Dice,
        status: Source[IdentityStatus],
        *,
        denylists: Source[Denylist] | None = None,
        dial: Dial = dial_tcp,
        disk: Any = in_thread,
    ) -> None:
        self._held = Holdings(config, svids, bundles, clock, status, dial, disk, denylists)
        self.fetch_jwt = JwtSvids(self._held).fetch
        self._clock = clock
        self._dice = dice
        self._nudge = trio.Event()
        self._held.denylists.subscribe(self._look_at_denylist)

    async def run(self) -> NoReturn:
        """Run both loops until cancelled."""
        await self._held.recall_denylist()
        await self._held.load_federation()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_renewing)
            nursery.start_soon(keep_watching, self._held, self._dice, self.renew_soon)
            nursery.start_soon(keep_an_eye_on_age, self._held)
        raise AssertionError("the loops never end")

    async def witness(self, heads: Sequence[Statement]) -> int:
        """Have these heads of our audit written into the CA's log; how many of them. Raises CaError's kinds."""
        svid = self._held.valid_svid()
        if svid is None:
            raise CaUnreachable("there is no valid certificate to show the CA")
        async with await self._held.connect_with(svid) as session:
            return await session.witness(heads)

    def renew_soon(self) -> None:
        """Obtain a new certificate now, or after the 10 s that lie between any two, rather than when it is due."""
        self._nudge.set()

    def _look_at_denylist(self, _: Denylist) -> None:
        why = self._held.revoked()
        if why is not None:
            svid = self._held.svids.current
            _log.error("our own certificate %s of %s was revoked, by %s", svid.serial, svid.spiffe_id, why)
        if why in ("serial", "issuer"):
            self.renew_soon()

    def use_key_kind(self, kind: str) -> None:
        """Make the keys of all further certificates of this kind (`certs.keys.KEY_KINDS`)."""
        self._held.key_kind = kind

    async def _keep_renewing(self) -> NoReturn:
        failures = 0
        while True:
            try:
                issued = await self._obtain()
                await self._accept(issued)
            except CaBusy as busy:
                wait = busy.retry_after * (1 + 0.1 * self._dice())  # never earlier; a little later, not all at once
                self._held.say(last_error=str(busy), next_renewal_at=self._clock.wall() + wait)
                await trio.sleep(wait)
            except Exception as error:  # noqa: BLE001 - no surprise may take down a sidecar with a valid certificate
                failures += 1
                await self._rest_after(error, failures)
            else:
                failures = 0
                await self._rest_until_due(issued)

    async def _obtain(self) -> Issued:
        """A new certificate: by the one we hold if it is valid and the CA takes it, otherwise by our proof."""
        svid = self._held.valid_svid()
        if self._held.revoked() is not None:
            svid = None  # it proves nothing any more
        if svid is not None and (renewed := await self._renew(svid)) is not None:
            return renewed
        held = self._held
        async with await held.connect_to_enrol() as session:
            held.take_skew(await session.skew(self._clock))
            try:
                return await enrol(session, held.enrolment, held.state, held.disk, held.key_kind)
            except (CaRefused, NoToken) as error:
                old = held.expired_svid()
                if old is None or (isinstance(error, CaRefused) and error.status >= 500):
                    raise
                refused = error
        _log.warning("our proof was not accepted, so we show the certificate that has ended: %s", refused)
        async with await held.connect_to_enrol() as session:
            try:
                return await reenrol(session, held.enrolment, old, held.disk, held.key_kind)
            except CaRefused as error:
                raise CaRefused(error.status, error.error, f"{error.detail}; and before that: {refused}") from None

    async def _renew(self, svid: X509Svid) -> Issued | None:
        """A new certificate by this one; None where a CA that is there and well will not have it (revoked, say)."""
        async with await self._held.connect_with(svid) as session:
            try:
                self._held.take_skew(await session.skew(self._clock))
                return await renew(session, self._held.enrolment, self._held.disk, self._held.key_kind)
            except (CaRefused, CaUnreachable) as error:
                if isinstance(error, CaRefused) and error.status >= 500:
                    raise
                _log.warning("the CA did not renew by certificate, so we enrol anew: %s", error)
                return None

    async def _accept(self, issued: Issued) -> None:
        """Publish what the CA issued, the bundle before the SVID. Raises BadAnswer where it has ended by our clock."""
        now = self._clock.wall()
        if issued.svid.not_after <= now:
            raise BadAnswer(f"by our clock the new certificate has ended already; {describe_skew(now - issued.ca_now)}")
        svid, held = issued.svid, self._held
        taken = held.publish_bundle(issued.bundle)
        held.publish_svid(svid)
        try:
            if taken:
                await held.keep_bundle(issued.bundle)
        except (MeshError, OSError) as error:
            _log.error("the trust bundle could not be kept on disk: %s", error)

    async def _rest_after(self, error: Exception, failures: int) -> None:
        if isinstance(error, CaUntrusted) and error.skew is not None:
            self._held.take_skew(error.skew)
        svid = self._held.valid_svid()
        now = self._clock.wall()
        wait = retry_wait(failures - 1, self._dice(), now, None if svid is None else svid.not_after)
        self._held.say(consecutive_failures=failures, last_error=describe(error), next_renewal_at=now + wait)
        _log.warning("no certificate: %s (try %d)", describe(error), failures, exc_info=surprise(error))
        await self._pause(wait)

    async def _rest_until_due(self, issued: Issued) -> None:
        svid, clock = issued.svid, self._clock
        now, monotonic = clock.wall(), clock.monotonic()
        plan = Renewal.plan(svid.not_before, svid.not_after, now=now, monotonic=monotonic, dice=self._dice())
        self._held.say(next_renewal_at=plan.renew_at)
        self._nudge = trio.Event()
        floor = Renewal(now, monotonic, now)  # due at once, but for the 10 s between two renewals
        while True:
            chosen = floor if self._nudge.is_set() else plan
            if (nap := chosen.next_look(clock.wall(), clock.monotonic())) <= 0:
                return
            await self._nap(nap)

    async def _nap(self, seconds: float) -> None:
        """Sleep, or less where somebody asks for a renewal meanwhile."""
        if self._nudge.is_set():
            await trio.sleep(seconds)
            return
        with trio.move_on_after(seconds):
            await self._nudge.wait()

    async def _pause(self, seconds: float) -> None:
        """Sleep between two tries. A new order to renew ends it, and so does the end of our certificate."""
        self._nudge = nudge = trio.Event()  # what was ordered before has had its try
        until = self._clock.monotonic() + seconds
        held = self._held.valid_svid() is not None
        while (left := until - self._clock.monotonic()) > 0 and not nudge.is_set():
            with trio.move_on_after(min(left, RECHECK_SECONDS)):
                await nudge.wait()
            if held and self._held.valid_svid() is None:
                return
