"""Our few lines of Protocol Buffers against Google's own."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http import protobuf
from sidecar.http.protobuf import InvalidMessage

json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_claims_are_the_struct_that_google_reads(claims: dict[str, Any]) -> None:
    assert json_format.MessageToDict(struct_pb2.Struct.FromString(protobuf.struct_of(claims))) == claims


def test_numbers_of_any_size_stay_numbers() -> None:
    found = struct_pb2.Struct.FromString(protobuf.struct_of({"a": 10**400, "b": -1, "c": 1_800_000_000}))
    assert dict(found) == {"a": 1e300, "b": -1.0, "c": 1_800_000_000.0}


def test_claims_that_are_too_deep_are_refused() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(InvalidMessage, match="deeply"):
        protobuf.struct_of({"deep": deep})


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.binary(max_size=300)), max_size=5))
def test_fields_come_back_as_they_went(pairs: list[tuple[int, bytes]]) -> None:
    assert protobuf.fields(b"".join(protobuf.data(*pair) for pair in pairs)) == pairs


@given(st.dictionaries(st.text(max_size=8), st.binary(max_size=8), max_size=5))
def test_a_table_comes_back_as_it_went(table: dict[str, bytes]) -> None:
    assert protobuf.read_table(protobuf.text(9, "other") + protobuf.table(2, table), 2) == table


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        protobuf.fields(data)
    except InvalidMessage:
        pass


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05abc", b"\x80", b"\x80" * 11, b"\x00", b"\x0b", b"\x0d123", b"\x09" + b"1" * 7, b"\x0f",
     b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"],
)  # fmt: skip
def test_what_is_cut_off_or_of_no_kind_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        protobuf.fields(data)


def test_what_is_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="a number"):
        protobuf.all_data(b"\x08\x01", 1)
    with pytest.raises(InvalidMessage, match="UTF-8"):
        protobuf.all_text(protobuf.data(1, b"\xff"), 1)
    assert protobuf.fields(b"\x08\x96\x01\x15abcd") == [(1, 150), (2, b"abcd")]
    assert (protobuf.one_text(b"", 1), protobuf.one_data(b"", 1)) == ("", b"")
