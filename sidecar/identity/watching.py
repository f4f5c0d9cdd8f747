"""The loop that keeps the CA's watch open whenever there is a valid certificate to show.

A broken watch is opened again after a back-off (0.5 s, doubling to 150 s, full jitter) that begins anew once a watch
has brought a message. A new certificate is a reason to open a new watch at once, so that the CA knows what is in use. A
watch that is down is no failure of the identity: the certificate is good without it.

The CA may ask us over the watch to renew early, because the root above our certificate is leaving. We do so at a random
moment of the time that it names, so that a fleet does not come all at once. A new certificate ends the watch, and with
it whatever was asked of the old one; a watch that breaks is told again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

import trio

from certs.bundle import BundleSet, TrustBundle
from certs.rotation import RECHECK_SECONDS, backoff
from sidecar.identity.errors import CaUnreachable
from sidecar.identity.holdings import Dice, Holdings, describe, surprise
from sidecar.identity.watch import Watch

_log = logging.getLogger("mesh.identity")


async def keep_watching(held: Holdings, dice: Dice, renew_soon: Callable[[], None]) -> NoReturn:
    """Keep a watch open until cancelled. Raises nothing else. `renew_soon` obtains another certificate."""
    failures = 0

    def heard() -> None:
        nonlocal failures
        failures = 0

    while True:
        number = await held.svids.wait_past(0)
        try:
            await _watch_once(held, number, heard, dice, renew_soon)
        except Exception as error:  # noqa: BLE001 - no surprise may take down a sidecar with a valid certificate
            held.say(watch_error=describe(error))
            _log.info("the watch is not connected: %s", describe(error), exc_info=surprise(error))
            wait = backoff(failures, dice())
            failures += 1
            with trio.move_on_after(wait):
                await held.svids.wait_past(number)


async def keep_an_eye_on_age(held: Holdings) -> NoReturn:
    """Alarm once when the denylist has become older than an hour, and say when that is over (decision D10)."""
    stale = False
    while True:
        denylist, now = held.denylist(), held.clock.wall()
        before, stale = stale, denylist is not None and denylist.is_stale(now)
        if stale and not before and denylist is not None:
            _log.error(
                "the denylist is %.0f min old, so nobody can say who was revoked since; the watch: %s",
                (now - denylist.at) / 60, held.watch_error or "connected",
            )  # fmt: skip
        elif before and not stale:
            _log.info("the denylist is young again")
        await trio.sleep(RECHECK_SECONDS)


async def _watch_once(
    held: Holdings, number: int, heard: Callable[[], None], dice: Dice, renew_soon: Callable[[], None]
) -> None:
    """One watch, from its connection to its end; returns where a new certificate calls for a new one."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def end_with_the_certificate() -> None:
            await held.svids.wait_past(number)
            nursery.cancel_scope.cancel()

        async def renew_after(seconds: float) -> None:
            await trio.sleep(seconds)
            _log.info("the CA asks for an early renewal: the root above this certificate is leaving")
            renew_soon()

        def take_order(within: float) -> None:
            nursery.start_soon(renew_after, within * dice())

        nursery.start_soon(end_with_the_certificate)
        try:
            await _follow(held, heard, take_order)
        except Exception as error:  # noqa: BLE001 - raised again outside, so that it comes as itself, in no group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _follow(held: Holdings, heard: Callable[[], None], take_order: Callable[[float], None]) -> None:
    svid = held.valid_svid()
    if svid is None:
        raise CaUnreachable("there is no valid certificate to show")

    async def take_bundle(bundle: TrustBundle) -> bool:
        taken = held.publish_bundle(bundle)
        if taken:
            await held.keep_bundle(bundle)
        return taken

    async def take_federation(others: BundleSet) -> None:
        held.publish_federation(others)
        await held.keep_federation(others)

    async with await held.connect_with(svid) as session:
        watch = Watch(
            await session.watch(), svid.spiffe_id.trust_domain, held.clock, take_bundle, held.take_skew,
            held.take_denylist, take_order, take_federation,
        )  # fmt: skip
        held.say(ca_connected=True, watch_error="")
        try:
            await watch.follow(heard)
        finally:
            held.say(ca_connected=False)
