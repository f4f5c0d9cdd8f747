"""Keeps the endpoints of upstreams up to date: a task for each source that a configuration has, however many share it.

Theory of operation. A source (a DNS name among declared endpoints, a file, SRV records, a Kubernetes service) is
followed by a loop of its own kind (`ways`), which tells a `Listing` either the whole list or why there is none now. A
list reaches every upstream of the source in the same step of the event loop; a failure reaches none of them: the last
list stands. Sources outlive upstreams: one that a reload makes anew is told at once what is known, in the step that
makes it, so no request sees it without. What a source says decides where we connect and never whom we believe there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from sidecar.config.terms import Address
from sidecar.discovery.listing import Listing
from sidecar.discovery.sources import FromName, Source
from sidecar.discovery.ways import (
    FIRST_WAIT,
    LONGEST,
    LONGEST_WAIT,
    MOST,
    SHORTEST,
    LookUp,
    Way,
    Ways,
    look_up_as_we_do,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from sidecar.telemetry.log import Log
    from sidecar.telemetry.metrics import Metrics
    from sidecar.traffic.endpoints import Declared

__all__ = [
    "FIRST_WAIT", "LONGEST", "LONGEST_WAIT", "MOST", "SHORTEST", "Follower", "LookUp", "look_up_as_we_do",
]  # fmt: skip

AFTER_A_FAULT: Final = 30.0  # seconds until a loop of ours that failed is begun anew
SHOWN: Final = 8  # endpoints in a log line


class Named(Protocol):
    """An upstream, as far as we are concerned."""

    name: str
    why_none: str  # what discovery says, for when it has no endpoint
    loops: tuple[Address, ...]  # what was listed, and is where we ourselves listen for our application

    @property
    def names(self) -> tuple[Address, ...]:
        """Its declared endpoints that are DNS names."""
        ...

    @property
    def sources(self) -> tuple[Hashable, ...]:
        """What else its endpoints are learned from; `Source`s."""
        ...

    def found(self, name: Address, addresses: tuple[str, ...]) -> None:
        """A name stands for these."""
        ...

    def listed(self, source: Hashable, declared: Sequence[Declared]) -> None:
        """A source lists these."""
        ...


class _Followed:
    """A source, its task, and who is to be told."""

    def __init__(self, listing: Listing, told: dict[tuple[int, Address | None], Named]) -> None:
        self.listing = listing
        self.scope = trio.CancelScope()
        self.told = told  # by upstream, and the name that it has declared

    @property
    def upstreams(self) -> list[Named]:
        """Those that are told, each once."""
        return list({id(each): each for each in self.told.values()}.values())


class Follower:
    """Follows the sources of whatever upstreams there are."""

    def __init__(self, look_up: LookUp, log: Log, metrics: Metrics | None = None, ways: Ways | None = None) -> None:
        self._ways = ways or Ways(look_up)
        self._log = log
        self._metrics = metrics
        self._followed: dict[Source, _Followed] = {}
        self._nursery: trio.Nursery | None = None
        if metrics is not None:
            metrics.before_scrape(self._show_ages)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def look(self, upstreams: Iterable[Named]) -> None:
        """These are the upstreams now: sources that are new are followed, those that are gone are not."""
        if self._nursery is None:
            return
        wanted: dict[Source, dict[tuple[int, Address | None], Named]] = {}
        for upstream in upstreams:
            for name in upstream.names:
                wanted.setdefault(FromName(name.host), {})[id(upstream), name] = upstream
            for source in upstream.sources:
                assert isinstance(source, Source)
                wanted.setdefault(source, {})[id(upstream), None] = upstream
        for source in [source for source in self._followed if source not in wanted]:
            self._followed.pop(source).scope.cancel()
        for source, told in wanted.items():
            self._settle(source, told)

    def _settle(self, source: Source, told: dict[tuple[int, Address | None], Named]) -> None:
        followed = self._followed.get(source)
        if followed is None:
            assert self._nursery is not None
            followed = self._followed[source] = _Followed(Listing(source, self._changed, self._failed), told)
            way = self._ways.of(source, followed.listing)  # a file speaks at once
            self._nursery.start_soon(self._follow, followed, way)
            for upstream in followed.upstreams:
                self._explain(upstream)
            return
        before, followed.told = followed.told, told
        for key, upstream in told.items():
            if before.get(key) is not upstream:
                self._tell(followed, key, upstream)

    async def settled(self, within: float, *, names: bool = False) -> None:
        """Wait until each source, of DNS names only if asked for, has spoken once or failed to; no longer than so many
        seconds.
        """
        with trio.move_on_after(within):
            for source, followed in list(self._followed.items()):
                if names or not isinstance(source, FromName):
                    await followed.listing.spoken.wait()

    async def _follow(self, followed: _Followed, way: Way) -> None:
        """A fault of ours in a loop is a failed look, and ends nothing else."""
        with followed.scope:
            while True:
                try:
                    await way()
                except Exception as fault:  # noqa: BLE001 - the last list stands, and so does the sidecar
                    self._log.fault("following endpoints failed inside the sidecar", fault)
                    followed.listing.fail(f"a fault of this sidecar: {type(fault).__name__}: {fault}")
                await trio.sleep(AFTER_A_FAULT)

    # ---- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, followed: _Followed, key: tuple[int, Address | None], upstream: Named) -> None:
        listing, name = followed.listing, key[1]
        if listing.entries is not None:
            if name is not None:
                upstream.found(name, tuple(each.address.host for each in listing.entries))
            else:
                upstream.listed(listing.source, listing.entries)
        self._explain(upstream)

    def _explain(self, upstream: Named) -> None:
        found = [
            each.listing.why_none() for each in self._followed.values()
            if any(told is upstream for told in each.told.values())
        ]  # fmt: skip
        upstream.why_none = "; ".join(found)

    def _changed(self, listing: Listing, before: tuple[Declared, ...]) -> None:
        followed = self._followed.get(listing.source)
        if followed is None or followed.listing is not listing:
            return  # it is followed no more
        for key, upstream in followed.told.items():
            self._tell(followed, key, upstream)
        self._count("mesh_discovery_updates_total", followed)
        assert listing.entries is not None
        self._log.info(
            "endpoints were learned", **self._of(followed), change=difference(before, listing.entries),
            **_fields(listing),
        )  # fmt: skip

    def _failed(self, listing: Listing, new: bool) -> None:
        followed = self._followed.get(listing.source)
        if followed is None or followed.listing is not listing:
            return
        for upstream in followed.upstreams:
            self._explain(upstream)
        self._count("mesh_discovery_failures_total", followed)
        if new:
            stands = "none is known yet" if listing.entries is None else f"the {len(listing.entries)} known ones stand"
            self._log.warning("endpoints cannot be learned", **self._of(followed), error=listing.error, stands=stands)

    def _of(self, followed: _Followed) -> dict[str, object]:
        source = followed.listing.source
        names = " ".join(sorted(each.name for each in followed.upstreams))
        ourselves = max((len(each.loops) for each in followed.upstreams), default=0)
        shown: dict[str, object] = {"upstream": names, "source": source.kind, "from": str(source)}
        return shown | ({"ourselves": ourselves} if ourselves else {})

    # ---- what it looks like ----------------------------------------------------------------------------------------

    @property
    def failures(self) -> int:
        """Failures of the sources that are followed now."""
        return sum(each.listing.failures for each in self._followed.values())

    def to_json(self) -> list[dict[str, Any]]:
        """A row for each upstream and source, as `mesh endpoints` shows them."""
        return [
            {"upstream": upstream.name, **followed.listing.to_json(), "ourselves": len(upstream.loops)}
            for followed in self._followed.values()
            for upstream in followed.upstreams
        ]

    def _count(self, metric: str, followed: _Followed) -> None:
        if self._metrics is not None:
            for upstream in followed.upstreams:
                self._metrics.counter(metric).add((upstream.name, followed.listing.source.kind))

    def _show_ages(self, metrics: Metrics) -> None:
        for followed in list(self._followed.values()):
            for upstream in followed.upstreams:
                labels = (upstream.name, followed.listing.source.kind)
                metrics.counter("mesh_discovery_age_seconds").set(followed.listing.age(), labels)


def _fields(listing: Listing) -> dict[str, object]:
    entries = listing.entries or ()
    shown = " ".join(_show(each) for each in entries[:SHOWN]) or "none"
    more = f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
    fields: dict[str, object] = {"endpoints": len(entries), "now": shown + more}
    if listing.left_out:
        fields["left_out"] = listing.left_out
    return fields | {f"note_{number}": note for number, note in enumerate(listing.notes, 1)}


def difference(before: Iterable[Declared], after: Iterable[Declared]) -> str:
    """`3 endpoints added, 1 gone, 2 with another weight or zone`."""
    old, new = ({each.address: each for each in entries} for entries in (before, after))
    found = Counter(
        "added" if address not in old else "gone" if address not in new else "other"
        for address in {**old, **new}
        if old.get(address) != new.get(address)
    )
    words = [(found["added"], "added"), (found["gone"], "gone"), (found["other"], "with another weight or zone")]
    parts = [f"{count} {word}" for count, word in words if count]
    if not parts:
        return "another order"
    count, _, rest = parts[0].partition(" ")
    parts[0] = f"{count} endpoint{'' if count == '1' else 's'} {rest}"
    return ", ".join(parts)


def _show(declared: Declared) -> str:
    return str(declared.address) if declared.address.port else declared.address.host
