"""A file of endpoints: a YAML or JSON list, read as strictly as the configuration, with every mistake and its place.

    - 10.0.0.7:15006
    - {address: "10.0.0.8:15006", weight: 3, zone: eu-1a}

No endpoints is `[]`. A file with nothing in it is a mistake: whoever writes one in steps begins with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from certs.spiffe import TrustDomain
from sidecar.config.document import MAX_BYTES, Items, Node, Scalar, decode, read_node
from sidecar.config.kinds import KINDS
from sidecar.config.mistakes import Book, Mistake, TooMany
from sidecar.config.plain import BadValue, Scope
from sidecar.config.reader import read_record
from sidecar.config.schema_outbound import EndpointEntry
from sidecar.config.terms import UNIX, Where
from sidecar.discovery.quick_list import read_quickly
from sidecar.traffic.endpoints import MOST, Declared

_UNIX: Final = ("a Unix socket", "a file lists host:port; name sockets under endpoints:")
_BEGINS: Final = "write [] for no endpoints"
_NOWHERE: Final = Scope(TrustDomain("trust-domain.invalid"), "default")  # entries name no identity


@dataclass(frozen=True, slots=True)
class Read:
    """What a file says. With mistakes, `entries` mean nothing."""

    entries: tuple[Declared, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    left_out: int = 0  # entries beyond `MOST`


def read_list(data: bytes, file: str) -> Read:
    """Read a file of endpoints; `file` is for messages. Never raises. A long one takes seconds, unless it is plain."""
    quick = read_quickly(data) if len(data) <= MAX_BYTES else None
    if quick is not None:
        return Read(tuple(quick[:MOST]), (), max(0, len(quick) - MOST))
    return read_strictly(data, file)


def read_strictly(data: bytes, file: str) -> Read:
    """The same, by the reader of the configuration."""
    book = Book()
    book.stage = ""
    entries: list[EndpointEntry] = []
    try:
        text = decode(data[: MAX_BYTES + 1], file, book)
        if text is not None:
            if text.lstrip()[:1] == "[":
                text = text.replace("\t", " ")  # JSON may be indented by tabs, and has none inside its strings
            node = read_node(text, file, book, _BEGINS)
            if node is not None:
                entries = _entries(node, book)
    except TooMany:
        pass
    if book.mistakes:
        return Read(mistakes=tuple(book.mistakes))
    return Read(tuple(_declared(each) for each in entries[:MOST]), (), max(0, len(entries) - MOST))


def _declared(entry: EndpointEntry) -> Declared:
    return Declared(entry.address, entry.weight, entry.zone)


def _entries(node: Node, book: Book) -> list[EndpointEntry]:
    if not isinstance(node, Items):
        book.add(node.where, "", "a file of endpoints is a list", "- host:port on each line, or []")
        return []
    found: list[EndpointEntry] = []
    seen: dict[str, Where] = {}
    for index, item in enumerate(node.items):
        entry = _entry(item, f"[{index}]", book)
        if entry is None:
            continue
        if (first := seen.setdefault(str(entry.address), item.where)) is not item.where:
            hint = f"it stands in line {first.line} already"
            book.add(item.where, f"[{index}]", f"{entry.address} is listed twice", hint)
        found.append(entry)
    return found


def _entry(node: Node, path: str, book: Book) -> EndpointEntry | None:
    if isinstance(node, Scalar):
        if node.text.startswith(UNIX):
            book.add(node.where, path, *_UNIX)
            return None
        try:
            return EndpointEntry(KINDS["address"].read(node, _NOWHERE))
        except BadValue as bad:
            book.add(node.where, path, bad.message, bad.hint or "expected host:port")
            return None
    draft = read_record(EndpointEntry, node, path, _NOWHERE, book)
    if draft.incomplete or book.has(path):
        return None
    entry: EndpointEntry = draft.build()
    if entry.address.unix:
        book.at(f"{path}.address", *_UNIX)
        return None
    return entry
