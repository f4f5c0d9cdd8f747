"""Whether what we serve is what we were given, measured on the wire after each rotation and every minute.

A difference is an alarm: in the log, in the metrics, in `mesh status`, and, once it has been seen twice, in readiness.
A handshake that did not come about is only told: a listener under siege, or one that a reload has just taken
away, is no wrong certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import trio

from certs.errors import InvalidSvid, UntrustedSvid
from certs.source import Source
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.runtime.mirror import CannotLook, Mirror
from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from certs.bundle import BundleSet
    from sidecar.config.schema_inbound import Inbound
    from sidecar.net.clock import Clock
    from sidecar.runtime.mirror import Shown
    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics

EVERY_SECONDS = 60.0
SETTLE_SECONDS = 1.0  # after a rotation, which every connection of the first moment takes for granted
CONFIRM_SECONDS = 5.0  # before a difference is looked at again, and believed

Word = Literal["unknown", "same", "differs", "unmeasured"]


@dataclass(frozen=True, slots=True)
class Served:
    """The latest measurement: all listeners show our certificate, or one does not and `problem` says which and how."""

    word: Word = "unknown"
    problem: str = ""
    at: float = 0.0  # seconds since the epoch
    serial: str = ""  # that was shown, or should have been
    not_after: float = 0.0  # of what was shown
    confirmed: bool = False  # a difference that was seen twice in a row

    def to_json(self) -> dict[str, Any]:
        """For `mesh status`."""
        return {
            "result": self.word, "problem": self.problem, "serial": self.serial,
            "at": rfc3339(self.at) if self.at else None, "not_after": self.not_after,
        }  # fmt: skip


class ServedCheck:
    """Looks again and again. `listeners` tells which there are at this moment."""

    def __init__(
        self,
        svids: Source[X509Svid],
        bundles: Source[BundleSet],
        mirror: Mirror,
        listeners: Callable[[], Sequence[Inbound]],
        log: Log,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.latest = Served()
        self._svids = svids
        self._bundles = bundles
        self._mirror = mirror
        self._listeners = listeners
        self._log = log
        self._metrics = metrics
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await trio.sleep(SETTLE_SECONDS)
            numbers = self._numbers()
            await self.look()
            wait = CONFIRM_SECONDS if self.latest.word == "differs" and not self.latest.confirmed else EVERY_SECONDS
            with trio.move_on_after(wait):
                await self._wait_for_change(numbers)

    def _numbers(self) -> tuple[int, int]:
        return self._svids.number, self._bundles.number

    async def _wait_for_change(self, numbers: tuple[int, int]) -> None:
        async with trio.open_nursery() as nursery:

            async def either(source: Source[Any], number: int) -> None:
                await source.wait_past(number)
                nursery.cancel_scope.cancel()

            nursery.start_soon(either, self._svids, numbers[0])
            nursery.start_soon(either, self._bundles, numbers[1])

    async def look(self) -> Served:
        """Measure every listener once. A rotation in the middle makes the measurement worth nothing."""
        numbers, svid = self._numbers(), self._svids.current
        if self._clock.wall() > svid.not_after or not self._listeners():
            return self.latest  # that it has ended is told elsewhere
        found = Served("same", "", self._clock.wall(), svid.serial, svid.not_after)
        for spec in self._listeners():
            try:
                found = self._judge(spec, svid, await self._mirror.look(spec, svid))
            except CannotLook as error:
                found = Served("unmeasured", str(error), self._clock.wall(), svid.serial)
            self._metrics.counter("mesh_self_handshakes_total").add(("ok" if found.word == "same" else "failed",))
            if found.word != "same":
                break
        if numbers == self._numbers():
            self._take(found)
        return self.latest

    def _judge(self, spec: Inbound, svid: X509Svid, shown: Shown) -> Served:
        now, chain = self._clock.wall(), shown.chain[: len(svid.chain)]
        if not chain:
            return Served("unmeasured", f"listener {spec.name} showed no certificate", now, svid.serial)
        serial, not_after = f"{chain[0].serial_number:x}", chain[0].not_valid_after_utc.timestamp()
        if chain != svid.chain:
            what = f"certificate {serial}" if serial != svid.serial else "its certificate under other issuing CAs"
            problem = f"listener {spec.name} shows {what}, and we were given {svid.serial}"
            return Served("differs", problem, now, serial, not_after)
        try:
            verify_chain(chain, self._bundles.current, now)
        except (InvalidSvid, UntrustedSvid) as error:
            problem = f"listener {spec.name} shows a certificate that nobody with our own roots believes: {error}"
            return Served("differs", problem, now, serial, not_after)
        if shown.refused:
            problem = f"listener {spec.name} refuses our own certificate: {shown.refused}"
            return Served("unmeasured", problem, now, serial, not_after)
        return Served("same", "", now, serial, not_after)

    def _take(self, found: Served) -> None:
        before = self.latest
        if found.word == "differs" and before.word == "differs":
            found = Served("differs", found.problem, found.at, found.serial, found.not_after, confirmed=True)
        self.latest = found
        if found.not_after:
            self._metrics.counter("mesh_certificate_expires_at_seconds").set(found.not_after, ("served",))
        if found.word != "unmeasured":
            self._metrics.counter("mesh_served_certificate_right").set(1 if found.word == "same" else 0)
        if found.word == before.word and found.confirmed == before.confirmed:
            return
        if found.word == "differs":
            self._log.error("what we serve is not what we were given", problem=found.problem, confirmed=found.confirmed)
        elif found.word == "unmeasured":
            self._log.warning("the handshake with ourselves failed", problem=found.problem)
        elif before.word != "unknown":
            self._log.info("what we serve is what we were given, again", serial=found.serial)
