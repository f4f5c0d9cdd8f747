"""Rows of the live table: keys, percentiles, rates between two readings, bounds."""

from __future__ import annotations

import random

import pytest

from sidecar.errors import ConnectFailed, DownstreamGone, PolicyDenied, RequestTimeout
from sidecar.telemetry import table as t
from sidecar.telemetry.series import IDLE_SECONDS
from sidecar.telemetry.table import Table
from tests.kit.hops import DEMO, ORDERS, WEB, a_hop

NOW = 1_700_000_000.0


def only(table: Table) -> dict:
    (row,) = table.read(0.0)["hops"]
    return row


def test_a_row_has_what_mesh_up_promises():
    table = Table()
    table.observe(a_hop(), NOW)
    row = only(table)
    assert row | {"p50_ms": 0, "p99_ms": 0} == {
        "direction": "inbound", "from": WEB.text, "to": ORDERS.text, "protocol": "http", "route": "/orders/{id}",
        "verdict": "permit", "rule": "web-reads", "flag": "-", "requests": 1, "failures": 0, "p50_ms": 0, "p99_ms": 0,
        "tls_version": "TLSv1.3", "tls_group": "X25519MLKEM768", "peer_not_after": "2027-01-15T08:00:00.000000Z",
        "last_seen": "2023-11-14T22:13:20.000000Z", "requests_delta": None, "failures_delta": None,
    }  # fmt: skip
    assert row["p50_ms"] == pytest.approx(20.0, rel=0.03)


@pytest.mark.parametrize(
    ("changes", "verdict", "failures"),
    [
        ({}, "permit", 0),
        ({"status": 404}, "permit", 0),
        ({"status": 503}, "permit", 1),
        ({"grpc_status": "OK"}, "permit", 0),
        ({"grpc_status": "NOT_FOUND"}, "permit", 0),
        ({"grpc_status": "INTERNAL"}, "permit", 1),
        ({"error": PolicyDenied(), "status": 403, "rule": ""}, "deny", 1),
        ({"error": ConnectFailed(), "status": 503}, "permit", 1),
        ({"error": DownstreamGone()}, "permit", 1),
        ({"error": RequestTimeout(), "rule": "", "attempts": 0}, "deny", 1),
    ],
)
def test_verdict_and_failures(changes, verdict, failures):
    table = Table()
    table.observe(a_hop(**changes), NOW)
    assert (only(table)["verdict"], only(table)["failures"]) == (verdict, failures)


def test_percentiles_are_within_their_promise():
    dice = random.Random(7)
    seconds = [dice.lognormvariate(-6, 1.5) for _ in range(5000)]
    table = Table()
    for each in seconds:
        table.observe(a_hop(started=0.0, ended=each), NOW)
    ordered = sorted(seconds)
    assert only(table)["p50_ms"] == pytest.approx(ordered[2499] * 1000, rel=0.03)
    assert only(table)["p99_ms"] == pytest.approx(ordered[4949] * 1000, rel=0.03)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 86_400.0])
def test_odd_durations_do_no_harm(seconds):
    table = Table()
    table.observe(a_hop(started=0.0, ended=seconds), NOW)
    assert only(table)["p99_ms"] >= 0


def test_rates_between_readings():
    table = Table()
    for _ in range(3):
        table.observe(a_hop(), NOW)
    first = table.read(10.0)
    for _ in range(5):
        table.observe(a_hop(status=503), NOW)
    table.observe(a_hop(peer=None), NOW)
    second = table.read(12.0, since=first["sequence"])
    assert second["interval_seconds"] == 2.0
    deltas = {row["from"]: (row["requests"], row["requests_delta"], row["failures_delta"]) for row in second["hops"]}
    assert deltas == {WEB.text: (8, 5, 5), "": (1, 1, 0)}


def test_a_forgotten_reading_gives_no_rate():
    table = Table()
    table.observe(a_hop(), NOW)
    first = table.read(0.0)["sequence"]
    for _ in range(t.MAX_READINGS):
        table.read(0.0)
    late = table.read(1.0, since=first)
    assert late["interval_seconds"] is None
    assert late["hops"][0]["requests_delta"] is None
    assert table.read(1.0, since=10**9)["interval_seconds"] is None


def test_rows_are_bounded(monkeypatch):
    monkeypatch.setattr(t, "MAX_ROWS", 10)
    table = Table()
    for number in range(25):
        table.observe(a_hop(peer=DEMO.id("sa", f"s{number}")), NOW)
    rows = {row["from"]: row["requests"] for row in table.read(0.0)["hops"]}
    assert len(rows) == 11
    assert rows["other"] == 15


def test_idle_rows_go_and_come_back_from_zero():
    table = Table()
    table.observe(a_hop(ended=100.0), NOW)
    sequence = table.read(100.0)["sequence"]
    assert table.sweep(100.0 + IDLE_SECONDS) == 0
    assert table.sweep(101.0 + IDLE_SECONDS) == 1
    assert len(table) == 0
    table.observe(a_hop(), NOW)
    assert table.read(900.0, since=sequence)["hops"][0]["requests_delta"] == 1
