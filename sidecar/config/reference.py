"""The schema's dataclasses as JSON Schema for editors, and as the reference in Markdown (docs/config.md).

Both walk the same fields as the reader. JSON Schema cannot say everything that the reader checks (it sees no quotes and
no other services), so it accepts more, and never less: whatever loads without mistakes is valid by it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, Final

from sidecar.config.fields import (
    OFF,
    Anything,
    Choice,
    CommandLine,
    FieldSpec,
    HeaderTable,
    Many,
    Maybe,
    One,
    Record,
    Shape,
    Table,
    fields_of,
    records,
    shape_alone,
)
from sidecar.config.kinds import KINDS
from sidecar.config.schema import MeshConfig

_TEXT: Final = KINDS["text"].schema


def json_schema() -> dict[str, Any]:
    """The config as JSON Schema, draft 2020-12."""
    root, *others = records(MeshConfig)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mesh.yaml",
        **_object(root),
        "$defs": {cls.__name__: _object(cls) for cls in others},
    }


def _object(cls: type) -> dict[str, Any]:
    specs = fields_of(cls)
    result: dict[str, Any] = {
        "type": "object",
        "description": _doc(cls),
        "additionalProperties": False,
        "properties": {spec.key: _property(spec) for spec in specs},
    }
    required = [spec.key for spec in specs if spec.required]
    if required and cls is not MeshConfig:  # included files have no trust domain
        result["required"] = required
    return result


def _property(spec: FieldSpec) -> dict[str, Any]:
    result = {"description": spec.doc, **_json(spec.shape)}
    if spec.default is not dataclasses.MISSING and not spec.filled and not isinstance(spec.shape, Record):
        shown = _plain_default(spec)
        if shown is not None:
            result["default"] = shown
    return result


def _plain_default(spec: FieldSpec) -> Any:
    value = spec.default
    if isinstance(value, (bool, str)) and value != "":
        return value
    if isinstance(spec.shape, One) and value not in ("", None):
        return value if "string" not in spec.shape.kind.schema["type"] else spec.shape.kind.show(value)
    return None


def _json(shape: Shape) -> dict[str, Any]:
    match shape:
        case One(kind):
            return dict(kind.schema)
        case Choice(words):
            return {"enum": list(words)}
        case Maybe(inner):
            return {"anyOf": [_json(inner), {"const": OFF}]}
        case Record(cls, alone) as record:
            reference = {"$ref": f"#/$defs/{cls.__name__}"}
            return {"anyOf": [_json(shape_alone(record)), reference]} if alone else reference
        case Many(inner, some):
            items: dict[str, Any] = {"type": "array", "items": _json(inner), **({"minItems": 1} if some else {})}
            if isinstance(inner, Record):
                return {"anyOf": [_json(shape_alone(inner)), items]} if inner.alone else items
            return {"anyOf": [_json(inner), items]}
        case Table(key, inner):
            return {"type": "object", "propertyNames": _names(key.schema), "additionalProperties": _json(inner)}
        case CommandLine():
            return {"anyOf": [{"type": "string"}, {"type": "array", "items": dict(_TEXT), "minItems": 1}]}
        case HeaderTable(some, query):
            return {
                "type": "object",
                "propertyNames": _names(KINDS["text" if query else "header"].schema),
                "additionalProperties": {"anyOf": [dict(_TEXT), _HEADER]},
                **({"minProperties": 1} if some else {}),
            }
        case Anything():
            return {}


_HEADER: Final[dict[str, Any]] = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
    "properties": {"exact": dict(_TEXT), "prefix": dict(_TEXT), "present": {"const": True}},
}


def _names(schema: Any) -> dict[str, Any]:
    """The schema of a key: the type is implied."""
    return {key: value for key, value in schema.items() if key == "pattern"}


# ---- for people --------------------------------------------------------------------------------------------------

_HEAD: Final = """# The config, key by key

<!-- Printed by `mesh schema --markdown` from sidecar/config/schema.py; a test holds it to that. -->

One file, `mesh.yaml`, describes the whole mesh; `mesh up -f`, `mesh run -f` and `mesh check -f` read it in the same
way. [mesh.example.yaml](mesh.example.yaml) is a whole one with comments.

- Every mistake is reported at once, with file, line, column and what was probably meant. An unknown key is a mistake.
- YAML is read strictly, because several programs read the same file: duplicate keys, tabs, anchors, aliases, merge
  keys, tags and further documents are mistakes. Where text is meant, a plain word or number that some YAML reader takes
  for something else (`no`, `on`, `1.10`, `010`, `22:22`) needs quotes.
- A list of single values may be written as one value: `method: GET`.
- Durations have a unit (`500ms`, `2s`, `5m`, `1h`, `1d`); sizes are bytes or have one (`64KiB`, `1MiB`, `1GiB`);
  addresses are `host:port`, IPv6 in brackets and quotes (`"[::1]:8080"`); truth is `true` or `false`.
- `defaults` hold field by field: a service that sets one time-out keeps the others.
- The environment is never read.
"""


def reference_markdown() -> str:
    """The reference, one table for each record."""
    return "\n".join([_HEAD, *(line for cls in records(MeshConfig) for line in _section(cls))]) + "\n"


def _section(cls: type) -> Iterator[str]:
    yield f"## {_title(cls)}"
    yield ""
    yield _doc(cls)
    yield ""
    yield "| key | value | if absent | |"
    yield "| --- | --- | --- | --- |"
    for spec in fields_of(cls):
        yield f"| `{spec.key}` | {_cell(_words(spec.shape))} | {_cell(_absent(spec))} | {_cell(spec.doc)} |"
    yield ""


def _title(cls: type) -> str:
    if cls is MeshConfig:
        return "The file"
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).lower()
    return words[0].upper() + words[1:]


def _doc(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _words(shape: Shape) -> str:
    match shape:
        case One(kind):
            return kind.what
        case Choice(words):
            return ", ".join(f"`{word}`" for word in words)
        case Maybe(inner):
            return f"{_words(inner)}, or `{OFF}`"
        case Record(cls, alone) as record:
            link = f"[{_title(cls).lower()}](#{_title(cls).lower().replace(' ', '-')})"
            return f"{_words(shape_alone(record))}, or {link}" if alone else link
        case Many(inner, _):
            if isinstance(inner, Record) and inner.alone:
                return f"{_words(inner)}, or a list"
            return f"list of: {_words(inner)}" if isinstance(inner, Record) else f"{_words(inner)}, or a list"
        case Table(key, inner):
            return f"mapping of {key.what} to: {_words(inner)}"
        case CommandLine():
            return "a line, or a list of words"
        case HeaderTable(_, query):
            return f"mapping of {'parameter' if query else 'header'} names to what they must say"
        case Anything():
            return "any value"


def _absent(spec: FieldSpec) -> str:
    if spec.required:
        return "required"
    if spec.filled:
        return spec.filled
    if isinstance(spec.shape, Record):
        return "none" if spec.default is None else "the defaults"
    if spec.default is None or spec.default == "" or not isinstance(spec.default, (bool, int, float, str)):
        return "none" if not spec.default else f"`{spec.default}`"
    return f"`{spec.shape.kind.show(spec.default)}`" if isinstance(spec.shape, One) else f"`{spec.default}`"
