"""Whose failing answers are marked as retried."""

from __future__ import annotations

import pytest

from sidecar.traffic.marks import KEPT, MOST, Marks


@pytest.mark.parametrize(
    ("judged", "asked", "began", "marked"),
    [
        ([], "a", 0.0, False),
        ([("a", 5.0)], "a", 4.0, True),
        ([("a", 5.0)], "a", 5.0, True),
        ([("a", 5.0)], "a", 5.1, False),  # before this request began
        ([("", 5.0)], "", 4.0, True),  # nobody has a trace id: by time
        ([("", 5.0)], "", 6.0, False),
        ([("", 5.0)], "a", 4.0, True),  # the application passes none on
        ([("b", 5.0)], "", 4.0, True),
        ([("b", 5.0)], "a", 4.0, True),  # another trace, of an application that may make its own
        ([("a", 5.0), ("b", 6.0)], "a", 4.0, True),
    ],
)
def test_by_trace_id_else_by_time(judged, asked, began, marked):
    marks = Marks()
    for trace_id, now in judged:
        marks.settled(trace_id, now)
    assert marks.marks(asked, began) == marked


def test_where_trace_ids_are_passed_on_another_trace_is_another_request():
    marks = Marks()
    marks.settled("a", 5.0)
    assert marks.marks("b", 4.0)  # not known yet
    assert marks.marks("a", 4.0)
    assert not marks.marks("b", 4.0)
    assert marks.marks("", 4.0)
    marks.settled("", 6.0)
    assert marks.marks("b", 4.0)


def test_what_is_remembered_is_bounded_and_kept_for_a_while():
    marks = Marks()
    marks.settled("a", 5.0)
    assert marks.marks("a", 4.0)
    for number in range(3 * MOST):
        marks.settled(f"{number}", 6.0)
    assert len(marks._young) == MOST
    assert marks.marks("never seen", 5.5)  # those beyond are joined by time
    marks.settled("b", 5.0 + KEPT)
    assert marks.marks("a", 4.0)
    marks.settled("c", 6.0 + 2 * KEPT)
    assert not marks.marks("a", 7.0)
    assert len(marks._young) + len(marks._old) <= 2 * MOST
