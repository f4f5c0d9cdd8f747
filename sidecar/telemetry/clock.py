"""Moments as text: RFC 3339 in UTC with microseconds, the one form in every log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as `2026-01-31T12:00:00.000000Z`; empty for what no calendar holds."""
    try:
        moment = _EPOCH + timedelta(microseconds=round(seconds * 1e6))
    except (OverflowError, ValueError):
        return ""
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"
