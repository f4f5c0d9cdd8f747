"""`mesh drill`: each outage on a copy of a small mesh; what it says would fail is what D10, S5 and S6 promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.root import run_command

HOUR = 3600.0
MESH = """\
trust_domain: demo.mesh
ca: {address: "127.0.0.1:17012"}
services:
  web:
    outbound: [{to: app, listen: "127.0.0.1:17101"}]
    tls: {key: ed25519}
  app:
    inbound: [{name: main, port: 17100, app: "127.0.0.1:17102"}]
    allow: [{from: web}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)
    return path


def play(file: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert run_command(["drill", *words, "-f", str(file), "-o", "json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["ok"] == (code == 0)
    assert found["calls"] == ["web → app"]
    return found


def said(document: dict[str, Any]) -> str:
    return "\n".join(one["what"] for one in document["events"])


def test_eight_hours_without_the_ca_cost_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert play(file, capsys, "ca-down")["outages"] == []


def test_a_longer_one_fails_at_the_end_of_a_certificate_and_mends(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = play(file, capsys, "ca-down", "--for", "20h", code=1)
    (outage,) = found["outages"]
    assert "expired" in outage["why"]
    assert 11 * HOUR < outage["began"] < 20 * HOUR
    assert 20 * HOUR < outage["ended"] < 20 * HOUR + 150
    assert "web has a certificate again" in said(found)


@pytest.mark.parametrize(("skew", "code"), [("50s", 0), ("5m", 1)])
def test_a_clock_may_be_wrong_by_as_much_as_certificates_are_back_dated(
    file: Path, capsys: pytest.CaptureFixture[str], skew: str, code: int
) -> None:
    found = play(file, capsys, "clock-skew", "--skew", skew, "--ttl", "1h", code=code)
    assert ("nothing fails" in said(found)) is True
    for outage in found["outages"]:
        assert "not yet valid" in outage["why"]
        assert outage["ended"] - outage["began"] <= 300 - 60 + 2  # until what was issued a minute back has begun


def test_an_issuing_ca_that_nobody_replaces(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = play(file, capsys, "expired-issuer", code=1)
    (outage,) = found["outages"]
    assert HOUR - 5 < outage["ended"] - outage["began"] < HOUR + 300
    for words in ("replaced by nobody", "being cut short", "issuing CA's certificate is expired", "taken over at once"):
        assert words in said(found)


def test_a_rotation_of_the_root_costs_nothing_but_to_whom_it_skips(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = play(file, capsys, "root-rotation")
    assert [line.split(":")[0] for line in said(found).splitlines()] == ["announced", "switched", "withdrawn", "done"]
    lost = play(file, capsys, "root-rotation", "--lost", "web", code=1)
    assert "it waits for web alone" in said(lost)
    assert "the root is not in its bundle" in lost["outages"][0]["why"]


def test_as_a_table_and_refused(file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_command(["drill", "ca-down", "-f", str(file)]) == 0
    assert "4 handshakes for 1 call: no call would fail" in capsys.readouterr().out
    assert run_command(["drill", "ca-down", "--for", "30h", "-f", str(file)]) == 1
    assert ": 1 call would fail" in capsys.readouterr().out
    assert run_command(["drill", "root-rotation", "--lost", "nobody", "-f", str(file)]) == 2
    assert run_command(["drill", "ca-down", "--ttl", "1s", "-f", str(file)]) == 2
    assert run_command(["drill", "ca-down", "-f", str(tmp_path / "none.yaml")]) == 2
    file.write_text(MESH.replace('outbound: [{to: app, listen: "127.0.0.1:17101"}]', "env: {}"))
    assert run_command(["drill", "ca-down", "-f", str(file)]) == 2
    assert "calls another" in capsys.readouterr().err
