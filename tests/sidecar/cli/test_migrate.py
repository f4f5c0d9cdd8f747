"""`mesh migrate status`: what it says of plaintext, and with which exit code."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.root import run_command
from sidecar.telemetry.clock import rfc3339
from tests.sidecar.cli.conftest import Start

UNTIL = "2026-01-09T00:00:00.000000Z"


def connection(direction: str, listener: str, address: str, *, open_: int = 0, ago: float = 60.0) -> dict[str, Any]:
    now = time.time()
    return {
        "direction": direction, "listener": listener, "address": address, "connections": 3, "open": open_,
        "first": rfc3339(now - 7200), "last": rfc3339(now - ago),
    }  # fmt: skip


def status(run_dir: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = run_command(["migrate", "status", "--run-dir", str(run_dir), *options])
    return code, capsys.readouterr().out


def test_nobody_speaks_plaintext(run_dir: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start("web")
    assert status(run_dir, capsys) == (0, "Nobody has spoken plaintext since the sidecars began.\n")
    code, said = status(run_dir, capsys, "-o", "json")
    assert code == 0
    assert json.loads(said)["plaintext"] is False


def test_who_speaks_it_is_named_with_whose_leave(
    run_dir: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    orders, web = start("orders"), start("web")
    orders.plain["listeners"] = [
        {"name": "http", "address": "10.77.0.2:8080", "posture": "permissive", "declared_posture": "permissive",
         "until": UNTIL, "would_refuse": 12},
        {"name": "admin", "address": "10.77.0.2:81", "posture": "permissive", "declared_posture": "permissive",
         "until": UNTIL, "would_refuse": 0},
        {"name": "raw", "address": "10.77.0.2:5432", "posture": "strict"},
    ]  # fmt: skip
    orders.plain["connections"] = [
        connection("inbound", "http", "10.77.0.9", open_=1), connection("inbound", "raw", "10.77.0.8"),
        connection("inbound", "old", "10.77.0.8"),
    ]  # fmt: skip
    web.plain["connections"] = [connection("outbound", "redirect.passthrough", "10.77.0.9:5432")]
    web.plain["upstreams"] = [
        {"name": "mail", "endpoints": ["192.0.2.1:25"], "connections": 4, "open": 0, "last": rfc3339(time.time() - 30)},
        {"name": "quiet", "endpoints": ["192.0.2.2:25"], "connections": 0, "open": 0, "last": ""},
    ]
    web.plain["forgotten"] = 7
    code, said = status(run_dir, capsys)
    assert code == 1
    table = [" ".join(line.split()) for line in said.splitlines()]
    assert table[1:] == [
        "orders in from 10.77.0.9 http, permissive until 2026-01-09T00:00Z 1 3 2 h 0 m ago now",
        "orders in from 10.77.0.8 raw, strict now 0 3 2 h 0 m ago 1 m 0 s ago",
        "orders in from 10.77.0.8 old, which is gone 0 3 2 h 0 m ago 1 m 0 s ago",
        "web out to 10.77.0.9:5432 redirect.passthrough 0 3 2 h 0 m ago 1 m 0 s ago",
        "web out to mail (192.0.2.1:25) unmeshed: passthrough 0 4 - 30 s ago",
        "orders: listener http is permissive until 2026-01-09T00:00Z; strict would have refused 12 hops",
        "orders: listener admin is permissive until 2026-01-09T00:00Z; strict would have refused 0 hops: remove "
        "posture: and until:, nobody needs them",
        "web: 7 more, seen before these, had to make room; there is a bound",
        "Plaintext since the sidecars began: 5 kinds of connection, see above.",
    ]


def test_what_was_long_ago_can_be_left_out(run_dir: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    web = start("web")
    web.plain["connections"] = [connection("outbound", "redirect.passthrough", "10.77.0.9:5432", ago=600.0)]
    assert status(run_dir, capsys, "--within", "15m")[0] == 1
    assert status(run_dir, capsys, "--within", "5m") == (0, "Nobody has spoken plaintext in the last 5 m 0 s.\n")
    web.plain["connections"] = [connection("outbound", "redirect.passthrough", "10.77.0.9:5432", ago=600.0, open_=1)]
    assert status(run_dir, capsys, "--within", "5m")[0] == 1, "it is still open"


def test_nobody_to_ask_is_no_good_news(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(run_dir, capsys)[0] == 3
