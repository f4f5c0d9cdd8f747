"""What of an answer a caller may see: the fields that its grant names, and nothing else.

`customer.name` is one field of an object, `items[].id` a field of each item, `tags[]` each item itself. A name that
ends a path means a single value (text, a number, true, false, null): an object or a list in its place does not pass, so
that what a provider adds below a granted name stays hidden too. `customer.**` means all below it; `**` everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

ALL: Final = True
LEAF: Final = False
Tree = bool | dict[str, Any]  # ALL, LEAF, or names (`[]` for the items of a list) with their trees
_GONE: Final = object()


class BadField(ValueError):
    """A path of fields that cannot be read."""


def read_fields(paths: Iterable[str]) -> Tree:
    """The tree of these paths. Raises BadField."""
    root: dict[str, Any] = {}
    for path in paths:
        parts = parts_of(path)
        if parts == ["**"]:
            return ALL
        here = root
        for part in parts[:-1]:
            inner = here.get(part)
            if inner is ALL:
                break
            if not isinstance(inner, dict):
                inner = here[part] = {"": LEAF} if inner is LEAF else {}
            here = inner
        else:
            last = parts[-1]
            if last == "**":
                here["**"] = ALL
            elif last not in here:
                here[last] = LEAF
            elif isinstance(here[last], dict):
                here[last][""] = LEAF
    return _settled(root)


def _settled(tree: dict[str, Any]) -> Tree:
    if "**" in tree:
        return ALL
    return {name: _settled(inner) if isinstance(inner, dict) else inner for name, inner in tree.items()}


def parts_of(path: str) -> list[str]:
    """The names of a path, `[]` for the items of a list. Raises BadField."""
    parts: list[str] = []
    for name in path.split("."):
        bare = name
        lists = 0
        while bare.endswith("[]"):
            bare, lists = bare[:-2], lists + 1
        if not bare and not (lists and not parts):
            raise BadField(f"{path!r}: write names with dots between, like customer.name or items[].id")
        if "[" in bare or "]" in bare or ("*" in bare and (bare != "**" or lists)):
            raise BadField(f"{path!r}: only [] after a name, and ** as the last one, mean something")
        parts += [bare] if bare else []
        parts += ["[]"] * lists
    if "**" in parts[:-1]:
        raise BadField(f"{path!r}: ** stands last")
    return parts


def merged(trees: Iterable[Tree]) -> Tree:
    """What any of these lets pass."""
    found: Tree = {}
    for tree in trees:
        found = _either(found, tree)
    return found


def _either(one: Tree, other: Tree) -> Tree:
    if one is ALL or other is ALL:
        return ALL
    if one is LEAF or other is LEAF:
        rest = other if one is LEAF else one
        return LEAF if rest is LEAF else {**rest, "": LEAF}
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    shared = {name: _either(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **shared}


def filtered(value: Any, tree: Tree) -> Any:
    """The value with nothing in it that the tree does not name; None where nothing is left of it."""
    return cutter(tree)(value)


def cutter(tree: Tree) -> Callable[[Any], Any]:
    """`filtered` for one tree, made once."""
    cut = _cut(tree)

    def whole(value: Any) -> Any:
        left = cut(value)
        if left is not _GONE:
            return left
        return {} if type(value) is dict else [] if type(value) is list else None

    return whole


def _cut(tree: Tree) -> Callable[[Any], Any]:
    """What is left of a value, or _GONE."""
    if tree is ALL:
        return lambda value: value
    if tree is LEAF:
        return lambda value: _GONE if type(value) in _CONTAINERS else value
    assert isinstance(tree, dict)
    named = [(name, inner) for name, inner in tree.items() if name not in ("", "[]")]
    fields = _leaves(tuple(n for n, _ in named)) if all(i is LEAF for _, i in named) else _fields(named)
    items = _cut(tree["[]"]) if "[]" in tree else None
    other = "" in tree

    def cut(value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            return fields(value)
        if kind is list:
            return _GONE if items is None else [left for each in value if (left := items(each)) is not _GONE]
        return value if other else _GONE

    return cut


def _leaves(names: tuple[str, ...]) -> Callable[[dict[str, Any]], Any]:
    def fields(value: dict[str, Any]) -> Any:
        get = value.get
        return {name: each for name in names if type(each := get(name, _GONE)) not in _SKIPPED}

    return fields


def _fields(named: list[tuple[str, Tree]]) -> Callable[[dict[str, Any]], Any]:
    cuts = tuple((name, _cut(inner)) for name, inner in named)

    def fields(value: dict[str, Any]) -> Any:
        return {
            name: left for name, cut in cuts if name in value and (left := cut(value[name])) is not _GONE
        }  # fmt: skip

    return fields


_CONTAINERS: Final = frozenset((dict, list))
_SKIPPED: Final = frozenset((dict, list, object))  # the last is what _GONE is
