"""When servers say to come again, in every form there is, and in some that there are not."""

from __future__ import annotations

from calendar import timegm

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.traffic.hints import NEVER, http_date, push_back, retry_after

WALL = float(timegm((2026, 11, 22, 15, 0, 0)))
CENTURY = 3_155_760_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"120", 120.0),
        (b" 7 ", 7.0),
        (b"3155760001", CENTURY),
        (b"9" * 39, CENTURY),
        (b"9" * 41, None),
        (b"Sun, 22 Nov 2026 15:00:30 GMT", 30.0),
        (b"Sunday, 22-Nov-26 15:00:30 GMT", 30.0),
        (b"Sun Nov 22 15:00:30 2026", 30.0),
        (b"Wed Nov  4 15:00:30 2026", 0.0),
        (b"Sat, 21 Nov 2026 15:00:00 GMT", 0.0),  # yesterday
        (b"Fri, 22 Nov 2126 15:00:00 GMT", 3_155_673_600.0),  # in a century, which has 24 leap days
        (b"Sun, 22 Nov 9999 15:00:00 GMT", CENTURY),
        (b"Mon, 01 Jan 0001 00:00:00 GMT", 0.0),
        (b"Thursday, 05-Jan-00 15:00:00 GMT", 0.0),  # 2000
        (b"Tuesday, 22-Nov-77 15:00:00 GMT", 0.0),  # 1977: more than 50 years ahead is meant to be past
        (b"Sunday, 22-Nov-76 15:00:00 GMT", 1_577_923_200.0),  # 2076
        (b"Sun, 31 Feb 2026 15:00:00 GMT", None),
        (b"Sun, 00 Nov 2026 15:00:00 GMT", None),
        (b"Sun, 22 Nov 2026 24:00:00 GMT", None),
        (b"Sun, 22 Nov 2026 15:60:00 GMT", None),
        (b"Sun, 22 Nov 2026 15:00:61 GMT", None),
        (b"Sun, 22 Nov 2026 15:00:30 CET", None),
        (b"Sun, 22 nov 2026 15:00:30 GMT", None),
        (b"-1", None),
        (b"1.5", None),
        (b"+5", None),
        (b"", None),
        (b"soon", None),
        ("٣".encode(), None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after([(b"date", b"x"), (b"retry-after", value)], WALL) == seconds


@pytest.mark.parametrize(("year", "said", "meant"), [(2000, "00", 2000), (2099, "05", 2105), (2001, "99", 1999)])
def test_two_digits_are_the_nearest_year(year, said, meant):
    assert http_date(f"Sunday, 02-Jan-{said} 00:00:00 GMT".encode(), float(timegm((year, 1, 1, 0, 0, 0)))) == float(
        timegm((meant, 1, 2, 0, 0, 0))
    )


def test_without_one_nothing_is_asked():
    assert retry_after([], WALL) is None
    assert push_back([(b"retry-after", b"1")]) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"0", 0.0), (b"1500", 1.5), (b"4294967295", 4294967.295), (b"-1", NEVER), (b"-0", NEVER), (b"", NEVER),
     (b"1.5", NEVER), (b"abc", NEVER), (b" 1", NEVER), (b"99999999999", NEVER)],
)  # fmt: skip
def test_grpc_push_back_of_anything_but_a_number_is_never(value, seconds):
    assert push_back([(b"grpc-retry-pushback-ms", value)]) == seconds


@given(st.binary(max_size=45), st.floats(0, 4e9))
def test_whatever_is_sent_nothing_fails(value, wall):
    seconds = retry_after([(b"retry-after", value)], wall)
    assert seconds is None or 0.0 <= seconds <= CENTURY
    assert (push_back([(b"grpc-retry-pushback-ms", value)]) or 0.0) >= 0.0


@given(st.datetimes().filter(lambda each: each.year >= 1970), st.integers(0, 2))
def test_every_date_is_read_as_it_was_written(moment, form):
    wall = float(timegm(moment.timetuple()))
    text = moment.strftime(("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")[form])
    assert http_date(text.encode(), wall) == wall
