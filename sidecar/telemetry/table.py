"""The live table: who calls whom, by which rule, how often, how fast. `mesh up` and `mesh status` draw it.

A row is one kind of hop: (direction, from, to, route, verdict, rule, flag). Latency is kept as counts in buckets that
grow by 5 %, so a percentile is at most 2.5 % off at any scale and a row costs a few dozen integers. Readers who want
rates give the sequence number of their last reading and get the difference; the last few readings are remembered for
that.
"""

from __future__ import annotations

from collections import OrderedDict
from math import exp, log
from typing import Any

from sidecar.hop import Hop, TlsInfo
from sidecar.http.grpc import FAILURES
from sidecar.telemetry import outcome
from sidecar.telemetry.clock import rfc3339
from sidecar.telemetry.series import IDLE_SECONDS, OTHER

GROWTH = 1.05  # relative width of a latency bucket
FLOOR = 1e-6  # seconds; everything faster shares the first bucket
MAX_ROWS = 2000
MAX_READINGS = 32  # remembered readings; each poller needs one

_PER_E = 1.0 / log(GROWTH)
_MICRO = 1e6

RowKey = tuple[str, str, str, str, str, str, str]


class Row:
    """One kind of hop, counted since it was first seen."""

    __slots__ = (
        "failures", "histogram", "kept", "key", "last_seen", "listener", "protocol", "requests", "tls", "used",
    )  # fmt: skip

    def __init__(self, key: RowKey, protocol: str, listener: str = "") -> None:
        self.key = key
        self.protocol = protocol
        self.listener = listener  # that its first hop came by, or the upstream it went to
        self.kept = 0  # requests that the inventory knows already
        self.requests = 0
        self.failures = 0
        self.histogram: dict[int, int] = {}
        self.tls: TlsInfo | None = None
        self.last_seen = 0.0  # seconds since the epoch
        self.used = 0.0  # monotonic seconds

    def add(self, hop: Hop, seconds: float, now: float) -> None:
        """Count a hop that took this long and ended at `now` (seconds since the epoch)."""
        self.requests += 1
        if hop.error is not None or hop.status >= 500 or hop.grpc_status in FAILURES:  # as outcome.failed, in place
            self.failures += 1
        bucket = int(log(seconds * _MICRO) * _PER_E) if seconds > FLOOR else 0
        try:
            self.histogram[bucket] += 1
        except KeyError:
            self.histogram[bucket] = 1
        if hop.tls is not None:
            self.tls = hop.tls
        self.last_seen = now
        self.used = hop.ended

    def percentile_ms(self, share: float) -> float:
        """The latency in milliseconds that this share of the hops (0 to 1) stayed within."""
        counts = sorted(self.histogram.items())
        wanted = share * sum(count for _, count in counts)
        for bucket, count in counts:
            wanted -= count
            if wanted <= 1e-9:
                return round(exp((bucket + 0.5) / _PER_E) / 1000.0, 4)
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """The row as the admin API and `mesh up -o json` show it."""
        direction, caller, called, route, verdict, rule, flag = self.key
        return {
            "direction": direction,
            "from": caller,
            "to": called,
            "protocol": self.protocol,
            "route": route,
            "verdict": verdict,
            "rule": rule,
            "flag": flag,
            "requests": self.requests,
            "failures": self.failures,
            "p50_ms": self.percentile_ms(0.50),
            "p99_ms": self.percentile_ms(0.99),
            "tls_version": self.tls.version if self.tls else "",
            "tls_group": self.tls.group if self.tls else "",
            "peer_not_after": rfc3339(self.tls.not_after) if self.tls else "",
            "last_seen": rfc3339(self.last_seen),
        }


class Table:
    """All rows of one sidecar."""

    def __init__(self) -> None:
        self._rows: dict[RowKey, Row] = {}
        self._readings: OrderedDict[int, tuple[float, dict[RowKey, tuple[int, int]]]] = OrderedDict()
        self._sequence = 0

    def row(self, hop: Hop) -> Row:
        """The row that this hop belongs to; past MAX_ROWS one whose identities, route and rule are `other`."""
        caller = hop.peer.text if hop.peer is not None else ""
        called = hop.destination.text if hop.destination is not None else ""
        verdict, flag = outcome.verdict(hop), hop.flag
        key: RowKey = (hop.direction, caller, called, hop.route, verdict, hop.rule, flag)
        if key not in self._rows and len(self._rows) >= MAX_ROWS:
            key = (hop.direction, OTHER, OTHER, OTHER, verdict, OTHER, flag)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(key, hop.protocol, hop.listener)
        return row

    def observe(self, hop: Hop, now: float) -> None:
        """Count a finished hop; `now` in seconds since the epoch."""
        self.row(hop).add(hop, hop.ended - hop.started, now)

    def read(self, at: float, since: int | None = None) -> dict[str, Any]:
        """All rows at this moment (monotonic seconds), with what happened since an earlier reading.

        `{"sequence", "interval_seconds", "hops": [row…]}`; a row also has `requests_delta` and `failures_delta`. Where
        `since` is absent or forgotten, the interval and the deltas are None.
        """
        before = self._readings.get(since) if since is not None else None
        self._sequence += 1
        self._readings[self._sequence] = (at, {key: (row.requests, row.failures) for key, row in self._rows.items()})
        while len(self._readings) > MAX_READINGS:
            self._readings.popitem(last=False)
        return {
            "sequence": self._sequence,
            "interval_seconds": None if before is None else round(at - before[0], 6),
            "hops": [_with_deltas(row, before[1] if before else None) for row in self._rows.values()],
        }

    def rows(self) -> list[Row]:
        """All rows, as they stand."""
        return list(self._rows.values())

    def sweep(self, now: float) -> int:
        """Forget rows idle for ten minutes at monotonic `now`; returns how many went."""
        idle = [key for key, row in self._rows.items() if now - row.used > IDLE_SECONDS]
        for key in idle:
            del self._rows[key]
            for _, counts in self._readings.values():
                counts.pop(key, None)
        return len(idle)

    def __len__(self) -> int:
        return len(self._rows)


def _with_deltas(row: Row, before: dict[RowKey, tuple[int, int]] | None) -> dict[str, Any]:
    result = row.to_json()
    if before is None:
        return result | {"requests_delta": None, "failures_delta": None}
    requests, failures = before.get(row.key, (0, 0))
    return result | {"requests_delta": row.requests - requests, "failures_delta": row.failures - failures}
