"""Process hygiene: what is in force in a process that asked for it, and what an old kernel changes.

What can never be taken back is tried in processes of its own: `confined` runs code after `apply` and returns its words.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from sidecar.runtime import hygiene
from sidecar.runtime.hygiene import Folders, Hygiene, Kernel, Mode, NotConfined, handled_rights, holding

ROOT = Path(__file__).resolve().parents[3]
PREFACE = """\
import json, os, resource, sys, threading
from pathlib import Path
from sidecar.runtime.hygiene import *
def attempt(act):
    try:
        return str(act())
    except Exception as error:
        return type(error).__name__
place = Path(here)
reads, writes = [place / "config/mesh.yaml"], [place / "logs/access.log"]
folders = Folders.around(read=reads, write=writes, folders=[place / "state"])
"""


def landlocked() -> bool:
    try:
        return Kernel().landlock_abi() >= 1
    except OSError:
        return False


needs_landlock = pytest.mark.skipif(not landlocked(), reason="this kernel has no Landlock")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("config", "logs", "state", "elsewhere"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "config/mesh.yaml").write_text("a config")
    (tmp_path / "elsewhere/secret").write_text("not for the sidecar")
    return tmp_path


def confined(here: Path, code: str, *, before: str = "") -> dict[str, Any]:
    """What `code` puts into `seen`, in a process to which all has been applied."""
    script = f"here = {str(here)!r}\n{PREFACE}{before}\nfound = apply(folders)\nseen = {{}}\n{code}\n"
    script += "seen['hygiene'] = found.to_json()\nprint(json.dumps(seen))"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def test_what_the_kernel_says_of_a_confined_process(here: Path) -> None:
    """No new privileges, no core, no look into its memory for its own user, private files, all descriptors."""
    seen = confined(
        here,
        """
words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
seen["no_new_privs"] = words["NoNewPrivs"].strip()
seen["owner_of_memory"] = os.stat("/proc/self/mem").st_uid
seen["core"] = resource.getrlimit(resource.RLIMIT_CORE)
seen["files"] = resource.getrlimit(resource.RLIMIT_NOFILE)
(place / "state/new").write_text("x")
seen["mode"] = oct((place / "state/new").stat().st_mode & 0o777)
""",
        before="resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert seen["no_new_privs"] == "1"
    assert seen["owner_of_memory"] == 0
    assert seen["core"] == [0, 0]
    assert seen["files"] == [min(hard, hygiene.MAX_OPEN_FILES), hard]
    assert seen["mode"] == "0o600"
    told = seen["hygiene"]
    assert (told["no_new_privs"], told["undumpable"], told["core_limit"], told["umask"]) == (True, True, 0, "077")
    assert told["open_files"] == seen["files"][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look at two processes of one other user")
@pytest.mark.parametrize(("call", "expected"), [("Kernel().prctl(PR_SET_DUMPABLE, 0)", ""), ("pass", "read\n")])
def test_another_process_of_the_same_user_cannot_read_its_memory(call: str, expected: str) -> None:
    """Whoever runs as our user, a debugger say, may not attach; without this it could."""
    look = "import sys; open(f'/proc/{sys.argv[1]}/mem', 'rb').close(); print('read')"
    become = "import os, sys; sys.path.insert(0, os.getcwd())\nfrom sidecar.runtime.hygiene import *\n"
    become += "os.setgroups([]); os.setgid(65534); os.setuid(65534); os.chdir('/')\n"
    target = f"{become}Kernel().prctl(PR_SET_DUMPABLE, 1)\n{call}\nprint('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", target], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        seen = subprocess.run(
            [sys.executable, "-c", become + look, str(process.pid)], cwd=ROOT, capture_output=True, text=True
        )
        process.communicate()
    assert seen.stdout == expected, seen.stderr


ATTEMPTS = """
def by_thread(act):
    found = []
    thread = threading.Thread(target=lambda: found.append(attempt(act)))
    thread.start(); thread.join()
    return found[0]
