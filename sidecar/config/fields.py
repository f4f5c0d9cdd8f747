"""The dataclasses of `schema`, seen as keys and shapes: what reader, JSON Schema and reference walk in common.

A shape says how a value may be written: one scalar of a kind, a choice of words, `off` for none, one or several, a
table by name, a record of further keys, a command, a set of headers.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from certs.spiffe import SpiffeId, TrustDomain
from sidecar.config.conditions import Condition
from sidecar.config.kinds import KINDS, Kind
from sidecar.config.terms import Address
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate, QueryPattern

OFF: Final = "off"


@dataclass(frozen=True, slots=True)
class One:
    """A scalar of one kind."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Maybe:
    """The inner shape, or `off` for none: for keys whose absence means something else."""

    inner: Shape


@dataclass(frozen=True, slots=True)
class Many:
    """A list; where its items are single values, one alone may stand for the list."""

    inner: Shape
    some: bool  # it may not be empty


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping from names of one kind."""

    key: Kind
    inner: Shape


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with the keys of one dataclass; where it has a field that may stand alone, that as well."""

    cls: type
    alone: str = ""  # the key of that field


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A list of words, or one line that is split as a shell would."""


@dataclass(frozen=True, slots=True)
class HeaderTable:
    """Names of headers, or of query parameters, with what each must say."""

    some: bool
    query: bool = False


@dataclass(frozen=True, slots=True)
class Anything:
    """Whatever JSON has, but for fractions."""


Shape = One | Choice | Maybe | Many | Table | Record | CommandLine | HeaderTable | Anything


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One key that an operator can write."""

    key: str
    attribute: str
    doc: str
    shape: Shape
    filled: str  # what the loader puts in, in words
    default: Any  # dataclasses.MISSING where there is none

    @property
    def required(self) -> bool:
        """Whether its absence is a mistake."""
        return self.default is dataclasses.MISSING and not self.filled


_BY_TYPE: Final[Mapping[Any, str]] = {
    str: "text",
    bool: "boolean",
    Address: "address",
    SpiffeId: "identity",
    TrustDomain: "trust_domain",
    IdentityPattern: "caller",
    HostPattern: "host_pattern",
    PathTemplate: "path_template",
    Condition: "condition",
    IPv4Network | IPv6Network: "network",
}


@cache
def fields_of(cls: type) -> tuple[FieldSpec, ...]:
    """The keys of a dataclass of the schema, in its order; hidden fields left out."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(
        FieldSpec(
            key=item.metadata["yaml"] or item.name,
            attribute=item.name,
            doc=item.metadata["doc"],
            shape=_shape_of(item, hints[item.name]),
            filled=item.metadata["filled"],
            default=_default(item),
        )
        for item in dataclasses.fields(cls)
        if not item.metadata["hidden"]
    )


def records(root: type) -> tuple[type, ...]:
    """Every dataclass that can be written below this one, itself first, each once, in the order of reading."""
    found: dict[type, None] = {root: None}
    for spec in fields_of(root):
        inner = _record_in(spec.shape)
        if inner is not None:
            found.update(dict.fromkeys(records(inner)))
    return tuple(found)


def _record_in(shape: Shape) -> type | None:
    match shape:
        case Record(cls, _):
            return cls
        case Maybe(inner) | Many(inner, _) | Table(_, inner):
            return _record_in(inner)
    return None


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def _shape_of(item: dataclasses.Field[Any], hint: Any) -> Shape:
    shape = _shape(hint, item.metadata["some"])
    return shape.inner if isinstance(shape, Maybe) and _default(item) is None and not item.metadata["off"] else shape


def _shape(hint: Any, some: bool) -> Shape:
    if hint in _BY_TYPE:
        return One(KINDS[_BY_TYPE[hint]])
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if arguments[1] == "json":
            return Anything()
        return CommandLine() if arguments[1] == "command" else One(KINDS[arguments[1]])
    if origin is Literal:
        return Choice(arguments)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return Maybe(_shape(inner, some))
    if origin is tuple:
        if arguments[0] in (HeaderPattern, QueryPattern):
            return HeaderTable(some, query=arguments[0] is QueryPattern)
        return Many(_shape(arguments[0], some), some)
    if origin is Mapping:
        key = _shape(arguments[0], some)
        assert isinstance(key, One)
        return Table(key.kind, _shape(arguments[1], some))
    assert dataclasses.is_dataclass(hint), f"the schema has no way to write a {hint}"
    assert isinstance(hint, type)
    return Record(hint, next((each.name for each in dataclasses.fields(hint) if each.metadata.get("alone")), ""))


def shape_alone(record: Record) -> Shape:
    """How the field is written that may stand alone for this record."""
    return next(spec.shape for spec in fields_of(record.cls) if spec.attribute == record.alone)
