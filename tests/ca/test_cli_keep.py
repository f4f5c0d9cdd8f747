"""`mesh ca backup`, `restore`, `log …`, `crl` and the tree of `status`, as people use them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ca.checkpoints import checkpoint_if_due
from ca.roots import load_issuer
from ca.store.sqlite import SqliteStore
from ca.tree import bar
from tests.ca.office import DEMO
from tests.ca.test_cli import PASS, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.ok("init", "--trust-domain", "demo.mesh", "--passphrase-file", made.passphrase)
    made.ok("entry", "add", "orders")
    return made


def test_back_up_and_restore(shell: Shell) -> None:
    file, place = str(shell.folder / "monday.tar"), str(shell.folder / "new")
    said = shell.json("backup", file)
    assert (said["trust_domain"], said["keys"], said["log_number"]) == ("demo.mesh", 3, 5)
    assert "--force" in shell.refused("backup", file)
    assert "wrote" in shell.ok("backup", file, "--force")
    assert "never overwritten" in shell.refused("restore", file)
    assert shell.json("restore", file, "--dir", place)["tokens_ended"] == 0
    assert shell.json("entry", "list", "--dir", place) == shell.json("entry", "list")
    (shell.folder / "monday.tar").write_bytes(b"no back-up at all")
    assert "no back-up of a CA" in shell.refused("restore", file, "--dir", str(shell.folder / "other"))


def test_the_log_is_verified_and_its_head_kept(shell: Shell) -> None:
    kept = shell.folder / "head.json"
    assert "no head has been signed" in shell.refused("log", "head")
    with closing(SqliteStore(shell.directory / "ca.sqlite3")) as store:
        checkpoint_if_due(store, DEMO, load_issuer(shell.directory, store, PASS.encode()), 1.8e9)
    assert json.loads(shell.ok("log", "head"))["signer"]
    assert "wrote" in shell.ok("log", "head", "--out", str(kept))
    assert "no good signature" in shell.run("log", "verify").stdout  # that head is of a time after its signer's
    kept.write_text("{")
    assert "is not JSON" in shell.refused("log", "verify", "--head", str(kept))


def test_a_broken_log_is_exit_code_1_and_named(shell: Shell) -> None:
    assert shell.json("log", "verify")["ok"] is True
    assert "the log holds" in shell.ok("log", "verify")
    with closing(sqlite3.connect(shell.directory / "ca.sqlite3")) as db:
        db.executescript("DROP TRIGGER log_lines_never_vanish; DELETE FROM log WHERE number = 2;")
    result = shell.run("log", "verify")
    assert result.exit_code == 1
    assert "BROKEN line 2 was dropped" in result.stdout
    assert "line 2 was dropped" in shell.refused("backup", str(shell.folder / "x.tar"))


def test_all_that_happened(shell: Shell) -> None:
    kinds = [line["kind"] for line in shell.json("log", "--all")["lines"]]
    assert kinds == ["entry_added", "slot", "slot", "jwt_key", "jwt_key"]
    assert "state active" in shell.ok("log", "--all", "--limit", "2")
    assert "do not go together" in shell.refused("log", "--all", "--entry", "orders", code=2)


def test_crls_of_the_active_issuer_and_of_no_other(shell: Shell) -> None:
    words = ("crl", "--passphrase-file", shell.passphrase)
    assert "BEGIN X509 CRL" in shell.ok(*words)
    shell.ok(*words, "--out", str(shell.folder / "mesh.crl"))
    assert (shell.folder / "mesh.crl").read_bytes()[:1] == b"\x30"
    assert "no issuing CA with serial ff" in shell.refused(*words, "--issuer", "ff")


def test_status_draws_the_chain(shell: Shell) -> None:
    lines = shell.ok("status").splitlines()
    assert lines[1].startswith("root ")
    assert lines[1].endswith("key here")
    assert lines[2].startswith("└─ issuing CA ")
    shell.ok("renew-issuer", "--passphrase-file", shell.passphrase)
    drawn = shell.ok("status")
    assert "├─ issuing CA" in drawn
    assert "retiring" in drawn
    [root] = shell.json("status")["chain"]
    assert [one["state"] for one in root["issuers"]] == ["retiring", "active"]
    assert all(one["live"] == 0 for one in root["issuers"])


BARS = [(0.0, "████"), (25.0, "███░"), (50.0, "██░░"), (99.9, "▏░░░"), (100.0, "░░░░"), (200.0, "░░░░"), (-5.0, "████")]


@pytest.mark.parametrize(("now", "drawn"), BARS)
def test_a_bar_is_what_is_left(now: float, drawn: str) -> None:
    assert bar(0.0, 100.0, now, 4) == drawn


def test_a_life_that_never_was_is_an_empty_bar() -> None:
    assert bar(5.0, 5.0, 5.0, 4) == "░░░░"
