"""Detectors on the labelled data set: what docs/detectors.md says of them stays true."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from tests.sim.detection import SEEDS, TRAINING, USUAL, Score, tables

PAGE = Path(__file__).parents[2] / "docs" / "detectors.md"


@cache
def scores() -> dict[str, Score]:
    """One seed of three, which is quicker; none that the detectors were made with."""
    assert not set(SEEDS) & set(TRAINING)
    (found,), _, _ = tables([USUAL], SEEDS[:1])
    return found


def test_alarms_are_mostly_right() -> None:
    assert {kind: each.precision >= 0.75 for kind, each in scores().items()} == dict.fromkeys(scores(), True)
    assert sum(scores()["stuffing"].by.values()) <= 1


def test_attacks_in_a_hurry_are_mostly_found() -> None:
    for each in scores().values():
        assert each.strong_found >= 0.6 * each.strong


def test_callers_as_they_are_raise_no_alarm_but_for_what_is_done_for_the_first_time() -> None:
    by = {name for each in scores().values() for name, count in each.by.items() if count}
    assert by <= {"batch", "audit", "indexer", "web", "desk", "sync"}
    assert max(each.false for each in scores().values()) <= 6


def test_more_than_half_of_all_attacks_are_found_however_weak() -> None:
    least = {"stuffing": 0.9, "enumeration": 0.6, "spikes": 0.5}
    assert [kind for kind, each in scores().items() if each.recall < least[kind]] == []


def test_the_page_has_a_row_for_each() -> None:
    assert re.findall(r"^\| `(\w+)` \| \d+ ", PAGE.read_text(), re.MULTILINE) == list(scores())
