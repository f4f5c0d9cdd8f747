"""scripts/stage.sh: who fails beside others may show once more, alone, that it is well; who fails twice has failed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

STAGE = Path(__file__).parent.parent / "scripts" / "stage.sh"
TESTS = """
import pathlib, pytest

@pytest.mark.parametrize("number", range({shaky}))
def test_shaky(number):
    seen = pathlib.Path(__file__).with_name(f"seen-{{number}}")
    assert seen.exists() or seen.write_text("x") == 0

def test_sound():
    pass

@pytest.mark.parametrize("number", range({broken}))
def test_broken(number):
    assert False
"""


@pytest.mark.parametrize(
    ("shaky", "broken", "status", "again"),
    [(0, 0, 0, 0), (3, 0, 0, 3), (1, 1, 1, 2), (4, 0, 1, 0), (0, 1, 1, 1)],
    ids=["all is well", "three were unlucky", "one is unlucky, one is broken", "four are too many", "one is broken"],
)
def test_a_second_try(tmp_path: Path, shaky: int, broken: int, status: int, again: int) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_them.py").write_text(TESTS.format(shaky=shaky, broken=broken))
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [STAGE, "-q", "-c", tmp_path / "pytest.ini", tmp_path],
        capture_output=True, text=True, check=False, env=env, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert f"SECOND TRY of {again} test(s)" in done.stdout if again else "SECOND TRY" not in done.stdout
