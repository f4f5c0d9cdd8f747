"""The one acknowledged watch from each sidecar (decision D16): bundle, denylist, CA time, and when to renew early.

The CA sends lines of JSON; the first of each topic come at once, a topic's later ones whenever it changes, and each
says all there is to say of its topic, so a line that was missed is made up by the next. `time` is also the heart-beat.

    → {"topic":"time","sequence":1,"now":1760000000.0}   ← {"ack":"time","sequence":1}
    → {"topic":"bundle","sequence":3,"bundle":{…}}      ← {"ack":"bundle","sequence":3}
    → {"topic":"denylist","sequence":7,"denylist":{…}}   ← {"ack":"denylist","sequence":7}
    → {"topic":"federation","sequence":2,"bundles":{…}}  ← {"ack":"federation","sequence":2}
    → {"topic":"renew","sequence":95,"within":4.0}       ← {"ack":"renew","sequence":95}

The denylist (`certs.denylist`) is signed, and comes anew every few minutes so that its age tells how far away we are. A
watcher that is on it hears so, and then the watch ends. `renew` is told only to whoever shows a certificate of an
issuing CA whose root is leaving: renew at some random moment of the next so many seconds. Its next watch, with the new
certificate, is told nothing. That a watch is open at all is kept as an acknowledgement of
the topic `watch` (1 while it is, then 0), so that `mesh certs revoke --watch` knows whom to wait for.

What a sidecar acknowledges is kept for each certificate, so that a root rotation can wait for the last of them. While
the store takes no write (a full disk), the watch goes on all the same: the latest of each topic waits for it. The watch
ends with the certificate that opened it; the sidecar opens another with its next one.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import trio

from ca.errors import BadRequest, StoreUnavailable
from ca.federating import Federated
from ca.revocation import SignedDenylist
from ca.rotating import RenewOrder
from ca.store.base import Ack
from ca.store.threads import StoreThreads
from certs.bundle import BundleSet
from certs.errors import MeshError
from certs.source import Source
from certs.spiffe import SpiffeId
from sidecar.net.clock import Clock, wait_until_wall
from sidecar.net.http_server import Channel

BEAT_SECONDS = 30.0
MAX_LINE = 4096  # bytes; an acknowledgement is under 100
_log = logging.getLogger("mesh.ca")
_LEFT = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
_HEADERS = ((b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store"))


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who watches: an identity, by one certificate, until its end (seconds since the epoch)."""

    spiffe_id: SpiffeId
    serial: str
    not_after: float
    issuers: tuple[str, ...] = ()
    """Serials of the CAs that its certificate was shown with."""


