"""Detectors on the labelled data set: what docs/detectors.md says of them stays true."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from tests.sim.detection import USUAL, Score, tables

PAGE = Path(__file__).parents[2] / "docs" / "detectors.md"


@cache
def scores() -> dict[str, Score]:
    """One seed of three, which is quicker."""
    (found,), _, _ = tables([USUAL], [1])
    return found


def test_alarms_are_mostly_right() -> None:
    assert {kind: each.precision >= 0.8 for kind, each in scores().items()} == dict.fromkeys(scores(), True)
    assert sum(scores()["stuffing"].by.values()) == 0


def test_attacks_in_a_hurry_are_mostly_found() -> None:
    for each in scores().values():
        assert each.strong_found >= 0.4 * each.strong


def test_callers_as_they_are_raise_no_alarm_but_for_what_is_done_for_the_first_time() -> None:
    by = {name for each in scores().values() for name, count in each.by.items() if count}
    assert by <= {"batch", "audit"}


def test_the_page_has_a_row_for_each() -> None:
    assert re.findall(r"^\| `(\w+)` \| \d+ ", PAGE.read_text(), re.MULTILINE) == list(scores())
