"""`mesh top`: its sheets, its rates, and its screen driven by keys."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from sidecar.cli.root import run_command
from sidecar.cli.top_app import Details, TopApp
from sidecar.cli.top_limits import limit_rows
from sidecar.cli.top_read import Reader, Reading, detection_rows
from sidecar.cli.top_sheets import DETECTIONS, ENDPOINTS, HOPS, LIMITS, SHEETS, SIDECARS, UPSTREAMS, bar
from tests.sidecar.cli.conftest import FakeInspect, Start


def a_hop(caller: str, called: str, **more: Any) -> dict[str, Any]:
    name = "spiffe://demo.mesh/ns/default/sa/{}".format
    return {
        "direction": "inbound", "from": name(caller), "to": name(called), "route": "/orders/{id}",
        "verdict": "permit", "rule": "reads", "flag": "-", "requests": 10, "failures": 0, "p50_ms": 1.0, "p99_ms": 2.0,
    } | more  # fmt: skip


def an_endpoint(port: int, state: str = "available", **more: Any) -> dict[str, Any]:
    return {
        "upstream": "orders", "endpoint": f"10.0.0.1:{port}", "state": state, "latency_ms": 1.5, "active": 0,
        "back_in_s": None, "connections": 1, "retries_left": 9,
    } | more  # fmt: skip


# ---- sheets ----------------------------------------------------------------------------------------------------------


def test_rows_are_sorted_by_number_or_text_and_turned() -> None:
    rows = [an_endpoint(port, latency_ms=latency) for port, latency in ((1, 9.0), (2, 10.0), (3, 1.25))]
    by_latency = [column.title for column in ENDPOINTS.columns].index("latency ms")

    def ports(**how: Any) -> list[str]:
        return [row["endpoint"][-1] for row in ENDPOINTS.lines(rows, **how)]

    assert ports(sort=by_latency, descending=False) == ["3", "1", "2"]
    assert ports(sort=by_latency, descending=True) == ["2", "1", "3"]
    assert ports(sort=2, descending=False) == ["1", "2", "3"]


@pytest.mark.parametrize(("needle", "left"), [("", 2), ("OPEN", 1), ("for 3 s", 1), ("10.0.0.1", 2), ("no such", 0)])
def test_a_filter_looks_into_every_cell_whatever_its_case(needle: str, left: int) -> None:
    rows = [an_endpoint(1), an_endpoint(2, "open", back_in_s=3.0)]
    assert len(ENDPOINTS.lines(rows, sort=0, descending=False, needle=needle)) == left


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_a_sidecar_of_another_version_leaves_dashes(sheet: Any) -> None:
    row = {"service": "web"}
    assert [row] == sheet.lines([row, *[]], sort=sheet.sort, descending=True)
    cells = [column.text(row) for column in sheet.columns if column.title not in ("from", "to", "verdict", "state")]
    assert set(cells) <= {"-", "web"}
    assert isinstance(sheet.identity(row), str)
    assert isinstance(sheet.style(row), str)


@pytest.mark.parametrize(
    ("sheet", "row", "style"),
    [
        (HOPS, {"verdict": "permit", "flag": "-"}, ""),
        (HOPS, {"verdict": "permit", "flag": "UF"}, "yellow"),
        (HOPS, {"verdict": "deny", "flag": "PD"}, "red"),
        (UPSTREAMS, {"available": 2, "endpoints": 2, "retries_left": 3}, ""),
        (UPSTREAMS, {"available": 2, "endpoints": 2, "retries_left": 0}, "yellow"),
        (UPSTREAMS, {"available": 1, "endpoints": 2}, "yellow"),
        (UPSTREAMS, {"available": 0, "endpoints": 2}, "red"),
        (ENDPOINTS, {"state": "ejected"}, "red"),
        (ENDPOINTS, {"state": "half-open"}, "yellow"),
        (LIMITS, {"refused_now": 0.0}, ""),
        (LIMITS, {"refused_now": 2.0}, "red"),
        (LIMITS, {"refused_now": 0.0, "alone": "refused"}, "yellow"),
        (LIMITS, {"blocked": 1, "alone": "refused"}, "red"),
        (SIDECARS, {"state": "ready"}, ""),
        (SIDECARS, {"state": "ready", "not_ready": ["expired"]}, "red"),
        (SIDECARS, {"state": "draining"}, "yellow"),
        (SIDECARS, {"state": "unreachable"}, "red"),
    ],
)
def test_colours_say_what_ails(sheet: Any, row: dict[str, Any], style: str) -> None:
    assert sheet.style(row) == style


@pytest.mark.parametrize(
    ("share", "drawn"), [(0.0, "░" * 10), (0.5, "█" * 5 + "░" * 5), (7.0, "█" * 10), (-1, "░" * 10)]
)
def test_a_bar_stays_within_its_ten_places(share: float, drawn: str) -> None:
    assert bar(share).startswith(drawn)


# ---- readings --------------------------------------------------------------------------------------------------------


def test_rates_are_of_what_came_between_two_readings(run_dir: Path, start: Start) -> None:
    orders = start("orders")
    orders.rows = [a_hop("web", "orders", requests=100, failures=1)]
    reader = Reader(run_dir)
    assert reader.read(10.0).rows["Hops"][0]["rate"] is None
    orders.rows = [a_hop("web", "orders", requests=150, failures=3)]
    reading = reader.read(12.0)
    assert (reading.rows["Hops"][0]["rate"], reading.per_second, reading.failing) == (25.0, 25.0, 1.0)
    orders.rows = [a_hop("web", "orders", requests=2, failures=0)]  # it was started anew
    assert reader.read(13.0).per_second == 0.0


def test_a_silent_sidecar_is_a_row_and_hides_nobody(run_dir: Path, start: Start) -> None:
    web = start("web")
    web.balanced = {"endpoints": [an_endpoint(1)], "upstreams": [{"upstream": "orders", "available": 1}]}
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(run_dir / "gone.sock"))
        reading = Reader(run_dir).read(1.0)
    states = {row["service"]: row["state"] for row in reading.rows["Sidecars"]}
    assert states == {"web": "ready", "gone": "unreachable"}
    assert [row["service"] for row in reading.rows["Endpoints"] + reading.rows["Upstreams"]] == ["web", "web"]


def test_a_sidecar_that_comes_later_is_found(run_dir: Path, start: Start) -> None:
    start("web")
    reader = Reader(run_dir)
    assert len(reader.read(1.0).rows["Sidecars"]) == 1
    start("orders")
    assert len(reader.read(2.0).rows["Sidecars"]) == 2


# ---- the command -----------------------------------------------------------------------------------------------------


def test_without_a_terminal_it_prints_once(run_dir: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    web = start("web")
    web.rows = [a_hop("web", "orders", direction="outbound", verdict="deny", flag="NR")]
    web.balanced["endpoints"] = [an_endpoint(1, "open", back_in_s=4.5)]
    assert run_command(["top", "--every", "50ms", "--run-dir", str(run_dir)]) == 0
    said = capsys.readouterr().out
    assert "deny (NR)" in said
    assert "open for 4.5 s" in said
    assert "No limit is declared" in said
    assert run_command(["top", "--every", "50ms", "--run-dir", str(run_dir), "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"hops", "upstreams", "endpoints", "limits", "sidecars", "detections", "hops_per_second"} <= document.keys()
    assert document["endpoints"][0]["state"] == "open"


def test_nobody_to_watch_is_exit_3(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["top", "--run-dir", str(run_dir)]) == 3
    assert "no sidecar is running here" in capsys.readouterr().err


# ---- the screen ------------------------------------------------------------------------------------------------------


def a_reading(endpoints: list[dict[str, Any]], hops: list[dict[str, Any]] | None = None) -> Reading:
    web = FakeInspect("web").status()
    rows = {sheet.name: [] for sheet in SHEETS}
    rows |= {"Endpoints": endpoints, "Hops": hops or [], "Sidecars": [web]}
    return Reading(rows, 12.0, 0.0, (1.0, 12.0))


def drive(app: TopApp, story: Callable[[Pilot[None]], Awaitable[None]]) -> None:
    async def main() -> None:
        async with app.run_test(size=(120, 30)) as pilot:
            await _shown(app, pilot)
            await story(pilot)

    asyncio.run(main())


async def _shown(app: TopApp, pilot: Pilot[None]) -> None:
    """Until the first reading is drawn."""
    for _ in range(200):
        if "hops/s" in _totals(app):
            return
        await pilot.pause(0.01)
    raise AssertionError(_totals(app))


def _totals(app: TopApp) -> str:
    return str(app.query_one("#totals", Static).render())


def _column(app: TopApp, sheet: str, number: int) -> list[str]:
    table = app.query_one(f"#table-{sheet}", DataTable)
    return [str(table.get_row_at(row)[number]) for row in range(table.row_count)]


def test_keys_open_sheets_sort_filter_and_show_a_row() -> None:
    latencies = ((1, "available", 5.0), (2, "open", 50.0), (3, "available", 9.0))
    endpoints = [an_endpoint(port, state, latency_ms=latency) for port, state, latency in latencies]
    app = TopApp(lambda _: a_reading(endpoints, [a_hop("web", "orders")]), 0.2)

    async def story(pilot: Pilot[None]) -> None:
        assert "1 of 1 sidecars ready" in _totals(app)
        await pilot.press("3", "s", "s", "s", "s")
        assert _column(app, "Endpoints", 4) == ["50.0", "9.0", "5.0"]
        await pilot.press("r")
        assert _column(app, "Endpoints", 4) == ["5.0", "9.0", "50.0"]
        await pilot.press("slash", "o", "p", "e", "n", "enter")
        assert _column(app, "Endpoints", 2) == ["10.0.0.1:2"]
        assert "filter: open" in _totals(app)
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, Details)
        await pilot.press("escape", "escape")
        assert len(_column(app, "Endpoints", 2)) == 3

    drive(app, story)


def test_the_cursor_stays_on_its_row_and_a_pause_holds_the_picture() -> None:
    slow = [5.0]
    app = TopApp(lambda _: a_reading([an_endpoint(1, latency_ms=slow[0]), an_endpoint(2, latency_ms=7.0)]), 0.2)

    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("3", "s", "s", "s", "s")
        table = app.query_one("#table-Endpoints", DataTable)
        assert _column(app, "Endpoints", 2) == ["10.0.0.1:2", "10.0.0.1:1"]
        table.move_cursor(row=1)
        slow[0] = 70.0
        await pilot.pause(0.5)
        assert _column(app, "Endpoints", 2) == ["10.0.0.1:1", "10.0.0.1:2"]
        assert table.cursor_row == 0
        await pilot.press("space")
        await pilot.pause(0.3)
        slow[0] = 1.0
        await pilot.pause(0.5)
        assert "PAUSED" in _totals(app)
        assert _column(app, "Endpoints", 4)[0] == "70.0"

    drive(app, story)


def test_what_is_in_a_name_is_no_markup() -> None:
    app = TopApp(lambda _: a_reading([an_endpoint(1, zone="[red]z[/red]")]), 0.2)

    async def story(pilot: Pilot[None]) -> None:
        await pilot.press("3", "enter")
        await pilot.pause()
        assert _column(app, "Endpoints", 8) == ["[red]z[/red]"]

    drive(app, story)


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_rates_quotas_and_tcp_limits_are_rows_of_one_sheet() -> None:
    hot = {"key": "spiffe://demo.mesh/ns/default/sa/web", "remaining": 2, "full_in_s": 1.0}
    rate = {"limit": "reads", "per": "caller", "rate": "10/s", "burst": 10, "shared": "redis", "keys": 3,
            "hottest": [hot], "refused": 7, "delayed": 0, "waiting": 0, "blocked": 0}  # fmt: skip
    keys = [{"key": "k", "shown": "web", "used": 75, "left": 25}]
    quota = {"name": "day", "limit": 100, "window": "d", "per": "caller", "window_end": "2026-11-23T00:00:00Z",
             "keys": keys}  # fmt: skip
    tcp = {"name": "few", "per": "caller", "key": "web", "open": 4, "connections": 5, "bandwidth": 2**20}
    rows = limit_rows({"limits": [rate], "redis": {"problem": "refused"}}, {"quotas": [quota], "tcp_limits": [tcp]})
    assert [(row["kind"], row["limit"], round(row["used"], 3)) for row in rows] == [
        ("rate", "reads", 0.8), ("quota", "day", 0.75), ("tcp", "few", 0.8),
    ]  # fmt: skip
    assert [row["counted"] for row in rows] == ["here alone", "here", "here"]
    shown = LIMITS.lines([{"service": "orders", **row} for row in rows], sort=0, descending=False, needle="10/s")
    assert [LIMITS.columns[4].text(row) for row in shown] == ["web"]


def test_of_an_older_sidecar_without_limits_there_is_no_row() -> None:
    assert limit_rows({}, {}) == []
    assert [row["keys"] for row in limit_rows({}, {"quotas": [{"name": "day", "limit": 5, "keys": []}]})] == [0]


# ---- detections ------------------------------------------------------------------------------------------------------


def test_who_is_held_stands_first_with_the_detection_that_led_to_it() -> None:
    one = {"caller": "spiffe://demo.mesh/ns/default/sa/web", "user": "", "detector": "stuffing", "what": "40 answers",
           "action": "block"}  # fmt: skip
    other = {**one, "detector": "spikes", "action": "record", "at": "2026-11-23T05:00:01Z", "route": ""}
    answer = {
        "held": [{**one, "since": "2026-11-23T05:00:00Z", "seconds_left": 250.0, "refused": 7},
                 {**one, "detector": "enumeration", "since": "2026-11-22T05:00:00Z", "seconds_left": 9.0}],
        "found": [other, {**one, "at": "2026-11-23T05:00:00Z", "route": "/login"},
                  {**one, "at": "2026-11-23T04:00:00Z", "route": "/login"}],
    }  # fmt: skip
    rows = DETECTIONS.lines(
        detection_rows({"orders": {"/detections": answer}}), sort=DETECTIONS.sort, descending=DETECTIONS.descending
    )
    assert [(row["detector"], row.get("seconds_left"), DETECTIONS.style(row)) for row in rows] == [
        ("stuffing", 250.0, "red"), ("enumeration", 9.0, "red"), ("spikes", None, "yellow"),
        ("stuffing", None, "yellow"),
    ]  # fmt: skip
    assert len({DETECTIONS.identity(row) for row in rows}) == 4
    assert [column.text(rows[0]) for column in DETECTIONS.columns][:4] == ["05:00:00", "orders", "web", "-"]
    assert detection_rows({"orders": {}}) == []
