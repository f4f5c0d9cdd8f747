"""Windows of the calendar part time, in every zone and whatever is done to its clocks."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.traffic.windows import Span, window_of

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Havana", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Beirut",
    "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham", "Africa/Casablanca", "Asia/Tehran",
    "Asia/Pyongyang",
)  # fmt: skip


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def utc(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@pytest.mark.parametrize(
    ("span", "zone", "moment", "start", "end"),
    [
        ("hour", "UTC", "2026-11-22T15:07:24.9", "2026-11-22T15:00:00", "2026-11-22T16:00:00"),
        ("day", "UTC", "2026-11-22T00:00:00", "2026-11-22T00:00:00", "2026-11-23T00:00:00"),
        ("month", "UTC", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("month", "UTC", "2024-02-29T12:00:00", "2024-02-01T00:00:00", "2024-03-01T00:00:00"),
        ("day", "Europe/Berlin", "2026-11-22T23:30:00", "2026-11-22T23:00:00", "2026-11-23T23:00:00"),
        ("hour", "Asia/Kolkata", "2026-11-22T15:07:00", "2026-11-22T14:30:00", "2026-11-22T15:30:00"),
        ("hour", "Asia/Kathmandu", "2026-11-22T15:20:00", "2026-11-22T15:15:00", "2026-11-22T16:15:00"),
        # The clocks go forward: 23 hours, and an hour that is not there.
        ("day", "Europe/Berlin", "2026-03-29T12:00:00", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),
        ("hour", "Europe/Berlin", "2026-03-29T01:00:00", "2026-03-29T01:00:00", "2026-03-29T02:00:00"),
        # And back: 25 hours, and an hour that is struck twice.
        ("day", "Europe/Berlin", "2026-10-25T12:00:00", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
        ("hour", "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25T00:00:00", "2026-10-25T01:00:00"),
        ("hour", "Europe/Berlin", "2026-10-25T01:30:00", "2026-10-25T01:00:00", "2026-10-25T02:00:00"),
        ("month", "Europe/Berlin", "2026-10-25T12:00:00", "2026-09-30T22:00:00", "2026-10-31T23:00:00"),
        # By half an hour, at 2:00: the hours there are short.
        ("hour", "Australia/Lord_Howe", "2026-04-04T15:10:00", "2026-04-04T15:00:00", "2026-04-04T15:30:00"),
        ("hour", "Australia/Lord_Howe", "2026-04-04T14:50:00", "2026-04-04T14:00:00", "2026-04-04T15:00:00"),
        # In the middle of an hour: Pyongyang, from 23:30 to midnight.
        ("hour", "Asia/Pyongyang", "2018-05-04T14:40:00", "2018-05-04T14:30:00", "2018-05-04T15:00:00"),
        ("hour", "Asia/Pyongyang", "2018-05-04T15:10:00", "2018-05-04T15:00:00", "2018-05-04T16:00:00"),
        ("day", "Asia/Pyongyang", "2018-05-04T14:40:00", "2018-05-03T15:30:00", "2018-05-04T15:00:00"),
        # At midnight: a day that begins at one o'clock, and one whose last hour is struck twice.
        ("day", "America/Sao_Paulo", "2018-11-04T12:00:00", "2018-11-04T03:00:00", "2018-11-05T02:00:00"),
        ("day", "America/Sao_Paulo", "2018-02-18T02:30:00", "2018-02-17T02:00:00", "2018-02-18T03:00:00"),
        # A day that was left out whole.
        ("day", "Pacific/Apia", "2011-12-30T09:00:00", "2011-12-29T10:00:00", "2011-12-30T10:00:00"),
        ("day", "Pacific/Apia", "2011-12-30T10:00:00", "2011-12-30T10:00:00", "2011-12-31T10:00:00"),
    ],
)  # fmt: skip
def test_windows(span: Span, zone: str, moment: str, start: str, end: str) -> None:
    assert [utc(each) for each in window_of(span, ZoneInfo(zone), at(moment))] == [start, end]


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(["hour", "day", "month"]), st.sampled_from(ZONES), st.integers(0, 2_000_000_000))
@example("day", "Pacific/Apia", 1325239200)
@example("hour", "Australia/Lord_Howe", 1775316600)
@example("hour", "Asia/Pyongyang", 1525444800)
def test_they_part_time(span: Span, zone: str, moment: int) -> None:
    here = ZoneInfo(zone)
    start, end = window_of(span, here, moment)
    assert start <= moment < end
    assert window_of(span, here, start) == window_of(span, here, end - 1) == (start, end)
    assert window_of(span, here, end)[0] == end
    assert window_of(span, here, start - 1)[1] == start
    assert end - start <= {"hour": 3600, "day": 25 * 3600, "month": 32 * 86400}[span]
