"""`mesh inventory --ca-dir`: which entries and keys of the CA nobody uses, and that what it proposes can be done."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ca.bootstrap import prepare
from ca.entries import NewEntry
from ca.store.base import Issuance
from ca.store.sqlite import SqliteStore
from certs.spiffe import SpiffeId, TrustDomain
from sidecar.cli.root import run_command

DAY = 86_400.0
CONFIG = """\
trust_domain: demo.mesh
services:
  web: {outbound: [{to: orders, listen: "127.0.0.1:9001"}]}
  orders:
    inbound: [{app: "127.0.0.1:8080"}]
    allow: [{name: web-reads, from: web}]
"""


def identity(service: str) -> SpiffeId:
    return SpiffeId.parse(f"spiffe://demo.mesh/ns/default/sa/{service}")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """A CA of 100 days, with keys for web, which enrolled today, and for orders, which never has."""
    now, folder = time.time(), tmp_path / "ca"
    entries = [NewEntry(identity("web")), NewEntry(identity("orders"))]
    prepare(folder, TrustDomain("demo.mesh"), b"a passphrase of the tests", entries, "127.0.0.1:7000", now - 100 * DAY)
    store = SqliteStore(folder / "ca.sqlite3")
    (entry,) = [each for each in store.entries() if each.spiffe_id == identity("web")]
    (key,) = store.keys(entry.id)
    proof = ("enrolment_key", key.key_id)
    store.record([Issuance("5e41a1", entry.id, identity("web").text, (), now, now + DAY, now, *proof, "9f", "ff")])
    store.close()
    return folder


def credentials(ca: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, dict[str, Any]]:
    (ca.parent / "mesh.yaml").write_text(CONFIG)
    (ca.parent / "run").mkdir(mode=0o700, exist_ok=True)
    where = ("-f", str(ca.parent / "mesh.yaml"), "--run-dir", str(ca.parent / "run"), "--ca-dir", str(ca))
    assert run_command(["inventory", *where, "-o", "json", *more]) == 0
    rows = json.loads(capsys.readouterr().out)["inventory"]["credentials"]
    return {f"{row['kind']} {row['spiffe_id'].rpartition('/')[2]}": row for row in rows}


def test_what_proves_nothing_any_more_is_dormant_with_the_command_that_removes_it(ca, capsys) -> None:
    rows = credentials(ca, capsys)
    assert {name: row["state"] for name, row in rows.items()} == {
        "entry web": "used", "enrolment key web": "used", "entry orders": "dormant", "enrolment key orders": "dormant",
    }  # fmt: skip
    assert (rows["entry web"]["change"], rows["entry orders"]["last"]) == ("", None)
    for name in ("enrolment key orders", "entry orders"):
        change = rows[name]["change"]
        assert rows[name]["id"] in change
        assert run_command([*change.split()[1:], "--dir", str(ca)]) == 0, change
        capsys.readouterr()
    assert set(credentials(ca, capsys)) == {"entry web", "enrolment key web"}


def test_a_key_is_dormant_by_days(ca, capsys) -> None:
    assert credentials(ca, capsys, "--days", "365")["enrolment key orders"]["state"] == "unused"


def test_a_folder_without_a_ca_is_said_so(tmp_path, capsys) -> None:
    (tmp_path / "mesh.yaml").write_text(CONFIG)
    assert run_command(["inventory", "-f", str(tmp_path / "mesh.yaml"), "--ca-dir", str(tmp_path / "none")]) != 0
    assert "none" in capsys.readouterr().err
