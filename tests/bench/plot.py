"""The figures as a drawing: a panel for each row, a bar for each contestant, a dot for each round. SVG, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT, LINE, GAP, HEAD = 720, 90, 110, 22, 26, 44
COLOURS = {"mesh": "#2f6fde", "envoy": "#b5488f", "nginx": "#3a8f4d", "haproxy": "#c27a1a", "caddy": "#7a7f87",
           "without": "#9db7ea"}  # fmt: skip
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #57606a } .title { font-weight: 600; fill: #24292f }
  .axis { stroke: #d0d7de } .bar { fill-opacity: .75 } .round { fill: #24292f; fill-opacity: .55 }
  .limit { stroke: #cf222e; stroke-dasharray: 4 3; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) { text { fill: #9198a1 } .title { fill: #e6edf3 } .axis { stroke: #3d444d }
  .round { fill: #e6edf3 } }"""


class Panel(NamedTuple):
    """One row's figure."""

    title: str
    unit: str
    values: dict[str, Sequence[float]]  # contestant → its rounds, ours first
    limit: float | None = None  # what ours may be at most, by the bar


def draw(panels: Sequence[Panel], title: str) -> str:
    """The whole drawing."""
    y, parts = 40, [f'<text class="title" x="12" y="24">{escape(title)}</text>']
    for panel in panels:
        parts.append(_panel(panel, y))
        y += HEAD + LINE * len(panel.values) + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img"><style>{STYLE}</style>'
    return "\n".join((head, *parts, "</svg>")) + "\n"


def _panel(panel: Panel, top: int) -> str:
    most = max((*(each for rounds in panel.values.values() for each in rounds), panel.limit or 0.0)) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    bottom = top + HEAD - 8 + LINE * len(panel.values)
    parts = [
        f'<text class="title" x="12" y="{top + 14}">{escape(panel.title)}</text>',
        f'<text x="12" y="{top + 29}">{escape(panel.unit)}; bar: median, dots: rounds'
        + ("; dashed: our bar" if panel.limit else "") + "</text>",
        f'<line class="axis" x1="{LEFT}" y1="{top + HEAD - 10}" x2="{LEFT}" y2="{bottom}"/>',
    ]  # fmt: skip
    for number, (name, rounds) in enumerate(panel.values.items()):
        y = top + HEAD - 6 + LINE * number
        ordered = sorted(rounds)
        middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="bar" x="{LEFT}" y="{y}" width="{middle * scale:.1f}" height="{LINE - 6}"'
            f' fill="{COLOURS.get(name, "#888")}"/>',
            *(f'<circle class="round" cx="{LEFT + each * scale:.1f}" cy="{y + 8}" r="2"/>' for each in rounds),
            f'<text x="{LEFT + max(ordered) * scale + 8:.1f}" y="{y + 12}">{middle:.3g}</text>',
        ]
    if panel.limit:
        x = LEFT + panel.limit * scale
        parts.append(f'<line class="limit" x1="{x:.1f}" y1="{top + HEAD - 10}" x2="{x:.1f}" y2="{bottom}"/>')
    return "\n".join(parts)
