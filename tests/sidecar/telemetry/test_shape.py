"""What counts as an identifier in a path, and what is a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.telemetry.shape import ID, MAX_SEGMENTS, path_shape, segment_shape

WORDS = [
    "orders",
    "v1",
    "v1beta1",
    "oauth2",
    "api",
    "x86",
    "index.html",
    "app.min.js",
    "robots.txt",
    "user_profile",
    "-",
    "",
]
IDS = [
    "1", "17", "0", "007", "1234567890", "1,2", "12-34", "2024-01-31", "10.0.0.1",
    "550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000",
    "deadbeef", "DEADBEEF01", "a3f9c2d1e4", "abc123", "ord_12345",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "dGhpc0lzQVRva2VuVGhhdA", "eyJhbGciOiJIUzI1NiJ9", "user@example.org", "José",
    "a b", "a\nb",
    "x" * 41, "١٢٣",
]  # fmt: skip


@pytest.mark.parametrize("segment", WORDS)
def test_words_stay(segment):
    expected = ID if segment == "-" else segment
    assert segment_shape(segment) == expected


@pytest.mark.parametrize("segment", IDS)
def test_identifiers_are_folded(segment):
    assert segment_shape(segment) == ID


@pytest.mark.parametrize(
    ("segment", "shape"), [("17.json", "{id}.json"), ("deadbeef.png", "{id}.png"), ("data.json", "data.json")]
)
def test_an_extension_survives(segment, shape):
    assert segment_shape(segment) == shape


def test_a_path_is_folded_segment_by_segment():
    assert path_shape(("orders", "17", "items", "99")) == "/orders/{id}/items/{id}"
    assert path_shape(()) == "/"
    assert path_shape(("static", "")) == "/static/"


def test_a_long_path_is_cut():
    shape = path_shape(("a",) * 100)
    assert shape.count("/") == MAX_SEGMENTS + 1
    assert shape.endswith("/…")


segments = st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9._-]{0,50}", fullmatch=True) | st.sampled_from(WORDS + IDS)


@given(segments)
def test_folding_twice_changes_nothing(segment):
    assert segment_shape(segment_shape(segment)) == segment_shape(segment)


@given(st.integers(min_value=0, max_value=10**40).map(str) | st.from_regex(r"[0-9]+", fullmatch=True))
def test_no_number_survives(segment):
    assert segment_shape(segment) == ID


@given(st.uuids())
def test_no_uuid_survives(value):
    assert segment_shape(str(value)) == segment_shape(value.hex) == ID


@given(segments)
def test_what_survives_is_short_and_plain(segment):
    shape = segment_shape(segment)
    assert len(shape) <= 46
    assert shape.isprintable()
    assert sum(each.isdigit() for each in shape) < 3


@given(st.lists(segments, max_size=30).map(tuple))
def test_a_shape_is_bounded(path):
    assert len(path_shape(path)) < (MAX_SEGMENTS + 1) * 48
