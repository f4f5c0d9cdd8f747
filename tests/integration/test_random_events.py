"""Rotation, reload, drain and restart at random points of ten short runs; two hundred are in tests/deep."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.programs import echo_app
from tests.kit.random_events import Storm, plan

SEEDS = range(1, 11)


def test_nothing_is_lost_and_the_books_balance_after_each_run(
    tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    storm = Storm(tmp_path)
    with echo_app(tmp_path, storm.ports.app), storm:
        storm.start_all()
        for seed in SEEDS:
            result = storm.run(seed)
            print(result.summary())
            record_property(f"seed {seed}", result.summary())
            result.assert_nothing_lost()
        storm.assert_well()


def test_every_kind_of_event_comes_up() -> None:
    assert {event.kind for seed in SEEDS for event in plan(seed, 2.0)} == {"rotate", "reload", "drain", "restart"}
