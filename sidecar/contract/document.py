"""The text of a contract, YAML or JSON, as plain values, and where in the text each of them stands.

Plain words of YAML are read by its core schema (YAML 1.2.2 section 10.3): `no` is text, `010` is eight nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.document import Entries, Items, Scalar, read_node
from sidecar.config.terms import Where

if TYPE_CHECKING:
    from sidecar.config.document import Node
    from sidecar.config.mistakes import Book

MAX_DEPTH: Final = 128  # levels of the text; ten of them are the way from the top to a schema
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})\Z", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]{1,32}|[0-9]{1,32}(?:\.[0-9]{0,32})?)(?:[eE][-+]?[0-9]{1,2})?\Z", re.ASCII)
_WORDS: Final = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    "null": None, "Null": None, "NULL": None, "~": None, "": None,
}  # fmt: skip


@dataclass
class Document:
    """A contract as it was written."""

    file: str
    root: dict[str, Any]
    places: dict[tuple[str, ...], Where] = field(default_factory=dict)

    def place(self, path: tuple[str, ...]) -> Where:
        """Where this part of it stands, or the nearest above."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, Where(self.file, 1))


def read_document(text: str, file: str, book: Book) -> Document | None:
    """The document in a text, or None with the mistakes noted."""
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # in JSON a tab never stands inside a string (RFC 8259 section 7)
    node = read_node(text, file, book, 'it begins with "openapi: 3.1.0"', MAX_DEPTH)
    if node is None:
        return None
    if not isinstance(node, Entries):
        book.add(node.where, "", "a contract is a mapping that begins with openapi:", "")
        return None
    document = Document(file, {})
    document.root = _value(node, (), document.places)
    return document


def _value(node: Node, path: tuple[str, ...], places: dict[tuple[str, ...], Where]) -> Any:
    places[path] = node.where
    if isinstance(node, Entries):
        found = {}
        for key, inner in node.entries:
            found[key.text] = _value(inner, (*path, key.text), places)
            places[(*path, key.text)] = key.where
        return found
    if isinstance(node, Items):
        return [_value(inner, (*path, str(index)), places) for index, inner in enumerate(node.items)]
    return _plain(node) if node.plain else node.text


def _plain(node: Scalar) -> Any:
    text = node.text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text
