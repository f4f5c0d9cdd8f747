"""Files of expectations are read like configs: types are kept, and every mistake is noted with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.expectations import Expectation, complete, read_expectations
from sidecar.config.mistakes import Book

FILE = """\
tests:
  - name: all of it
    from: web
    to: orders
    expect: 403
    rule: reads
    request:
      method: POST
      path: /orders?a=1
      host: orders.shop
      headers: {X-Tenant: a, x-many: [b, c]}
      claims: {id: 7, text: "7", known: true, no-one: null, roles: [clerk, 3], address: {country: de}}
      scopes: [orders:read]
      operation: getOrder
      time: 2026-01-05T12:00:00Z
      source: 10.0.0.1
      port: 17443
"""


def read(text: str, folder: Path) -> tuple[list[Expectation], list[str]]:
    file = folder / "mesh-test.yaml"
    file.write_text(text)
    book = Book()
    draft = read_expectations(str(file), book)
    tests = [test for _, test in complete(draft)] if draft is not None else []
    return tests, [str(each).removeprefix(str(file)) for each in book.mistakes]


def test_everything_that_can_be_said_becomes_a_question(tmp_path: Path) -> None:
    [test], mistakes = read(FILE, tmp_path)
    assert mistakes == []
    assert test.question == {
        "from": "web", "method": "POST", "path": "/orders?a=1", "host": "orders.shop",
        "headers": {"X-Tenant": ["a"], "x-many": ["b", "c"]},
        "claims": {"id": 7, "text": "7", "known": True, "no-one": None, "roles": ["clerk", 3],
                   "address": {"country": "de"}},
        "scopes": ["orders:read"], "operation": "getOrder", "time": "2026-01-05T12:00:00Z", "source": "10.0.0.1",
        "port": "17443",
    }  # fmt: skip
    assert (test.expect, test.rule, test.where.line) == ("403", "reads", 2)


def test_what_is_not_said_is_not_asked(tmp_path: Path) -> None:
    [test], _ = read("tests: [{name: a, to: orders, expect: deny}]", tmp_path)
    assert test.question == {"method": "GET", "path": "/"}
    [test], _ = read("tests: [{name: a, to: orders, expect: deny, request: {claims: {}}}]", tmp_path)
    assert test.question["claims"] == {}  # a token without claims is a token


MISTAKES = [
    ("tests: []", ["nothing can match"]),
    ("", ['it begins with "tests:"']),
    ("[a]", ["expected a mapping"]),
    ("tests: [{nam: a, to: orders, expect: deny}]", ['did you mean "name"?']),
    ("tests: [{name: a, expect: deny}]", ["tests[0].to: is required"]),
    ("tests: [{name: a, to: orders, expect: permitt}]", ['did you mean "permit"?']),
    ("tests: [{name: a, to: orders, expect: 200}]", ["no status that a sidecar refuses with"]),
    ("tests: [{name: a, to: b, expect: 4030}, {name: b, to: c, expect: nein}]", ["4030", "nein"]),
    ("tests: [{name: a, to: b, expect: deny, request: {time: 2026-01-05T12:00:00}}]", ["names no time zone"]),
    ("tests: [{name: a, to: b, expect: deny, request: {claims: {a: 1.5}}}]", ["take 1.5 for a number"]),
    ("tests: [{name: a, to: b, expect: deny, request: {claims: {a: [{b: no}]}}}]", ["claims.a[0].b: YAML readers"]),
    ("tests: [{name: a, to: b, expect: deny, request: {method: get}}]", ['did you mean "GET"?']),
    ("tests: [{name: a, to: b, expect: deny, request: {source: here}}]", ["is not an IP address"]),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES)
def test_every_mistake_is_noted_with_its_place(text: str, says: list[str], tmp_path: Path) -> None:
    _, mistakes = read(text, tmp_path)
    assert len(mistakes) == len(says), mistakes
    for mistake, words in zip(mistakes, says, strict=True):
        assert mistake.startswith(":1:")
        assert words in mistake


def test_a_file_that_is_not_there_or_no_text_is_a_mistake(tmp_path: Path) -> None:
    book = Book()
    assert read_expectations(str(tmp_path / "none.yaml"), book) is None
    (tmp_path / "bytes.yaml").write_bytes(b"tests: \xff")
    assert read_expectations(str(tmp_path / "bytes.yaml"), book) is None
    assert ["cannot be read" in str(each) or "is not UTF-8" in str(each) for each in book.mistakes] == [True, True]
