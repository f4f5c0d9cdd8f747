"""The metrics of one sidecar, counted and rendered; what there is, `definitions` says."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from sidecar.errors import FaultInjected, RateLimited
from sidecar.hop import Direction, Hop, TlsInfo
from sidecar.telemetry import outcome
from sidecar.telemetry.definitions import CLOSED, DEFINITIONS, HOP_LABELS, HOP_METRICS, SECONDS, definition
from sidecar.telemetry.process import Process
from sidecar.telemetry.series import (
    IDLE_SECONDS,
    Cap,
    Cell,
    Family,
    HistogramCell,
    HistogramFamily,
    LabelValues,
    header,
    label_text,
    sample,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REASON = re.compile(r"[a-z0-9_]{1,48}\Z")
_STATUS_CLASSES = ("-", "1xx", "2xx", "3xx", "4xx", "5xx")


class IdentityView(Protocol):
    """What the gauges need of `sidecar.identity.status.IdentityStatus`."""

    @property
    def not_after(self) -> float: ...
    @property
    def next_renewal_at(self) -> float: ...
    @property
    def consecutive_failures(self) -> int: ...
    @property
    def clock_skew_seconds(self) -> float | None: ...
    @property
    def bundle_sequence(self) -> int | None: ...
    @property
    def ca_connected(self) -> bool: ...
    @property
    def issuer_not_after(self) -> float: ...
    @property
    def root_not_after(self) -> float: ...
    @property
    def denylist_sequence(self) -> int | None: ...
    @property
    def denylist_at(self) -> float: ...
    @property
    def denylist_entries(self) -> int: ...
    @property
    def denylist_refused(self) -> int: ...
    @property
    def revoked(self) -> str: ...


class HopSeries:
    """The five metrics of a hop for one label set."""

    __slots__ = ("duration", "first_byte", "labels", "received", "requests", "sent", "used")

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.requests = 0
        self.received = 0
        self.sent = 0
        self.first_byte = HistogramCell(labels, SECONDS)
        self.duration = HistogramCell(labels, SECONDS)
        self.used = 0.0  # monotonic seconds

    def add(self, hop: Hop, seconds: float) -> None:
        """Count a hop that took `seconds`. In the hot path: the two observations are written out."""
        self.requests += 1
        self.received += hop.received_bytes
        self.sent += hop.sent_bytes
        cell = self.duration
        cell.counts[bisect_left(SECONDS, seconds)] += 1
        cell.total += seconds
        first = hop.first_byte
        if first:
            first -= hop.started
            cell = self.first_byte
            cell.counts[bisect_left(SECONDS, first)] += 1
            cell.total += first
        self.used = hop.ended


class WatchedSeries(HopSeries):
    """The series of another, whose hops somebody else looks at too: what is not watched costs nothing so."""

    __slots__ = ("_series", "_watch")

    def __init__(self, series: HopSeries, watch: Callable[[Hop], None]) -> None:
        self._series = series
        self._watch = watch

    def add(self, hop: Hop, seconds: float) -> None:
        """Count a hop, and show it."""
        self._series.add(hop, seconds)
        self._watch(hop)


class Metrics:
    """All metrics of one sidecar. One thread counts; `render` may run in another."""

    def __init__(self, version: str = "") -> None:
        self.dropped = Family(definition("mesh_metric_series_dropped_total"), CLOSED, lambda name: None)
        self._families: dict[str, Family | HistogramFamily] = {"mesh_metric_series_dropped_total": self.dropped}
        for each in DEFINITIONS:
            if each.name not in self._families:
                make = HistogramFamily if each.kind == "histogram" else Family
                self._families[each.name] = make(each, CLOSED, self._count_dropped)
        self._opened, self._closed, self._open, self._handshakes = map(
            self.counter,
            (
                "mesh_connections_opened_total", "mesh_connections_closed_total", "mesh_connections_open",
                "mesh_tls_handshakes_total",
            ),
        )  # fmt: skip
        self._hops: dict[LabelValues, HopSeries] = {}
        self._hop_cap = Cap(HOP_METRICS[0], CLOSED, self._count_dropped)
        self.would_refuse: Counter[str] = Counter()  # by listener: hops that only its posture let pass
        self._refreshers: list[Callable[[Metrics], None]] = []
        self._process = Process()
        if version:
            self.counter("mesh_build_info").set(1, (version,))

    # ---- counting ------------------------------------------------------------------------------------------------

    def series(self, hop: Hop) -> HopSeries:
        """The series that this hop belongs to; the Recorder keeps it by the hop's key."""
        labels: LabelValues = (
            hop.direction,
            hop.peer.text if hop.peer is not None else "-",
            hop.destination.text if hop.destination is not None else "-",
            hop.route or "-",
            status_class(hop),
            hop.flag,
        )
        found = self._hops.get(labels)
        if found is None:
            labels = self._hop_cap.admit(labels, len(self._hops))
            found = self._hops.get(labels)
            if found is None:
                found = self._hops[labels] = HopSeries(label_text(HOP_LABELS, labels))
        return found

    def observe(self, hop: Hop) -> None:
        """Count a finished hop, its refusal and its shadow verdicts."""
        self.series(hop).add(hop, hop.ended - hop.started)
        self.observe_rare(hop)

    def observe_rare(self, hop: Hop) -> None:
        """Count the refusal, the waived one and the shadow verdicts of a hop, where it has any."""
        source = hop.peer.text if hop.peer is not None else "-"
        if hop.error is not None and outcome.verdict(hop) == "deny":
            destination = hop.destination.text if hop.destination is not None else "-"
            refusal = (hop.direction, source, destination, hop.rule or "-", hop.flag, hop.error.name)
            self.counter("mesh_refusals_total").add(refusal, now=hop.ended)
            if isinstance(hop.error, RateLimited):
                limited = (hop.listener, source, hop.error.limit, hop.error.per)
                self.counter("mesh_rate_limited_total").add(limited, now=hop.ended)
        for kind, met in (("delay", hop.delayed), ("abort", isinstance(hop.error, FaultInjected))):
            if met:
                self.counter("mesh_faults_total").add((hop.direction, hop.listener, hop.route or "-", kind))
        if hop.waived is not None:
            waived = hop.waived
            self.would_refuse[hop.listener] += 1
            self.counter("mesh_posture_would_refuse_total").add(
                (hop.listener, waived.posture, source, waived.rule or "-", waived.flag, waived.error), now=hop.ended
            )
        for shadow in hop.shadow:
            labels = (hop.direction, source, shadow.rule, shadow.effect)
            self.counter("mesh_shadow_verdicts_total").add(labels, now=hop.ended)

    def histogram(self, name: str) -> HistogramFamily:
        """A histogram of this list."""
        found = self._families[name]
        assert isinstance(found, HistogramFamily)
        return found

    def observe_call(self, hop: Hop) -> None:
        """Count a gRPC call that has ended."""
        source = hop.peer.text if hop.peer is not None else "-"
        destination = hop.destination.text if hop.destination is not None else "-"
        labels = (hop.direction, source, destination, hop.route or "-", hop.grpc_status)
        self.counter("mesh_grpc_calls_total").add(labels, now=hop.ended)

    def observe_handshake(
        self, direction: Direction, listener: str, ok: bool, reason: str, tls: TlsInfo | None, seconds: float
    ) -> None:
        """Count a TLS handshake that ended; `reason` where it failed."""
        version, group = (tls.version, tls.group) if ok and tls is not None else ("-", "-")
        self._handshakes.add((direction, "ok" if ok else "failed", version, group or "-"))
        if ok:
            histogram = self._families["mesh_tls_handshake_seconds"]
            assert isinstance(histogram, HistogramFamily)
            histogram.observe(seconds, (direction,), 0.0)
        else:
            short = reason if _REASON.match(reason) else "other"
            self.counter("mesh_tls_handshake_failures_total").add((direction, listener, short))

    def observe_detection(self, direction: Direction, listener: str, protocol: str, by: str, seconds: float) -> None:
        """Count a connection whose protocol was found out; by ALPN it takes no time."""
        self.counter("mesh_protocol_detections_total").add((direction, listener, protocol, by))
        if by != "alpn":
            histogram = self._families["mesh_protocol_detection_seconds"]
            assert isinstance(histogram, HistogramFamily)
            histogram.observe(seconds, (direction,), 0.0)

    def connection_opened(self, direction: Direction, listener: str) -> None:
        """Count a downstream connection that was accepted."""
        labels = (direction, listener)
        self._opened.add(labels)
        self._open.add(labels)

    def connection_closed(self, direction: Direction, listener: str) -> None:
        """Count a downstream connection that ended."""
        labels = (direction, listener)
        self._closed.add(labels)
        self._open.add(labels, -1)

    def identity(self, status: IdentityView) -> None:
        """Set the gauges that tell of certificate, CA and clock."""
        ends = {"svid": status.not_after, "issuer": status.issuer_not_after, "root": status.root_not_after}
        for link, end in ends.items():
            if end:
                self.counter("mesh_certificate_expires_at_seconds").set(end, (link,))
        if status.next_renewal_at:
            self.counter("mesh_certificate_renewal_at_seconds").set(status.next_renewal_at, ("svid",))
        if status.clock_skew_seconds is not None:
            self.counter("mesh_clock_skew_seconds").set(status.clock_skew_seconds)
        if status.bundle_sequence is not None:
            self.counter("mesh_trust_bundle_sequence").set(status.bundle_sequence)
        self.counter("mesh_identity_failures").set(status.consecutive_failures)
        self.counter("mesh_ca_connected").set(1 if status.ca_connected else 0)
        if status.denylist_sequence is not None:
            self.counter("mesh_denylist_sequence").set(status.denylist_sequence)
            self.counter("mesh_denylist_entries").set(status.denylist_entries)
            self.counter("mesh_denylist_signed_at_seconds").set(status.denylist_at)
        self.counter("mesh_denylist_refused_total").set(status.denylist_refused)
        self.counter("mesh_identity_revoked").set(1 if status.revoked else 0)

    def counter(self, name: str) -> Family:
        """The counter or gauge of this name. Raises KeyError for a name that is not in DEFINITIONS."""
        family = self._families[name]
        if not isinstance(family, Family):
            raise KeyError(name)
        return family

    def cell(self, name: str, labels: LabelValues = ()) -> Cell:
        """One cell to keep and count on, for metrics whose label sets never expire."""
        return self.counter(name).cell(labels)

    # ---- showing -------------------------------------------------------------------------------------------------

    def before_scrape(self, refresh: Callable[[Metrics], None]) -> None:
        """Have this called before each scrape, to set gauges that nobody pushes."""
        self._refreshers.append(refresh)

    def render(self) -> bytes:
        """All metrics as Prometheus text, of type CONTENT_TYPE."""
        for refresh in self._refreshers:
            refresh(self)
        lines = [*self._hop_lines()]
        for family in self._families.values():
            lines.extend(family.lines())
        lines.extend(self._process.lines())
        return "".join(lines).encode()

    def sweep(self, now: float) -> int:
        """Forget label sets that were idle for ten minutes at monotonic `now`; returns how many went."""
        idle = [labels for labels, series in self._hops.items() if now - series.used > IDLE_SECONDS]
        for labels in idle:
            del self._hops[labels]
        return len(idle) + sum(family.sweep(now) for family in self._families.values())

    def _hop_lines(self) -> Iterable[str]:
        requests, first_byte, duration, received, sent = HOP_METRICS
        series = list(self._hops.values())
        yield header(requests)
        yield from (sample(requests.name, each.labels, each.requests) for each in series)
        yield header(received)
        yield from (sample(received.name, each.labels, each.received) for each in series)
        yield header(sent)
        yield from (sample(sent.name, each.labels, each.sent) for each in series)
        yield header(first_byte)
        for each in series:
            yield from each.first_byte.lines(first_byte.name)
        yield header(duration)
        for each in series:
            yield from each.duration.lines(duration.name)

    def _count_dropped(self, name: str) -> None:
        self.dropped.add((name,))


def status_class(hop: Hop) -> str:
    """`2xx` and so on; `-` on TCP and where no valid status was sent."""
    kind = hop.status // 100
    return _STATUS_CLASSES[kind] if 1 <= kind <= 5 else "-"
