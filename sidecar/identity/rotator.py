"""The task that gets us an identity and keeps it: START HERE.

Two loops run until they are cancelled, and neither ever gives up:

* the *renewal* loop obtains a certificate, publishes it, sleeps until half of its time is over (±10 %), and obtains
  the next. A failure is followed by a back-off of 0.5 s, doubling to 150 s, with full jitter, cut so that the next try
  comes no later than the end of the certificate we hold (S5). That one stays published to its last second and beyond:
  whoever uses it looks at the wall clock. A CA that says 429 is obeyed, and nothing is counted (decision D19);
* the *watch* loop keeps the CA's watch open whenever we hold a valid certificate, and publishes the bundles it brings.

Renewal shows the current certificate first and the enrolment proof second; without a valid certificate (at the start,
or after too long an outage) the proof is all there is. Every certificate is for a key made on the spot, which only this
process ever holds.

Time. Waits are measured on the monotonic clock, validity on the wall clock, and every wait looks at the wall clock
again after at most 30 s, so that a laptop's sleep or a clock that was set is noticed. The difference from the CA's
clock is measured at each obtaining and by the watch; it is never used to correct anything, only to explain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import trio

from certs.bundle import BundleSet, TrustBundle
from certs.enrolment import Enrolment
from certs.errors import MeshError, NothingYet
from certs.rotation import RECHECK_SECONDS, Renewal, backoff, retry_wait
from certs.source import Source
from certs.svid import X509Svid
from sidecar.identity.answers import Issued
from sidecar.identity.ca_client import CaSession, Dial, Trust, connect, dial_tcp
from sidecar.identity.enrol import enrol, in_thread, renew
from sidecar.identity.errors import BadAnswer, CaBusy, CaRefused, CaUnreachable, CaUntrusted
from sidecar.identity.state import StateFolder
from sidecar.identity.status import IdentityStatus, describe_skew
from sidecar.identity.watch import Watch
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


async def keep_identity(
    config: IdentityConfig,
    svids: Source[X509Svid],
    bundles: Source[BundleSet],
    clock: Clock,
    dice: Callable[[], float],
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
        dice: Callable[[], float],
        status: Source[IdentityStatus],
        *,
        dial: Dial = dial_tcp,
        disk: Any = in_thread,
    ) -> None:
        self._config = config
        self._svids = svids
        self._bundles = bundles
        self._clock = clock
        self._dice = dice
        self._status = status
        self._dial = dial
        self._disk = disk
        self._state = StateFolder(config.state_dir, config.enrolment)
        self._kept: TrustBundle | None = None
        self._nudge = trio.Event()
        self._known = IdentityStatus(config.enrolment.spiffe_id.text)
        status.publish(self._known)

    async def run(self) -> NoReturn:
        """Run both loops until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_renewing)
            nursery.start_soon(self._keep_watching)
        raise AssertionError("the loops never end")

    def renew_soon(self) -> None:
        """Obtain a new certificate now, or after the 10 s that lie between any two, rather than when it is due."""
        self._nudge.set()

    # ---- renewal ---------------------------------------------------------------------------------------------------

    async def _keep_renewing(self) -> NoReturn:
        failures = 0
        while True:
            try:
                issued = await self._obtain()
                await self._accept(issued)
            except CaBusy as busy:
                wait = busy.retry_after * (1 + 0.1 * self._dice())  # never earlier; a little later, not all at once
                self._say(last_error=str(busy), next_renewal_at=self._clock.wall() + wait)
                await self._pause(wait)
            except Exception as error:  # noqa: BLE001 - no surprise may take down a sidecar with a valid certificate
                failures += 1
                await self._rest_after(error, failures)
            else:
                failures = 0
                await self._rest_until_due(issued)

    async def _obtain(self) -> Issued:
        """A new certificate: by the one we hold if it is valid and the CA takes it, otherwise by our proof."""
        svid = self._valid_svid()
        if svid is not None and (renewed := await self._renew(svid)) is not None:
            return renewed
        async with await self._connect(await self._trust(), None) as session:
            await self._measure(session)
            return await enrol(session, self._config.enrolment, self._state, self._disk)

    async def _renew(self, svid: X509Svid) -> Issued | None:
        """A new certificate by this one; None where a CA that is there and well will not have it (revoked, say)."""
        async with await self._connect(self._trust_of(svid), svid) as session:
            try:
                await self._measure(session)
                return await renew(session, self._config.enrolment)
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
        self._publish_bundle(issued.bundle)
        self._svids.publish(issued.svid)
        self._say(serial=issued.svid.serial, not_after=issued.svid.not_after, consecutive_failures=0, last_error="")
        _log.info("certificate %s of %s", issued.svid.serial, issued.svid.spiffe_id)
        try:
            await self._keep_bundle(issued.bundle)
        except (MeshError, OSError) as error:
            _log.error("the trust bundle could not be kept on disk: %s", error)

    async def _rest_after(self, error: Exception, failures: int) -> None:
        if isinstance(error, CaUntrusted) and error.skew is not None:
            self._say(clock_skew_seconds=error.skew)
        svid = self._valid_svid()
        now = self._clock.wall()
        wait = retry_wait(failures - 1, self._dice(), now, None if svid is None else svid.not_after)
        self._say(consecutive_failures=failures, last_error=_describe(error), next_renewal_at=now + wait)
        _log.warning("no certificate, try %d: %s", failures, _describe(error), exc_info=_surprise(error))
        await self._pause(wait)

    async def _rest_until_due(self, issued: Issued) -> None:
        svid, clock = issued.svid, self._clock
        now, monotonic = clock.wall(), clock.monotonic()
        plan = Renewal.plan(svid.not_before, svid.not_after, now=now, monotonic=monotonic, dice=self._dice())
        self._say(next_renewal_at=plan.renew_at)
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
        """Sleep between two tries; cut short when the certificate we hold turns out to have ended meanwhile."""
        until = self._clock.monotonic() + seconds
        held = self._valid_svid() is not None
        while (left := until - self._clock.monotonic()) > 0:
            await trio.sleep(min(left, RECHECK_SECONDS))
            if held and self._valid_svid() is None:
                return

    # ---- the watch -------------------------------------------------------------------------------------------------

    async def _keep_watching(self) -> NoReturn:
        failures = 0

        def heard() -> None:
            nonlocal failures
            failures = 0

        while True:
            number = await self._svids.wait_past(0)
            try:
                await self._watch_once(number, heard)
            except Exception as error:  # noqa: BLE001 - as above
                self._say(watch_error=_describe(error))
                _log.info("the watch is not connected: %s", _describe(error), exc_info=_surprise(error))
                wait = backoff(failures, self._dice())
                failures += 1
                with trio.move_on_after(wait):  # a new certificate is a reason to try at once
                    await self._svids.wait_past(number)

    async def _watch_once(self, number: int, heard: Callable[[], None]) -> None:
        """One watch, from its connection to its end; returns where a new certificate calls for a new one."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_renewed, number, nursery.cancel_scope)
            try:
                await self._follow(heard)
            except Exception as error:  # noqa: BLE001 - raised again outside, so that it comes as itself, in no group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _follow(self, heard: Callable[[], None]) -> None:
        svid = self._valid_svid()
        if svid is None:
            raise CaUnreachable("there is no valid certificate to show")
        async with await self._connect(self._trust_of(svid), svid) as session:
            duplex = await session.watch()
            self._say(ca_connected=True, watch_error="")
            watch = Watch(duplex, svid.spiffe_id.trust_domain, self._clock, self._watched_bundle, self._take_skew)
            try:
                await watch.follow(heard)
            finally:
                self._say(ca_connected=False)

    async def _watched_bundle(self, bundle: TrustBundle) -> None:
        self._publish_bundle(bundle)
        await self._keep_bundle(bundle)

    async def _cancel_when_renewed(self, number: int, scope: trio.CancelScope) -> None:
        await self._svids.wait_past(number)
        scope.cancel()

    # ---- shared ----------------------------------------------------------------------------------------------------

    async def _connect(self, trust: Trust, svid: X509Svid | None) -> CaSession:
        return await connect(self._config.address, trust, svid, self._clock, self._dial)

    def _trust_of(self, svid: X509Svid) -> Trust:
        return Trust(svid.spiffe_id.trust_domain, self._bundle())

    async def _measure(self, session: CaSession) -> None:
        self._take_skew(await session.skew(self._clock))

    async def _trust(self) -> Trust:
        """Whom to take for the CA without a certificate of our own: what we hold, what we kept, or the pinned roots."""
        enrolment = self._config.enrolment
        bundle = self._bundle() or await self._disk(self._state.load_bundle)
        return Trust(enrolment.trust_domain, bundle, enrolment.root_sha256)

    def _bundle(self) -> TrustBundle | None:
        try:
            return self._bundles.current.of(self._config.enrolment.trust_domain)
        except NothingYet:
            return None

    def _valid_svid(self) -> X509Svid | None:
        try:
            svid = self._svids.current
        except NothingYet:
            return None
        return svid if self._clock.wall() < svid.not_after else None

    def _publish_bundle(self, bundle: TrustBundle) -> None:
        """Make a bundle that differs from the current one the next generation."""
        if bundle == self._bundle():
            return
        others = self._bundles.current if self._bundles.number else BundleSet()
        self._bundles.publish(others.with_bundle(bundle))
        self._say(bundle_sequence=bundle.sequence)
        _log.info("trust bundle %d with %d roots", bundle.sequence, len(bundle.roots))

    async def _keep_bundle(self, bundle: TrustBundle) -> None:
        """Write the bundle to the state folder, unless it is there. Raises OSError, PrivateFileUnavailable."""
        if bundle != self._kept:
            await self._disk(lambda: self._state.save_bundle(bundle))
            self._kept = bundle

    def _take_skew(self, skew: float) -> None:
        self._say(clock_skew_seconds=round(skew, 3))

    def _say(self, **changes: Any) -> None:
        known = replace(self._known, **changes)
        if known != self._known:
            self._known = known
            self._status.publish(known)


def _surprise(error: Exception) -> Exception | None:
    """The error, where nobody foresaw it, so that the log shows where it came from."""
    return None if isinstance(error, MeshError | OSError) else error


def _describe(error: Exception) -> str:
    return str(error) if _surprise(error) is None else f"a fault of this sidecar: {error!r}"
