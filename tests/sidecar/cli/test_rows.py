"""Which rows `mesh up` shows, their rates, and how they look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.live import cells, print_rows, style
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
    assert cells(failed, 300.0)[3] == "permit (UC)"
    assert cells(failed, 300.0)[-2:] == ("-", "expired 1 m 40 s ago")
    assert (style(refused), style(failed), style(HopRow(a_row(), None))) == ("red", "yellow", "green")
    print_rows([refused, failed], 100.0)
    assert capsys.readouterr().out.splitlines()[1].startswith("web   orders  -")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(200, 200.0), ("1970-01-01T00:03:20Z", 200.0), ("", None), (None, None), (0, None), ("soon", None)],
)
def test_a_moment_is_read_from_a_number_or_a_text(value: object, seconds: float | None) -> None:
    assert moment(value) == seconds
