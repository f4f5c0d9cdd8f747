"""Windows of the calendar: the hour, day or month that a moment is in, as people of a time zone count them.

They part time without gap or overlap, whatever a zone does. A day is from local midnight to the next, so it has 23 or
25 hours where the clocks are changed, and where midnight is left out it begins with the first moment after it. An hour
is one of the local clock: one that is struck twice is two windows, and where the clock is moved by half an hour, both
of the hours there are short. Moments are seconds since the epoch.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Literal

Span = Literal["hour", "day", "month"]
_HOUR = 3600
_DAY = timedelta(days=1)


def window_of(span: Span, zone: tzinfo, wall: float) -> tuple[int, int]:
    """When the window that this moment is in began, and when it ends (the first second of the next one)."""
    second = int(wall // 1)
    if span == "hour":
        return _hour_of(zone, second)
    here = datetime.fromtimestamp(second, zone)
    first = datetime(here.year, here.month, here.day if span == "day" else 1, tzinfo=zone)
    return _epoch(first), _epoch(_after(first, span))


def _after(first: datetime, span: Span) -> datetime:
    if span == "day":
        following = first.replace(tzinfo=None) + _DAY
    else:
        following = datetime(first.year + first.month // 12, first.month % 12 + 1, 1)  # noqa: DTZ001 - gets its zone now
    return following.replace(tzinfo=first.tzinfo)


def _epoch(moment: datetime) -> int:
    """A midnight that is left out, or a whole day (Samoa, 30 December 2011), is the moment at which it is left out."""
    return int(moment.timestamp())


def _hour_of(zone: tzinfo, second: int) -> tuple[int, int]:
    offset = _offset(zone, second)
    start = (second + offset) // _HOUR * _HOUR - offset
    end = start + _HOUR
    if _offset(zone, start) != offset:
        start = _change(zone, start, second)
    if _offset(zone, end - 1) != offset:
        end = _change(zone, second, end - 1)
    return start, end


def _offset(zone: tzinfo, second: int) -> int:
    """Seconds that the zone is ahead of UTC then."""
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def _change(zone: tzinfo, before: int, after: int) -> int:
    """The first second of the offset that holds at `after` and not yet at `before`."""
    new = _offset(zone, after)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(zone, middle) == new:
            after = middle
        else:
            before = middle
    return after
