"""From figures to docs: a table in docs/performance.md and a drawing, both made of docs/bench/figures.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.bench.judge import LATENCY_SPREAD, OTHERS, SPREAD, STEAL, Figures, judge, median, values
from tests.bench.plot import Panel, draw
from tests.bench.rows import ROWS, UNITS, Metric, Row

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "performance.md"
KEPT, DRAWING = DOCS / "bench" / "figures.json", DOCS / "bench" / "rows.svg"
BEGIN, END = "<!-- made by `make bench ARGS=--publish` from docs/bench/figures.json: do not edit -->", "<!-- end -->"
NAMES = ("mesh", "nginx", "haproxy", "envoy", "caddy", "without")
ONE_MEASUREMENT = re.compile(r"\{\s+(\"round\"[^{}]*?)\s+\}")
DIGITS = 4  # significant, of what is kept


def publish(source: Path) -> int:
    """Keep the figures in docs/bench and make docs of them."""
    document = json.loads(source.read_text())
    for row in document["rows"].values():
        for figure in row["figures"]:
            for key, value in figure.items():
                if isinstance(value, float):
                    figure[key] = float(f"{value:.{DIGITS}g}")
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(dump(document))
    text, drawing = render(document, PAGE.read_text())
    PAGE.write_text(text)
    DRAWING.write_text(drawing)
    print(f"{PAGE}, {DRAWING}, {KEPT}")
    return 0


def dump(document: dict[str, Any]) -> str:
    """JSON with one measurement a line."""
    text = json.dumps(document, indent=1)
    return ONE_MEASUREMENT.sub(lambda found: "{" + re.sub(r"\s*\n\s*", " ", found[1]) + "}", text) + "\n"


def render(document: dict[str, Any], page: str) -> tuple[str, str]:
    """The page with its generated part replaced, and the drawing."""
    rows = [(row, document["rows"][row.name]) for row in ROWS if row.name in document["rows"]]
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n".join((*_environment(rows), "", *_table(rows), "", *_verdicts(rows), "", *_small_print(rows)))
    panels = [_panel(row, kept["figures"], metric) for row, kept in rows for metric in row.metrics]
    dates = sorted({kept["at"][:10] for _, kept in rows})
    drawing = draw(panels, f"mesh and its peers, {dates[0]}" if dates else "no figures")
    return f"{before}{BEGIN}\n{body}\n{END}{after}", drawing


def _environment(rows: list[tuple[Row, dict[str, Any]]]) -> list[str]:
    seen = {json.dumps(kept["environment"]): kept["environment"] for _, kept in rows}
    return [
        f"{each['python']}, {each['openssl']} (nginx, haproxy: {each['system_openssl']}, Envoy and Caddy: their own);"
        f" {each['cpu']}, {each['cpus']} cores, Linux {each['kernel']}."
        for each in seen.values()
    ]


def _table(rows: list[tuple[Row, dict[str, Any]]]) -> list[str]:
    known = {figure["name"] for _, kept in rows for figure in kept["figures"]}
    names = [name for name in NAMES if name in known or name != "without"]
    lines = [
        "| row | measured (UTC) | figure | " + " | ".join(names) + " |",
        "| --- | --- | --- |" + " ---: |" * len(names),
    ]
    for row, kept in rows:
        for metric in row.metrics:
            cells = [_cell(median(kept["figures"], name, metric)) for name in names]
            lines.append(f"| {row.name} | {kept['at']} | {UNITS[metric]} | " + " | ".join(cells) + " |")
    return lines


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _verdicts(rows: list[tuple[Row, dict[str, Any]]]) -> list[str]:
    lines = [
        "| row | bar | ours to it | said | aim | ours to it | said |",
        "| --- | --- | ---: | --- | --- | ---: | --- |",
    ]
    for row, kept in rows:
        bars = [_said(row, kept["figures"], bar) for bar in row.bars]
        aims = [_said(row, kept["figures"], aim) for aim in row.aims]
        for number in range(max(len(bars), len(aims))):
            cells = [*_at(bars, number), *_at(aims, number)]
            lines.append(f"| {row.name if not number else ''} | " + " | ".join(cells) + " |")
    return lines


def _at(found: list[tuple[str, str, str]], number: int) -> tuple[str, str, str]:
    return found[number] if number < len(found) else ("", "", "")


def _said(row: Row, figures: Figures, bar: Any) -> tuple[str, str, str]:
    judgement = judge(row, figures, bar)
    if judgement is None:
        return str(bar), "", "no figure"
    said = f"**{judgement.verdict}**" if judgement.verdict == "pass" else judgement.verdict
    return str(bar), f"{judgement.ratio:.2f}", said


def _small_print(rows: list[tuple[Row, dict[str, Any]]]) -> list[str]:
    lines = [
        f"Noisy: rounds whose ratios differ by more than {SPREAD:.0%} ({LATENCY_SPREAD:.0%} for latencies) and do not"
        f" agree on the bar; or measurements during which others used more than {OTHERS:.0%} of a processor, or the"
        f" hypervisor took more than {STEAL:.0%}.",
        "",
    ]
    lines += [f"- `{row.name}`: {row.title}." + (f" ({row.note}.)" if row.note else "") for row, _ in rows]
    for row, kept in rows:
        found = [judge(row, kept["figures"], bar) for bar in (*row.bars, *row.aims)]
        noise = dict.fromkeys(f"{each.bar.peer}: {each.why}" for each in found if each is not None and each.why)
        lines += [f"- `{row.name}`, beside {each}." for each in noise]
        lines += [f"- `{row.name}`: {name} was not installed." for name in kept["missing"]]
    return lines


def _panel(row: Row, figures: Figures, metric: Metric) -> Panel:
    found = {name: list(values(figures, name, metric).values()) for name in NAMES}
    bar = next((bar for bar in row.bars if bar.metric == metric), None)
    theirs = median(figures, bar.peer, metric) if bar else None
    limit = bar.limit * theirs if bar and theirs else None
    return Panel(f"{row.name}: {row.title}", UNITS[metric], {name: each for name, each in found.items() if each}, limit)
