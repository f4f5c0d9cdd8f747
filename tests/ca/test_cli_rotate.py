"""`mesh ca rotate-root` as people use it, without a server: what it says, what it refuses, and exit codes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ca.rotating import RootRotation
from ca.store.base import Issuance
from ca.store.sqlite import SqliteStore
from tests.ca.office import DEMO
from tests.ca.test_cli import PASS, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.ok("init", "--trust-domain", "demo.mesh", "--passphrase-file", shell.passphrase)
    shell.ok("entry", "add", "orders")
    with_live_certificate(shell)
    return shell


def store_of(shell: Shell) -> SqliteStore:
    return SqliteStore(shell.directory / "ca.sqlite3")


def with_live_certificate(shell: Shell) -> None:
    store, now = store_of(shell), time.time()
    (entry,) = store.entries()
    (issuer,) = shell.json("status")["chain"][0]["issuers"]
    life = (now - 60, now + 3600, now)
    proof = ("enrolment_key", "", issuer["serial"], "0" * 64)
    store.record([Issuance("5e41a1", entry.id, entry.spiffe_id.text, (), *life, *proof)])
    store.close()


def rotate(shell: Shell, *words: str) -> str:
    return shell.ok("rotate-root", *words, "--passphrase-file", shell.passphrase)


def test_the_plan_names_the_phases_and_whoever_is_away(shell: Shell) -> None:
    plan = shell.ok("rotate-root")
    assert [line.split()[1] for line in plan.splitlines()[:4]] == ["announced", "switched", "withdrawn", "done"]
    assert "1 live certificates, 1 of them with no open watch" in plan
    assert "5e41a1" in plan
    assert shell.ok("rotate-root", "--plan") == plan
    document = shell.json("rotate-root", "--plan")
    assert [one["serial"] for one in document["not_connected"]] == ["5e41a1"]
    assert "there has been no rotation" in shell.ok("rotate-root", "--status")


def test_a_rehearsal_is_a_table_and_changes_nothing(shell: Shell) -> None:
    before = shell.json("log", "--all")
    said = rotate(shell, "--rehearse")
    assert "16 handshakes, none other than it must be" in said
    assert shell.json("log", "--all") == before


def test_begun_waited_for_skipped_and_done(shell: Shell) -> None:
    shell.ok("key", "orders", "--out", str(shell.folder / "carried-away.json"))
    begun = rotate(shell, "--go")
    assert "announced since" in begun
    assert "1 live certificates, 1 of them are waited for" in begun
    assert "has acknowledged no bundle yet" in begun
    assert "STALE enrolment file of spiffe://demo.mesh/ns/default/sa/orders" in begun
    status = shell.ok("status")
    assert "root rotation: announced for" in status
    assert "prepared" in status
    assert shell.json("status")["rotation"]["phase"] == "announced"
    assert "under way already" in shell.refused("rotate-root", "--go", "--passphrase-file", shell.passphrase)
    skip = ["rotate-root", "--go", "--skip", "orders"]
    assert "--reason" in shell.refused(*skip, "--passphrase-file", shell.passphrase, code=2)
    nobody = ["rotate-root", "--go", "--skip", "nobody", "--reason", "x", "--passphrase-file", shell.passphrase]
    assert "no live certificate" in shell.refused(*nobody)
    assert "skipped: scrapped" in rotate(shell, "--go", "--skip", "orders", "--reason", "scrapped")
    store = store_of(shell)
    rotation = RootRotation(shell.directory, store, DEMO, PASS.encode())
    while rotation.round(time.time()):
        pass
    store.close()
    assert "done since" in shell.ok("rotate-root", "--status")
    last = shell.json("log", "--all", "--limit", "1")["lines"][0]
    assert (last["kind"], last["phase"], last["skipped"][0][1]) == ("rotation", "done", "scrapped")
    assert "the log holds" in shell.ok("log", "verify")


def test_aborted_and_refused(shell: Shell) -> None:
    abort = ["rotate-root", "--abort", "--passphrase-file", shell.passphrase]
    assert "no rotation of the root is under way" in shell.refused(*abort)
    wrong = shell.secret("wrong", "not the passphrase\n")
    assert "passphrase" in shell.refused("rotate-root", "--go", "--passphrase-file", wrong)
    assert shell.json("rotate-root", "--status")["phase"] is None
    rotate(shell, "--go")
    assert "TURNED BACK" in rotate(shell, "--abort")
    assert "turned back already" in shell.refused(*abort)
    assert "--wait goes with" in shell.refused("rotate-root", "--wait", code=2)
    assert "go together" in shell.refused("rotate-root", "--go", "--root", wrong, code=2)
