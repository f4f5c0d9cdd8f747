"""JSON Schema → closures, for what OpenAPI 3.0 and 3.1 say of bodies and parameters.

Theory of operation. A schema becomes one function `check(value, work)`, made of one function for each keyword it has,
that returns None or what is wrong and where, as text for the operator. The common shape, an object of named
properties, is one function of its own. `work.left` bounds what one body may cost: whoever walks items takes from it,
and where nothing is left the body is refused (`Exhausted`), so that neither many branches nor many items stall anybody.

`$ref` inside the document is followed once, when it is compiled; a loop is a function that calls itself later, on a
smaller value each time. A loop that comes back to itself without going into a value would have no end, and is a
mistake. Two versions: 3.0's `nullable` and boolean `exclusiveMinimum`, with what stands beside a `$ref` ignored; 3.1's
draft 2020-12, with type arrays, `const`, `prefixItems`, `if`, and a `$ref` that is one keyword among others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sidecar.contract.expressions import Dangerous, compile_pattern
from sidecar.contract.formats import NUMBERS, TEXTS, whole

WORK: Final = 60_000  # values looked at for one body, each branch counted: some 30 ms
MAX_SCHEMAS: Final = 5000  # compiled for one contract
Note = Callable[[tuple[str, ...], str], None]  # (where in the document, what is wrong)


class Exhausted(Exception):
    """A value would take too long to check."""


class Work:
    """What may still be spent on one value."""

    __slots__ = ("left",)

    def __init__(self, left: int = WORK) -> None:
        self.left = left

    def spend(self, count: int) -> None:
        """Take from it. Raises Exhausted."""
        self.left -= count
        if self.left < 0:
            raise Exhausted


Check = Callable[[Any, Work], "str | None"]
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
REFUSED: Final = frozenset((
    "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$anchor", "$id", "unevaluatedProperties", "unevaluatedItems",
))  # fmt: skip
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref")


class Compiler:
    """Compiles the schemas of one document. `strict_objects` refuses unknown fields where the contract is silent."""

    def __init__(self, root: Mapping[str, Any], note: Note, *, old: bool, strict_objects: bool = False) -> None:
        self._root = root
        self._note = note
        self._old = old  # 3.0
        self._strict = strict_objects
        self._known: dict[Path, Check] = {}
        self._open: list[Path] = []
        self._patterns: dict[str, Callable[[str], bool]] = {}

    def compile(self, schema: Any, path: Path) -> Check:
        """The check of the schema that stands at this place. Mistakes are noted; never raises."""
        if path in self._known:
            return self._known[path]
        if path in self._open:
            return lambda value, work: self._known[path](value, work)
        if len(self._known) >= MAX_SCHEMAS:
            if len(self._known) == MAX_SCHEMAS:
                self._note(path, f"more than {MAX_SCHEMAS} schemas in one contract")
                self._known[path] = _anything
            return _anything
        self._open.append(path)
        check = self._made(schema, path)
        self._open.pop()
        self._known[path] = check
        return check

    # ---- one schema ------------------------------------------------------------------------------------------------

    def _made(self, schema: Any, path: Path) -> Check:
        if isinstance(schema, bool):
            if self._old:
                self._note(path, "true and false are schemas in 3.1 only")
            return _anything if schema else _nothing
        if not isinstance(schema, Mapping):
            self._note(path, "a schema is a mapping")
            return _anything
        if "$ref" in schema and self._old:
            return self._reference(schema["$ref"], path)
        for key in schema:
            if key in REFUSED:
                self._note((*path, key), f"{key} is not supported; write the schema out")
            elif key not in KEYWORDS and key not in TALK and not key.startswith("x-"):
                self._note((*path, key), f"no keyword {key!r} in a schema; an extension begins with x-")
        checks: list[Check] = []
        for make in (self._types, self._values, self._numbers, self._texts, self._arrays, self._objects, self._mixed):
            checks += make(schema, path)
        check = _all_of(checks)
        if self._old and schema.get("nullable") is True and "type" in schema and "enum" not in schema:
            return lambda value, work: None if value is None else check(value, work)
        return check

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

    def _reference(self, ref: Any, path: Path) -> Check:
        if self._endless(path):
            self._note((*path, "$ref"), f"{ref!r} comes back to itself without going into a value: it has no end")
            return _nothing
        found = self.resolve(ref, path)
        return self.compile(*found) if found is not None else _nothing

    def _endless(self, path: Path) -> bool:
        """Whether a schema leads to itself by keywords that look at the same value."""
        waiting, seen = [path], set()
        while waiting:
            here = waiting.pop()
            schema = _at(self._root, here)
            if not isinstance(schema, Mapping):
                continue
            for key in _IN_PLACE:
                if key not in schema:
                    continue
                inner = schema[key]
                if key == "$ref":
                    targets = [_pointer(str(inner))]
                elif isinstance(inner, list):
                    targets = [(*here, key, str(index)) for index in range(len(inner))]
                else:
                    targets = [(*here, key)]
                for target in targets:
                    if target == path:
                        return True
                    if target not in seen:
                        seen.add(target)
                        waiting.append(target)
        return False

    # ---- keywords --------------------------------------------------------------------------------------------------

    def _types(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        said = schema.get("type")
        if said is None:
            return []
        names = said if isinstance(said, list) else [said]
        if isinstance(said, list) and self._old:
            self._note((*path, "type"), "a list of types is 3.1; in 3.0 write nullable, or anyOf")
        wrong = [name for name in names if name not in _TYPES or (name == "null" and self._old)]
        if wrong or not names:
            self._note((*path, "type"), f"no type {wrong[0] if wrong else said!r}; there are {', '.join(_TYPES)}")
            return []
        return [_type_check(tuple(names))]

    def _values(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        checks: list[Check] = []
        if "enum" in schema:
            values = schema["enum"]
            if not isinstance(values, list):
                self._note((*path, "enum"), "enum is a list")
            else:
                checks.append(_enum_check([*values, None] if self._old and schema.get("nullable") else values))
        if "const" in schema:
            if self._old:
                self._note((*path, "const"), "const is 3.1; in 3.0 write enum with one value")
            checks.append(_enum_check([schema["const"]]))
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
        bounds = NUMBERS.get(schema.get("format", ""))
        checks: list[Check] = []
        if any(each is not None for each in (low, high, above, below)):
            checks.append(_range_check(low, high, above, below))
        if step is not None:
            checks.append(_step_check(step))
        if bounds is not None:
            checks.append(_range_check(*bounds, None, None))
        return checks

    def _texts(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        least, most = self._count(schema, "minLength", path), self._count(schema, "maxLength", path)
        checks: list[Check] = []
        if least is not None or most is not None:
            checks.append(_length_check(least or 0, most))
        if "pattern" in schema:
            matches = self._pattern(schema["pattern"], (*path, "pattern"))
            checks.append(lambda value, _: ": does not match its pattern" if type(value) is str and not matches(value)
                          else None)  # fmt: skip
        form = TEXTS.get(schema.get("format", "")) if isinstance(schema.get("format", ""), str) else None
        if form is not None:
            name = schema["format"]
            checks.append(lambda value, _: f": is no {name}" if type(value) is str and not form(value) else None)
        return checks

    def _arrays(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        least, most = self._count(schema, "minItems", path), self._count(schema, "maxItems", path)
        checks: list[Check] = []
        if least is not None or most is not None:
            checks.append(_items_count_check(least or 0, most))
        if schema.get("uniqueItems") is True:
            checks.append(_unique)
        first: list[Check] = []
        if "prefixItems" in schema and not self._old:
            first = self._many(schema, "prefixItems", path)
        if "items" in schema:
            checks.append(_items_check(first, self.compile(schema["items"], (*path, "items"))))
        elif first:
            checks.append(_items_check(first, _anything))
        if "contains" in schema:
            low = self._count(schema, "minContains", path)
            high = self._count(schema, "maxContains", path)
            inner = self.compile(schema["contains"], (*path, "contains"))
            checks.append(_contains_check(inner, 1 if low is None else low, high))
        return checks

    def _objects(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        least, most = self._count(schema, "minProperties", path), self._count(schema, "maxProperties", path)
        checks: list[Check] = []
        if least is not None or most is not None:
            checks.append(_fields_count_check(least or 0, most))
        named = schema.get("properties", {})
        if not isinstance(named, Mapping):
            self._note((*path, "properties"), "properties is a mapping of names to schemas")
            named = {}
        known = {name: self.compile(each, (*path, "properties", name)) for name, each in named.items()}
        patterned = [
            (self._pattern(each, (*path, "patternProperties", each)),
             self.compile(inner, (*path, "patternProperties", each)))
            for each, inner in schema.get("patternProperties", {}).items()
        ]  # fmt: skip
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            self._note((*path, "required"), "required is a list of names")
            required = []
        others = schema.get("additionalProperties")
        if others is None and self._strict and named and not self._composed(path):
            others = False
        rest: Check | None = None
        if others is False:
            rest = _nothing
        elif isinstance(others, Mapping) and others:
            rest = self.compile(others, (*path, "additionalProperties"))
        if known or patterned or required or rest is not None:
            checks.append(_object_check(known, patterned, tuple(required), rest))
        if "propertyNames" in schema:
            checks.append(_names_check(self.compile(schema["propertyNames"], (*path, "propertyNames"))))
        for name, needed in schema.get("dependentRequired", {}).items():
            checks.append(_needs_check(name, tuple(needed)))
        for name, inner in schema.get("dependentSchemas", {}).items():
            checks.append(_where_check(name, self.compile(inner, (*path, "dependentSchemas", name))))
        return checks

    def _composed(self, path: Path) -> bool:
        """Whether a schema is a part of a whole by allOf and the like, or has such parts: it cannot know all names."""
        schema = _at(self._root, path)
        parts = ("allOf", "anyOf", "oneOf", "if", "not")
        return any(key in schema for key in parts) or any(key in path for key in parts)

    def _mixed(self, schema: Mapping[str, Any], path: Path) -> list[Check]:
        checks: list[Check] = []
        if "$ref" in schema:
            checks.append(self._reference(schema["$ref"], path))
        if "allOf" in schema:
            checks += self._many(schema, "allOf", path)
        if "anyOf" in schema:
            checks.append(_any_check(self._many(schema, "anyOf", path)))
        if "oneOf" in schema:
            checks.append(_one_check(self._many(schema, "oneOf", path)))
        if "not" in schema:
            checks.append(_not_check(self.compile(schema["not"], (*path, "not"))))
        if "if" in schema and not self._old:
            then, other = (
                self.compile(schema[key], (*path, key)) if key in schema else _anything for key in ("then", "else")
            )
            checks.append(_if_check(self.compile(schema["if"], (*path, "if")), then, other))
        return checks

    # ---- what keywords say -----------------------------------------------------------------------------------------

    def _many(self, schema: Mapping[str, Any], key: str, path: Path) -> list[Check]:
        parts = schema[key]
        if not isinstance(parts, list) or not parts:
            self._note((*path, key), f"{key} is a list of schemas")
            return []
        return [self.compile(each, (*path, key, str(index))) for index, each in enumerate(parts)]

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
                found = _never
            self._patterns[str(pattern)] = found
        return found


def _pointer(ref: str) -> Path:
    """The place that a reference into the same document names (RFC 6901 section 6)."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in ref.split("/")[1:])


