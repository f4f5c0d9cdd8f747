"""The ground floor keeps to itself: no clock, no dice, no sockets, no tasks, and nobody from above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import certs

FILES = sorted(Path(certs.__file__).parent.glob("*.py"))
FORBIDDEN = {"time", "random", "socket", "asyncio", "threading", "sidecar", "ca", "select", "selectors", "subprocess"}
FORBIDDEN_EXCEPT = {"trio": {"source.py"}, "click": {"cli.py"}}


def imports(path: Path) -> set[str]:
    """The top-level names of all that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "cli.py"], ids=lambda path: path.name)
def test_a_file_of_this_floor_imports_nothing_that_could_surprise(path: Path) -> None:
    forbidden = FORBIDDEN | {name for name, allowed in FORBIDDEN_EXCEPT.items() if path.name not in allowed}
    assert imports(path) & forbidden == set()
