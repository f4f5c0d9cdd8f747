"""The screen of `mesh top`, by textual: tabs of tables that are drawn anew at each reading.

Reading asks sockets and may wait, so it runs in a thread; what it brings is shown in the event loop. The cursor stays
on its row, not on its line: who watches one endpoint must not lose it because another got busier.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Sparkline, Static, TabbedContent, TabPane

from sidecar.cli.top_read import Reading
from sidecar.cli.top_sheets import SHEETS, Row, Sheet

ARROWS = ("▲", "▼")


class Details(ModalScreen[None]):
    """All that is known of one row."""

    DEFAULT_CSS = "Details { align: center middle; } Details VerticalScroll { width: 80%; height: auto; max-height: 80%; border: round $primary; padding: 0 1; }"  # noqa: E501
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "app.pop_screen", "Back")]

    def __init__(self, row: Row) -> None:
        super().__init__()
        self._row = row

    def compose(self) -> ComposeResult:
        """Name and value, a line each."""
        width = max(map(len, self._row), default=0)
        lines = "\n".join(f"{name:<{width}}  {value}" for name, value in self._row.items())
        with VerticalScroll():
            yield Static(Text(lines))
        yield Footer()


class TopApp(App[None]):
    """`mesh top`."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "#totals { height: 1; } Sparkline { height: 2; } #filter { display: none; } TabbedContent, DataTable { height: 1fr; }"  # noqa: E501
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(sheet.key, f"open('{sheet.name}')", sheet.name, show=False) for sheet in SHEETS),
        Binding("s", "sort(1)", "Sort by next"),
        Binding("S", "sort(-1)", "previous", show=False),
        Binding("r", "turn", "Reverse"),
        Binding("slash", "search", "Filter"),
        Binding("escape", "all", "All", show=False),
        Binding("space", "pause", "Pause"),
        Binding("question_mark", "keys", "Keys"),
        Binding("q,ctrl+c", "quit", "Quit"),
    ]

    def __init__(self, read: Callable[[float], Reading], every: float) -> None:
        super().__init__()
        self._read = read
        self._every = every
        self._reading: Reading | None = None
        self._sorted = {sheet.name: (sheet.sort, sheet.descending) for sheet in SHEETS}
        self._needle = ""
        self._paused = False

    def compose(self) -> ComposeResult:
        """The line of totals, what happened lately, the sheets, and the keys."""
        yield Static("reading …", id="totals")
        yield Sparkline([0.0], id="lately")
        yield Input(placeholder="part of any cell; Esc shows all again", id="filter")
        with TabbedContent():
            for sheet in SHEETS:
                with TabPane(f"{sheet.key} {sheet.name}", id=sheet.name):
                    yield DataTable(id=f"table-{sheet.name}", cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self.title = "mesh top"
        self.set_interval(self._every, self._look)
        self._look()
        self._table(self._sheet).focus()

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if not self._paused:
            self.run_worker(self._ask, thread=True, exclusive=True, group="read", exit_on_error=False)

    def _ask(self) -> None:
        reading = self._read(time.monotonic())
        self.call_from_thread(self.show, reading)

    def show(self, reading: Reading) -> None:
        """Draw this reading."""
        self._reading = reading
        self.query_one("#lately", Sparkline).data = list(reading.history)
        self._fill(self._sheet)  # the others when they are opened
        self._say()

    def on_tabbed_content_tab_activated(self, _: TabbedContent.TabActivated) -> None:
        """Draw what has been covered until now."""
        self._fill(self._sheet)

    def _say(self) -> None:
        reading = self._reading
        if reading is None:
            return
        sidecars = reading.rows["Sidecars"]
        well = sum(row.get("state") == "ready" and not row.get("not_ready") for row in sidecars)
        said = [
            f"{well} of {len(sidecars)} sidecars ready", f"{reading.per_second:.1f} hops/s",
            f"{reading.failing:.1f} failing/s", f"filter: {self._needle}" if self._needle else "",
            "PAUSED" if self._paused else "",
        ]  # fmt: skip
        style = "" if well == len(sidecars) and not reading.failing else "yellow"
        self.query_one("#totals", Static).update(Text("  ·  ".join(filter(None, said)), style=style))

    # ---- the tables ------------------------------------------------------------------------------------------------

    @property
    def _sheet(self) -> Sheet:
        active = self.query_one(TabbedContent).active
        return next((sheet for sheet in SHEETS if sheet.name == active), SHEETS[0])

    def _table(self, sheet: Sheet) -> DataTable[Text]:
        return self.query_one(f"#table-{sheet.name}", DataTable)

    def _lines(self, sheet: Sheet) -> list[Row]:
        if self._reading is None:
            return []
        by, descending = self._sorted[sheet.name]
        return sheet.lines(self._reading.rows[sheet.name], sort=by, descending=descending, needle=self._needle)

    def _fill(self, sheet: Sheet) -> None:
        table, rows = self._table(sheet), self._lines(sheet)
        at, scrolled = self._under_cursor(table), table.scroll_offset
        by, descending = self._sorted[sheet.name]
        with self.batch_update():
            table.clear(columns=True)
            for number, column in enumerate(sheet.columns):
                mark = f" {ARROWS[descending]}" if number == by else ""
                table.add_column(Text(column.title + mark, justify="right" if column.number else "left"))
            for row in rows:
                style = sheet.style(row)
                table.add_row(
                    *(Text(column.text(row), style, justify="right" if column.number else "left")
                      for column in sheet.columns),
                    key=sheet.identity(row),
                )  # fmt: skip
            if not rows:
                nothing = f"Nothing has {self._needle!r} in it." if self._needle else sheet.nothing
                table.add_row(Text(nothing, "dim"), *(Text("") for _ in sheet.columns[1:]))
            if at is not None and at in table.rows:
                table.move_cursor(row=table.get_row_index(at), animate=False, scroll=False)
            table.scroll_to(scrolled.x, scrolled.y, animate=False)

    def _under_cursor(self, table: DataTable[Text]) -> str | None:
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    # ---- keys ------------------------------------------------------------------------------------------------------

    def action_open(self, name: str) -> None:
        """Show a sheet."""
        self.query_one(TabbedContent).active = name
        self._table(self._sheet).focus()

    def action_sort(self, step: int) -> None:
        """Sort by the next column."""
        sheet = self._sheet
        by = (self._sorted[sheet.name][0] + step) % len(sheet.columns)
        self._sorted[sheet.name] = (by, sheet.columns[by].number)
        self._fill(sheet)

    def action_turn(self) -> None:
        """Turn the order round."""
        sheet = self._sheet
        by, descending = self._sorted[sheet.name]
        self._sorted[sheet.name] = (by, not descending)
        self._fill(sheet)

    def action_search(self) -> None:
        """Ask for what rows must have."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow the tables while it is typed."""
        self._needle = event.value.strip()
        self._fill(self._sheet)
        self._say()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Keep it, and go back to the table."""
        self.query_one("#filter", Input).display = bool(self._needle)
        self._table(self._sheet).focus()

    def action_all(self) -> None:
        """Show everything again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self._table(self._sheet).focus()

    def action_pause(self) -> None:
        """Hold the picture still, or let it go on."""
        self._paused = not self._paused
        self._say()
        self._look()

    def action_keys(self) -> None:
        """Show or hide the list of keys."""
        from textual.widgets import HelpPanel

        if self.screen.query(HelpPanel):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """All that is known of this row."""
        sheet, key = self._sheet, event.row_key.value
        row = next((row for row in self._lines(sheet) if sheet.identity(row) == key), None)
        if row is not None:
            self.push_screen(Details(_flat(row)))


def _flat(row: Row) -> Row:
    """Nested documents as dotted names."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        inside = {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else None
        found |= {name: value} if inside is None else inside
    return found