acts = {
    "read the config": (place / "config/mesh.yaml").read_text,
    "read beside it": (place / "config/new.yaml").read_text,
    "write the config": lambda: (place / "config/mesh.yaml").write_text("x"),
    "read elsewhere": (place / "elsewhere/secret").read_text,
    "list elsewhere": lambda: os.listdir(place / "elsewhere"),
    "by the back door": lambda: Path(f"/proc/self/root/{place}/elsewhere/secret").read_text(),
    "through a link": (place / "state/link").read_text,
    "write state": lambda: (place / "state/a").write_text("ab"),
    "rename in state": lambda: os.replace(place / "state/a", place / "state/b"),
    "write a log": lambda: (place / "logs/access.log").write_text("abc"),
    "rotate a log": lambda: os.replace(place / "logs/access.log", place / "logs/access.log.1"),
    "make a pipe": lambda: os.mkfifo(place / "state/fifo"),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "read hosts": lambda: len(Path("/etc/hosts").read_bytes()) > 0,
    "use /dev/null": lambda: Path("/dev/null").write_text(""),
    "import a module": lambda: __import__("xml.dom.minidom").__name__,
}
for name, act in acts.items():
    seen[name] = by_thread(act)
"""


@needs_landlock
@pytest.mark.parametrize("user", ["ours", "nobody"])
def test_the_file_system_of_a_confined_process(here: Path, user: str) -> None:
    """It reads config, Python and system, writes state and logs, runs nothing; a thread is no way out."""
    before = "os.symlink(place / 'elsewhere/secret', place / 'state/link')\n"
    if user == "nobody":
        if os.geteuid() != 0:
            pytest.skip("only root can become another user")
        here = here.rename(Path(tempfile.mkdtemp()) / "here")  # where nobody may go
        here.parent.chmod(0o755)
        for path in (here, *here.rglob("*")):
            os.chown(path, 65534, 65534)
        before += "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    seen = confined(here, ATTEMPTS, before=before)
    assert seen.pop("hygiene")["landlock"].startswith("ABI ")
    if user == "nobody":
        shutil.rmtree(here.parent)
        seen.pop("import a module")  # the installation may be closed to it
    wanted = {
        "read the config": "a config",
        "read beside it": "FileNotFoundError",
        "write the config": "PermissionError",
        "read elsewhere": "PermissionError",
        "list elsewhere": "PermissionError",
        "by the back door": "PermissionError",
        "through a link": "PermissionError",
        "write state": "2",
        "rename in state": "None",
        "write a log": "3",
        "rotate a log": "None",
        "make a pipe": "PermissionError",
        "run a program": "PermissionError",
        "read hosts": "True",
        "use /dev/null": "0",
        "import a module": "xml",
    }
    assert seen == {name: wanted[name] for name in seen}
    assert len(seen) > 12


@needs_landlock
def test_a_configmap_swapped_behind_its_symlink_stays_readable(here: Path) -> None:
    """Kubernetes: mesh.yaml -> ..data/mesh.yaml, ..data -> ..1; the next generation's folder comes later."""
    (here / "config/mesh.yaml").unlink()
    (here / "config/..1").mkdir()
    (here / "config/..1/mesh.yaml").write_text("first")
    (here / "config/..data").symlink_to("..1")
    (here / "config/mesh.yaml").symlink_to("..data/mesh.yaml")
    code = """
sys.stdin.readline()
print(attempt((place / "config/mesh.yaml").read_text))
"""
    script = f"here = {str(here)!r}\n{PREFACE}apply(folders)\nprint('up', flush=True)\n{code}"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (here / "config/..2").mkdir()
        (here / "config/..2/mesh.yaml").write_text("second")
        (here / "config/..new").symlink_to("..2")
        (here / "config/..new").replace(here / "config/..data")
        assert process.communicate("go\n")[0] == "second\n"


def test_the_folders_around_files(here: Path) -> None:
    (here / "link.yaml").symlink_to(here / "config/mesh.yaml")
    assert holding(here / "link.yaml") == (here, here / "config")
    fifo = here / "pipe"
    os.mkfifo(fifo)
    found = Folders.around(write=[fifo, here / "logs/access.log"], folders=[here / "state"])
    assert found == Folders((), (here / "state", fifo, here / "logs"))


