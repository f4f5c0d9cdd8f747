"""The table of hops: live on a terminal, plain lines elsewhere.

A terminal of 80 columns has no room for all of it, and half a number is worse than none. So a column that says the same
of every hop moves into the line below the table, and where that is not enough whole columns give way, named there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sidecar.cli.console import print_table, remaining
from sidecar.cli.rows import HopRow
from sidecar.cli.sidecars import short

if TYPE_CHECKING:
    from rich.live import Live

COLUMNS = ("from", "to", "route", "verdict", "rule", "per s", "p50 ms", "p99 ms", "TLS group", "certificate")
NUMBERS = frozenset(("per s", "p50 ms", "p99 ms"))
NO_RULE = "(none allows it)"  # a caller's own sidecar refuses for other reasons: nothing declares that host, say
ALIKE = ("TLS group", "certificate")  # told once below the table where it is too narrow for them
GIVE_WAY = ("certificate", "TLS group", "rule", "per s", "p50 ms")  # what it does without then, first to last
GAP = 2  # blanks between two columns
HINT = "Ctrl-C ends it"


def cells(row: HopRow, now: float) -> tuple[str, ...]:
    """One row as text; `now` in seconds since the epoch."""
    data = row.data
    verdict = str(data["verdict"])
    if data.get("flag") not in (None, "", "-", "PD"):
        verdict += f" ({data['flag']})"
    return (
        short(str(data["from"])),
        short(str(data["to"])),
        str(data["route"]) or "-",
        verdict,
        str(data["rule"]) or (NO_RULE if data["verdict"] == "deny" and data["direction"] == "inbound" else "-"),
        "-" if row.rate is None else f"{row.rate:.1f}",
        f"{float(data['p50_ms']):.2f}",
        f"{float(data['p99_ms']):.2f}",
        str(data["tls_group"]) or "-",
        remaining(row.not_after, now),
    )


def print_rows(rows: Sequence[HopRow], now: float) -> None:
    """The table once, as plain text or by rich."""
    print_table(COLUMNS, [cells(row, now) for row in rows], colour=lambda n: style(rows[n]))


def style(row: HopRow) -> str:
    """Green for what is let through, red for what is not, yellow for what went wrong on the way."""
    if row.data["verdict"] == "deny":
        return "red"
    return "yellow" if row.data.get("flag") not in (None, "", "-") else "green"


class LiveTable:
    """The table drawn over itself on a terminal; elsewhere silent until `print_rows` is called."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self.on_terminal = sys.stdout.isatty()

    def __enter__(self) -> LiveTable:
        if self.on_terminal:
            from rich.live import Live

            self._live = Live(auto_refresh=False)  # no thread of its own: we draw when there is something new
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, rows: Sequence[HopRow], now: float) -> None:
        """Draw these rows in place of the last ones."""
        if self._live is not None:
            self._live.update(drawn(rows, now, self._live.console.width), refresh=True)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What of the table a terminal has room for, and the line below it."""

    columns: tuple[str, ...]
    lines: list[tuple[str, ...]]
    below: str


def fitted(lines: Sequence[tuple[str, ...]], width: int) -> Fitted:
    """The table of these lines, each with a cell for every one of COLUMNS, in so many characters or few more."""
    kept = list(COLUMNS)
    alike: list[str] = []
    left_out: list[str] = []
    for name in ALIKE:
        cells_of_it = {line[COLUMNS.index(name)] for line in lines}
        if len(cells_of_it) == 1 and _width(kept, lines) > width:
            kept.remove(name)
            alike.append(f"{name} {cells_of_it.pop()}")
    for name in GIVE_WAY:
        if name in kept and _width(kept, lines) > width:
            kept.remove(name)
            left_out.append(name)
    said = [
        f"every hop: {', '.join(alike)}" if alike else "",
        f"no room for: {', '.join(left_out)}" if left_out else "",
        HINT,
    ]
    places = [COLUMNS.index(name) for name in kept]
    return Fitted(tuple(kept), [tuple(line[n] for n in places) for line in lines], "; ".join(filter(None, said)))


def _width(kept: Sequence[str], lines: Sequence[tuple[str, ...]]) -> int:
    places = [COLUMNS.index(name) for name in kept]
    return sum(max(len(line[n]) for line in (COLUMNS, *lines)) for n in places) + GAP * (len(places) - 1)


def drawn(rows: Sequence[HopRow], now: float, width: int) -> Any:
    """The table for a terminal of so many columns, for rich to print."""
    from rich.table import Table
    from rich.text import Text

    table = fitted([cells(row, now) for row in rows], width)
    picture = Table(box=None, pad_edge=False, header_style="bold", caption=table.below, caption_justify="left")
    for column in table.columns:
        picture.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=True)
    for row, line in zip(rows, table.lines, strict=True):
        picture.add_row(*map(Text, line), style=style(row))
    return picture
