"""Nodes → drafts: one generic walk along the shapes of `fields`, noting every mistake and reading on.

A draft holds only what was written. What was written wrong is left out, so that defaults stand in for it while the
rest is checked; a draft that misses something it cannot do without is incomplete, and later checks draw no
conclusions from what is not in it.
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass, field, replace
from typing import Any, Final

from certs.spiffe import SpiffeId
from sidecar.config.document import Entries, Items, Node, Scalar
from sidecar.config.fields import (
    OFF,
    Anything,
    Choice,
    CommandLine,
    FieldSpec,
    HeaderTable,
    Many,
    Maybe,
    One,
    Record,
    Shape,
    Table,
    fields_of,
    shape_alone,
)
from sidecar.config.kinds import KINDS, Kind
from sidecar.config.mistakes import Book, meant, nearest
from sidecar.config.plain import INTEGER, BadValue, Scope
from sidecar.config.schema import MeshConfig, Service
from sidecar.config.terms import Where
from sidecar.patterns import HeaderPattern, PatternError, QueryPattern

_NOTHING: Final = object()  # a value that could not be read; its mistake is noted


@dataclass
class Draft:
    """One record as written: attribute → value, `Draft`, list of drafts, or drafts by name."""

    cls: type
    path: str
    where: Where
    values: dict[str, Any] = field(default_factory=dict)
    incomplete: bool = False

    def get(self, attribute: str) -> Any:
        """What was written, or else the schema's default. Raises KeyError where there is neither."""
        if attribute in self.values:
            return self.values[attribute]
        default = next(spec.default for spec in fields_of(self.cls) if spec.attribute == attribute)
        if default is dataclasses.MISSING:
            raise KeyError(attribute)
        return default

    def build(self, under: Draft | None = None, **more: Any) -> Any:
        """The frozen dataclass: what was written, over `under` (field by field), over the defaults of the schema."""
        values = {**(under.values if under else {}), **self.values, **more}
        return self.cls(**{attribute: _built(value) for attribute, value in values.items()})


def _built(value: Any) -> Any:
    if isinstance(value, Draft):
        return value.build()
    if isinstance(value, list):
        return tuple(draft.build() for draft in value if not draft.incomplete)
    return value


def read_record(cls: type, node: Node, path: str, scope: Scope, book: Book, *, only: tuple[str, ...] = ()) -> Draft:
    """Read a mapping as this dataclass; `only` names the keys that may be there, if not all. Raises TooMany alone."""
    return _Reader(book).record(cls, node, path, scope, only)


