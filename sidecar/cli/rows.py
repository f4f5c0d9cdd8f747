"""What the admin sockets tell of hops, merged into the rows that `mesh up` shows.

A hop between two sidecars is recorded by both. We show the receiver's view, because it is the one that judged, and from
the caller's side only what never reached a receiver: refusals of its own and upstreams that could not be reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sidecar.cli.console import Failure
from sidecar.cli.sidecars import Sidecar, moment

WINDOW = 5.0  # seconds over which a rate is taken
NEVER_ARRIVED = frozenset(("UF", "UH", "NR", "ID", "UO"))  # flags of outbound hops that no receiver can have seen
JSON_FIELDS = ("from", "to", "route", "verdict", "rule", "requests", "failures", "p50_ms", "p99_ms", "tls_version",
               "tls_group", "flag", "direction")  # fmt: skip

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HopRow:
    """One kind of hop: the admin API's row, and how often it happens now."""

    data: dict[str, Any]
    rate: float | None  # hops a second; None before there are two readings

    @property
    def not_after(self) -> float | None:
        """The end of the peer's certificate, seconds since the epoch."""
        return moment(self.data.get("peer_not_after"))

    def to_json(self) -> dict[str, Any]:
        """The documented fields, in their order."""
        return {name: self.data.get(name) for name in JSON_FIELDS}


@dataclass(slots=True)
class Watcher:
    """Reads hops again and again and knows their rates."""

    sidecars: list[Sidecar]
    _past: deque[tuple[float, dict[Key, int]]] = field(default_factory=deque)

    def read(self, now: float) -> list[HopRow]:
        """All rows worth showing at monotonic `now`, busiest caller first. A silent sidecar has none."""
        found = sorted(shown(row for sidecar in self.sidecars for row in _hops(sidecar)), key=_order)
        counts = {_key(row): int(row["requests"]) for row in found}
        rows = [HopRow(row, self._rate(_key(row), counts[_key(row)], now)) for row in found]
        self._past.append((now, counts))
        while now - self._past[0][0] > WINDOW:
            self._past.popleft()
        return rows

    def _rate(self, key: Key, count: int, now: float) -> float | None:
        if not self._past or now <= self._past[0][0]:
            return None
        then, counts = self._past[0]
        return max(0, count - counts.get(key, 0)) / (now - then)


def shown(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The receivers' rows, and of the callers' only what never arrived."""
    return [row for row in rows if row["direction"] == "inbound" or _ended_at_home(row)]


def _ended_at_home(row: dict[str, Any]) -> bool:
    return row.get("verdict") == "deny" or row.get("flag") in NEVER_ARRIVED


def _hops(sidecar: Sidecar) -> list[dict[str, Any]]:
    try:
        document = sidecar.get("/hops")
    except Failure:
        return []
    return [row for row in document.get("hops", []) if isinstance(row, dict)]


def _key(row: dict[str, Any]) -> Key:
    return tuple(str(row.get(name, "")) for name in ("direction", "from", "to", "route", "verdict", "rule", "flag"))


def _order(row: dict[str, Any]) -> tuple[bool, str, str, str]:
    return (row["verdict"] != "permit", str(row["to"]), str(row["from"]), str(row["route"]))
