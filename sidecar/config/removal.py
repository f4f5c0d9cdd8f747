"""A config's text without one item of one of its lists, and nothing else of it changed: how an unused rule is removed.

The item is found by the place where its mapping begins, as `Where` has it. The result is read again and compared with
what was meant; a text that cannot be cut so is given back as None, and somebody has to do it by hand.
"""

from __future__ import annotations

import copy
from difflib import unified_diff
from typing import Any, NamedTuple

import yaml


class _Found(NamedTuple):
    """An item of a list, and the way to it from the top."""

    path: tuple[Any, ...]
    items: list[yaml.Node]
    at: int
    flow: bool
    parent: yaml.Node


def without(text: str, line: int, column: int, caller: str = "") -> str | None:
    """The text without the item of a list that begins there (both count from 1; column 0 is any), or without that
    caller of its `from`. None where it is not found, or cannot be cut out.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        found = _find(root, (), line, column) if root is not None else None
        if found is not None and caller:
            found = _caller(found, caller)
        if found is None:
            return None
        cut = _cut(text, found)
        expected = _less(yaml.safe_load(text), found)
        return cut if cut is not None and yaml.safe_load(cut) == expected else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def diff(file: str, before: str, after: str) -> str:
    """The change, as `patch` and `git apply` take it."""
    lines = unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{file}", f"b/{file}")
    return "".join(each if each.endswith("\n") else f"{each}\n\\ No newline at end of file\n" for each in lines)


def _find(node: yaml.Node, path: tuple[Any, ...], line: int, column: int) -> _Found | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and (found := _find(value, (*path, key.value), line, column)):
                return found
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            mark = item.start_mark
            if mark.line + 1 == line and column in (0, mark.column + 1) and isinstance(item, yaml.MappingNode):
                return _Found(path, node.value, index, bool(node.flow_style), node)
            if found := _find(item, (*path, index), line, column):
                return found
    return None


def _caller(found: _Found, caller: str) -> _Found | None:
    """The caller among those of a rule; None where it is the only one, or not there."""
    item = found.items[found.at]
    for key, value in item.value:
        if key.value == "from" and isinstance(value, yaml.SequenceNode) and len(value.value) > 1:
            for index, each in enumerate(value.value):
                if isinstance(each, yaml.ScalarNode) and each.value == caller:
                    path = (*found.path, found.at, "from")
                    return _Found(path, value.value, index, bool(value.flow_style), value)
    return None


def _cut(text: str, found: _Found) -> str | None:
    items, index = found.items, found.at
    item = items[index]
    if len(items) == 1:
        return _empty(text, found)
    if found.flow:
        if index + 1 < len(items):
            return text[: item.start_mark.index] + text[items[index + 1].start_mark.index :]
        return text[: items[index - 1].end_mark.index] + text[item.end_mark.index :]
    lines = text.splitlines(keepends=True)
    first = item.start_mark.line
    if lines[first][: item.start_mark.column].strip() != "-":
        return None
    return "".join(lines[:first] + lines[_last(item) + 1 :])


def _empty(text: str, found: _Found) -> str | None:
    """The list without its only item."""
    node = found.parent
    if found.flow:
        return text[: node.start_mark.index] + "[]" + text[node.end_mark.index :]
    lines = text.splitlines(keepends=True)
    first, last = node.start_mark.line, _last(found.items[0])
    key = lines[first - 1].rstrip()
    if not key.endswith(":"):
        return None
    return "".join([*lines[: first - 1], f"{key} []\n", *lines[last + 1 :]])


def _last(node: yaml.Node) -> int:
    """The line that a node ends on; a block's own mark is behind what follows it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.line)
    inner = node.value[-1]
    return _last(inner[1] if isinstance(inner, tuple) else inner)


def _less(document: Any, found: _Found) -> Any:
    """What the text should say then."""
    document = copy.deepcopy(document)
    here = document
    for step in found.path:
        here = here[step]
    del here[found.at]
    return document