class _Reader:
    def __init__(self, book: Book) -> None:
        self.book = book

    def record(self, cls: type, node: Node, path: str, scope: Scope, only: tuple[str, ...] = ()) -> Draft:
        draft = Draft(cls, path, self.book.places.get(path, node.where))
        if any(item.name == "where" for item in dataclasses.fields(cls)):
            draft.values["where"] = draft.where
        if not isinstance(node, Entries):
            draft.incomplete = True
            keys = ", ".join(spec.key for spec in fields_of(cls)[:4])
            hint = "remove the key, or write {} for none of its keys" if _is_null(node) else f"its keys are {keys}, …"
            self.book.add(node.where, path, _expected("a mapping", node), hint)
            return draft
        slips = self._unknown_keys(cls, node, path, only)
        for spec in fields_of(cls):
            if only and spec.key not in only:
                continue
            if spec.key in slips:
                draft.incomplete = draft.incomplete or spec.required
            else:
                self._field(draft, spec, node, scope)
            scope = _narrowed(scope, draft, spec.attribute)
        return draft

    def _alone(self, record: Record, node: Scalar, path: str, scope: Scope) -> Draft:
        """One value in the place of a record."""
        draft = Draft(record.cls, path, node.where)
        value = self.value(shape_alone(record), node, path, scope)
        if value is _NOTHING:
            draft.incomplete = True
        else:
            draft.values[record.alone] = value
        return draft

    def _field(self, draft: Draft, spec: FieldSpec, node: Entries, scope: Scope) -> None:
        path = f"{draft.path}.{spec.key}" if draft.path else spec.key
        found = next(((key, value) for key, value in node.entries if key.text == spec.key), None)
        if found is None:
            if spec.required:
                draft.incomplete = True
                self.book.add(draft.where, path, "is required", spec.doc)
            return
        key, value = found
        self.book.places[path] = value.where if isinstance(value, Scalar) else key.where
        result = self.value(spec.shape, value, path, scope)
        if isinstance(result, Draft) and result.incomplete:
            return  # it could not be built; its mistakes are noted
        if result is not _NOTHING:
            draft.values[spec.attribute] = result
        elif spec.required:
            draft.incomplete = True

    def _unknown_keys(self, cls: type, node: Entries, path: str, only: tuple[str, ...]) -> set[str]:
        """Note keys that are not the record's; returns the keys that they are probably slips of."""
        specs = fields_of(cls)
        slips: set[str] = set()
        by_attribute = {spec.attribute: spec.key for spec in specs}
        for key, _ in node.entries:
            here = f"{path}.{key.text[:64]}" if path else key.text[:64]
            if not any(spec.key == key.text for spec in specs):
                near = nearest(key.text, [spec.key for spec in specs]) or by_attribute.get(
                    nearest(key.text, by_attribute) or ""
                )
                hint = f'did you mean "{near}"?' if near else f"valid here: {', '.join(spec.key for spec in specs)}"
                self.book.add(key.where, here, "unknown key", hint)
                slips |= {near} - {other.text for other, _ in node.entries} if near else set()
            elif only and key.text not in only:
                self.book.add(key.where, here, "only the main file may say this", f"here: {', '.join(only)}")
        return slips

    def value(self, shape: Shape, node: Node, path: str, scope: Scope) -> Any:
        match shape:
            case One(kind):
                return self._one(kind, node, path, scope)
            case Choice(words):
                return self._choice(words, node, path)
            case Maybe(inner):
                if isinstance(node, Scalar) and node.text == OFF:
                    return None
                return self.value(inner, node, path, scope)
            case Record(cls, alone) as record:
                if alone and isinstance(node, Scalar) and not _is_null(node):
                    return self._alone(record, node, path, scope)
                return self.record(cls, node, path, scope)
            case Many(inner, some):
                return self._many(inner, some, node, path, scope)
            case Table(key, inner):
                return self._table(key, inner, node, path, scope)
            case CommandLine():
                return self._command(node, path, scope)
            case HeaderTable(some, query):
                return self._headers(some, node, path, scope, query=query)
            case Anything():
                return self._anything(node, path, scope)

    def _anything(self, node: Node, path: str, scope: Scope) -> Any:
        match node:
            case Items(_, items):
                values = [self._anything(item, f"{path}[{index}]", scope) for index, item in enumerate(items)]
                return _NOTHING if any(value is _NOTHING for value in values) else values
            case Entries(_, entries):
                table = {key.text: self._anything(each, f"{path}.{key.text[:64]}", scope) for key, each in entries}
                return _NOTHING if any(value is _NOTHING for value in table.values()) else table
            case Scalar(_, text, plain):
                if plain and text in ("true", "false"):
                    return text == "true"
                if plain and INTEGER.match(text):
                    return int(text)
                return None if _is_null(node) and text else self._one(KINDS["text"], node, path, scope)

    def _one(self, kind: Kind, node: Node, path: str, scope: Scope) -> Any:
        if not isinstance(node, Scalar):
            self.book.add(node.where, path, _expected(kind.what, node), 'quote text that begins with { or ["')
            return _NOTHING
        try:
            return kind.read(node, scope)
        except BadValue as bad:
            self.book.add(node.where, path, bad.message, f"expected {kind.what}" if bad.hint is None else bad.hint)
        return _NOTHING

    def _choice(self, words: tuple[str, ...], node: Node, path: str) -> Any:
        if isinstance(node, Scalar) and node.text in words:
            return node.text
        if not isinstance(node, Scalar):
            self.book.add(node.where, path, _expected("one word", node), f"one of {', '.join(words)}")
        elif _is_null(node):
            self.book.add(node.where, path, "has no value", f"one of {', '.join(words)}")
        else:
            said = "off" if OFF in words and node.text in ("false", "no", "none") else node.text
            self.book.add(node.where, path, f'"{node.text[:64]}" is not valid', meant(said, words, what="one of"))
        return _NOTHING

    def _many(self, inner: Shape, some: bool, node: Node, path: str, scope: Scope) -> Any:
        if not isinstance(node, Items):
            if isinstance(inner, Record) and inner.alone and isinstance(node, Scalar) and not _is_null(node):
                return [self._alone(inner, node, path, scope)]
            if isinstance(inner, Record):
                hint = 'a list: put "- " before its first key' if isinstance(node, Entries) else "write [] for none"
                self.book.add(node.where, path, _expected("a list", node), hint)
                return _NOTHING
            result = self.value(inner, node, path, scope)
            return _NOTHING if result is _NOTHING else (result,)
        if some and not node.items:
            self.book.add(node.where, path, "is empty, and nothing can match that", "remove the key if all are meant")
            return _NOTHING
        results = []
        for index, item in enumerate(node.items):
            here = f"{path}[{index}]"
            self.book.places[here] = item.where
            results.append(self.value(inner, item, here, scope))
        if isinstance(inner, Record):
            return results
        read = tuple(result for result in results if result is not _NOTHING)
        return read if read or not results else _NOTHING

    def _table(self, kind: Kind, inner: Shape, node: Node, path: str, scope: Scope) -> Any:
        if not isinstance(node, Entries):
            hint = "write {} for none" if _is_null(node) else f"under it, {kind.what} and a colon"
            self.book.add(node.where, path, _expected("a mapping", node), hint)
            return _NOTHING
        table: dict[str, Any] = {}
        for key, value in node.entries:
            here = f"{path}.{key.text[:64]}"
            self.book.places[here] = key.where if not isinstance(value, Scalar) else value.where
            name = self._one(kind, key, here, scope)
            result = self.value(inner, value, here, scope)
            if name is not _NOTHING and name in table:
                self.book.add(key.where, here, f"{name} is named twice", "letters of a header's name have no case")
            elif name is not _NOTHING and result is not _NOTHING:
                table[name] = result
        return table

    def _command(self, node: Node, path: str, scope: Scope) -> Any:
        if isinstance(node, Items):
            return self._many(One(KINDS["text"]), True, node, path, scope)
        text = self._one(KINDS["text"], node, path, scope)
        if text is _NOTHING:
            return text
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            self.book.add(node.where, path, f"cannot be split as a shell would: {error}", "write a list of words")
            return _NOTHING
        if not words:
            self.book.add(node.where, path, "is empty", "remove the key, or name a program")
        return words or _NOTHING

    def _headers(self, some: bool, node: Node, path: str, scope: Scope, *, query: bool) -> Any:
        noun = "parameter" if query else "header"
        if not isinstance(node, Entries):
            self.book.add(node.where, path, _expected("a mapping", node), f"{noun}: value")
            return _NOTHING
        if some and not node.entries:
            self.book.add(node.where, path, "is empty, and nothing can match that", "remove the key if all are meant")
            return _NOTHING
        patterns: list[HeaderPattern | QueryPattern] = []
        for key, value in node.entries:
            here = f"{path}.{key.text[:64]}"
            self.book.places[here] = key.where
            pattern = self._header(key, value, here, scope, query=query)
            if pattern is not None and any(other.name == pattern.name for other in patterns):
                hint = "" if query else "letters of a header's name have no case"
                self.book.add(key.where, here, f"this {noun} is named twice", hint)
            elif pattern is not None:
                patterns.append(pattern)
        return tuple(patterns) or _NOTHING

    def _header(
        self, key: Scalar, value: Node, path: str, scope: Scope, *, query: bool
    ) -> HeaderPattern | QueryPattern | None:
        name = self._one(KINDS["text" if query else "header"], key, path, scope)
        spec = self._header_spec(value, path, scope)
        if name is _NOTHING or spec is _NOTHING:
            return None
        try:
            return QueryPattern.parse(name, spec) if query else HeaderPattern.parse(name, spec)
        except PatternError as error:
            self.book.add(value.where, path, str(error), "write text, {prefix: text} or {present: true}")
        return None

    def _header_spec(self, value: Node, path: str, scope: Scope) -> Any:
        if not isinstance(value, Entries):
            return self._one(KINDS["text"], value, path, scope)
        spec: dict[str, Any] = {}
        words = ("exact", "prefix", "present")
        for key, inner in value.entries:
            if key.text not in words:
                self.book.add(key.where, f"{path}.{key.text[:64]}", "unknown key", meant(key.text, words))
                return _NOTHING
            kind = KINDS["boolean" if key.text == "present" else "text"]
            spec[key.text] = self._one(kind, inner, f"{path}.{key.text}", scope)
        return _NOTHING if _NOTHING in spec.values() else spec


def _narrowed(scope: Scope, draft: Draft, attribute: str) -> Scope:
    """Short identities below a record are read in that record's trust domain and namespace."""
    value = draft.values.get(attribute)
    if value is None:
        return scope
    if draft.cls is MeshConfig and attribute == "trust_domain":
        return replace(scope, trust_domain=value)
    if draft.cls is MeshConfig and attribute == "namespace":
        return replace(scope, namespace=value)
    if draft.cls is Service and attribute == "identity":
        return replace(scope, namespace=namespace_of(value) or scope.namespace)
    return scope


def namespace_of(identity: SpiffeId) -> str | None:
    """The namespace in an identity of the usual form, else None (decision D2)."""
    match identity.segments:
        case ("ns", namespace, "sa", _):
            return namespace
    return None


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null")


def _expected(what: str, node: Node) -> str:
    if _is_null(node):
        return "has no value"
    seen = {Scalar: "a single value", Items: "a list", Entries: "a mapping"}[type(node)]
    return f"expected {what}, found {seen}"
