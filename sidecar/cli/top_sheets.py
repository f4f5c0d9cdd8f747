"""What `mesh top` shows, as sheets of rows: which columns, in which order and colour. Pure; the screen is `top_app`.

A row is a document of the admin API as it came, with its service. Whatever a sidecar of another version does not tell
is a dash, and never a fault: who looks at a mesh in trouble looks at old and new sidecars side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.cli.console import remaining, span
from sidecar.cli.sidecars import moment, short

Row = dict[str, Any]
DASH: Final = "-"
KIND: Final = ("direction", "from", "to", "route", "verdict", "rule", "flag")  # of hops, as the admin API counts them
BAR: Final = 10  # characters of a bar that is full


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, the value that it sorts by, and how that is written."""

    title: str
    of: Callable[[Row], Any]
    write: Callable[[Any], str] = str
    number: bool = False

    def text(self, row: Row) -> str:
        """What its cell says."""
        value = self.of(row)
        return DASH if value is None or value == "" else self.write(value)

    def rank(self, row: Row) -> tuple[bool, float, str]:
        """What rows are sorted by: numbers by size, everything else by its text; who has nothing comes first."""
        value = self.of(row)
        if isinstance(value, int | float):
            return True, float(value), ""
        return value is not None, 0.0, self.text(row)


@dataclass(frozen=True, slots=True)
class Sheet:
    """One of the tables, under its key."""

    key: str
    name: str
    nothing: str  # what is said where it has no row
    columns: tuple[Column, ...]
    style: Callable[[Row], str]  # of a whole row; empty for the usual
    identity: Callable[[Row], str]  # by which a row is found again at the next reading
    sort: int = 0  # the column that it is sorted by at first
    descending: bool = False

    def lines(self, rows: Sequence[Row], *, sort: int, descending: bool, needle: str = "") -> list[Row]:
        """These rows in order; of those whose cells have the needle somewhere, if there is one."""
        wanted = needle.lower()
        kept = [row for row in rows if not wanted or any(wanted in each.text(row).lower() for each in self.columns)]
        return sorted(kept, key=self.columns[sort].rank, reverse=descending)


def _field(name: str) -> Callable[[Row], Any]:
    return lambda row: row.get(name)


def _number(digits: int, unit: str = "") -> Callable[[Any], str]:
    return lambda value: f"{float(value):.{digits}f}{unit}"


def bar(share: float) -> str:
    """A share of something, 0 to 1, as a bar with its percentage."""
    share = min(1.0, max(0.0, share))
    full = round(share * BAR)
    return f"{'█' * full}{'░' * (BAR - full)} {share:.0%}"


def _busy(row: Row) -> float | None:
    count, most = row.get("requests"), row.get("requests_most")
    return count / most if isinstance(count, int | float) and isinstance(most, int | float) and most else None


def _verdict(row: Row) -> str:
    flag = row.get("flag")
    return f"{row.get('verdict')} ({flag})" if flag not in (None, "", "-", "PD") else str(row.get("verdict"))


def _hop_style(row: Row) -> str:
    if row.get("verdict") == "deny":
        return "red"
    return "yellow" if row.get("flag") not in (None, "", "-") or row.get("failures_now") else ""


def _upstream_style(row: Row) -> str:
    usable, all_of_them = row.get("available"), row.get("endpoints")
    if usable == 0:
        return "red"
    return "yellow" if usable != all_of_them or row.get("retries_left") == 0 else ""


def _state(row: Row) -> str:
    back = row.get("back_in_s")
    return f"{row.get('state')} for {back:g} s" if isinstance(back, int | float) else str(row.get("state"))


def _endpoint_style(row: Row) -> str:
    return {"available": "", "half-open": "yellow"}.get(str(row.get("state")), "red")


def _limit_style(row: Row) -> str:
    if row.get("refused_now") or row.get("blocked"):
        return "red"
    return "yellow" if row.get("alone") or row.get("waiting") else ""


def _sidecar_style(row: Row) -> str:
    if row.get("state") != "ready":
        return "yellow" if row.get("state") in ("starting", "draining") else "red"
    return "red" if row.get("not_ready") else ""


def _expires(row: Row) -> float | None:
    return moment((row.get("identity") or {}).get("not_after"))


