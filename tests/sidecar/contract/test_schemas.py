"""Compiled schemas say what a reference validator says, and end where a value would take too long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sidecar.contract.checks import Exhausted, Work
from sidecar.contract.schemas import Compiler

NAMES = ["a", "b", "c", "ab"]


def check(schema: Any, value: Any, *, old: bool = False, left: int = 60_000, **more: Any) -> str | None:
    notes: list[str] = []
    root = {"s": schema}
    found = Compiler(root, lambda _, message: notes.append(message), old=old, **more).compile(schema, ("s",))
    assert not notes
    return found(value, Work(left))


def mistakes(schema: Any, *, old: bool = False) -> list[str]:
    notes: list[str] = []
    Compiler({"s": schema}, lambda path, message: notes.append(f"{'.'.join(path)}: {message}"), old=old).compile(
        schema, ("s",)
    )
    return notes


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1.0, 2.5, -1.0]) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
small = st.integers(0, 3)
keywords = st.fixed_dictionaries({}, optional={
    "type": st.sampled_from(["null", "boolean", "object", "array", "number", "integer", "string"])
    | st.just(["string", "null"]),
    "enum": st.lists(values, min_size=1, max_size=3), "const": values,
    "minimum": st.integers(-3, 3), "exclusiveMaximum": st.integers(-3, 3), "multipleOf": st.sampled_from([1, 2, 0.5]),
    "minLength": small, "maxLength": small, "pattern": st.sampled_from(["^a", "b$", "a.?b"]),
    "minItems": small, "maxItems": small, "uniqueItems": st.booleans(), "minProperties": small,
    "maxProperties": small, "required": st.lists(st.sampled_from(NAMES), unique=True, max_size=2),
})  # fmt: skip
schemas = st.recursive(
    keywords,
    lambda inner: st.builds(
        lambda plain, more: {**plain, **more}, keywords,
        st.fixed_dictionaries({}, optional={
            "items": inner, "prefixItems": st.lists(inner, min_size=1, max_size=2), "contains": inner,
            "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
            "additionalProperties": inner | st.booleans(), "propertyNames": inner,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=1),
            "allOf": st.lists(inner, min_size=1, max_size=2), "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2), "not": inner, "if": inner, "then": inner, "else": inner,
            "dependentRequired": st.just({"a": ["b"]}), "dependentSchemas": st.dictionaries(st.just("a"), inner),
        }),
    ),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(schemas, values)
def test_the_verdict_is_that_of_the_reference(schema: Any, value: Any) -> None:
    assert (check(schema, value) is None) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "nullable": True}, [None, "x"], [1]),
        ({"type": "string", "nullable": True, "enum": ["x"]}, ["x"], ["y", 1]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, [2], [1]),
        ({"type": "integer", "maximum": 3, "exclusiveMaximum": False}, [3], [4]),
        ({"type": "integer", "format": "int32"}, [2**31 - 1], [2**31]),
        ({"type": "string", "format": "date"}, ["2024-02-29"], ["2023-02-29", "2024-2-9", ""]),
        ({"type": "string", "format": "date-time"}, ["2024-02-29T23:59:60Z"], ["2024-02-29 23:59:59", "x"]),
        ({"format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000", 7], ["123e4567"]),
        ({"format": "email"}, ["a.b@example.org"], ["a@b@c", "@x", "a@"]),
        ({"format": "ipv4"}, ["192.0.2.1"], ["192.0.2.256", "1.2.3"]),
        ({"format": "ipv6"}, ["2001:db8::1"], ["2001:db8::g", "fe80::1%eth0"]),
        ({"format": "uri"}, ["https://example.org/a?b"], ["/a", "https://exa mple"]),
        ({"format": "byte"}, ["aGk="], ["a", "aGk*"]),
    ],
)
def test_what_openapi_3_0_says(schema: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert check(schema, value, old=True) is None, value
    for value in bad:
        assert check(schema, value, old=True) is not None, value


def test_a_schema_may_contain_itself() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#/s"}, "id": {"type": "integer"}}}
    assert check(tree, {"next": {"next": {"id": 1}}}) is None
    assert check(tree, {"next": {"next": {"id": "1"}}}) == ".next.next.id: is no integer"


@pytest.mark.parametrize(
    ("schema", "old", "said"),
    [
        ({"$ref": "#/s"}, False, "no end"),
        ({"allOf": [{"$ref": "#/s"}]}, False, "no end"),
        ({"anyOf": [{"type": "null"}, {"not": {"$ref": "#/s"}}]}, True, "no end"),
        ({"$ref": "https://example.org/x"}, False, "out of this document"),
        ({"$ref": "other.yaml#/x"}, True, "out of this document"),
        ({"$ref": "#/nowhere"}, False, "leads nowhere"),
        ({"pattern": "(?=a)b"}, False, "bounded time"),
        ({"pattern": r"(a)\1"}, False, "bounded time"),
        ({"pattern": "a" * 600}, False, "characters long"),
        ({"type": "objekt"}, False, "no type"),
        ({"type": ["string", "null"]}, True, "3.1"),
        ({"exclusiveMinimum": 3}, True, "true or false"),
        ({"maxLenght": 3}, False, "no keyword"),
        ({"unevaluatedProperties": False}, False, "not supported"),
        ({"minLength": -1}, False, "whole number"),
        (7, False, "mapping"),
    ],
)  # fmt: skip
def test_what_cannot_be_held_is_a_mistake(schema: Any, old: bool, said: str) -> None:
    assert any(said in each for each in mistakes(schema, old=old)), mistakes(schema, old=old)


def test_a_pattern_that_explodes_elsewhere_is_linear() -> None:
    assert check({"pattern": "^(a+)+$"}, "a" * 60_000 + "b") is not None


def test_many_branches_on_many_items_end() -> None:
    heavy = {"items": {"anyOf": [{"type": "string"}] * 50 + [{"type": "integer"}]}}
    with pytest.raises(Exhausted):
        check(heavy, [1] * 20_000)


def test_unknown_fields_by_setting_and_never_within_a_composition() -> None:
    plain = {"type": "object", "properties": {"a": {}}}
    assert check(plain, {"b": 1}) is None
    assert check(plain, {"b": 1}, strict_objects=True) == ".b: is not in the contract"
    assert check({"allOf": [plain, {"properties": {"b": {}}}]}, {"a": 1, "b": 1}, strict_objects=True) is None