class OldKernel(Kernel):
    """Refuses what it is told to."""

    def __init__(self, *, prctl: int = 0, landlock: int = 0, ruleset: int = 0) -> None:
        self.errors = {"prctl": prctl, "landlock": landlock, "ruleset": ruleset}

    def _fail(self, what: str) -> None:
        if code := self.errors[what]:
            raise OSError(code, os.strerror(code))

    def prctl(self, option: int, value: int) -> bool:
        self._fail("prctl")
        return True

    def landlock_abi(self) -> int:
        self._fail("landlock")
        return 1

    def create_ruleset(self, handled: int) -> int:
        self._fail("ruleset")
        raise AssertionError("never reached")


@pytest.fixture
def harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No limits or masks of the tests' own process are changed, and no other threads are seen."""
    monkeypatch.setattr(hygiene, "_no_core", lambda: 0)
    monkeypatch.setattr(hygiene, "_more_files", lambda: 1)
    monkeypatch.setattr(hygiene, "_private_files", lambda: "077")
    monkeypatch.setattr(hygiene, "_of_this_process", None)
    monkeypatch.setattr(threading, "active_count", lambda: 1)


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_without_landlock_the_rest_is_in_force_and_the_status_says_so(code: int) -> None:
    found = hygiene.apply(Folders(), kernel=OldKernel(landlock=code))
    assert "landlock" not in found.in_force
    assert found.in_force["no_new_privs"] is True
    assert found.failures == {"landlock": "this kernel has no Landlock"}
    assert found.lacking() == {"not_in_force": "landlock: this kernel has no Landlock"}
    assert found.note() == "", "an old kernel is nothing to shout about each time"
    assert hygiene.of_this_process() is found
    assert found.to_json()["failures"] == found.failures


@pytest.mark.usefixtures("harmless")
def test_what_fails_unexpectedly_is_a_note_in_the_status() -> None:
    found = hygiene.apply(Folders(), kernel=OldKernel(prctl=errno.EPERM, ruleset=errno.ENOMEM))
    assert found.failures["no_new_privs"] == found.failures["undumpable"] == "Operation not permitted"
    assert found.failures["landlock"] == "Cannot allocate memory"
    assert "not confined" in found.note()
    assert "landlock: Cannot allocate memory" in found.note()


@pytest.mark.usefixtures("harmless")
def test_required_means_all_of_it_or_no_start() -> None:
    with pytest.raises(NotConfined, match="landlock: this kernel has no Landlock"):
        hygiene.apply(Folders(), Mode.REQUIRED, kernel=OldKernel(landlock=errno.ENOSYS))


@pytest.mark.usefixtures("harmless")
def test_unsafe_off_touches_nothing_and_shouts() -> None:
    found = hygiene.apply(Folders(), Mode.UNSAFE_OFF, kernel=OldKernel(prctl=errno.EPERM))
    assert found == Hygiene({}, {}, off=True)
    assert found.note() == "unsafe: process hygiene is off"
    assert found.lacking() == {"not_in_force": "all of it: --hygiene unsafe-off"}


@needs_landlock
def test_a_process_with_threads_is_not_half_confined_in_silence(here: Path) -> None:
    waiting = "gate = threading.Event(); threading.Thread(target=gate.wait, daemon=True).start()"
    seen = confined(here, "", before=waiting)
    assert "other threads" in seen["hygiene"]["failures"]["landlock"]


@needs_landlock
def test_a_log_folder_that_is_not_there_is_named(here: Path) -> None:
    seen = confined(here, "", before='folders = Folders.around(write=[f"{here}/none/access.log"])')
    assert f"{here}/none" in seen["hygiene"]["failures"]["folders"]


@pytest.mark.parametrize(("abi", "bits"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (9, 16)])
def test_each_landlock_is_asked_for_what_it_knows(abi: int, bits: int) -> None:
    assert handled_rights(abi) == (1 << bits) - 1
