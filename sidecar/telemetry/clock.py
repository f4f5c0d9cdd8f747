"""Moments as text: RFC 3339 in UTC with microseconds, the one form in every log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as `2026-01-31T12:00:00.000000Z`; empty for what no calendar holds."""
    try:
        second, micros = divmod(round(seconds * 1e6), 1_000_000)
        return f"{_to_the_second(second)}.{micros:06d}Z"
    except (OverflowError, ValueError):
        return ""


@lru_cache(maxsize=16)
def _to_the_second(seconds: int) -> str:
    """All but the fraction: a log writes many lines in a second. Raises OverflowError."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
