"""`mesh drill`: each outage on a copy of a small mesh; what it says would fail is what D10, S5 and S6 promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ca.config import CaSettings
from ca.create import create_ca
from ca.enrolling import register
from ca.entries import NewEntry, parse_identity
from ca.store.base import Store
from certs.keys import RANDOM_KDF_ROUNDS
from certs.spiffe import TrustDomain
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


def a_ca(folder: Path, domain: str = "demo.mesh", **ttl: float) -> str:
    """A CA with entries for these services."""
    own = TrustDomain.parse(domain)
    settings = CaSettings(own, kdf_rounds=RANDOM_KDF_ROUNDS)

    def furnish(_: Path, store: Store, __: object) -> None:
        for name, life in ttl.items():
            register(store, own, NewEntry(parse_identity(name, own), (), life), 0.0)

    create_ca(folder, settings, b"a long passphrase", 0.0, issuer_ttl=10 * 24 * HOUR, furnish=furnish)
    return str(folder)


def test_lifetimes_are_the_default_or_as_said_or_those_of_the_entries(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    default = {"seconds": 24 * HOUR, "source": "default"}
    assert play(file, capsys, "ca-down")["lifetimes"] == {"web": default, "app": default}
    said_so = {"seconds": 2 * HOUR, "source": "--ttl"}
    assert play(file, capsys, "ca-down", "--ttl", "2h", code=1)["lifetimes"] == {"web": said_so, "app": said_so}
    ca = a_ca(tmp_path / "ca", web=HOUR)
    before = sorted(tmp_path.rglob("*"))
    found = play(file, capsys, "ca-down", "--ca-dir", ca, code=1)
    assert found["lifetimes"] == {"web": {"seconds": HOUR, "source": "entry"}, "app": default}
    (outage,) = found["outages"]
    assert 0.5 * HOUR < outage["began"] <= HOUR  # web's own, while app's certificate lives on
    assert sorted(tmp_path.rglob("*")) == before


def test_an_issuing_ca_lives_as_long_as_that_of_the_ca_at_hand(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = play(file, capsys, "expired-issuer", "--ca-dir", a_ca(tmp_path / "ca", web=HOUR, app=2 * HOUR), code=1)
    assert 10 * 24 * HOUR - 2 * HOUR < found["outages"][0]["began"] < 10 * 24 * HOUR + 2


def test_people_are_told_which_lifetimes_count(file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def first(*words: str, code: int = 0) -> list[str]:
        assert run_command(["drill", "root-rotation", "-f", str(file), *words]) == code
        return capsys.readouterr().out.splitlines()[:2]

    assert first() == ["Certificates live for 1d: the CA's default; --ca-dir takes the entries' own.", ""]
    assert first("--ttl", "2h") == ["Certificates live for 2h, by --ttl.", ""]
    assert first("--ca-dir", a_ca(tmp_path / "ca", web=HOUR)) == [
        "web: certificates live for 1h, by its entry",
        "app: certificates live for 1d, the CA's default: it has no entry",
    ]


def test_a_ca_that_is_not_there_or_of_another_mesh(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for words, says in (
        (["--ca-dir", str(tmp_path / "none")], "Name the CA's folder"),
        (["--ca-dir", a_ca(tmp_path / "other", "other.mesh")], "holds the CA of other.mesh"),
        (["--ca-dir", "x", "--ttl", "1h"], "exclude each other"),
    ):
        assert run_command(["drill", "ca-down", "-f", str(file), *words]) == 2
        assert says in capsys.readouterr().err
