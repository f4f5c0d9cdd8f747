"""From rounds to a verdict: medians, ratios within a round, and whether the machine let anything be concluded."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.rows import Bar, Metric, Row

SPREAD = 0.10  # ratios of one pair that differ by more, from round to round, conclude nothing
LATENCY_SPREAD = 0.50  # the same for latencies, whose tails are mostly the machine's
OTHERS = 0.10  # of a processor: more work of others during a measurement makes it worth nothing
STEAL = 0.02  # of a processor: time that the hypervisor gave to another guest

Figures = Sequence[dict[str, Any]]


def disturbed(figure: dict[str, Any]) -> str:
    """Why a measurement is not to be trusted; empty where it is."""
    if figure["others"] > OTHERS:
        return f"others used {figure['others']:.0%} of a processor ({figure['busiest_other']})"
    if figure["steal"] > STEAL:
        return f"{figure['steal']:.1%} of a processor was stolen by the hypervisor"
    return ""


@dataclass(frozen=True)
class Judgement:
    """What a row says of one bar."""

    bar: Bar
    ratio: float  # ours to the peer's, the median of the rounds'
    spread: float  # of those ratios: (largest - smallest) / median
    verdict: str  # pass, miss or noisy
    why: str = ""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.ratio:.2f} × {self.bar.peer} (bar {self.bar})" + (
            f"; {self.why}" if self.why else ""
        )


def values(figures: Figures, name: str, metric: Metric) -> dict[int, float]:
    """A contestant's figures by round."""
    return {f["round"]: f[metric] for f in figures if f["name"] == name and f.get(metric) is not None}


def median(figures: Figures, name: str, metric: Metric) -> float | None:
    """The median of the rounds; None where there is no figure."""
    found = values(figures, name, metric)
    return statistics.median(found.values()) if found else None


def ratios(figures: Figures, peer: str, metric: Metric) -> list[float]:
    """Ours to the peer's, for each round that has both."""
    ours, theirs = values(figures, "mesh", metric), values(figures, peer, metric)
    return [ours[number] / theirs[number] for number in ours if theirs.get(number)]


def judge(row: Row, figures: Figures, bar: Bar) -> Judgement | None:
    """Whether a bar holds; None where the peer did not take part. Where all rounds agree, noise does not matter."""
    found = ratios(figures, bar.peer, bar.metric)
    if not found:
        return None
    ours, theirs = median(figures, "mesh", bar.metric), median(figures, bar.peer, bar.metric)
    assert ours is not None
    assert theirs is not None
    ratio = ours / theirs
    spread = (max(found) - min(found)) / statistics.median(found)
    said = "pass" if ratio <= bar.limit else "miss"
    why = _noise(row, figures, bar, found, spread)
    return Judgement(bar, ratio, spread, "noisy" if why else said, f"{why}; it would be a {said}" if why else "")


def _noise(row: Row, figures: Figures, bar: Bar, found: list[float], spread: float) -> str:
    if len(found) < 3:
        return f"{len(found)} rounds conclude nothing"
    bad = [reason for f in figures if f["name"] in ("mesh", bar.peer) and (reason := disturbed(f))]
    if len(bad) * 3 > len(found):
        return f"{len(bad)} measurements disturbed: {bad[-1]}"
    limit = LATENCY_SPREAD if row.metric == "p50_ms" else SPREAD
    agree = all(each <= bar.limit for each in found) or all(each > bar.limit for each in found)
    if spread > limit and not agree:
        return f"rounds differ by {spread:.0%} (limit {limit:.0%}) and do not agree"
    return ""
