"""What a reload would change for one service, one readable line each; and what cannot change while it runs.

    orders.allow: + rule readers {from: [web], path: [/orders/{id}]}
    orders.inbound.http.app: 127.0.0.1:8080 → 127.0.0.1:8081

Lines are in the order of the schema. Items of a list go by name (rules, listeners, upstreams) or by what they match
(routes), so that a rule that merely moved down the file is no change; where the order decides, a new order is one.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
from sidecar.config.schema import MeshConfig, Service
from sidecar.config.schema_amounts import QuotaLimit, TcpLimit
from sidecar.config.schema_audit import AuditExport
from sidecar.config.schema_egress import EgressRule
from sidecar.config.schema_inbound import Inbound, RateLimit, Route, Rule
from sidecar.config.schema_opa import Asked
from sidecar.config.schema_outbound import EndpointEntry, Outbound
from sidecar.config.schema_routes import AppBranch, Branch, OutboundRoute

RESTART: Final = "it is fixed when a sidecar starts: restart it, or take the change back"
# Who we are, whom we trust, and what is opened once in the life of the process. Keys of the file, then of the service.
_FIXED: Final = frozenset((
    "trust_domain", "ca", "identity", "identity_source", "health", "access_log", "audit", "workload_api", "redirect",
))  # fmt: skip
_FREE: Final = ("redirect.passthrough", "audit.permits", "audit.on_full", "audit.export")  # but for these
_NEXT_START: Final = frozenset(("run", "env"))  # of a command that runs already: said, not acted on
_OF_THE_FILE: Final = ("trust_domain", "ca")  # the rest of it is in its services already
_ORDERED: Final = (Rule, Route, OutboundRoute)  # the first that matches decides
_NOUNS: Final[dict[type, str]] = {Rule: "rule", Inbound: "listener", Outbound: "upstream", Route: "route",
                               RateLimit: "limit", EndpointEntry: "endpoint", OutboundRoute: "route",
                               Branch: "branch", AppBranch: "branch", QuotaLimit: "quota",
                               TcpLimit: "TCP limit", EgressRule: "request", Asked: "request",
                               AuditExport: "export"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: where (`orders.inbound.http.app`) and what (`a → b`, `+ rule x`, `- rule y`)."""

    path: str
    what: str
    fixed: bool = False  # it cannot change while a sidecar runs

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def diff(old: MeshConfig, new: MeshConfig, service: str) -> tuple[Change, ...]:
    """What is different for this service, which both configs have."""
    top = [spec for spec in fields_of(MeshConfig) if spec.key in _OF_THE_FILE]
    return (
        *_fields("", top, old, new, fixed=True),
        *_service(service, old.services[service], new.services[service]),
        *_table("issuers", *({each.name: each for each in it.services[service].issuers} for it in (old, new))),
    )


def fixed(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Those that cannot be made while a sidecar runs; see RESTART for what to do."""
    return tuple(change for change in changes if change.fixed)


def _service(name: str, old: Service, new: Service) -> Iterator[Change]:
    for spec in fields_of(Service):
        for change in _fields(name, [spec], old, new, fixed=spec.key in _FIXED):
            if ".".join(change.path.removeprefix(f"{name}.").split(".")[:2]) in _FREE:
                change = Change(change.path, change.what)
            if spec.key in _NEXT_START:
                change = Change(change.path, f"{change.what} (from the command's next start)")
            yield change


def _fields(path: str, specs: Sequence[FieldSpec], old: Any, new: Any, *, fixed: bool) -> Iterator[Change]:
    """The differences between two records, key by key."""
    for spec in specs:
        a, b = getattr(old, spec.attribute), getattr(new, spec.attribute)
        if a != b:
            yield from _values(f"{path}.{spec.key}" if path else spec.key, spec.shape, a, b, fixed=fixed)


def _values(path: str, shape: Shape, a: Any, b: Any, *, fixed: bool) -> Iterator[Change]:
    match shape:
        case Record() if a is None or b is None:  # a block that may be absent, and on one side is
            yield Change(path, f"{_show(shape, a)} → {_show(shape, b)}", fixed)
        case Record(cls, _):
            yield from _fields(path, fields_of(cls), a, b, fixed=fixed)
        case Many(Record(cls, _), _):
            yield from _items(path, cls, a, b, fixed=fixed)
        case Table():
            yield from _table(path, a, b)
        case _:
            yield Change(path, f"{_show(shape, a)} → {_show(shape, b)}", fixed)


def _items(path: str, cls: type, a: Sequence[Any], b: Sequence[Any], *, fixed: bool) -> Iterator[Change]:
    """The differences between two lists: what went, what came, what is another, and in which order they stand."""
    noun = _NOUNS[cls]
    old, new = {_key(item): item for item in a}, {_key(item): item for item in b}
    for key in old:
        if key not in new:
            yield Change(path, f"- {noun} {key}", fixed)
    for key, item in new.items():
        if key in old:
            yield from _fields(f"{path}.{key}", fields_of(cls), old[key], item, fixed=fixed)
        else:
            yield Change(path, f"+ {noun} {key} {_brief(item)}".rstrip(), fixed)
    before, after = [key for key in old if key in new], [key for key in new if key in old]
    if before != after and cls in _ORDERED:
        yield Change(path, f"order {', '.join(before)} → {', '.join(after)}", fixed)


def _table(path: str, a: Any, b: Any) -> Iterator[Change]:
    """Names alone: the values of an environment may be secrets, and this goes into a log."""
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            sign = "+" if key not in a else "-" if key not in b else "another value for"
            yield Change(path, f"{sign} {key}")


def _key(item: Any) -> str:
    if isinstance(item, Route):
        return " ".join((*item.methods, item.path.text))
    if isinstance(item, EgressRule | Asked):
        return " ".join((*item.methods, *(path.text for path in item.paths)))
    if isinstance(item, AuditExport):
        return f"{item.kind} {item.target}"
    return str(getattr(item, "name", ""))


def _brief(item: Any) -> str:
    """What is said of an item, beyond its name and the defaults."""
    said = [
        f"{spec.key}: {_show(spec.shape, value)}"
        for spec in fields_of(item.__class__)
        if (value := getattr(item, spec.attribute)) != spec.default and str(value) != _key(item)
    ]
    return f"{{{', '.join(said)}}}" if said else ""


def _show(shape: Shape, value: Any) -> str:
    """A value as it might stand in the file."""
    match shape:
        case Maybe(inner):
            return OFF if value is None else _show(inner, value)
        case Many(inner, _):
            return f"[{', '.join(_show(inner, each) for each in value)}]"
        case Record(_, alone) as record:
            if value is not None and alone:
                return f"{_show(shape_alone(record), getattr(value, alone))} {_brief(value)}".rstrip()
            return "none" if value is None else _brief(value) or "{}"
        case HeaderTable():
            return f"[{', '.join(map(str, value))}]"
        case CommandLine():
            return shlex.join(value) or "none"
        case One(kind):
            return "none" if value is None or value == "" else kind.show(value)
        case Choice() | Table() | Anything():
            return str(value)
