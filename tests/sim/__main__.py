"""Play all scenarios, print what came of them, and draw docs/traffic.svg: `python -m tests.sim [--hour]`."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

from tests.sim import throttling
from tests.sim.plot import draw
from tests.sim.scenarios import BARE, GUARDED, SCENARIOS, Scenario, fleet
from tests.sim.world import Books

DRAWING = Path(__file__).parents[2] / "docs" / "traffic.svg"
HEAD = "| bad day | | answered well, meanwhile | attempts per request | answered well, after | p99 |"


def row(scenario: Scenario, label: str, books: Books) -> str:
    """One line of the table."""
    begins, ends = scenario.trouble
    last = scenario.seconds - 3  # what comes then is not answered before the end
    after = f"{books.rate(ends, last):.1%}" if ends < last else ""
    waits = sorted(books.latencies)
    p99 = waits[int(len(waits) * 0.99)] if waits else float("nan")
    return (
        f"| {scenario.name} | {label} | {books.rate(begins, min(ends, last)):.1%} |"
        f" {books.amplification(begins, min(ends, last)):.2f} | {after} | {p99 * 1000:.0f} ms |"
    )


def main() -> None:
    """See above."""
    if "--hour" in sys.argv:
        began = perf_counter()
        books = fleet(GUARDED)
        print(f"1,000 endpoints, an hour, {sum(books.requests.values())} requests: {perf_counter() - began:.1f} s")
        print(f"answered well {books.rate(0, 3590):.3%}, attempts per request {books.amplification(0, 3590):.3f}")
        return
    played = [(scenario, {"guarded": scenario.play(GUARDED), "bare": scenario.play(BARE)}) for scenario in SCENARIOS]
    print(HEAD, "|---" * 6 + "|", sep="\n")
    for scenario, books in played:
        print(row(scenario, "without", books["bare"]))
        print(row(scenario, "**with**", books["guarded"]))
    throttled = {"guarded": throttling.play(throttled=True), "bare": throttling.play(throttled=False)}
    DRAWING.write_text(draw(played, throttled))


if __name__ == "__main__":
    main()
