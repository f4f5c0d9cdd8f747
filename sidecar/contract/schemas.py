"""JSON Schema → closures, for what OpenAPI 3.0 and 3.1 say of bodies and parameters.

Theory of operation. A schema becomes one function `check(value, work)`, made of one function for each keyword it has
(`checks`). The common shape, an object of named properties, is one function of its own.

`$ref` inside the document is followed once, when it is compiled; a loop is a function that calls itself later, on a
smaller value each time. A loop that comes back to itself without going into a value would have no end, and is a
mistake. Two versions: 3.0's `nullable` and boolean `exclusiveMinimum`, with what stands beside a `$ref` ignored; 3.1's
draft 2020-12, with type arrays, `const`, `prefixItems`, `if`, and a `$ref` that is one keyword among others. What a
version does not have is a mistake there, for it would silently check nothing.

Two directions: a property that is `readOnly` has no place in a request, nor a `writeOnly` one in an answer (OpenAPI 3.0
section 4.7.24.2), so there it is refused, and not required.

Fields that nobody names are refused by `strict_objects` where a schema is silent. A schema that is a part of another
(`allOf` and the like) cannot know all names, so there the whole knows those of all its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import unquote

from sidecar.contract.checks import (
    TYPES,
    Check,
    all_of,
    any_check,
    anything,
    contains_check,
    enum_check,
    fields_count_check,
    format_check,
    if_check,
    items_check,
    items_count_check,
    length_check,
    names_check,
    needs_check,
    never,
    not_check,
    nothing,
    object_check,
    one_check,
    only_check,
    pattern_check,
    range_check,
    step_check,
    type_check,
    unique,
    where_check,
)
from sidecar.contract.expressions import Dangerous, compile_pattern
from sidecar.contract.formats import NUMBERS, TEXTS

MAX_SCHEMAS: Final = 5000  # compiled for one contract
Note = Callable[[tuple[str, ...], str], None]  # (where in the document, what is wrong)
Direction = Literal["", "readOnly", "writeOnly"]  # what has no place here


Path = tuple[str, ...]

KEYWORDS: Final = frozenset((
    "type", "enum", "const", "nullable", "properties", "required", "additionalProperties", "patternProperties",
    "propertyNames", "minProperties", "maxProperties", "items", "prefixItems", "contains", "minContains", "maxContains",
    "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "allOf", "anyOf", "oneOf", "not", "if", "then", "else",
    "dependentRequired", "dependentSchemas", "$ref", "readOnly", "writeOnly",
))  # fmt: skip
TALK: Final = frozenset((
    "title", "description", "default", "example", "examples", "deprecated", "discriminator", "xml", "externalDocs",
    "$comment", "$defs", "definitions", "contentEncoding", "contentMediaType", "contentSchema", "$schema",
))  # fmt: skip
NEWER: Final = frozenset((  # what 3.0 does not have
    "const", "patternProperties", "propertyNames", "prefixItems", "contains", "minContains", "maxContains", "if",
    "then", "else", "dependentRequired", "dependentSchemas",
))  # fmt: skip
REFUSED: Final = frozenset((
    "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$anchor", "$id", "unevaluatedProperties", "unevaluatedItems",
))  # fmt: skip
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref")
_NAMING: Final = (*(key for key in _IN_PLACE if key != "not"), "dependentSchemas")


class Compiler:
    """Compiles the schemas of one document. `strict_objects` refuses unknown fields where the contract is silent."""

    def __init__(
        self, root: Mapping[str, Any], note: Note, *, old: bool, strict_objects: bool = False, without: Direction = ""
    ) -> None:  # fmt: skip
        self._root = root
        self._note = note
        self._old = old  # 3.0
        self._strict = strict_objects
        self._without = without
        self._known: dict[tuple[Path, bool], Check] = {}
        self._open: list[tuple[Path, bool]] = []
        self._patterns: dict[str, Callable[[str], bool]] = {}

    def compile(self, schema: Any, path: Path, *, part: bool = False) -> Check:
        """The check of the schema that stands at this place; `part`: it looks at a value beside others. Mistakes are
        noted; never raises.
        """
        key = (path, part and self._strict)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            return lambda value, work: self._known[key](value, work)
        if len(self._known) >= MAX_SCHEMAS:
            if len(self._known) == MAX_SCHEMAS:
                self._note(path, f"more than {MAX_SCHEMAS} schemas in one contract")
                self._known[key] = anything
            return anything
        self._open.append(key)
        check = self._made(schema, path, part=part)
        self._open.pop()
        self._known[key] = check
        return check

    # ---- one schema ------------------------------------------------------------------------------------------------

    def _made(self, schema: Any, path: Path, *, part: bool) -> Check:
        if isinstance(schema, bool):
            if self._old:
                self._note(path, "true and false are schemas in 3.1 only")
            return anything if schema else nothing
        if not isinstance(schema, Mapping):
            self._note(path, "a schema is a mapping")
            return anything
        if "$ref" in schema and (self._old or len(schema) == 1):
            return self._reference(schema["$ref"], path, part=part)
        self._check_keywords(schema, path)
        closed = self._strict and not part and "additionalProperties" not in schema
        mixed = any(key in schema for key in (*_IN_PLACE, "dependentSchemas"))
        checks: list[Check] = []
        for make in (self._types, self._values, self._numbers, self._texts, self._arrays):
            checks += make(schema, path)
        checks += self._objects(schema, path, closed=closed and not mixed)
        checks += self._mixed(schema, path)
        if closed and mixed:
            checks += self._only(path)
        return all_of(checks)

    def _check_keywords(self, schema: Mapping[str, Any], path: Path) -> None:
        for key in schema:
            if key in REFUSED:
                self._note((*path, key), f"{key} is not supported; write the schema out")
            elif self._old and key in NEWER:
                self._note((*path, key), f"{key} is a keyword of 3.1, and says nothing in 3.0")
            elif not self._old and key == "nullable":
                self._note((*path, key), "nullable is 3.0; in 3.1 write type: [string, 'null']")
            elif key not in KEYWORDS and key not in TALK and not key.startswith("x-"):
                self._note((*path, key), f"no keyword {key!r} in a schema; an extension begins with x-")

    def resolve(self, ref: Any, path: Path) -> tuple[Any, Path] | None:
        """What a `$ref` inside the document means, with its place; None with the mistake noted."""
        if not isinstance(ref, str) or not ref.startswith("#"):
            self._note((*path, "$ref"), f"{ref!r} leads out of this document; only #/… is followed")
            return None
        parts = _pointer(ref)
        found: Any = self._root
        for part in parts:
            if isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, Mapping) and part in found:
                found = found[part]
            else:
                self._note((*path, "$ref"), f"{ref!r} leads nowhere in this document")
                return None
        return found, parts

    def look(self, ref: str) -> Any:
        """What a `$ref` inside the document means; None where it means nothing."""
        return _at(self._root, _pointer(ref))

    def _reference(self, ref: Any, path: Path, *, part: bool) -> Check:
        if self._endless(path):
            self._note((*path, "$ref"), f"{ref!r} comes back to itself without going into a value: it has no end")
            return nothing
        found = self.resolve(ref, path)
        return self.compile(*found, part=part) if found is not None else nothing

    def _endless(self, path: Path) -> bool:
        """Whether a schema leads to itself by keywords that look at the same value."""
        return any(here == path for here, _ in self._beside(path, _IN_PLACE))

    def _beside(self, path: Path, keys: tuple[str, ...]) -> Iterator[tuple[Path, Any]]:
        """The schemas that look at the same value as this one, by these keywords, with their places; each once."""
        waiting, seen = [path], set[Path]()
        while waiting:
            here = waiting.pop()
            schema = _at(self._root, here)
            if not isinstance(schema, Mapping):
                continue
            for key in keys:
                inner = schema.get(key)
                targets: list[Path] = []
                if key == "$ref" and inner is not None:
                    targets = [_pointer(str(inner))]
                elif isinstance(inner, list):
                    targets = [(*here, key, str(index)) for index in range(len(inner))]
                elif key == "dependentSchemas" and isinstance(inner, Mapping):
                    targets = [(*here, key, name) for name in inner]
                elif inner is not None:
                    targets = [(*here, key)]
                for target in targets:
                    if target not in seen:
                        seen.add(target)
                        waiting.append(target)
                        yield target, _at(self._root, target)

    def _only(self, path: Path) -> list[Check]:
        """Refuse the fields that neither a schema nor one that looks at the same value names; nothing where one of
        them lets every field pass, or none names any.
        """
        names: set[str] = set()
        patterns: list[Callable[[str], bool]] = []
        for here, each in ((path, _at(self._root, path)), *self._beside(path, _NAMING)):
            if not isinstance(each, Mapping):
                continue
            if each.get("additionalProperties", False) is not False:
                return []
            named, matched = each.get("properties"), each.get("patternProperties")
            names.update(named if isinstance(named, Mapping) else ())
            if isinstance(matched, Mapping):
                patterns += [self._pattern(text, (*here, "patternProperties", text)) for text in matched]
        return [only_check(frozenset(names), tuple(patterns))] if names or patterns else []

    # ---- keywords --------------------------------------------------------------------------------------------------

    def _types(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        said = schema.get("type")
        if said is None:
            return []
        names = said if isinstance(said, list) else [said]
        if isinstance(said, list) and self._old:
            self._note((*path, "type"), "a list of types is 3.1; in 3.0 write nullable, or anyOf")
        wrong = [name for name in names if not isinstance(name, str) or name not in TYPES
                 or (name == "null" and self._old)]  # fmt: skip
        if wrong or not names:
            self._note((*path, "type"), f"no type {wrong[0] if wrong else said!r}; there are {', '.join(TYPES)}")
            return []
        if self._old and schema.get("nullable") is True:  # it widens `type` and nothing else (OpenAPI 3.0.3, 4.7.24.1)
            names = [*names, "null"]
        return [type_check(tuple(names))]

    def _values(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        checks: list[Check] = []
        if "enum" in schema:
            values = schema["enum"]
            if not isinstance(values, list):
                self._note((*path, "enum"), "enum is a list")
            else:
                checks.append(enum_check(values))
        if "const" in schema:
            checks.append(enum_check([schema["const"]]))
        return checks

    def _numbers(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        low, high = self._number(schema, "minimum", path), self._number(schema, "maximum", path)
        above = below = None
        if self._old:
            if schema.get("exclusiveMinimum") is True:
                low, above = None, low
            if schema.get("exclusiveMaximum") is True:
                high, below = None, high
            for key in ("exclusiveMinimum", "exclusiveMaximum"):
                if key in schema and not isinstance(schema[key], bool):
                    self._note((*path, key), f"in 3.0 {key} is true or false, beside {key[9:].lower()}")
        else:
            above = self._number(schema, "exclusiveMinimum", path)
            below = self._number(schema, "exclusiveMaximum", path)
        step = self._number(schema, "multipleOf", path)
        if step is not None and step <= 0:
            self._note((*path, "multipleOf"), "multipleOf is above 0")
            step = None
        bounds = NUMBERS.get(str(schema.get("format", "")))
        checks: list[Check] = []
        if any(each is not None for each in (low, high, above, below)):
            checks.append(range_check(low, high, above, below))
        if step is not None:
            checks.append(step_check(step))
        if bounds is not None:
            checks.append(range_check(*bounds, None, None))
        return checks

    def _texts(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        least, most = self._count(schema, "minLength", path), self._count(schema, "maxLength", path)
        checks: list[Check] = []
        if least is not None or most is not None:
            checks.append(length_check(least or 0, most))
        if "pattern" in schema:
            checks.append(pattern_check(self._pattern(schema["pattern"], (*path, "pattern"))))
        name = str(schema.get("format", ""))
        if name in TEXTS:
            checks.append(format_check(name, TEXTS[name]))
        return checks

    def _arrays(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        least, most = self._count(schema, "minItems", path), self._count(schema, "maxItems", path)
        checks: list[Check] = []
        if least is not None or most is not None:
            checks.append(items_count_check(least or 0, most))
        if schema.get("uniqueItems") is True:
            checks.append(unique)
        first: list[Check] = []
        if "prefixItems" in schema and not self._old:
            first = self._many(schema, "prefixItems", path, part=False)
        if "items" in schema:
            checks.append(items_check(first, self.compile(schema["items"], (*path, "items"))))
        elif first:
            checks.append(items_check(first, anything))
        if "contains" in schema:
            low = self._count(schema, "minContains", path)
            high = self._count(schema, "maxContains", path)
            inner = self.compile(schema["contains"], (*path, "contains"))
            checks.append(contains_check(inner, 1 if low is None else low, high))
        return checks

    def _objects(self, schema: Mapping[str, Any], path: Path, *, closed: bool) -> list[Check]:
        least, most = self._count(schema, "minProperties", path), self._count(schema, "maxProperties", path)
        checks: list[Check] = []
        if least is not None or most is not None:
            checks.append(fields_count_check(least or 0, most))
        named = self._mapping(schema, "properties", path)
        absent = {name for name, each in named.items() if self._has_no_place(each)}
        known = {name: nothing if name in absent else self.compile(each, (*path, "properties", name))
                 for name, each in named.items()}  # fmt: skip
        patterned = [
            (self._pattern(each, (*path, "patternProperties", each)),
             self.compile(inner, (*path, "patternProperties", each)))
            for each, inner in self._mapping(schema, "patternProperties", path).items()
        ]  # fmt: skip
        required = tuple(name for name in self._names(schema, "required", path) if name not in absent)
        others = schema.get("additionalProperties")
        rest: Check | None = None
        if others is False or (others is None and closed and named):
            rest = nothing
        elif others is not None and others is not True:
            rest = self.compile(others, (*path, "additionalProperties"))
        if known or patterned or required or rest is not None:
            checks.append(object_check(known, patterned, required, rest))
        if "propertyNames" in schema:
            checks.append(names_check(self.compile(schema["propertyNames"], (*path, "propertyNames"))))
        needs = self._mapping(schema, "dependentRequired", path)
        checks += [needs_check(name, tuple(self._names(needs, name, (*path, "dependentRequired")))) for name in needs]
        for name, inner in self._mapping(schema, "dependentSchemas", path).items():
            checks.append(where_check(name, self.compile(inner, (*path, "dependentSchemas", name), part=True)))
        return checks

    def _has_no_place(self, schema: Any) -> bool:
        """Whether a property is for the other direction alone."""
        for _ in range(8):
            if not self._without or not isinstance(schema, Mapping):
                return False
            if schema.get(self._without) is True:
                return True
            if "$ref" not in schema:
                return False
            schema = self.look(str(schema["$ref"]))
        return False

    def _mixed(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        checks: list[Check] = []
        if "$ref" in schema:
            checks.append(self._reference(schema["$ref"], path, part=True))
        if "allOf" in schema:
            checks += self._many(schema, "allOf", path)
        if "anyOf" in schema:
            checks.append(any_check(self._many(schema, "anyOf", path)))
        if "oneOf" in schema:
            checks.append(one_check(self._many(schema, "oneOf", path)))
        if "not" in schema:
            checks.append(not_check(self.compile(schema["not"], (*path, "not"), part=True)))
        if "if" in schema and not self._old:
            then, other = (
                self.compile(schema[key], (*path, key), part=True) if key in schema else anything
                for key in ("then", "else")
            )
            checks.append(if_check(self.compile(schema["if"], (*path, "if"), part=True), then, other))
        return checks

    # ---- what keywords say -----------------------------------------------------------------------------------------

    def _mapping(self, schema: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
        said = schema.get(key, {})
        if isinstance(said, Mapping):
            return said
        self._note((*path, key), f"{key} is a mapping of names")
        return {}

    def _names(self, schema: Mapping[str, Any], key: str, path: Path) -> list[str]:
        said = schema.get(key, [])
        if isinstance(said, list) and all(isinstance(name, str) for name in said):
            return said
        self._note((*path, key), f"{key} is a list of names")
        return []

    def _many(self, schema: Mapping[str, Any], key: str, path: Path, *, part: bool = True) -> list[Check]:
        parts = schema[key]
        if not isinstance(parts, list) or not parts:
            self._note((*path, key), f"{key} is a list of schemas")
            return []
        return [self.compile(each, (*path, key, str(index)), part=part) for index, each in enumerate(parts)]

    def _number(self, schema: Mapping[str, Any], key: str, path: Path) -> int | float | None:
        value = schema.get(key)
        if value is None:
            return None
        if type(value) not in (int, float):
            self._note((*path, key), f"{key} is a number")
            return None
        return value  # type: ignore[no-any-return]

    def _count(self, schema: Mapping[str, Any], key: str, path: Path) -> int | None:
        value = schema.get(key)
        if value is None:
            return None
        if type(value) is not int or value < 0:
            self._note((*path, key), f"{key} is a whole number from 0")
            return None
        return value

    def _pattern(self, pattern: Any, path: Path) -> Callable[[str], bool]:
        found = self._patterns.get(str(pattern))
        if found is None:
            try:
                found = compile_pattern(str(pattern))
            except Dangerous as error:
                self._note(path, f"the pattern {error}")
                found = never
            self._patterns[str(pattern)] = found
        return found


def _pointer(ref: str) -> Path:
    """The place that a reference into the same document names (RFC 6901 section 6)."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in unquote(ref).split("/")[1:])


def _at(root: Any, path: Path) -> Any:
    for part in path:
        if isinstance(root, list) and part.isdigit() and int(part) < len(root):
            root = root[int(part)]
        elif isinstance(root, Mapping) and part in root:
            root = root[part]
        else:
            return None
    return root
