"""`mesh run -- CMD` and `mesh ca serve` as processes: the proxy and the CA are confined, the command is not."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.runtime.hygiene import Kernel
from tests.kit.meshes import Pair
from tests.kit.processes import eventually

TELL = """\
import json, os, pathlib, resource, subprocess, sys
words = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
pathlib.Path("outside").write_text("x")
told = {
    "no_new_privs": words["NoNewPrivs"].strip(),
    "umask": words["Umask"].strip(),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "parent": os.getppid(),
    "group": os.getpgrp(),
    "reads": len(os.listdir(sys.argv[1])),
    "runs": subprocess.run(["true"]).returncode,
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
}
pathlib.Path(sys.argv[2]).write_text(json.dumps(told))
sys.stdin.read(); import time; time.sleep(30)
"""


def landlocked() -> bool:
    try:
        return Kernel().landlock_abi() >= 1
    except OSError:
        return False


def status_words(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("hygiene")) as pair:
        pair.start_all("app")
        yield pair


@pytest.fixture
def told(pair: Pair, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What a command inside web's sidecar sees of itself."""
    answer = tmp_path / "told"
    app = (sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{TELL}", str(Path.home()), str(answer))
    web = pair["web"].start(*app)
    eventually("the command has told", lambda: answer.exists() and answer.read_text())
    yield json.loads(answer.read_text())
    web.stop()


def test_the_command_inherits_nothing_and_the_proxy_is_confined(pair: Pair, told: dict[str, Any]) -> None:
    proxy = pair["web"].process.pid
    words = status_words(proxy)
    assert words["NoNewPrivs"] == "1"
    assert words["Umask"] == "0077"
    assert Path(f"/proc/{proxy}/mem").stat().st_uid == 0
    limits = Path(f"/proc/{proxy}/limits").read_text()
    assert limits[limits.index("Max core file size") :].split()[4:6] == ["0", "0"]

    ours = status_words(os.getpid())
    assert told["no_new_privs"] == ours["NoNewPrivs"]
    assert told["umask"] == ours["Umask"]
    assert told["files"] == list(resource.getrlimit(resource.RLIMIT_NOFILE))
    assert told["core"] == list(resource.getrlimit(resource.RLIMIT_CORE))
    assert told["runs"] == 0, "it may start programs"
    assert told["descriptors"] == [0, 1, 2], "nor does it hold anything of ours"
    assert (told["parent"], told["group"]) == (proxy, os.getpgid(proxy)), "and yet it is our own child, in our group"


def test_the_status_tells_what_is_in_force(pair: Pair, told: dict[str, Any]) -> None:
    hygiene = pair["web"].status()["hygiene"]
    assert hygiene["no_new_privs"] is hygiene["undumpable"] is True
    assert hygiene["off"] is False
    assert ("landlock" in hygiene) is landlocked(), hygiene
    assert hygiene["failures"] == ({} if landlocked() else {"landlock": "this kernel has no Landlock"})
    line = next(line for line in pair["web"].process.text().splitlines() if '"process hygiene"' in line)
    assert json.loads(line)["level"] == "info"


def test_the_ca_is_confined_too(pair: Pair) -> None:
    assert pair.ca is not None
    words = status_words(pair.ca.pid)
    assert (words["NoNewPrivs"], words["Umask"]) == ("1", "0077")
    assert Path(f"/proc/{pair.ca.pid}/mem").stat().st_uid == 0
    assert "process hygiene: no_new_privs True" in pair.ca.text()


@pytest.mark.skipif(not landlocked(), reason="this kernel has no Landlock")
def test_all_that_a_confined_sidecar_does_in_its_life_still_works(pair: Pair) -> None:
    """It renews its certificate, moves to a fresh log when the old one is rotated, and leaves no socket behind."""
    web = pair["web"].start()
    try:
        audit = web.state / "audit.jsonl"
        eventually("the audit has begun", audit.exists)
        audit.replace(audit.with_suffix(".1"))
        assert web.rotate()
    finally:
        code = web.stop()
    assert code == 0
    assert not web.socket.exists()
    assert audit.exists(), "a fresh one"
    assert "Permission denied" not in web.process.text(), web.process.tail()


@pytest.mark.skipif(not landlocked(), reason="this kernel has no Landlock")
def test_a_confined_sidecar_reloads_a_config_that_was_replaced_and_one_that_came_later(pair: Pair) -> None:
    """An editor writes a new file and renames it over the old one; an include may appear beside it."""
    web = pair["web"].start()
    text = pair.file.read_text()
    try:
        (pair.folder / "more").mkdir(exist_ok=True)
        (pair.folder / "more" / "extra.yaml").write_text("services: {late: {health: {listen: off}}}\n")
        fresh = pair.folder / "mesh.yaml.new"
        fresh.write_text(f"include: [more/*.yaml]\n{text}".replace("{to: app,", "{to: app, host: other,"))
        fresh.replace(pair.file)
        web.process.signal(signal.SIGHUP)
        eventually("a reload", lambda: "the configuration was reloaded" in web.process.text())
        assert "not reloaded" not in web.process.text(), web.process.tail()
    finally:
        pair.file.write_text(text)
        web.stop()


def test_a_mode_may_be_chosen(pair: Pair, tmp_path: Path) -> None:
    """`unsafe-off` stands in the status for all to see; `required` starts where everything is in force."""
    web = pair["web"]
    command = web.command
    try:
        for mode in ("unsafe-off", *(["required"] if landlocked() else [])):
            web.command = lambda *app, mode=mode: [*command(*app), "--hygiene", mode]  # type: ignore[method-assign,misc]
            web.start()
            pid = web.process.pid
            assert status_words(pid)["NoNewPrivs"] == ("0" if mode == "unsafe-off" else "1")
            notes = pair.mesh("status", "--service", "web").stdout
            assert ("process hygiene is off" in " ".join(notes.split())) == (mode == "unsafe-off"), notes
            web.stop()
    finally:
        del web.command  # type: ignore[method-assign]
