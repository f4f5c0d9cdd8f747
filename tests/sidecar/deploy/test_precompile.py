"""deploy/image/precompile.py: bytecode that no import checks, the same each time, and none twice."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[3] / "deploy" / "image" / "precompile.py"


def compiled(folder: Path, seed: str) -> str:
    command = [sys.executable, str(PROGRAM), str(folder)]
    return subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout


def a_tree(folder: Path) -> Path:
    for name, text in {
        "a.py": "X = {'one', 'two', 'three'}\nassert 'two' in {'one', 'two'}\n", "sub/b.py": "import a\n",
        "sub/template.py": "{% not python %}\n", "tests/c.py": "import b\n",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def bytecode(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.pyc"))}


def test_modules_are_compiled_once_and_not_checked_against_their_sources(tmp_path: Path) -> None:
    tree = a_tree(tmp_path)
    assert compiled(tree, "0") == "precompile: 2 modules, 1 that are none\n"
    made = bytecode(tree)
    assert len(made) == 2
    assert {data[4:8] for data in made.values()} == {b"\x01\x00\x00\x00"}  # PEP 552: by hash, unchecked
    assert {data[8:16] for data in made.values()} == {
        importlib.util.source_hash((tree / name).read_bytes()) for name in ("a.py", "sub/b.py")
    }
    assert compiled(tree, "0") == "precompile: 0 modules, 1 that are none\n"


def test_two_folders_of_one_content_give_one_bytecode(tmp_path: Path) -> None:
    here = a_tree(tmp_path / "x" / "tree")
    compiled(here, "0")
    first = bytecode(here)
    for path in here.rglob("*.pyc"):
        path.unlink()
    compiled(here, "0")
    assert bytecode(here) == first