def _at(root: Any, path: Path) -> Any:
    for part in path:
        if isinstance(root, list) and part.isdigit() and int(part) < len(root):
            root = root[int(part)]
        elif isinstance(root, Mapping) and part in root:
            root = root[part]
        else:
            return None
    return root


# ---- checks --------------------------------------------------------------------------------------------------------


def _anything(_: Any, __: Work) -> str | None:
    return None


def _nothing(_: Any, __: Work) -> str | None:
    return ": is not in the contract"


def _never(_: str) -> bool:
    return False


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "null": (type(None),), "boolean": (bool,), "object": (dict,), "array": (list,), "number": (int, float),
    "integer": (int,), "string": (str,),
}  # fmt: skip


def _all_of(checks: list[Check]) -> Check:
    if not checks:
        return _anything
    if len(checks) == 1:
        return checks[0]
    if len(checks) == 2:
        first, second = checks
        return lambda value, work: first(value, work) or second(value, work)
    every = tuple(checks)

    def check(value: Any, work: Work) -> str | None:
        for each in every:
            wrong = each(value, work)
            if wrong is not None:
                return wrong
        return None

    return check


def _type_check(names: tuple[str, ...]) -> Check:
    kinds = frozenset(kind for name in names for kind in _TYPES[name])
    wrong, integers = f": is no {' or '.join(names)}", "integer" in names

    def check(value: Any, _: Work) -> str | None:
        return None if type(value) in kinds or (integers and whole(value)) else wrong

    return check


