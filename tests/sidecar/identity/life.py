"""A rotator's life in a test: its sources, its clock, and everything it ever said about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from certs.bundle import BundleSet
from certs.denylist import Denylist
from certs.enrolment import Enrolment
from certs.source import Source
from certs.svid import X509Svid
from sidecar.identity.rotator import IdentityConfig, Rotator
from sidecar.identity.status import IdentityStatus
from sidecar.net.clock import TestClock
from tests.kit.fake_ca import FakeCa, on_the_spot
from tests.kit.identities import NOW


class Life:
    """One process of one sidecar. Dice always show `dice`."""

    def __init__(
        self,
        ca: FakeCa,
        folder: Path,
        *,
        dice: float = 0.5,
        skew: float = 0.0,
        enrolment: Enrolment | None = None,
        disk: Callable[[Callable[[], Any]], Awaitable[Any]] = on_the_spot,
    ) -> None:
        self.ca = ca
        self.clock = TestClock(NOW + skew)
        self.svids: Source[X509Svid] = Source("SVID")
        self.bundles: Source[BundleSet] = Source("bundle")
        self.status: Source[IdentityStatus] = Source("status")
        self.denylists: Source[Denylist] = Source("denylist")
        self.said: list[tuple[float, IdentityStatus]] = []
        self.obtained: list[float] = []
        self.status.subscribe(lambda status: self.said.append((trio.current_time(), status)))
        self.svids.subscribe(lambda _: self.obtained.append(trio.current_time()))
        config = IdentityConfig(enrolment or ca.enrolment(), folder)
        self.rotator = Rotator(
            config, self.svids, self.bundles, self.clock, lambda: dice, self.status, denylists=self.denylists,
            dial=ca.dial, disk=disk,
        )
        self.scope = trio.CancelScope()
        ca.nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            await self.rotator.run()

    @property
    def now(self) -> IdentityStatus:
        """What it says of itself at this moment."""
        return self.status.current

    async def identity(self) -> X509Svid:
        """The first SVID, when it is there."""
        await self.svids.wait_past(0)
        await trio.sleep(0.001)  # let the watch open and the bundle reach the disk
        return self.svids.current

    def failures(self) -> list[float]:
        """When each failure was counted."""
        times, count = [], 0
        for at, status in self.said:
            if status.consecutive_failures > count:
                times.append(at)
            count = status.consecutive_failures
        return times
