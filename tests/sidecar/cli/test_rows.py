"""Which rows `mesh up` shows, their rates, and how they look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sidecar.cli.live import COLUMNS, cells, drawn, fitted, print_rows, style
from sidecar.cli.rows import JSON_FIELDS, HopRow, Watcher, shown
from sidecar.cli.sidecars import Sidecar, moment
from tests.sidecar.cli.conftest import Start

WEB, ORDERS = "spiffe://demo.mesh/ns/default/sa/web", "spiffe://demo.mesh/ns/default/sa/orders"


def a_row(**changes: Any) -> dict[str, Any]:
    return {
        "direction": "inbound", "from": WEB, "to": ORDERS, "route": "/orders/{id}", "verdict": "permit",
        "rule": "reads", "flag": "-", "requests": 10, "failures": 0, "p50_ms": 1.25, "p99_ms": 9.5,
        "tls_version": "TLSv1.3", "tls_group": "X25519MLKEM768", "peer_not_after": "1970-01-01T00:03:20Z",
        "last_seen": "1970-01-01T00:00:00Z",
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("row", "is_shown"),
    [
        ({}, True),
        ({"verdict": "deny", "flag": "PD"}, True),
        ({"direction": "outbound"}, False),  # its receiver tells
        ({"direction": "outbound", "flag": "UC"}, False),  # it may have arrived
        ({"direction": "outbound", "flag": "UF"}, True),  # it cannot have
        ({"direction": "outbound", "verdict": "deny", "flag": "PD"}, True),
    ],
)
def test_each_hop_is_shown_once_by_who_judged_it(row: dict[str, Any], is_shown: bool) -> None:
    assert bool(shown([a_row(**row)])) is is_shown


def test_rates_come_from_two_readings_and_a_silent_sidecar_has_no_rows(start: Start, run_dir: Path) -> None:
    orders = start("orders")
    watcher = Watcher([Sidecar("orders", run_dir / "orders.sock"), Sidecar("gone", run_dir / "gone.sock")])
    orders.rows = [a_row(requests=10)]
    assert [row.rate for row in watcher.read(100.0)] == [None]
    orders.rows = [a_row(requests=30), a_row(verdict="deny", rule="", route="", requests=4)]
    assert [row.rate for row in watcher.read(102.0)] == [10.0, 2.0]
    orders.rows = [a_row(requests=30)]
    assert [row.rate for row in watcher.read(110.0)] == [2.0]


def test_a_row_is_told_in_short_names() -> None:
    row = HopRow(a_row(), 2.5)
    assert cells(row, 100.0) == (
        "web", "orders", "/orders/{id}", "permit", "reads", "2.5", "1.25", "9.50", "X25519MLKEM768", "1 m 40 s",
    )  # fmt: skip
    assert tuple(row.to_json()) == JSON_FIELDS


def test_a_refusal_says_that_no_rule_allows_it_and_a_failure_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    refused = HopRow(a_row(verdict="deny", rule="", route="", flag="PD"), None)
    failed = HopRow(a_row(flag="UC", tls_group=""), None)
    assert cells(refused, 100.0)[2:5] == ("-", "deny", "(none allows it)")
    at_home = HopRow(a_row(verdict="deny", rule="", route="", flag="PD", direction="outbound"), None)
    assert cells(at_home, 100.0)[2:5] == ("-", "deny", "-")  # no rule was asked
    assert cells(failed, 300.0)[3] == "permit (UC)"
    assert cells(failed, 300.0)[-2:] == ("-", "expired 1 m 40 s ago")
    assert (style(refused), style(failed), style(HopRow(a_row(), None))) == ("red", "yellow", "green")
    print_rows([refused, failed], 100.0)
    assert capsys.readouterr().out.splitlines()[1].startswith("web   orders  -")


THE_DEMO = [
    ("web", "orders", "/orders/{id}", "permit", "shop-reads", "15.0", "0.54", "112.40", "X25519MLKEM768", "23 h 59 m"),
    ("orders", "payments", "/charges", "permit", "orders-charge", "5.1", "3.72", "9.1", "X25519MLKEM768", "23 h 59 m"),
    ("web", "payments", "-", "deny", "(none allows it)", "1.0", "0.2", "0.3", "X25519MLKEM768", "23 h 59 m"),
]
TWO_ENDS = [*THE_DEMO[:2], (*THE_DEMO[2][:-1], "expired 5 m 0 s ago")]


@pytest.mark.parametrize(
    ("lines", "width", "gone", "below"),
    [
        (THE_DEMO, 120, set(), ""),
        (THE_DEMO, 80, {"TLS group", "certificate"}, "every hop: TLS group X25519MLKEM768, certificate 23 h 59 m; "),
        (
            TWO_ENDS, 100, {"TLS group", "certificate"},
            "every hop: TLS group X25519MLKEM768; no room for: certificate; ",
        ),
        (
            TWO_ENDS, 60, {"TLS group", "certificate", "rule", "per s"},
            "every hop: TLS group X25519MLKEM768; no room for: certificate, rule, per s; ",
        ),
    ],
)  # fmt: skip
def test_on_a_narrow_terminal_columns_give_way_whole(
    lines: list[tuple[str, ...]], width: int, gone: set[str], below: str
) -> None:
    table = fitted(lines, width)
    assert set(COLUMNS) - set(table.columns) == gone
    assert table.below == f"{below}Ctrl-C ends it"


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_name_and_no_number_is_cut_on_a_terminal(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [HopRow(a_row(rule="a-rule-of-some-length"), 15.0), HopRow(a_row(verdict="deny", rule="", route=""), 1.0)]
    Console(width=width).print(drawn(rows, 100.0, width))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(word in shown for word in ("web", "orders", "/orders/{id}", "permit", "deny", "9.50", "p99 ms"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(200, 200.0), ("1970-01-01T00:03:20Z", 200.0), ("", None), (None, None), (0, None), ("soon", None)],
)
def test_a_moment_is_read_from_a_number_or_a_text(value: object, seconds: float | None) -> None:
    assert moment(value) == seconds
