"""Killed at each step of issuance and of a turn of the schedule: nothing leaves unrecorded, the next start goes on.

Each step is a real SIGKILL of a real process. What it told the world before it died is held against what its store
says: every certificate that left is in the log, the log holds, tables and log agree, and the CA still works.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ca.bootstrap import prepare
from ca.checkpoints import verify_log
from ca.entries import NewEntry, parse_identity
from ca.roots import key_file, load_bundle, load_issuer
from ca.rotating import RootRotation
from ca.schedule import Schedule
from ca.store.sqlite import SqliteStore
from certs.enrolment import Enrolment
from tests.ca.dying import PASS
from tests.ca.office import ADDRESS, DAY, DEMO, NOW

ROOT = Path(__file__).parents[2]
STEPS = {"issue": range(1, 200), "turn": range(1, 200), "hand_out": range(1, 60), "rotate": range(1, 400)}


def live(directory: Path, story: str, at: int) -> tuple[int, list[str]]:
    words = [sys.executable, "-m", "tests.ca.dying", str(directory), story, str(at)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.split("\n")[:-1]


def check(directory: Path, told: list[str], story: str) -> None:
    store = SqliteStore(directory / "ca.sqlite3")
    try:
        store.check_integrity()
        report = verify_log(store, DEMO)
        assert report.findings == []
        for line in told:
            if line.startswith("issued "):
                assert store.issuance(line.removeprefix("issued ")) is not None
        for slot in store.slots():
            if slot.state in ("prepared", "active"):
                assert key_file(directory, slot.sha256).exists()
        now = NOW + 30 * DAY + 60 if story == "turn" else NOW + 60
        check_rotation(directory, store, now)
        schedule = Schedule(directory, store, DEMO, PASS)
        schedule.round(now)
        issuer = load_issuer(directory, store, PASS)
        assert issuer.not_after > now
        states = [slot.state for slot in store.slots() if slot.kind == "issuer"]
        assert states.count("active") == 1
        assert (states[0] == "retired") == (story == "turn") or story == "rotate"
        assert verify_log(store, DEMO).findings == []
    finally:
        store.close()


def check_rotation(directory: Path, store: SqliteStore, now: float) -> None:
    """What was begun is brought to its end, and the files in the CA's folder pin what is left."""
    rotation = RootRotation(directory, store, DEMO, PASS)
    before = store.rotation()
    while rotation.round(now):
        pass
    after = store.rotation()
    assert (before is None) == (after is None)
    assert after is None or after.phase == "done"
    assert [slot.state for slot in store.slots() if slot.kind == "root"].count("active") == 1
    rotation.refresh_files()
    for path in (directory / "enrolment").glob("*.json"):
        assert Enrolment.load(path).root_sha256 == load_bundle(store, DEMO).root_hashes()


def every_step(tmp_path: Path, story: str, stride: int) -> int:
    prepare(tmp_path / "ca", DEMO, PASS, [NewEntry(parse_identity("orders", DEMO))], ADDRESS, NOW)
    deaths = 0
    for at in STEPS[story]:
        if at % stride and at > 1:
            continue
        copy = Path(shutil.copytree(tmp_path / "ca", tmp_path / f"at-{at}"))
        code, told = live(copy, story, at)
        check(copy, told, story)
        shutil.rmtree(copy)
        if code == 0:
            assert told[-1] == "done"
            return deaths
        deaths += 1
    raise AssertionError("the story never ended")


@pytest.mark.integration
@pytest.mark.parametrize("story", list(STEPS))
def test_killed_at_some_steps(tmp_path: Path, story: str) -> None:
    """Every seventh; `make deep` takes each."""
    assert every_step(tmp_path, story, 7) >= 1


@pytest.mark.deep
@pytest.mark.parametrize("story", list(STEPS))
def test_killed_at_every_step(tmp_path: Path, story: str) -> None:
    assert every_step(tmp_path, story, 1) >= 8
