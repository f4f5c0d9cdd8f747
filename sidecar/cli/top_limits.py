"""Rates, quotas and limits of raw TCP as rows of one sheet: what is said, who is nearest to it, who is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sidecar.cli.top_sheets import Row

FULLEST: Final = 5  # keys of a quota, or of a TCP limit, that have a row each


def limit_rows(limits: Mapping[str, Any], quotas: Mapping[str, Any]) -> list[Row]:
    """Of what a sidecar answers to GET /limits and GET /quotas; whatever it does not say is absent."""
    redis = limits.get("redis") or {}
    return [
        *(_rate(row, str(redis.get("problem") or "")) for row in limits.get("limits", ())),
        *(row for quota in quotas.get("quotas", ()) for row in _quota(quota)),
        *_tcp(quotas.get("tcp_limits", ())),
    ]


def _rate(row: Mapping[str, Any], problem: str) -> Row:
    hottest, burst = (row.get("hottest") or [{}])[0], row.get("burst")
    left = hottest.get("remaining")
    shared = row.get("shared") == "redis"
    return {
        "kind": "rate",
        "says": f"{row.get('rate')} per {row.get('per')}, {burst} at once",
        "key": hottest.get("key"),
        "used": 1.0 - left / burst if left is not None and burst else None,
        "counted": ("here alone" if problem else "in Redis") if shared else "here",
        "alone": problem if shared else "",
        **{name: row.get(name) for name in ("limit", "keys", "refused", "delayed", "waiting", "blocked", "where")},
    }


def _quota(quota: Mapping[str, Any]) -> Iterable[Row]:
    keys, limit = quota.get("keys") or [], quota.get("limit")
    row = {
        "kind": "quota",
        "limit": quota.get("name"),
        "says": f"{limit}/{quota.get('window')} per {quota.get('per')}, until {str(quota.get('window_end'))[:16]}Z",
        "counted": "in Redis" if quota.get("shared") == "redis" else "here",
        "keys": len(keys),
        "where": quota.get("where"),
    }
    if not keys:
        return [row]
    return [
        {**row, "key": each.get("shown"), "used": each["used"] / limit if limit else None, "left": each.get("left")}
        for each in keys[:FULLEST]
    ]


def _tcp(rows: Iterable[Mapping[str, Any]]) -> Iterable[Row]:
    fullest = sorted(rows, key=lambda row: -int(row.get("open") or 0))[:FULLEST]
    for row in fullest:
        most, bandwidth = row.get("connections"), row.get("bandwidth")
        says = [f"{most} at once" if most else "", f"{bandwidth / 2**20:g} MiB/s" if bandwidth else ""]
        yield {
            "kind": "tcp",
            "limit": row.get("name"),
            "says": f"{', '.join(filter(None, says)) or 'connections a second'} per {row.get('per')}",
            "key": row.get("key"),
            "used": row["open"] / most if most else None,
            "counted": "here",
            "open": row.get("open"),
        }
