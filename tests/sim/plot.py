"""Each scenario as two small drawings, success and attempts over time: with budget and breakers, and without. SVG, by
hand, in the looks of `tests.bench.plot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.bench.plot import STYLE
from tests.sim import throttling
from tests.sim.scenarios import Scenario
from tests.sim.throttling import Waits
from tests.sim.world import Books

WIDTH, LEFT, PANEL, GAP, HEIGHT, HEAD, TOP = 720, 44, 300, 56, 90, 44, 66
STEP = 5  # seconds that one point of a line stands for
LABELS = {"guarded": "with budget and breakers", "bare": "without"}
LINES = """
  .guarded, .bare { fill: none; stroke-width: 1.6 } .guarded { stroke: #2f6fde } .bare { stroke: #b5488f }
  .trouble { fill: #7a7f87; fill-opacity: .14 }"""


def draw(played: Sequence[tuple[Scenario, dict[str, Books]]], throttled: dict[str, dict[str, Waits]]) -> str:
    """The whole drawing; of each scenario one row, and one of throttling."""
    parts = ['<text class="title" x="12" y="24">Bad days, simulated</text>']
    x = 12
    for name, label in LABELS.items():
        parts.append(f'<line class="{name}" x1="{x}" y1="40" x2="{x + 22}" y2="40"/>')
        parts.append(f'<text x="{x + 28}" y="44">{label}</text>')
        x += 200
    parts.append(f'<rect class="trouble" x="{x}" y="34" width="22" height="12"/>')
    parts.append(f'<text x="{x + 28}" y="44">trouble</text>')
    top = TOP
    for scenario, books in played:
        parts.append(_scenario(scenario, books, top))
        top += HEAD + HEIGHT + 24
    parts.append(_throttling(throttled, top))
    top += HEAD + HEIGHT + 24
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">'
    return "\n".join((head, f"<style>{STYLE}{LINES}</style>", *parts, "</svg>")) + "\n"


def _scenario(scenario: Scenario, books: dict[str, Books], top: int) -> str:
    steps = range(0, scenario.seconds - STEP, STEP)
    well = {name: [100 * each.rate(at, at + STEP) for at in steps] for name, each in books.items()}
    attempts = {name: [each.amplification(at, at + STEP) for at in steps] for name, each in books.items()}
    most = max(max(each) for each in attempts.values())
    ceiling = next((each for each in (1.5, 2.0, 3.0, 4.0, 30.0) if each >= most), most)
    span = (scenario.seconds, STEP)
    return "\n".join(
        (
            f'<text class="title" x="12" y="{top + 12}">{escape(f"{scenario.name}: {scenario.what}")}</text>',
            _panel("requests answered well, %", well, 100.0, LEFT, top, span, scenario.trouble),
            _panel("attempts per request", attempts, ceiling, LEFT + PANEL + GAP, top, span, scenario.trouble),
        )
    )


def _throttling(waits: dict[str, dict[str, Waits]], top: int) -> str:
    steps = range(0, throttling.SECONDS, throttling.STEP)
    theirs = {name: [each["abusive"].percentile(at, 0.5) for at in steps] for name, each in waits.items()}
    others = {name: [each["good"].percentile(at, 0.99) for at in steps] for name, each in waits.items()}
    span = (throttling.SECONDS, throttling.STEP)
    return "\n".join(
        (
            f'<text class="title" x="12" y="{top + 12}">Throttling (blue: with, red: without): one caller asks for more'
            " and more</text>",
            _panel("its median, ms (0: blocked)", theirs, 2500.0, LEFT, top, span, (0, 0)),
            _panel("p99 of the other caller, ms", others, 2500.0, LEFT + PANEL + GAP, top, span, (0, 0)),
        )
    )


def _panel(
    what: str, lines: dict[str, list[float]], ceiling: float, left: int, top: int, span: tuple[int, int],
    trouble: tuple[int, int],
) -> str:  # fmt: skip
    upper, lower = top + HEAD - 8, top + HEAD - 8 + HEIGHT
    seconds, step = span
    scale = PANEL / seconds
    begins, ends = trouble
    parts = [
        f'<text x="{left}" y="{top + 28}">{what}</text>',
        f'<rect class="trouble" x="{left + begins * scale:.1f}" y="{upper}" width="{(ends - begins) * scale:.1f}"'
        f' height="{HEIGHT}"/>',
        f'<polyline class="axis" fill="none" points="{left},{upper} {left},{lower} {left + PANEL},{lower}"/>',
        f'<text x="{left - 6}" y="{upper + 8}" text-anchor="end">{ceiling:g}</text>',
        f'<text x="{left - 6}" y="{lower}" text-anchor="end">0</text>',
        f'<text x="{left + PANEL}" y="{lower + 14}" text-anchor="end">{seconds} s</text>',
    ]
    for name in ("bare", "guarded"):
        points = " ".join(
            f"{left + (number + 0.5) * step * scale:.1f},{lower - HEIGHT * min(1.0, value / ceiling):.1f}"
            for number, value in enumerate(lines[name])
        )
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    return "\n".join(parts)
