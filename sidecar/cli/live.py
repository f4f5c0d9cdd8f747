"""The table of hops: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sidecar.cli.console import print_table, remaining
from sidecar.cli.rows import HopRow
from sidecar.cli.sidecars import short

if TYPE_CHECKING:
    from rich.live import Live

COLUMNS = ("from", "to", "route", "verdict", "rule", "per s", "p50 ms", "p99 ms", "TLS group", "certificate")
NUMBERS = frozenset(("per s", "p50 ms", "p99 ms"))
NO_RULE = "(none allows it)"


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
        str(data["rule"]) or (NO_RULE if data["verdict"] == "deny" else "-"),
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
            self._live.update(_drawn(rows, now), refresh=True)


def _drawn(rows: Sequence[HopRow], now: float) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, pad_edge=False, header_style="bold", caption="Ctrl-C ends everything", caption_justify="left"
    )
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=column != "rule")
    for row in rows:
        table.add_row(*(Text(cell) for cell in cells(row, now)), style=style(row))
    return table
