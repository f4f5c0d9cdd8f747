"""JSON with one reading, or none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.contract.json_body import MAX_DEPTH, NotJson, parse

PIECES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(PIECES, st.booleans())
def test_what_json_can_say_is_read(value: Any, ascii_: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=ascii_).encode()) == value


@pytest.mark.parametrize("body", [
    b"", b"{", b"\xff", b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"), b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}',
    b"NaN", b"[Infinity]", b"-Infinity", b'"\\ud800"', b'{"\\udfff":1}', b"1e999", b"-1e400", b"9" * 4400,
    b"18446744073709551616", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b"[" * 100_000, b"]" * 1_000_000,
    b"[" + b"1," * 20_001 + b"1]", b"[" * 60 + b"]" * 900_000, b'"' + b'\\"' * 500_000, b" " * ((1 << 20) + 1),
    b"{} {}", b"'a'", b'"\x00"', b"01", b"[1,]",
])  # fmt: skip
def test_what_is_doubtful_or_too_much_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson):
        parse(body)


def test_commas_and_brackets_inside_text_are_no_values() -> None:
    body = b'{"a":"' + b"[{," * 300_000 + b'"}'
    assert len(parse(body)["a"]) == 900_000
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
