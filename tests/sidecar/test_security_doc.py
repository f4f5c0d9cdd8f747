"""docs/security.md: each promise names tests, and every named test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| promise", "| name"))
]


def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_bytes())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_promise_names_a_test() -> None:
    promises = [row for row in ROWS if len(row) == 3]
    assert len(promises) > 25
    assert [row[0] for row in promises if "`tests/" not in row[2]] == []


def test_every_named_test_is_there() -> None:
    assert len(NAMED) > 30
    assert [f"{file}::{name}" for file, name in NAMED if not (ROOT / file).exists() or name not in names_in(file)] == []


def test_every_foe_that_is_named_was_introduced() -> None:
    introduced = {row[0] for row in ROWS if len(row) == 2}
    named = {foe.strip() for row in ROWS if len(row) == 3 for foe in row[1].split(",")} - {""}
    assert named == introduced


def test_every_fuzzer_states_its_invariant() -> None:
    """One English sentence: the docstring's first paragraph, begun with a capital and ended with a full stop."""
    fuzzers = [
        node
        for path in (ROOT / "tests/fuzz").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(fuzzers) >= 15
    for fuzzer in fuzzers:
        words = " ".join((ast.get_docstring(fuzzer) or "").split())
        assert words[:1].isupper(), fuzzer.name
        assert words.endswith("."), fuzzer.name
