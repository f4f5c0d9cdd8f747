"""What has changed between two values, as a JSON patch (RFC 6902); and a patch put in force.

Lists of named things (containers, volumes, ports) are compared by name, so that adding one says nothing of the others;
any other list that has changed is replaced whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

Operation = dict[str, Any]
Fresh = Callable[[Any], Any]  # makes a child safe to change: see `apply`


def pointer(path: tuple[str | int, ...]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def steps(text: str) -> list[str]:
    """The steps of a JSON pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def diff(old: Any, new: Any, path: tuple[str | int, ...] = ()) -> list[Operation]:
    """The operations that make `new` of `old`, to be put in force one after another."""
    if isinstance(old, dict) and isinstance(new, dict):
        return list(_diff_mappings(old, new, path))
    if isinstance(old, list) and isinstance(new, list):
        return list(_diff_lists(old, new, path))
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [{"op": "replace", "path": pointer(path), "value": new}]


def _diff_mappings(old: dict[str, Any], new: dict[str, Any], path: tuple[str | int, ...]) -> Iterator[Operation]:
    for key in old:
        if key not in new:
            yield {"op": "remove", "path": pointer((*path, key))}
    for key, value in new.items():
        if key in old:
            yield from diff(old[key], value, (*path, key))
        else:
            yield {"op": "add", "path": pointer((*path, key)), "value": value}


def _diff_lists(old: list[Any], new: list[Any], path: tuple[str | int, ...]) -> Iterator[Operation]:
    if old == new:
        return
    before, after = _names(old), _names(new)
    if before is None or after is None or [n for n in before if n in after] != [n for n in after if n in before]:
        yield {"op": "replace", "path": pointer(path), "value": new}
        return
    for index in reversed(range(len(old))):
        if before[index] not in after:
            yield {"op": "remove", "path": pointer((*path, index))}
    kept = {name: old[index] for index, name in enumerate(before)}
    for index, name in enumerate(after):
        if name in kept:
            yield from diff(kept[name], new[index], (*path, index))
        else:
            yield {"op": "add", "path": pointer((*path, index)), "value": new[index]}


def _names(items: list[Any]) -> list[str] | None:
    """The names of a list of named things, each once; None where it is another list."""
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    found = [name for name in names if isinstance(name, str)]
    return found if len(found) == len(items) == len(set(found)) else None


def apply(value: Any, operations: list[Operation], fresh: Fresh = lambda child: child) -> Any:
    """The value with the operations in force, changed in place. Each container on the way is handed to `fresh` first,
    which may give back a copy to be changed in its stead. Raises KeyError or IndexError where a path leads nowhere.
    """
    for operation in operations:
        *way, last = steps(operation["path"]) or [""]
        if not operation["path"]:
            value = copy.deepcopy(operation["value"])
            continue
        holder = value
        for step in way:
            key: Any = int(step) if isinstance(holder, list) else step
            child = holder[key]
            own = fresh(child)
            if own is not child:
                holder[key] = own
            holder = own
        _operate(holder, last, operation)
    return value


def _operate(holder: Any, last: str, operation: Operation) -> None:
    if operation["op"] == "remove":
        del holder[int(last) if isinstance(holder, list) else last]
    elif isinstance(holder, list) and operation["op"] == "add":
        holder.insert(len(holder) if last == "-" else int(last), copy.deepcopy(operation["value"]))
    else:
        holder[int(last) if isinstance(holder, list) else last] = copy.deepcopy(operation["value"])
