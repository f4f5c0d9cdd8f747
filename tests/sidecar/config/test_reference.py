"""The reference and the JSON Schema say what the reader does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.fields import fields_of, records
from sidecar.config.load import load, load_text
from sidecar.config.mistakes import ConfigErrors
from sidecar.config.reference import json_schema, reference_markdown
from sidecar.config.schema import MeshConfig
from tests.sidecar.config.test_load import EVERYTHING, TEAM
from tests.sidecar.config.test_mistakes_table import RULES, VALUES, service

ROOT = Path(__file__).parents[3]
SCHEMA = json_schema()


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is valid by the part of JSON Schema that we use; an unknown keyword is an error."""
    known = {
        "$schema", "$defs", "title", "description", "default", "type", "enum", "const", "pattern", "minimum", "maximum",
        "anyOf", "items", "minItems", "properties", "required", "additionalProperties", "propertyNames",
        "minProperties", "maxProperties", "$ref",
    }  # fmt: skip
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        return valid(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}
    wanted = schema.get("type", list(types))
    wanted = [wanted] if isinstance(wanted, str) else wanted
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    checks = [
        any(isinstance(value, types[name]) and (name == "boolean" or not isinstance(value, bool)) for name in wanted),
        value in schema.get("enum", [value]),
        value == schema.get("const", value),
        "anyOf" not in schema or any(valid(value, each) for each in schema["anyOf"]),
        not isinstance(value, str) or "pattern" not in schema or re.search(schema["pattern"], value) is not None,
        not numeric or value >= schema.get("minimum", value),
        not numeric or value <= schema.get("maximum", value),
    ]
    if isinstance(value, list):
        checks += [valid(each, schema.get("items", {})) for each in value]
        checks.append(len(value) >= schema.get("minItems", 0))
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        inner = [(each, properties.get(key, others)) for key, each in value.items()]
        checks += [rule if isinstance(rule, bool) else valid(each, rule) for each, rule in inner]
        checks += [valid(key, schema.get("propertyNames", {})) for key in value]
        checks.append(set(schema.get("required", ())) <= set(value))
        checks.append(schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)))
    return all(checks)


def test_the_printed_reference_is_current() -> None:
    printed = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert printed == reference_markdown(), "run: mesh schema --markdown > docs/config.md"


def test_the_reference_has_every_key_once_in_its_section() -> None:
    sections = re.split(r"^## ", reference_markdown(), flags=re.MULTILINE)[1:]
    for cls, section in zip(records(MeshConfig), sections, strict=True):
        assert re.findall(r"^\| `([a-z0-9_]+)` \|", section, re.MULTILINE) == [spec.key for spec in fields_of(cls)]


def test_links_of_the_reference_lead_to_its_sections() -> None:
    text = reference_markdown()
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", text)) <= titles


def test_the_example_loads_clean() -> None:
    loaded = load(str(ROOT / "docs/mesh.example.yaml"))
    assert loaded.warnings == ()
    assert list(loaded.config.services) == ["web", "orders", "ledger"]


def test_the_json_schema_is_json_and_has_every_key() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    root, *others = records(MeshConfig)
    assert list(SCHEMA["properties"]) == [spec.key for spec in fields_of(root)]
    for cls in others:
        assert list(SCHEMA["$defs"][cls.__name__]["properties"]) == [spec.key for spec in fields_of(cls)]


@pytest.mark.parametrize("text", [EVERYTHING, TEAM, (ROOT / "docs/mesh.example.yaml").read_text(encoding="utf-8")])
def test_what_loads_is_valid_by_the_json_schema(text: str) -> None:
    value = yaml.load(text, Loader=yaml.BaseLoader)
    assert valid(_typed(value), SCHEMA)


def _typed(value: Any) -> Any:
    """Plain decimal integers, numbers and true and false as a YAML 1.2 editor sees them."""
    if isinstance(value, dict):
        return {key: _typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    if re.fullmatch(r"[0-9]+", value):
        return int(value)
    if re.fullmatch(r"[0-9]+\.[0-9]+", value):
        return float(value)
    return {"true": True, "false": False}.get(value, value)


WRONG_SHAPES = [
    "colour: red", "inbond: []", "inbound: {name: a}", "run: []", "run: {a: b}", "tls: yes", "tls: {unsafe_tls12: 1}",
    "limits: {connections: 0}", "limits: {head_bytes: 64kb}", "access_log: {mode: eror}", "access_log: {sample: 2}",
    "timeouts: {connect: 5}", "timeouts: {connect: soon}", "forward_proxy: 8080", "env: {A-B: a}",
    "allow: [{from: a, method: []}]", "allow: [{form: a}]", "allow: [{from: a, method: get}]",
    "allow: [{from: a, headers: {x: {prefx: b}}}]", "allow: [{from: a, headers: {x: {present: false}}}]",
]  # fmt: skip


@pytest.mark.parametrize("block", WRONG_SHAPES)
def test_what_an_editor_can_see_is_wrong_by_both(block: str) -> None:
    text = service(block)
    with pytest.raises(ConfigErrors):
        load_text(text)
    assert not valid(yaml.safe_load(text), SCHEMA)


def test_the_schema_never_refuses_more_than_the_reader() -> None:
    """Whatever the tables of mistakes show as loading must be valid; the reverse need not hold."""
    for block in [case[0] for case in VALUES] + [f"allow: [{rule[0]}]" for rule in RULES if rule[0].startswith("{")]:
        text = service(block)
        try:
            load_text(text)
        except ConfigErrors:
            continue
        assert valid(yaml.safe_load(text), SCHEMA), block
