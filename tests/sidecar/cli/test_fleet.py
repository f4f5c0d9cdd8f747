"""No process outlives `mesh up`: not a stubborn one, not a grandchild that ran away, not after a kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar.cli.console import Failure
from sidecar.cli.fleet import Fleet, descendants
from sidecar.cli.workspace import PREFIX, Workspace, sweep

HERE = Path(__file__).resolve().parents[3]
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(60)"
)
RUNAWAY = (
    "import os, subprocess, sys;"
    "p = subprocess.Popen(['sleep', '60'], start_new_session=True); print(p.pid, flush=True)"
)


def wait_for(path: Path, words: str = "") -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if path.exists() and words in (text := path.read_text()) and text.endswith("\n"):
            return text
        time.sleep(0.01)
    raise AssertionError(f"{path} never said {words!r}")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_member_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    with Fleet(tmp_path, grace=0.2) as fleet:
        member = fleet.start("stubborn", python(STUBBORN))
        wait_for(member.log, "up")
    assert member.exit_code == -signal.SIGKILL


def test_a_grandchild_that_left_its_session_and_lost_its_parent_is_found(tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    with Fleet(tmp_path, grace=0.2) as fleet:
        member = fleet.start("runaway", python(RUNAWAY))
        pid = int(wait_for(member.log))
        member.process.wait()
        assert alive(pid)
    assert not alive(pid)
    assert set(descendants(os.getpid())) <= before


def test_a_fallen_member_has_the_last_word(tmp_path: Path) -> None:
    with Fleet(tmp_path, grace=0.2) as fleet:
        fleet.start("the CA", ["sleep", "60"])
        member = fleet.start("orders", python("import sys; print('no route to the moon'); sys.exit(9)"))
        member.process.wait()
        with pytest.raises(Failure, match="orders ended with code 9") as caught:
            fleet.someone_left(print)
    assert caught.value.advice == "no route to the moon"


def test_a_member_that_ends_well_is_told_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    heard: list[str] = []
    with Fleet(tmp_path, grace=0.2) as fleet:
        fleet.start("the CA", ["sleep", "60"])
        once = fleet.start("once", ["true"])
        fleet.start("web", ["sleep", "60"])
        once.process.wait()
        assert fleet.someone_left(lambda member: heard.append(member.name))
        assert fleet.someone_left(lambda member: heard.append(member.name))
        assert heard == ["once"]
        fleet.members[2].process.terminate()
        fleet.members[2].process.wait()
        with pytest.raises(Failure):
            fleet.someone_left(lambda member: heard.append(member.name))


def test_members_end_when_their_starter_is_killed_outright(tmp_path: Path) -> None:
    """kill -9 leaves no chance to clean up; the kernel tells the members."""
    starter = (
        "import sys, time, pathlib; from sidecar.cli.fleet import Fleet;"
        "fleet = Fleet(pathlib.Path(sys.argv[1])); m = fleet.start('m', ['sleep', '60']);"
        "print(m.process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", starter, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE)
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
        process.wait()
    wait_until_dead(pid)


# ---- folders -------------------------------------------------------------------------------------------------------


def test_a_workspace_is_private_and_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Workspace(tmp_path / "run") as space:
        assert space.folder.stat().st_mode & 0o777 == 0o700
        space.claim(["web"])
        (tmp_path / "run" / "web.sock").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_somebody_else_uses_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Workspace(tmp_path / "run") as space:
        space.claim(["web"])
        (tmp_path / "run" / "other.sock").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["other.sock"]


def test_what_a_killed_one_left_is_removed_by_the_next_but_never_what_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stale = tmp_path / f"{PREFIX}stale"
    stale.mkdir()
    (stale / "lock").touch()
    foreign = tmp_path / f"{PREFIX}without-a-lock"
    foreign.mkdir()
    with Workspace(tmp_path / "run") as space:
        assert not stale.exists()
        assert sweep(tmp_path) == []
        assert space.folder.exists()
        assert foreign.exists()
