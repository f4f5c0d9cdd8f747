"""What a fresh machine sees: `make help`, a set-up that says what is in the way, and one that is quick when done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kit.tools import need

HERE = Path(__file__).resolve().parents[2]
SCRIPT = HERE / "scripts" / "setup.sh"
PINNED = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)


class Checkout:
    """A copy of what set-up needs, with a PATH that holds only what the test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a checkout"  # a blank in the path must not matter
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.folder / "scripts").mkdir(parents=True)
        shutil.copy(SCRIPT, self.folder / "scripts")
        for name in ("requirements.lock", "requirements-dev.lock"):
            (self.folder / name).write_text("# nothing to install\n")
        for tool in ("sh", "cat", "cp", "rm", "mkdir", "tail", "grep", "date", "cmp", "chmod", "dirname"):
            (self.bin / tool).symlink_to(need(tool))

    def python(self, name: str, says: str, status: int = 0) -> None:
        """A program of this name that answers the set-up's question as we like."""
        program = self.bin / name
        program.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
        program.chmod(0o755)

    def real_python(self, name: str = "python3.11") -> None:
        (self.bin / name).symlink_to(sys.executable)

    def setup(self, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(self.folder / "scripts" / "setup.sh"), "run"],
            env={"PATH": str(self.bin), "HOME": str(self.folder), **env},
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


# ---- what is in the way --------------------------------------------------------------------------------------------


def test_no_python_at_all_says_what_is_needed_and_how_to_get_it(checkout: Checkout) -> None:
    done = checkout.setup()
    assert done.returncode == 1
    assert "no Python 3.11 or newer. Found: none at all." in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def test_an_old_python_is_named_as_what_was_found(checkout: Checkout) -> None:
    checkout.python("python3", "3.9.2 old")
    done = checkout.setup()
    assert done.returncode == 1
    assert f"Found: {checkout.bin}/python3 (3.9.2)" in done.stderr


def test_a_python_without_venv_names_the_package(checkout: Checkout) -> None:
    checkout.python("python3.11", "3.11.2 incomplete")
    done = checkout.setup()
    assert done.returncode == 1
    assert "apt-get install python3.11-venv" in done.stderr


def test_a_python_of_your_choice_that_will_not_do_is_not_replaced_by_another(checkout: Checkout) -> None:
    checkout.python("python3.12", "3.12.1 ok")
    checkout.python("mine", "3.8.0 old")
    done = checkout.setup(PYTHON="mine")
    assert done.returncode == 1
    assert "PYTHON=mine will not do" in done.stderr
    assert "3.8.0" in done.stderr


def test_a_shim_without_a_python_behind_it_is_passed_over(checkout: Checkout) -> None:
    checkout.python("python3.13", "no such version", status=127)
    checkout.python("python3.12", "3.12.1 incomplete")
    checkout.real_python()
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert f"({checkout.bin}/python3.11)" in done.stderr


def test_a_venv_that_is_not_ours_and_does_not_work_is_left_alone(checkout: Checkout) -> None:
    checkout.real_python()
    mine = checkout.folder / ".venv" / "precious"
    mine.parent.mkdir()
    mine.write_text("mine")
    done = checkout.setup()
    assert done.returncode == 1
    assert "not ours" in done.stderr
    assert mine.read_text() == "mine"


# ---- when nothing is -----------------------------------------------------------------------------------------------


def test_set_up_makes_a_mesh_that_runs_and_the_second_time_only_looks(checkout: Checkout) -> None:
    checkout.real_python()
    first = checkout.setup()
    assert first.returncode == 0, first.stderr
    (checkout.folder / "sidecar" / "cli").mkdir(parents=True)
    program = "def main():\n    print('this checkout')\n    return 5\n"
    (checkout.folder / "sidecar" / "cli" / "__init__.py").write_text(program)
    ran = subprocess.run([checkout.folder / ".venv" / "bin" / "mesh"], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("this checkout\n", 5), ran.stderr
    second = checkout.setup()
    assert "installing" not in second.stderr
    assert (second.returncode, second.stderr) == (0, "")


def test_a_moved_checkout_and_a_changed_lock_are_noticed(checkout: Checkout) -> None:
    checkout.real_python()
    assert checkout.setup().returncode == 0
    (checkout.folder / "requirements.lock").write_text("# still nothing\n")
    assert "installing" in checkout.setup().stderr
    assert checkout.setup().stderr == ""
    checkout.folder = checkout.folder.rename(checkout.folder.parent / "elsewhere")
    assert "making .venv" in checkout.setup().stderr


# ---- the files themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_pin_every_package_by_hash_and_name_no_host(name: str) -> None:
    text = (HERE / name).read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert blocks
    for block in blocks:
        assert PINNED.match(block), block
        assert "--hash=sha256:" in block
    assert "://" not in text
    assert not re.search(r"^--|^-i|^-f", text, flags=re.MULTILINE)


def test_the_development_lock_holds_all_of_the_other_and_both_cover_the_project() -> None:
    run = dict(PINNED.findall((HERE / "requirements.lock").read_text()))
    dev = dict(PINNED.findall((HERE / "requirements-dev.lock").read_text()))
    assert run.items() <= dev.items()
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    assert {named(each) for each in project["dependencies"]} <= set(run)
    assert {named(each) for each in project["optional-dependencies"]["dev"]} <= set(dev)


def named(requirement: str) -> str:
    """The normalized name of what is required (PEP 503), as lock files have it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ ]", requirement)[0]).lower()


def test_make_without_a_verb_lists_the_verbs() -> None:
    done = subprocess.run([need("make"), "-s"], capture_output=True, text=True, cwd=HERE, check=True, timeout=30)
    for verb in ("setup", "demo", "test", "check", "deep", "integration", "bench", "lock", "clean"):
        assert re.search(rf"^  {verb}\s+\S", done.stdout, flags=re.MULTILINE), verb


@pytest.mark.parametrize("script", ["scripts/setup.sh", "scripts/lock.sh", ".ci/run"])
def test_scripts_are_executable_and_shellcheck_finds_nothing(script: str) -> None:
    assert os.access(HERE / script, os.X_OK)
    subprocess.run([need("shellcheck"), script], check=True, cwd=HERE, timeout=60)


def test_ci_looks_for_every_program_that_a_test_needs() -> None:
    """A test that calls `need` on a program which CI does not install would fail there; here it fails first."""
    installed = set(re.findall(r"\b([\w-]+):[\w-]+", (HERE / ".ci" / "run").read_text()))
    base = {"sh", "cat", "cp", "rm", "mkdir", "tail", "grep", "date", "cmp", "chmod", "dirname"}
    asked: set[str] = set()
    for path in (HERE / "tests").rglob("*.py"):
        asked |= set(re.findall(r"\bneed\(\"([\w.-]+)\"\)", path.read_text()))
    assert asked - base <= installed