HOPS: Final = Sheet(
    "1", "Hops", "No hop yet.",
    (
        Column("from", lambda row: short(str(row.get("from") or ""))),
        Column("to", lambda row: short(str(row.get("to") or ""))),
        Column("route", _field("route")),
        Column("verdict", _verdict),
        Column("rule", _field("rule")),
        Column("per s", _field("rate"), _number(1), number=True),
        Column("failed/s", _field("failures_now"), _number(1), number=True),
        Column("p50 ms", _field("p50_ms"), _number(2), number=True),
        Column("p99 ms", _field("p99_ms"), _number(2), number=True),
        Column("in all", _field("requests"), number=True),
    ),
    _hop_style,
    lambda row: "|".join(str(row.get(name)) for name in KIND),
    sort=5, descending=True,
)  # fmt: skip
UPSTREAMS: Final = Sheet(
    "2", "Upstreams", "No upstream is declared (outbound).",
    (
        Column("service", _field("service")),
        Column("upstream", _field("upstream")),
        Column("usable", _field("available"), number=True),
        Column("of", _field("endpoints"), number=True),
        Column("left alone", _field("left_alone")),
        Column("under way", _field("requests"), number=True),
        Column("of limits.requests", _busy, bar),
        Column("retries left", _field("retries_left"), number=True),
        Column("slowest ms", _field("slowest_ms"), _number(1), number=True),
    ),
    _upstream_style,
    lambda row: f"{row.get('service')}|{row.get('upstream')}",
)  # fmt: skip
ENDPOINTS: Final = Sheet(
    "3", "Endpoints", "No upstream is declared (outbound).",
    (
        Column("service", _field("service")),
        Column("upstream", _field("upstream")),
        Column("endpoint", _field("endpoint")),
        Column("state", _state),
        Column("latency ms", _field("latency_ms"), _number(1), number=True),
        Column("active", _field("active"), number=True),
        Column("connections", _field("connections"), number=True),
        Column("weight", _field("weight"), number=True),
        Column("zone", _field("zone")),
        Column("health", lambda row: (row.get("health") or {}).get("result")),
    ),
    _endpoint_style,
    lambda row: f"{row.get('service')}|{row.get('upstream')}|{row.get('endpoint')}",
)  # fmt: skip
LIMITS: Final = Sheet(
    "4", "Limits", "No limit is declared (rates, quotas, tcp_limits).",
    (
        Column("service", _field("service")),
        Column("kind", _field("kind")),
        Column("limit", _field("limit")),
        Column("says", _field("says")),
        Column("fullest", lambda row: short(str(row.get("key") or ""))),
        Column("used", _field("used"), bar),
        Column("keys", _field("keys"), number=True),
        Column("refused", _field("refused"), number=True),
        Column("refused/s", _field("refused_now"), _number(1), number=True),
        Column("waiting", _field("waiting"), number=True),
        Column("counted", _field("counted")),
    ),
    _limit_style,
    lambda row: "|".join(str(row.get(name)) for name in ("service", "kind", "limit", "key")),
    sort=8, descending=True,
)  # fmt: skip
SIDECARS: Final = Sheet(
    "5", "Sidecars", "No sidecar is running here.",
    (
        Column("service", _field("service")),
        Column("state", _field("state")),
        Column("certificate ends", _expires, lambda at: remaining(at, time.time())),
        Column("connections", _field("connections"), number=True),
        Column("in flight", _field("in_flight"), number=True),
        Column("streams", _field("streams"), number=True),
        Column("policy", lambda row: (row.get("policy") or {}).get("generation"), number=True),
        Column("not ready", lambda row: "; ".join(row.get("not_ready") or [])),
        Column("version", _field("version")),
    ),
    _sidecar_style,
    lambda row: str(row.get("service")),
)  # fmt: skip
DETECTIONS: Final = Sheet(
    "6", "Detections", "Nobody was conspicuous so far (detectors).",
    (
        Column("at", lambda row: str(row.get("at") or "")[11:19]),
        Column("service", _field("service")),
        Column("caller", lambda row: short(str(row.get("caller") or ""))),
        Column("user", _field("user")),
        Column("detector", _field("detector")),
        Column("", _field("action")),
        Column("held for", _field("seconds_left"), span, number=True),
        Column("refused", _field("refused"), number=True),
        Column("route", _field("route")),
        Column("what it did", _field("what")),
    ),
    lambda row: "red" if row.get("seconds_left") is not None else "yellow",
    lambda row: "|".join(str(row.get(name)) for name in ("service", "caller", "user", "detector", "route", "at")),
    sort=6, descending=True,
)  # fmt: skip
SHEETS: Final = (HOPS, UPSTREAMS, ENDPOINTS, LIMITS, SIDECARS, DETECTIONS)
