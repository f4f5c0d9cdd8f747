"""What the bench concludes from rounds, when it refuses to conclude, and that the docs are what the figures say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bench.judge import OTHERS, judge
from tests.bench.load import HEAD, MARK, request
from tests.bench.publish import DRAWING, KEPT, PAGE, render
from tests.bench.rows import ROWS, Bar, Row, Work

ROW = Row("a-row", "a row", "cpu_us", (Bar("envoy", 1.0),))


def rounds(ours: list[float], theirs: list[float], **more: Any) -> list[dict[str, Any]]:
    quiet = {"others": 0.0, "steal": 0.0, "busiest_other": "", **more}
    return [
        {"round": number, "name": name, "cpu_us": value, **quiet}
        for name, found in (("mesh", ours), ("envoy", theirs))
        for number, value in enumerate(found)
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "ratio"),
    [
        ([8, 8, 8], [10, 10, 10], "pass", 0.8),
        ([10, 10, 10], [10, 10, 10], "pass", 1.0),
        ([11, 11, 11], [10, 10, 10], "miss", 1.1),
        ([9, 10.4, 9.5], [10, 10, 10], "noisy", 0.95),  # 14 % apart, on both sides of the bar
        ([7, 8, 9.9], [10, 10, 10], "pass", 0.8),  # as far apart, but they agree
        ([20, 8, 10], [25, 10, 12.5], "pass", 0.8),  # the machine was slower in a round, for both
        ([8, 8], [10, 10], "noisy", 0.8),  # too few
    ],
)
def test_a_bar_is_judged_by_medians_and_refused_where_rounds_contradict(
    ours: list[float], theirs: list[float], verdict: str, ratio: float
) -> None:
    judgement = judge(ROW, rounds(ours, theirs), ROW.bars[0])
    assert judgement is not None
    assert (judgement.verdict, round(judgement.ratio, 2)) == (verdict, ratio)


@pytest.mark.parametrize("trouble", [{"others": OTHERS + 0.01}, {"steal": 0.5}])
def test_nothing_is_concluded_while_others_have_the_processor(trouble: dict[str, float]) -> None:
    judgement = judge(ROW, rounds([8, 8, 8], [10, 10, 10], **trouble), ROW.bars[0])
    assert judgement is not None
    assert judgement.verdict == "noisy"
    assert "would be a pass" in judgement.why


def test_a_peer_that_is_missing_gives_no_verdict() -> None:
    assert judge(ROW, rounds([8, 8, 8], []), ROW.bars[0]) is None


def test_every_bar_of_a_row_is_about_a_peer_that_takes_part() -> None:
    for row in ROWS:
        assert {bar.peer for bar in (*row.bars, *row.aims)} <= set(row.peers), row.name


def test_heads_are_of_a_realistic_size_and_unlike_each_other() -> None:
    assert 500 <= len(request(Work())) <= 560
    assert HEAD.count(MARK) == 2  # in the path and in the request id
    assert request(Work("/chunked/", 16384, body=4096)).endswith(b"\r\n\r\n" + b"b" * 4096)


def test_the_docs_are_what_the_figures_say() -> None:
    page, drawing = render(json.loads(KEPT.read_text()), PAGE.read_text())
    how = 'make bench ARGS="--publish -o docs/bench/figures.json"'
    assert (page, drawing) == (PAGE.read_text(), DRAWING.read_text()), how
