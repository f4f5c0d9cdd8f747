"""Which granted fields can never come: told where the schema is sure, and never of a field that may be there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.contract.fields import ALL, parts_of
from sidecar.contract.shape import missing, shape_of

TEXT = {"type": "string"}
NODE = {"type": "object", "properties": {"name": TEXT, "next": {"$ref": "#/node"}}}
ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "customer": {"type": ["object", "null"], "properties": {"name": TEXT}},
        "items": {"type": "array", "items": {"type": "object", "properties": {"sku": TEXT, "tags": {"type": "array"}}}},
        "free": {"type": "object"},
        "either": {"oneOf": [TEXT, {"type": "object", "properties": {"code": TEXT}}]},
        "both": {"allOf": [{"properties": {"a": TEXT}}, {"required": ["a"]}, {"properties": {"b": TEXT}}]},
        "open": {"properties": {"a": TEXT}, "additionalProperties": True},
        "map": {"type": "object", "additionalProperties": TEXT},
        "silent": {},
        "node": {"$ref": "#/node"},
    },
}


def resolve(ref: str) -> Any:
    return NODE if ref == "#/node" else None


@pytest.mark.parametrize("path", [
    "id", "customer.name", "customer.**", "items[].sku", "items[].tags[]", "free.anything.at.all", "either",
    "either.code", "both.a", "both.b", "open.other", "map.any", "silent", "silent.below", "node.next.next.name", "**",
])  # fmt: skip
def test_what_may_come_is_no_mistake(path: str) -> None:
    assert missing(parts_of(path), shape_of(ORDER, resolve)) is None


@pytest.mark.parametrize(("path", "part", "among"), [
    ("idd", "idd", "id"),
    ("customer.nmae", "nmae", "name"),
    ("items.sku", "sku", ""),
    ("items[].price", "price", "sku"),
    ("id.value", "value", ""),
    ("both.c", "c", "a"),
    ("either.coed", "coed", "code"),
    ("node.next.nme", "nme", "name"),
    ("[].id", "[]", "id"),
])  # fmt: skip
def test_what_never_comes_is_told_with_what_is_there(path: str, part: str, among: str) -> None:
    found = missing(parts_of(path), shape_of(ORDER, resolve))
    assert found is not None
    assert found[0] == part
    assert among in found[1] or not among


@pytest.mark.parametrize("path", ["items", "both", "node.next"])
def test_a_path_that_ends_at_an_object_or_a_list_lets_nothing_pass(path: str) -> None:
    found = missing(parts_of(path), shape_of(ORDER, resolve))
    assert found is not None
    assert found[0] == ""


def test_a_loop_and_a_missing_reference_lead_to_anything() -> None:
    assert shape_of({"$ref": "#/gone"}, resolve) is ALL
    deep = shape_of(NODE, resolve)
    for _ in range(20):
        if deep is ALL:
            return
        assert isinstance(deep, dict)
        deep = deep["next"]
    raise AssertionError("it never ends")


LEAVES = st.sampled_from([{"type": "integer"}, TEXT, {"enum": [1]}, {}])
NAMES = st.sampled_from(["a", "b", "c"])


def _objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    members = st.dictionaries(NAMES, inner, min_size=1)
    return st.one_of(
        st.builds(lambda given: {"type": "object", "properties": given}, members),
        st.builds(lambda given: {"properties": given, "additionalProperties": {}}, members),
        st.builds(lambda given: {"type": "array", "items": given}, inner),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
        st.builds(lambda one, given: {"allOf": [{"properties": given}, one]}, inner, members),
    )


SCHEMAS = st.recursive(LEAVES, _objects, max_leaves=8)


@st.composite
def answers(draw: st.DrawFn, schema: dict[str, Any]) -> Any:
    """A value that this schema allows, of the names that it has."""
    if "anyOf" in schema:
        return draw(answers(draw(st.sampled_from(schema["anyOf"]))))
    if "allOf" in schema:
        named, other = schema["allOf"]
        return draw(answers(named)) | (draw(answers(other)) if "properties" in other else {})
    if "properties" in schema:
        names = [name for name in schema["properties"] if draw(st.booleans())]
        more = {"d": 1} if "additionalProperties" in schema else {}
        return {name: draw(answers(schema["properties"][name])) for name in names} | more
    if "items" in schema:
        return [draw(answers(schema["items"])) for _ in range(draw(st.integers(0, 2)))]
    return 1 if schema else draw(st.sampled_from([1, {"e": 1}, [1]]))


def _paths(value: Any) -> list[list[str]]:
    if isinstance(value, dict):
        return [[name, *rest] for name, each in value.items() for rest in _paths(each)]
    if isinstance(value, list):
        return [["[]", *rest] for each in value for rest in _paths(each)]
    return [[]]


@given(SCHEMAS.flatmap(lambda schema: st.tuples(st.just(schema), answers(schema))))
def test_what_an_answer_has_is_never_called_a_mistake(both: tuple[dict[str, Any], Any]) -> None:
    schema, value = both
    shape = shape_of(schema, resolve)
    for path in _paths(value):
        assert missing(path, shape) is None