@dataclass(slots=True)
class Watch:
    """One watch, from its first line to its last."""

    watcher: Watcher
    bundles: Source[BundleSet]
    store: StoreThreads
    clock: Clock
    beat: float = BEAT_SECONDS
    denylists: Source[SignedDenylist] | None = None
    orders: Source[RenewOrder] | None = None
    federation: Source[Federated] | None = None
    _sent: dict[str, int] = field(default_factory=dict)
    _unkept: dict[str, Ack] = field(default_factory=dict)  # by topic, since the store failed

    async def run(self, channel: Channel) -> None:
        """Serve until the sidecar leaves or its certificate ends. Raises BadRequest for what is no acknowledgement."""
        await channel.start(200, _HEADERS)
        try:
            failure = await self._serve(channel)
        finally:
            with trio.CancelScope(shield=True):  # also where the CA stops: it must not seem to hold it until it returns
                await self._keep([self._ack("watch", 0)])
        if failure is not None:
            raise failure

    async def _serve(self, channel: Channel) -> Exception | None:
        """Until the end; returns what is to be raised outside, so that it comes out as itself and not in a group."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:

            async def until_the_end() -> None:
                await wait_until_wall(self.clock, self.watcher.not_after)
                nursery.cancel_scope.cancel()

            async def tell() -> None:
                try:
                    await self._tell(channel)
                except _LEFT:
                    pass  # the sidecar left, or takes nothing; it will open another watch
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_the_end)
            nursery.start_soon(tell)
            try:
                await self._keep([self._ack("watch", 1)])
                await self._listen(channel)
            except (MeshError, *_LEFT) as error:
                failure = error
            nursery.cancel_scope.cancel()
        return failure

    async def _tell(self, channel: Channel) -> None:
        bundle, denylist, order = self.bundles.number, self._denylist_number, self._order_number
        federation = self._federation_number
        await self._send_time(channel)  # first: who keeps the others on its disk meanwhile would read it late
        await self._send_bundle(channel)
        if not await self._send_denylist(channel):
            return
        await self._send_federation(channel)
        await self._send_order(channel)
        while True:
            with trio.move_on_after(self.beat) as quiet:
                await self._wait_for_news(bundle, denylist, order, federation)
            if quiet.cancelled_caught:
                await self._send_time(channel)
            if self.bundles.number > bundle:
                bundle = self.bundles.number
                await self._send_bundle(channel)
            if self._denylist_number > denylist:
                denylist = self._denylist_number
                if not await self._send_denylist(channel):
                    return
            if self._federation_number > federation:
                federation = self._federation_number
                await self._send_federation(channel)
            if self._order_number > order:
                order = self._order_number
                await self._send_order(channel)

    @property
    def _denylist_number(self) -> int:
        return 0 if self.denylists is None else self.denylists.number

    @property
    def _order_number(self) -> int:
        return 0 if self.orders is None else self.orders.number

    @property
    def _federation_number(self) -> int:
        return 0 if self.federation is None else self.federation.number

    async def _wait_for_news(self, bundle: int, denylist: int, order: int, federation: int) -> None:
        async with trio.open_nursery() as nursery:

            async def news(source: Source[Any], number: int) -> None:
                await source.wait_past(number)
                nursery.cancel_scope.cancel()

            nursery.start_soon(news, self.bundles, bundle)
            if self.denylists is not None:
                nursery.start_soon(news, self.denylists, denylist)
            if self.orders is not None:
                nursery.start_soon(news, self.orders, order)
            if self.federation is not None:
                nursery.start_soon(news, self.federation, federation)

    async def _send_denylist(self, channel: Channel) -> bool:
        """Tell the denylist; false where the watcher itself is on it."""
        if self.denylists is None or not self.denylists.number:
            return True
        signed = self.denylists.current
        await self._send(channel, "denylist", signed.denylist.sequence, denylist=signed.document)
        return signed.denylist.denies(self.watcher.spiffe_id, self.watcher.serial, self.watcher.issuers) is None

    async def _send_federation(self, channel: Channel) -> None:
        """Tell the bundles of every other trust domain: one that is missing is trusted no longer."""
        if self.federation is None or not self.federation.number:
            return
        known = self.federation.current
        bundles = {bundle.trust_domain.name: json.loads(bundle.to_jwks()) for bundle in known.bundles}
        await self._send(channel, "federation", known.sequence, bundles=bundles)

    async def _send_order(self, channel: Channel) -> None:
        """Tell the watcher to renew early, if its certificate is of an issuing CA whose root is leaving."""
        order = self.orders.current if self.orders is not None and self.orders.number else RenewOrder()
        if order.issuers.intersection(self.watcher.issuers):
            await self._send(channel, "renew", order.sequence, within=order.within)

    async def _send_bundle(self, channel: Channel) -> None:
        bundle = self.bundles.current.of(self.watcher.spiffe_id.trust_domain)
        assert bundle is not None  # we publish no set without our own
        await self._send(channel, "bundle", bundle.sequence, bundle=json.loads(bundle.to_jwks()))

    async def _send_time(self, channel: Channel) -> None:
        await self._send(channel, "time", self._sent.get("time", 0) + 1, now=self.clock.wall())

    async def _send(self, channel: Channel, topic: str, sequence: int, **state: Any) -> None:
        self._sent[topic] = sequence
        line = json.dumps({"topic": topic, "sequence": sequence, **state}, separators=(",", ":"))
        await channel.send(line.encode() + b"\n")

    async def _listen(self, channel: Channel) -> None:
        buffer = b""
        while (piece := await channel.receive()) is not None:
            *lines, buffer = (buffer + piece).split(b"\n")
            if any(len(line) > MAX_LINE for line in (*lines, buffer)):
                raise BadRequest(f"a line of the watch is longer than {MAX_LINE} bytes")
            if acks := [self._read_ack(line) for line in lines if line.strip()]:
                await self._keep(acks)

    async def _keep(self, acks: list[Ack]) -> None:
        self._unkept |= {ack.topic: ack for ack in acks}
        try:
            await self.store.call(self.store.store.acknowledge, list(self._unkept.values()))
        except StoreUnavailable as error:
            _log.warning("what %s acknowledges waits for the store: %s", self.watcher.spiffe_id, error)
        else:
            self._unkept.clear()

    def _read_ack(self, line: bytes) -> Ack:
        """An acknowledgement of something we have said on this watch. Raises BadRequest."""
        try:
            document = json.loads(line)
            topic, sequence = document["ack"], document["sequence"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadRequest("a line of the watch is not an acknowledgement") from None
        if not isinstance(topic, str) or type(sequence) is not int or not 0 <= sequence <= self._sent.get(topic, -1):
            raise BadRequest("an acknowledgement of what was never sent")
        return self._ack(topic, sequence)

    def _ack(self, topic: str, sequence: int) -> Ack:
        return Ack(self.watcher.spiffe_id.text, self.watcher.serial, topic, sequence, self.clock.wall())
