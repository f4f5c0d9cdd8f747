"""What servers say about when to come again: `Retry-After` (RFC 9110 section 10.2.3) and gRPC's push-back (gRFC A6).

Whoever writes these may be wrong by a century. A date in the past means now; nothing here fails, and how long a hint is
believed is for who uses it (at most 300 s in all of them, S13 and S18).
"""

from __future__ import annotations

import re
from calendar import timegm
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sidecar.http.headers import first

if TYPE_CHECKING:
    from sidecar.hop import Headers

NEVER: Final = float("inf")
_MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH: Final = b"(?P<month>" + b"|".join(_MONTHS) + b")"
_TIME: Final = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
# The three forms of RFC 9110 section 5.6.7. The name of the day is redundant, so it is not compared.
_DATES: Final = (
    re.compile(rb"[A-Z][a-z]{2}, (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + b" GMT"),
    re.compile(rb"[A-Z][a-z]{5,8}, (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + b" GMT"),
    re.compile(rb"[A-Z][a-z]{2} " + _MONTH + rb" (?P<day>[ \d]\d) " + _TIME + rb" (?P<year>\d{4})"),
)
_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CENTURY: Final = 3_155_760_000.0  # seconds; more is not worth telling apart
_LONGEST: Final = 40  # bytes of a value that could be meant


def http_date(value: bytes, wall: float) -> float | None:
    """Seconds since the epoch; None for what is no date. Two digits mean the year that is at most 50 ahead of
    `wall`, and less than 50 behind (RFC 9110 section 5.6.7).
    """
    found = next((match for form in _DATES if (match := form.fullmatch(value))), None)
    if found is None:
        return None
    month = _MONTHS.index(found["month"]) + 1
    year, day, hour, minute, second = (int(found[part]) for part in ("year", "day", "hour", "minute", "second"))
    if not (1 <= day <= _DAYS[month - 1] and hour <= 23 and minute <= 59 and second <= 60):
        return None
    if len(found["year"]) == 4:
        return float(timegm((year, month, day, hour, minute, second))) if year >= 1970 else 0.0
    this = datetime.fromtimestamp(wall, UTC).year
    year += this - this % 100
    year += -100 if year > this + 50 else 100 if year <= this - 50 else 0
    return float(timegm((year, month, day, hour, minute, second)))


def retry_after(headers: Headers, wall: float) -> float | None:
    """The seconds that an answer asks us to stay away; None where it does not, or says nothing that can be read."""
    value = first(headers, b"retry-after")
    if value is None:
        return None
    value = value.strip(b" \t")
    if len(value) > _LONGEST:
        return None
    if value.isdigit():
        return min(float(int(value)), _CENTURY)
    date = http_date(value, wall)
    return None if date is None else min(max(0.0, date - wall), _CENTURY)


def push_back(headers: Headers) -> float | None:
    """The seconds that a gRPC server asks for; `NEVER` for a negative number or none at all (gRFC A6), None where it
    says nothing.
    """
    value = first(headers, b"grpc-retry-pushback-ms")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 10:  # of 32 bits
        return NEVER
    return int(value) / 1000.0