def _key(value: Any) -> Any:
    """A value that can be compared and hashed as JSON does: 1 is 1.0, but not true."""
    kind = type(value)
    if kind is bool:
        return ("bool", value)
    if kind is list:
        return ("list", tuple(_key(each) for each in value))
    if kind is dict:
        return ("dict", frozenset((name, _key(each)) for name, each in value.items()))
    return value


def _enum_check(values: list[Any]) -> Check:
    keys = frozenset(_key(each) for each in values)
    plain = frozenset(each for each in values if type(each) is str)
    nested = any(type(each) in (list, dict) for each in values)

    def check(value: Any, work: Work) -> str | None:
        kind = type(value)
        if kind is str:
            return None if value in plain else _NOT_LISTED
        if kind in (list, dict):
            if not nested:
                return _NOT_LISTED
            work.spend(size_of(value))
        return None if _key(value) in keys else _NOT_LISTED

    return check


_NOT_LISTED: Final = ": is none of the values in the contract"


def size_of(value: Any) -> int:
    """How many values there are in one."""
    count, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        count += 1
        if type(each) is list:
            waiting += each
        elif type(each) is dict:
            waiting += each.values()
    return count


def _range_check(
    low: float | None, high: float | None, above: float | None, below: float | None
) -> Check:  # fmt: skip
    def check(value: Any, _: Work) -> str | None:
        kind = type(value)
        if kind is not int and kind is not float:
            return None
        if (low is not None and value < low) or (above is not None and value <= above):
            return ": is too small"
        if (high is not None and value > high) or (below is not None and value >= below):
            return ": is too large"
        return None

    return check


