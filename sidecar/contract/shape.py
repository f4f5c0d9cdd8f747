"""What a schema lets an answer hold, as a tree of names like a grant's: to tell whether a granted field can ever come.

It errs on one side. Where a schema is silent, or leads on for longer than is looked, anything may be there, and no
grant of a field below is called a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sidecar.contract.fields import ALL, LEAF, Tree, merged

Resolve = Callable[[str], Any]  # what a `$ref` leads to; None where it leads nowhere
_DEEPEST: Final = 12  # levels of names, and of parts of schemas
_CHOICES: Final = ("anyOf", "oneOf")
_MIXED: Final = ("allOf", *_CHOICES)
_CHOSEN: Final = ("then", "else")


def shape_of(schema: Any, resolve: Resolve, depth: int = _DEEPEST) -> Tree:
    """The names that a value of this schema can have; ALL where anything may be."""
    if not isinstance(schema, Mapping) or not depth:
        return ALL
    found: list[Tree] = []
    if "$ref" in schema:
        found.append(shape_of(resolve(str(schema["$ref"])), resolve, depth - 1))
    own = _own(schema, resolve, depth)
    if own is not None:
        found.append(own)
    inner = [each for key in _MIXED if isinstance(schema.get(key), list) for each in schema[key]]
    inner += [schema[key] for key in _CHOSEN if key in schema]
    found += [shape_of(each, resolve, depth - 1) for each in inner if not _only_narrows(each)]
    if not found or (own is None and any(_only_narrows(each) for key in _CHOICES for each in schema.get(key, ()))):
        return ALL
    return merged(found)


def missing(path: Sequence[str], shape: Tree) -> tuple[str, list[str]] | None:
    """The first part of a granted path that no value of this shape has, and the names that stand there; None where the
    field may come. A path that ends before a value does is one that never comes: `""`.
    """
    for part in path:
        if shape is ALL or part == "**":
            return None
        if shape is LEAF or part not in shape:
            return part, [] if shape is LEAF else [name for name in shape if name not in ("", "[]")]
        shape = shape[part]
    if shape is ALL or shape is LEAF or "" in shape:
        return None
    return "", [name for name in shape if name != "[]"]


def _own(schema: Mapping[str, Any], resolve: Resolve, depth: int) -> Tree | None:
    """What the schema says by its own keywords; None where it says nothing."""
    said = schema.get("type")
    kinds = said if isinstance(said, list) else [said] if said is not None else []
    objects = isinstance(schema.get("properties"), Mapping) or "object" in kinds
    lists = "items" in schema or "prefixItems" in schema or "array" in kinds
    tree: dict[str, Tree] = {}
    if objects:
        more = schema.get("additionalProperties", None if "properties" in schema else True)
        if more not in (None, False) or "patternProperties" in schema:
            return ALL
        tree |= {name: shape_of(each, resolve, depth - 1) for name, each in schema.get("properties", {}).items()}
    if lists:
        tree["[]"] = ALL if "prefixItems" in schema else shape_of(schema.get("items", True), resolve, depth - 1)
    if not objects and not lists:
        return LEAF if kinds or "enum" in schema or "const" in schema else None
    if any(kind not in ("object", "array", "null") for kind in kinds):
        tree[""] = LEAF
    return tree


def _only_narrows(schema: Any) -> bool:
    """Whether a part names nothing itself, and only narrows what others say (`required`, say)."""
    return isinstance(schema, Mapping) and not any(
        key in schema for key in ("$ref", "type", "properties", "items", "prefixItems", "enum", "const", *_MIXED)
    )
