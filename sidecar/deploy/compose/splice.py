"""Changes to a text of YAML, line by line: what nobody names stays as it was, comments, blanks and line ends included.

A key is known by the line and column where it begins; it reaches to its last line of content. Comments below that
belong to what follows, and stay. What is not written key by key on lines of its own (`web: {image: x}`, `web: *other`)
cannot be changed like that: such a service is written anew, as a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ruamel.yaml.comments import CommentedMap

from sidecar.deploy.compose.document import own_keys, plain, render

_MERGE = re.compile(r"\s*<<\s*:")


class Splice:
    """The lines of one text, what is taken out of them and what is put in."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = "\r\n" if "\r\n" in text else "\n"
        self._lines = text.split("\n")
        if self._lines[-1] == "":
            self._lines.pop()
        self._gone: set[int] = set()
        self._put: dict[int, list[str]] = {}

    def reach(self, line: int, column: int) -> int:
        """One past the last line of content of the key that begins here."""
        end = line + 1
        for number in range(line + 1, len(self._lines)):
            stripped = self._lines[number].strip()
            if not stripped or stripped.startswith("#"):
                continue
            depth = len(self._lines[number]) - len(self._lines[number].lstrip(" "))
            if depth > column or (depth == column and stripped.startswith(("- ", "]", "}"))) or stripped == "-":
                end = number + 1
            else:
                break
        return end

    def drop(self, line: int, column: int) -> None:
        """Take a key out, with its content."""
        self._gone.update(range(line, self.reach(line, column)))

    def put(self, before: int, lines: Iterable[str]) -> None:
        """Put lines in before this one."""
        self._put.setdefault(before, []).extend(lines)

    def drop_merge(self, first: int, last: int, column: int) -> None:
        """Take out the merge keys between these lines."""
        for number in range(first, last):
            if _MERGE.match(self._lines[number]) and number not in self._gone:
                self.drop(number, column)

    def like(self, value: Any, depth: int) -> list[str]:
        """This mapping as lines of this text."""
        return render(value, self._text, depth)

    def text(self) -> str:
        """All of it, as it is now."""
        made: list[str] = []
        for number in range(len(self._lines) + 1):
            made += (line + self._end for line in self._put.get(number, ()))
            if number < len(self._lines) and number not in self._gone:
                line = self._lines[number]
                made.append(line + "\n")  # a CR before it is the line's own
        return "".join(made)


class ServiceLines:
    """One service in the text: keys go and come, or the whole of it is written anew."""

    def __init__(self, splice: Splice, services: CommentedMap, name: str, below: int | None) -> None:
        self._splice = splice
        self.spec: CommentedMap = services[name]
        self.name = name
        self.line, self.column = services.lc.key(name)
        self._last = below if below is not None else splice.reach(self.line, self.column)
        places = [self.spec.lc.key(key) for key in own_keys(self.spec)] if own_keys(self.spec) else []
        lines = [line for line, _ in places]
        self.is_block = (
            bool(lines) and self.spec.fa.flow_style() is not True and len(set(lines)) == len(lines)
            and all(self.line < line < self._last for line in lines)
        )  # fmt: skip
        self._depth = places[0][1] if places else self.column + 2

    def change(
        self, drop: frozenset[str], top: dict[str, Any], instead: dict[str, Any], out: CommentedMap | None
    ) -> None:
        """Drop keys, put others at the top or in the place of their own; write out what was merged, where given."""
        if not self.is_block:
            self._anew(drop, top, instead)
            return
        own = own_keys(self.spec)
        first = min(self.spec.lc.key(key)[0] for key in own)
        added = CommentedMap(top)
        for key, value in instead.items():
            if key in own:
                line, column = self.spec.lc.key(key)
                self._splice.drop(line, column)
                self._splice.put(line, self._splice.like(CommentedMap({key: value}), self._depth))
            else:
                added[key] = value
        for key in own:
            if key in drop or key in top:
                self._splice.drop(*self.spec.lc.key(key))
        if out is not None:
            self._splice.drop_merge(self.line + 1, self._last, self._depth)
            first = min(first, self.line + 1)
            for key in out:
                if key not in drop and key not in added and key not in instead:
                    added[key] = out[key]
        if added:
            self._splice.put(first, self._splice.like(added, self._depth))

    def _anew(self, drop: frozenset[str], top: dict[str, Any], instead: dict[str, Any]) -> None:
        whole = CommentedMap((key, plain(self.spec[key])) for key in self.spec if key not in drop and key not in top)
        whole.update({**top, **instead})
        self._splice.drop(self.line, self.column)
        self._splice.put(self.line, self._splice.like(CommentedMap({self.name: whole}), self.column))
