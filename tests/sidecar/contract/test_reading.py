"""Documents become operations, or mistakes with their line; whatever is written there, nothing crashes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.mistakes import Book, TooMany
from sidecar.contract.checks import Work
from sidecar.contract.json_body import NotJson, parse
from sidecar.contract.reading import Api, read_api

HEAD = "openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths:\n  /a:\n    get:\n"


def read(text: str, **more: bool) -> tuple[Api | None, list[str]]:
    """What a document says, and its mistakes as `line: message`."""
    book = Book()
    api = read_api(text, "api.yaml", book, **more)
    return api, [f"{each.where.line}: {each.message}" for each in book.mistakes]


def document(schema: Any, *, version: str = "3.1.0", kind: str = "application/json", **more: Any) -> str:
    """A contract with one operation, whose request and answer have this schema."""
    content = {"content": {kind: {"schema": schema}}}
    answers = {"200": {"description": "", **content}}
    operation = {"operationId": "a", "requestBody": content, "responses": answers, **more}
    info = {"title": "t", "version": "1"}
    return json.dumps({"openapi": version, "info": info, "paths": {"/a": {"post": operation}}})


def verdict(schema: Any, value: Any, *, version: str = "3.0.3", part: str = "request", **more: bool) -> bool:
    api, mistakes = read(document(schema, version=version), **more)
    assert not mistakes
    assert api is not None
    operation = api.operations["a"]
    bodies = operation.bodies if part == "request" else operation.answers["200"].bodies
    assert bodies is not None
    return bodies.check_of("application/json")(value, Work()) is None


# ---- what no sidecar can check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [
    "text/event-stream", "application/grpc", "application/grpc+proto", "application/grpc-web", "application/x-ndjson",
    "application/json-seq", "Text/Event-Stream; charset=utf-8",
])  # fmt: skip
@pytest.mark.parametrize("part", ["requestBody", "responses"])
def test_streams_are_mistakes_with_their_line(kind: str, part: str) -> None:
    body = f"content:\n          '{kind}': {{}}\n"
    text = f"{HEAD}      operationId: a\n"
    if part == "requestBody":
        text += f"      requestBody:\n        {body}      responses: {{'200': {{description: x}}}}\n"
        line = 9
    else:
        text += f"      responses:\n       '200':\n        description: x\n        {body}"
        line = 11
    _, mistakes = read(text)
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"{line}: ")
    assert "is a stream" in mistakes[0]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "#/paths/~1a/post/requestBody/content/application~1json/schema"}, "no end"),
        ({"allOf": [{"$ref": "#/paths/~1a/post/requestBody/content/application~1json/schema"}]}, "no end"),
        ({"$ref": "./other.yaml#/Pet"}, "leads out of this document"),
        ({"$ref": "other.yaml"}, "leads out of this document"),
        ({"$ref": "https://example.org/loop"}, "leads out of this document"),
        ({"properties": {"a": {"$ref": "../api.yaml#/paths"}}}, "leads out of this document"),
        ({"pattern": "^(?=a)"}, "bounded time"), ({"pattern": r"(\w+)\1"}, "bounded time"),
        ({"unevaluatedProperties": False}, "not supported"), ({"nullable": True}, "nullable is 3.0"),
    ],
)  # fmt: skip
def test_schemas_that_nobody_can_check_are_mistakes(schema: Any, said: str) -> None:
    _, mistakes = read(document(schema))
    assert any(said in each for each in mistakes), mistakes
    assert all(each.startswith("1: ") for each in mistakes)


def test_references_between_components_may_go_round_through_values_only() -> None:
    def components(inner: Any) -> str:
        said = json.loads(document({"$ref": "#/components/schemas/A"}))
        loop = {"A": {"allOf": [{"$ref": "#/components/schemas/B"}]}, "B": {"oneOf": [inner]}}
        return json.dumps({**said, "components": {"schemas": loop}})

    assert any("no end" in each for each in read(components({"$ref": "#/components/schemas/A"}))[1])
    assert read(components({"properties": {"next": {"$ref": "#/components/schemas/A"}}}))[1] == []


@pytest.mark.parametrize("key", [
    "const", "if", "prefixItems", "patternProperties", "propertyNames", "contains", "dependentRequired",
])  # fmt: skip
def test_what_3_0_does_not_have_says_so_and_is_not_silently_nothing(key: str) -> None:
    _, mistakes = read(document({key: {} if key != "prefixItems" else [{}]}, version="3.0.3"))
    assert any("is a keyword of 3.1" in each for each in mistakes)


# ---- OpenAPI 3.0 -----------------------------------------------------------------------------------------------------

def animal(by: str) -> dict[str, Any]:
    """One that is known by this."""
    named = {"kind": {"type": "string"}, by: {"type": "integer"}}
    return {"type": "object", "required": ["kind", by], "properties": named}


CAT, DOG = animal("claws"), animal("bark")
SAYS = {"discriminator": {"propertyName": "kind", "mapping": {"cat": "#/nowhere", "dog": "Dog"}}}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "nullable": True}, ["a", None], [1]),
        ({"type": "string", "nullable": False}, ["a"], [None]),
        ({"nullable": True}, ["a", None, 1], []),  # without a type it says nothing (3.0.3, 4.7.24.1)
        ({"type": "string", "nullable": True, "enum": ["a"]}, ["a"], [None]),
        ({"type": "string", "nullable": True, "enum": ["a", None]}, ["a", None], ["b"]),
        ({"type": "object", "nullable": True, "allOf": [{"type": "object"}]}, [{}], [None]),
        ({"nullable": True, "allOf": [{"type": "string"}]}, ["a"], [None]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, [2], [1, 0]),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, [1], [0]),
        ({"type": "number", "maximum": 1.5, "exclusiveMaximum": True}, [1.4], [1.5]),
        ({"exclusiveMinimum": True, "type": "integer"}, [-5], ["a"]),
        ({"oneOf": [CAT, DOG], **SAYS}, [{"kind": "cat", "claws": 1}, {"kind": "dog", "bark": 1}], [{"kind": "cat"}]),
        ({"oneOf": [CAT, DOG], **SAYS}, [], [{"kind": "cat", "claws": 1, "bark": 1}]),  # two of them
        ({"anyOf": [CAT, DOG], **SAYS}, [{"kind": "?", "claws": 1, "bark": 1}], [{"claws": 1}]),
    ],
)  # fmt: skip
def test_what_openapi_3_0_means(schema: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not verdict(schema, value)] == []
    assert [value for value in bad if verdict(schema, value)] == []


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_properties_have_a_direction(version: str) -> None:
    user = {
        "type": "object", "required": ["id", "name", "password"],
        "properties": {"id": {"type": "integer", "readOnly": True}, "name": {"type": "string"},
                       "password": {"type": "string", "writeOnly": True}},
    }  # fmt: skip
    sent, told = {"name": "a", "password": "b"}, {"id": 1, "name": "a"}
    assert [verdict(user, each, version=version) for each in (sent, told, {**sent, "id": 1})] == [True, False, False]
    verdicts = [verdict(user, each, version=version, part="answer") for each in (sent, told, {**told, "password": "b"})]
    assert verdicts == [False, True, False]


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": {}}}, [{"a": 1}], [{"b": 1}]),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, [{"a": 1, "b": 1}], [{"c": 1}]),
        ({"properties": {"a": {"allOf": [{"properties": {"b": {}}}]}}}, [{"a": {"b": 1}}], [{"a": {"c": 1}}]),
        ({"oneOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]},
         [{"a": 1}, {"b": 1}], [{"a": 1, "c": 1}]),
        ({"allOf": [{"properties": {"a": {}}}, {"additionalProperties": {"type": "string"}}]},
         [{"b": "c"}], [{"b": 1}]),
        ({"type": "object"}, [{"a": 1}], []),
        ({"properties": {"not": {"properties": {"a": {}}}}}, [{"not": {"a": 1}}], [{"not": {"b": 1}}]),
        ({"patternProperties": {"^x": {}}, "anyOf": [{"properties": {"a": {}}}]}, [{"a": 1, "xy": 1}], [{"y": 1}]),
    ],
)  # fmt: skip
def test_unknown_fields_are_refused_where_the_whole_names_fields(schema: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert verdict(schema, value, version="3.1.0", strict_fields=True), value
    for value in bad:
        assert not verdict(schema, value, version="3.1.0", strict_fields=True), value


# ---- parameters ------------------------------------------------------------------------------------------------------

MAYBE = {"anyOf": [{"type": "integer"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, ["1", "-7"], ["1.0", "1e3", "0x1", "01", "+1", " 1", "9" * 20, "NaN", "true", ""]),
        ({"type": "number"}, ["1", "-1.5", "1e3"], ["1e999", "Infinity", "nan", "1_0", "0x1", "."]),
        ({"type": "boolean"}, ["true", "false"], ["True", "1", "yes", ""]),
        (MAYBE, ["1"], ["a", "null"]), ({"enum": [1, 2]}, ["1"], ["3", "a"]), ({"const": True}, ["true"], ["false"]),
        ({"type": ["integer", "string"], "maxLength": 2}, ["12345", "ab"], ["abc"]),
        ({"type": "string", "pattern": "^[0-9]+$"}, ["12"], ["a"]),
        ({"type": "array", "items": MAYBE}, ["1"], ["a"]), ({"type": "string", "minLength": 1}, ["a"], [""]),
    ],
)  # fmt: skip
def test_a_parameter_is_what_its_schema_may_mean(schema: Any, good: list[str], bad: list[str]) -> None:
    text = document({}, parameters=[{"name": "p", "in": "query", "schema": schema}])
    api, mistakes = read(text)
    assert not mistakes
    assert api is not None
    (parameter,) = api.operations["a"].parameters
    assert [each for each in good if parameter.wrong([each], Work()) is not None] == []
    assert [each for each in bad if parameter.wrong([each], Work()) is None] == []
    if not parameter.listed:
        assert parameter.wrong([good[0], good[0]], Work()) == ": stands twice"


# ---- whatever is written ---------------------------------------------------------------------------------------------

WHOLE = json.loads(document(
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "a", "enum": ["a"], "format": "date"}},
     "required": ["a"], "items": {}, "allOf": [{}], "patternProperties": {"b": {}}, "dependentRequired": {"a": ["b"]},
     "dependentSchemas": {"a": {}}, "minimum": 1, "if": {}, "then": {}, "additionalProperties": {}},
    parameters=[{"name": "p", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}],
    **{"x-sunset": "2030-01-01"},
))  # fmt: skip
ODD = st.sampled_from([None, True, 7, -1, 1.5, "", "x", "#/paths", "(?=a", [], [1], [[]], {}, {"a": 1}, {"$ref": 5},
                       {"$ref": "#"}, ["a", 1], "0001-01-01T00:00:00+14:00", "9999-12-31"])  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


PLACES = places(WHOLE)[1:]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD), min_size=1, max_size=2), st.sampled_from(["3.0.3", "3.1.0"]))
def test_any_document_is_read_or_has_mistakes(changes: list[tuple[tuple[Any, ...], Any]], version: str) -> None:
    said = copy.deepcopy(WHOLE)
    said["openapi"] = version
    for path, value in changes:
        here = said
        try:
            for key in path[:-1]:
                here = here[key]
            here[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    try:
        api, _ = read(json.dumps(said), strict_fields=True)
    except TooMany:
        return
    for operation in api.operations.values() if api is not None else ():
        for bodies in (operation.bodies, *(each.bodies for each in operation.answers.values())):
            check = bodies.check_of("application/json") if bodies is not None else None
            if callable(check):
                check({"a": "a"}, Work())


# ---- bodies ----------------------------------------------------------------------------------------------------------

PIECES = st.lists(st.sampled_from([
    "{", "}", "[", "]", ",", ":", '"a"', '"b"', '"a" ', '":"', '"\\":"', '" :"', "1", "9" * 19, "1.5", "1e999", " ",
    "\n", "null", "NaN", '"\\u0061"',
]), max_size=14).map("".join)  # fmt: skip
NAMES = st.sampled_from(['"a"', '"b"', '"\\u0061"', '":"'])
VALUES = st.sampled_from(["1", '":"', '{"a":1}', '{"a":1,"a":2}', "[]", "18446744073709551616", "1e400"])
OBJECTS = st.lists(st.tuples(NAMES, st.sampled_from(["", " ", "\t"]), VALUES), max_size=4).map(
    lambda pairs: "{" + ",".join(f"{name}{blank}:{value}" for name, blank, value in pairs) + "}"
)  # fmt: skip


@settings(max_examples=500)
@given(PIECES | OBJECTS)
def test_the_quick_reader_says_what_the_strict_one_says(text: str) -> None:
    from sidecar.contract.json_body import _STRICT

    try:
        expected = json.dumps(_STRICT.decode(text))
    except ValueError:
        with pytest.raises(NotJson):
            parse(text.encode())
    else:
        assert json.dumps(parse(text.encode())) == expected
