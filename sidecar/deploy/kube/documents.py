"""A YAML file as the documents in it. What nobody changes stays as it is, byte for byte.

Theory of operation. A line that begins with `---` begins a document wherever it stands, in a block scalar too (YAML
1.2.2, 6.8 and 9.1.2), so a file is cut at such lines without understanding it. Each piece is read by ruamel.yaml, which
keeps comments, order, quotes and anchors; a changed one is written by it, and all the others are the bytes they were.

Kubernetes reads YAML 1.1 where it differs: `yes` is a boolean there. So it is one here for the one who judges, and text
of ours that 1.1 would take for something else is quoted. A node that stands in several places (an alias, a merge key)
is copied before it is changed, so that a change to one pod changes no other.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarfloat import ScalarFloat
from ruamel.yaml.scalarint import ScalarInt
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, ScalarString

from sidecar.deploy.kube import patch
from sidecar.deploy.kube.problems import Place

MAX_NODES: Final = 500_000  # of one document; the largest objects of Kubernetes have some ten thousand
_BEGINS = re.compile(r"---(?=[ \t\r\n]|\Z)")
_ENDS = re.compile(r"\.\.\.(?=[ \t\r\n]|\Z)")
_EMPTY = re.compile(r"[ \t]*(?:#.*)?\r?\n?\Z")
_NESTED = re.compile(r"^( *)[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\r?\n(?:[ \t]*(?:#[^\n]*)?\r?\n)*( *)- ", re.MULTILINE)
_DEEPER = re.compile(r"^( *)[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\r?\n(?:[ \t]*(?:#[^\n]*)?\r?\n)*( +)[^\s#-]", re.MULTILINE)
_WORDS_OF_1_1: Final = {
    **dict.fromkeys(("yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("no", "No", "NO", "off", "Off", "OFF"), False),
}
_RESOLVER: Final = yaml.SafeLoader("")
_TEXT_TAG: Final = "tag:yaml.org,2002:str"


class BadYaml(Exception):
    """A document cannot be read; `line` counts from 1 in the whole file."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


@dataclass(slots=True)
class Document:
    """One document of a file: `head` and `tail` are markers, directives and comments around its `body`."""

    line: int  # of its first line, from 1
    head: str
    body: str
    tail: str = ""
    plain: Any = None  # what it says, as JSON has it
    _tree: Any = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The whole of it."""
        return self.head + self.body + self.tail

    def read(self) -> Any:
        """What it says. Raises BadYaml."""
        first = self.line + self.head.count("\n")
        try:
            self._tree = _yaml(self.body).load(self.body)
            self.plain = plain(self._tree)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = min(mark.line, self.body.rstrip("\n").count("\n")) if mark else 0
            raise BadYaml(first + line, str(error.problem or error.context)) from None
        except (YAMLError, ValueError, RecursionError) as error:
            raise BadYaml(first, str(error).splitlines()[0] if str(error) else "this cannot be read") from None
        return self.plain

    def place(self, where: Place) -> int:
        """The line of what stands at a place, or of the nearest thing above it."""
        node, line = self._tree, self.line + self.head.count("\n")
        for step in where:
            try:
                found = node.lc.item(step) if isinstance(node, CommentedSeq) else node.lc.key(step)
                node = node[step]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
            line = self.line + self.head.count("\n") + int(found[0])
        return line

    def change(self, operations: list[patch.Operation]) -> None:
        """Put a patch in force."""
        shared = _shared(self._tree)
        ours = [
            {**each, "value": _written(each["value"])} if "value" in each else each for each in operations
        ]
        patch.apply(self._tree, ours, lambda child: plain(child) if _is_shared(child, shared) else child)
        out = io.StringIO()
        _yaml(self.body).dump(self._tree, out)
        written = out.getvalue()
        if "\r\n" in self.body:
            written = written.replace("\r\n", "\n").replace("\n", "\r\n")
        if self.head and not self.head.endswith("\n"):
            self.head += "\n"
        self.body = written


def split(text: str) -> list[Document]:
    """The documents of a file, in order; their texts put together are the file."""
    found: list[Document] = []
    head, body, tail = "", "", ""
    begun, line = False, 1
    for number, each in enumerate(_lines(text), 1):
        if tail or (_BEGINS.match(each) and (begun or _has_content(body))):
            found.append(Document(line, head, body, tail))
            head, body, tail, begun, line = "", "", "", False, number
        if _BEGINS.match(each):
            begun = True
            inline = each[3:]
            head, body = (head + body + each, "") if _EMPTY.match(inline) else (head + body + "---", inline)
        elif _ENDS.match(each):
            tail = each
        else:
            body += each
    if head or body or tail:
        found.append(Document(line, head, body, tail))
    return found


def _lines(text: str) -> list[str]:
    """Lines as YAML 1.2 has them: `str.splitlines` ends them at more characters."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _has_content(body: str) -> bool:
    return any(not _EMPTY.match(line) and not line.startswith("%") for line in _lines(body))


def _yaml(body: str) -> YAML:
    """A reader and writer that indents as this text does."""
    handler = YAML()
    handler.preserve_quotes = True
    handler.width = 1 << 20
    nested, deeper = _NESTED.search(body), _DEEPER.search(body)
    offset = max(0, len(nested[2]) - len(nested[1])) if nested else 0
    mapping = len(deeper[2]) - len(deeper[1]) if deeper else 2
    handler.indent(mapping=max(2, mapping), sequence=offset + 2, offset=offset)
    return handler


def plain(node: Any, left: Iterator[int] | None = None) -> Any:
    """A node as JSON has it, aliases and merge keys followed. Raises ValueError for more than MAX_NODES of them."""
    left = left if left is not None else iter(range(MAX_NODES))
    if next(left, None) is None:
        raise ValueError(f"with its aliases this has more than {MAX_NODES} nodes")
    if isinstance(node, dict):
        return {_key(key): plain(value, left) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(item, left) for item in node]
    if type(node) is str:
        return _WORDS_OF_1_1.get(node, node)
    for kind, made in ((ScalarString, str), (ScalarBoolean, bool), (ScalarInt, int), (ScalarFloat, float)):
        if isinstance(node, kind):
            return made(node)
    return node


def _key(key: Any) -> Any:
    return str(key) if isinstance(key, str) else key


def _written(value: Any) -> Any:
    """A value of ours, so that a reader of YAML 1.1 finds in it what we meant."""
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_written(item) for item in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and _misread(value) else value


def _misread(text: str) -> bool:
    """Whether YAML 1.1 takes these bare letters for something else than text."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return bool(tag != _TEXT_TAG) or text.lower() in ("y", "n")


def _shared(tree: Any) -> set[int]:
    """The ids of nodes that stand in more than one place."""
    seen: set[int] = set()
    twice: set[int] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict | list):
            continue
        if id(node) in seen:
            twice.add(id(node))
            continue
        seen.add(id(node))
        waiting += node.values() if isinstance(node, dict) else node
    return twice


def _is_shared(node: Any, shared: set[int]) -> bool:
    return id(node) in shared or (isinstance(node, CommentedMap) and bool(node.merge))