def _step_check(step: float) -> Check:
    def check(value: Any, _: Work) -> str | None:
        kind = type(value)
        if kind is int and type(step) is int:
            return None if value % step == 0 else _NO_MULTIPLE
        if kind is not int and kind is not float:
            return None
        try:
            quotient = value / step
        except OverflowError:
            return _NO_MULTIPLE
        return None if quotient - quotient == 0 and abs(quotient - round(quotient)) < 1e-9 else _NO_MULTIPLE

    return check


_NO_MULTIPLE: Final = ": is no multiple of what the contract says"


def _length_check(least: int, most: int | None) -> Check:
    def check(value: Any, _: Work) -> str | None:
        if type(value) is not str:
            return None
        length = len(value)
        if length < least:
            return ": is too short"
        return ": is too long" if most is not None and length > most else None

    return check


def _items_count_check(least: int, most: int | None) -> Check:
    def check(value: Any, _: Work) -> str | None:
        if type(value) is not list:
            return None
        if len(value) < least:
            return ": has too few items"
        return ": has too many items" if most is not None and len(value) > most else None

    return check


def _fields_count_check(least: int, most: int | None) -> Check:
    def check(value: Any, _: Work) -> str | None:
        if type(value) is not dict:
            return None
        if len(value) < least:
            return ": has too few fields"
        return ": has too many fields" if most is not None and len(value) > most else None

    return check


