"""Each code of `mesh check`: its example shows it alone, mended it shows nothing; docs/lint.md is current."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sidecar.config.codes import CODES, EXAMPLES_AT, HEAD, Code, lint_markdown
from sidecar.config.codes_contract import DOCUMENTS
from sidecar.config.load import load_bytes
from sidecar.config.mistakes import ConfigErrors

ROOT = Path(__file__).parents[3]


def found(text: str) -> tuple[list[str], list[str]]:
    """The codes of the mistakes and of the warnings in a config."""
    try:
        loaded = load_bytes((HEAD + text).encode(), others=DOCUMENTS, now=EXAMPLES_AT)
    except ConfigErrors as errors:
        return [mistake.code for mistake in errors.mistakes], []
    return [], [warning.code for warning in loaded.warnings]


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
def test_an_example_shows_its_code_and_mended_it_shows_nothing(code: Code) -> None:
    assert found(code.wrong) == (([code.code], []) if code.refuses else ([], [code.code]))
    assert found(code.right) == ([], [])


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
def test_the_words_are_whole_sentences(code: Code) -> None:
    assert re.fullmatch(r"MESH[01]\d\d", code.code)
    assert not code.title.endswith(".")
    for text in (code.why, code.fix):
        assert text[0].isupper() or text[0] == "`"
        assert text.endswith(".")
        assert "  " not in text
    assert code.why in " ".join(code.render().split())
    assert code.to_json()["severity"] == ("mistake" if code.refuses else "warning")


def test_every_code_that_is_given_is_explained_and_the_other_way_round() -> None:
    given = set()
    for path in (ROOT / "sidecar" / "config").glob("*.py"):
        if not path.name.startswith("codes"):
            nodes = ast.walk(ast.parse(path.read_text()))
            given |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert {text for text in given if re.fullmatch(r"MESH\d+", text)} == set(CODES)


def test_the_printed_page_is_current() -> None:
    assert (ROOT / "docs" / "lint.md").read_text() == lint_markdown(), "run: mesh check --codes > docs/lint.md"
