"""The CA's own clock jumps ahead and comes back: what it serves under, signs with, and says."""

from __future__ import annotations

from tests.ca.desk import Desk, at_the_desk
from tests.ca.office import DAY


async def look(desk: Desk) -> tuple[bool, list[str]]:
    """A round of all that looks at the clock; whether the CA is ready then, and why not."""
    await desk.server.keep_schedule_once()
    await desk.server.follow_store_once()
    health = await desk.server.health()
    return health.ready, list(health.reasons)


@at_the_desk
async def test_a_day_ahead_and_back_changes_nothing(desk: Desk) -> None:
    issuer, began = desk.server.issuer.serial, desk.clock.now
    for jump in (DAY, -DAY, -120.0, 120.0):
        desk.clock.now += jump
        await desk.server.renew_own_svid()
        assert await look(desk) == (True, []), jump
    assert (desk.server.issuer.serial, desk.clock.now) == (issuer, began)
    await desk.svid(desk.entry())


@at_the_desk
async def test_a_month_ahead_and_back(desk: Desk) -> None:
    first = desk.server.issuer.serial
    desk.clock.now += 29 * DAY
    assert (await look(desk))[0] is True
    assert desk.server.issuer.serial != first, "the next issuing CA has taken over"
    desk.clock.now -= 29 * DAY
    ready, reasons = await look(desk)
    assert (ready, reasons) == (True, []), desk.server.issuer.serial
    await desk.svid(desk.entry())
