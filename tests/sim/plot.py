"""Each scenario as two small drawings, success and attempts over time: with budget and breakers, and without. SVG, by
hand, in the looks of `tests.bench.plot`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from tests.bench.plot import STYLE
from tests.sim.scenarios import Scenario
from tests.sim.world import Books

WIDTH, LEFT, PANEL, GAP, HEIGHT, HEAD, TOP = 720, 44, 300, 56, 90, 44, 66
STEP = 5  # seconds that one point of a line stands for
COLOURS = {"guarded": "#2f6fde", "bare": "#b5488f"}
LABELS = {"guarded": "with budget and breakers", "bare": "without"}
LINES = """
  .guarded, .bare { fill: none; stroke-width: 1.6 } .guarded { stroke: #2f6fde } .bare { stroke: #b5488f }
  .trouble { fill: #7a7f87; fill-opacity: .14 }"""


def draw(played: Sequence[tuple[Scenario, dict[str, Books]]]) -> str:
    """The whole drawing; of each scenario one row."""
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
        parts.append(_row(scenario, books, top))
        top += HEAD + HEIGHT + 24
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">'
    return "\n".join((head, f"<style>{STYLE}{LINES}</style>", *parts, "</svg>")) + "\n"


def _row(scenario: Scenario, books: dict[str, Books], top: int) -> str:
    title = f"{scenario.name}: {scenario.what}"
    most = max(each.amplification(at, at + STEP) for each in books.values() for at in _steps(scenario))
    ceiling = next((each for each in (1.5, 2, 3, 4, 30) if each >= most), most)
    return "\n".join(
        (
            f'<text class="title" x="12" y="{top + 12}">{escape(title)}</text>',
            _panel("requests answered well, %", scenario, books, LEFT, top, 100.0, _well),
            _panel("attempts per request", scenario, books, LEFT + PANEL + GAP, top, float(ceiling), _attempts),
        )
    )


def _well(books: Books, at: int) -> float:
    return 100 * books.rate(at, at + STEP)


def _attempts(books: Books, at: int) -> float:
    return books.amplification(at, at + STEP)


def _steps(scenario: Scenario) -> range:
    return range(0, scenario.seconds - STEP, STEP)


def _panel(
    what: str, scenario: Scenario, books: dict[str, Books], left: int, top: int, ceiling: float,
    value: Callable[[Books, int], float],
) -> str:  # fmt: skip
    upper, lower = top + HEAD - 8, top + HEAD - 8 + HEIGHT
    scale = PANEL / scenario.seconds
    begins, ends = scenario.trouble
    parts = [
        f'<text x="{left}" y="{top + 28}">{what}</text>',
        f'<rect class="trouble" x="{left + begins * scale:.1f}" y="{upper}" width="{(ends - begins) * scale:.1f}"'
        f' height="{HEIGHT}"/>',
        f'<polyline class="axis" fill="none" points="{left},{upper} {left},{lower} {left + PANEL},{lower}"/>',
        f'<text x="{left - 6}" y="{upper + 8}" text-anchor="end">{ceiling:g}</text>',
        f'<text x="{left - 6}" y="{lower}" text-anchor="end">0</text>',
        f'<text x="{left + PANEL}" y="{lower + 14}" text-anchor="end">{scenario.seconds} s</text>',
    ]
    for name in ("bare", "guarded"):
        points = " ".join(
            f"{left + (at + STEP / 2) * scale:.1f},{lower - HEIGHT * min(1.0, value(books[name], at) / ceiling):.1f}"
            for at in _steps(scenario)
        )
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    return "\n".join(parts)
