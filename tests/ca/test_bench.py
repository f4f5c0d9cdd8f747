"""The bench runs, counts what it claims to count, and verifies the log that it wrote; figures are judged elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ca import bench, burst, same_minute


@pytest.mark.integration
def test_a_small_round_of_the_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)  # the tests beside us want their cores
    monkeypatch.setattr("sys.argv", ["bench", "--count", "20", "--openssl", "2", "--rounds", "1", "--tasks", "8"])
    assert bench.main() == 0
    said = capsys.readouterr().out
    for words in ("enrolment key", "renewal", "openssl x509 -req", "ours / openssl", "the bar"):
        assert words in said


@pytest.mark.integration
def test_some_sidecars_that_renew_in_the_same_seconds(tmp_path: Path) -> None:
    found = same_minute.play(tmp_path, 20, 20.0)
    assert found.held, found


@pytest.mark.integration
def test_some_callers_of_one_moment(tmp_path: Path) -> None:
    found = burst.play(tmp_path, 60)
    assert found.held, found
    assert not found.failures, found
