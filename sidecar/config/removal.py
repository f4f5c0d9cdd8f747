"""A config's text without one item of one of its lists, and nothing else of it changed: how an unused rule is removed;
and without a member of `grants`.

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


_Path = tuple[tuple[yaml.MappingNode, int], ...]


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


def without_grant(text: str, line: int, operation: str = "") -> str | None:
    """The text without the grant that stands there, or without that operation of it. None as of `without`."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        path = _grant(root, (), line) if root is not None else None
        if path is None:
            return None
        *above, (mapping, index) = path
        key, value = mapping.value[index]
        expected = yaml.safe_load(text)
        here = expected
        for node, at in above:
            here = here[node.value[at][0].value]
        if operation:
            found = _operation(value, operation)
            if found is None:
                return None
            here[key.value]["operations"].remove(operation)
            cut = _cut(text, found)
        else:
            del here[key.value]
            cut = _cut_pair(text, mapping, index)
        return cut if cut is not None and yaml.safe_load(cut) == expected else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _grant(node: yaml.Node, path: _Path, line: int) -> _Path | None:
    """The way to the member of a `grants` that stands on this line: mappings, and the place in each."""
    if not isinstance(node, yaml.MappingNode):
        return None
    inside = bool(path) and path[-1][0].value[path[-1][1]][0].value == "grants"
    for index, (key, value) in enumerate(node.value):
        here = (*path, (node, index))
        if inside and key.start_mark.line <= line - 1 <= value.start_mark.line:
            return here
        if found := _grant(value, here, line):
            return found
    return None


def _operation(grant: yaml.Node, operation: str) -> _Found | None:
    for key, value in grant.value:
        if key.value == "operations" and isinstance(value, yaml.SequenceNode) and len(value.value) > 1:
            for index, each in enumerate(value.value):
                if each.value == operation:
                    return _Found((), value.value, index, bool(value.flow_style), value)
    return None


def _cut_pair(text: str, mapping: yaml.MappingNode, index: int) -> str | None:
    """The text without one member of a mapping."""
    (key, value), pairs = mapping.value[index], mapping.value
    if mapping.flow_style:
        if index + 1 < len(pairs):
            return text[: key.start_mark.index] + text[pairs[index + 1][0].start_mark.index :]
        begin = pairs[index - 1][1].end_mark.index if index else key.start_mark.index
        return text[:begin] + text[value.end_mark.index :]
    lines = text.splitlines(keepends=True)
    first, last = key.start_mark.line, _last(value)
    if len(pairs) > 1:
        return "".join(lines[:first] + lines[last + 1 :])
    above = lines[first - 1].rstrip()
    return "".join([*lines[: first - 1], f"{above} {{}}\n", *lines[last + 1 :]]) if above.endswith(":") else None


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
