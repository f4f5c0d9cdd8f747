"""The JSON-Schema-Test-Suite for draft 2020-12: every case is judged as it says, or its schema is a mistake by name.

It is fetched from where everybody gets it, and stands in no folder of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.contract.checks import Work
from sidecar.contract.schemas import Compiler
from tests.kit import vectors

# `format` is checked here, and not only told; the expressions of ECMA-262 know more white space than RE2's.
ELSEWHERE = ("format.json", "optional/ecmascript-regex.json")
FORMATS = ("date", "date-time", "time", "uuid", "ipv4", "ipv6", "uri")
# Nobody but an author of RFCs writes these, and what takes them for addresses often sends mail elsewhere.
MAILBOXES = ("quoted string", "address-literal")


def groups(folder: Path, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        for group in json.loads((folder / name).read_text()):
            yield f"{name}: {group['description']}", group


def verdicts(schema: Any, tests: list[dict[str, Any]]) -> list[str]:
    """The tests that end another way than they should; nothing where the schema is a mistake."""
    notes: list[str] = []
    root = schema if isinstance(schema, dict) else {}
    check = Compiler(root, lambda _, message: notes.append(message), old=False).compile(schema, ())
    if notes:
        return []
    return [each["description"] for each in tests if (check(each["data"], Work()) is None) != each["valid"]]


def test_every_case_of_the_draft_is_judged_so_or_refused_before() -> None:
    folder = vectors.json_schema_suite()
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*.json"))]
    names += [path.relative_to(folder).as_posix() for path in sorted(folder.glob("optional/*.json"))]
    cases = list(groups(folder, [name for name in names if name not in ELSEWHERE]))
    assert len(cases) > 300
    assert [(what, wrong) for what, group in cases if (wrong := verdicts(group["schema"], group["tests"]))] == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_what_the_suite_says(name: str) -> None:
    folder = vectors.json_schema_suite() / "optional" / "format"
    cases = list(groups(folder, [f"{name}.json"]))
    assert [wrong for _, group in cases if (wrong := verdicts(group["schema"], group["tests"]))] == []


def test_a_mailbox_is_one_that_is_in_use() -> None:
    folder = vectors.json_schema_suite() / "optional" / "format"
    for _, group in groups(folder, ["email.json"]):
        wrong = verdicts(group["schema"], group["tests"])
        assert all(any(word in each for word in MAILBOXES) for each in wrong), wrong