def _unique(value: Any, work: Work) -> str | None:
    if type(value) is not list:
        return None
    work.spend(size_of(value))
    return ": has an item twice" if len({_key(each) for each in value}) != len(value) else None


def _items_check(first: list[Check], rest: Check) -> Check:
    count = len(first)

    def check(value: Any, work: Work) -> str | None:
        if type(value) is not list:
            return None
        work.spend(len(value))
        for index, each in enumerate(value):
            wrong = (first[index] if index < count else rest)(each, work)
            if wrong is not None:
                return f"[{index}]{wrong}"
        return None

    def plain(value: Any, work: Work) -> str | None:
        if type(value) is not list:
            return None
        work.spend(len(value))
        for each in value:
            wrong = rest(each, work)
            if wrong is not None:
                return f"[]{wrong}"
        return None

    return check if first else plain


def _contains_check(inner: Check, least: int, most: int | None) -> Check:
    def check(value: Any, work: Work) -> str | None:
        if type(value) is not list:
            return None
        work.spend(len(value))
        count = sum(inner(each, work) is None for each in value)
        good = count >= least and (most is None or count <= most)
        return None if good else ": does not have the items that the contract wants in it"

    return check


def _object_check(
    known: Mapping[str, Check], patterned: list[tuple[Callable[[str], bool], Check]], required: tuple[str, ...],
    rest: Check | None,
) -> Check:  # fmt: skip
    get = known.get

    def check(value: Any, work: Work) -> str | None:
        if type(value) is not dict:
            return None
        work.spend(len(value))
        for name in required:
            if name not in value:
                return f".{name}: is missing"
        for name, each in value.items():
            inner = get(name)
            if inner is not None:
                wrong = inner(each, work)
                if wrong is not None:
                    return f".{name}{wrong}"
            if patterned or (inner is None and rest is not None):
                wrong = other(name, each, work, known=inner is not None)
                if wrong is not None:
                    return f".{name[:64]}{wrong}"
        return None

    def other(name: str, each: Any, work: Work, *, known: bool) -> str | None:
        for matches, inner in patterned:
            work.spend(1)
            if matches(name):
                known = True
                wrong = inner(each, work)
                if wrong is not None:
                    return wrong
        return rest(each, work) if rest is not None and not known else None

    return check


def _names_check(inner: Check) -> Check:
    def check(value: Any, work: Work) -> str | None:
        if type(value) is not dict:
            return None
        work.spend(len(value))
        return next((f".{name[:64]}{wrong}" for name in value if (wrong := inner(name, work)) is not None), None)

    return check


def _needs_check(name: str, needed: tuple[str, ...]) -> Check:
    def check(value: Any, _: Work) -> str | None:
        if type(value) is not dict or name not in value:
            return None
        return next((f".{each}: is missing" for each in needed if each not in value), None)

    return check


def _where_check(name: str, inner: Check) -> Check:
    return lambda value, work: inner(value, work) if type(value) is dict and name in value else None


def _any_check(branches: list[Check]) -> Check:
    def check(value: Any, work: Work) -> str | None:
        work.spend(len(branches))
        wrong: str | None = None
        for branch in branches:
            wrong = branch(value, work)
            if wrong is None:
                return None
        return f": fits none of its kinds (anyOf); of the last: {wrong}"

    return check


def _one_check(branches: list[Check]) -> Check:
    def check(value: Any, work: Work) -> str | None:
        work.spend(len(branches))
        fits = sum(branch(value, work) is None for branch in branches)
        return None if fits == 1 else f": fits {fits or 'none'} of its kinds, not one (oneOf)"

    return check


def _not_check(inner: Check) -> Check:
    return lambda value, work: ": is what the contract excludes" if inner(value, work) is None else None


def _if_check(condition: Check, then: Check, other: Check) -> Check:
    return lambda value, work: (then if condition(value, work) is None else other)(value, work)
