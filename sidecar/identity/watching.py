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
from certs.rotation import backoff
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

    async def take_bundle(bundle: TrustBundle) -> None:
        held.publish_bundle(bundle)
        await held.keep_bundle(bundle)

    async def take_federation(others: BundleSet) -> None:
        held.publish_federation(others)
        await held.keep_federation(others)

    async with await held.connect_with(svid) as session:
        trust_domain, skew = svid.spiffe_id.trust_domain, held.take_skew
        opened = await session.watch()
        watch = Watch(opened, trust_domain, held.clock, take_bundle, skew, take_order, take_federation)
        held.say(ca_connected=True, watch_error="")
        try:
            await watch.follow(heard)
        finally:
            held.say(ca_connected=False)
