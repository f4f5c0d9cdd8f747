"""A rule and a hop, field by field, in words: what the rule wants, what the hop has, and whether that fits.

Each field is judged by the very question that `CompiledRule` asks, so that nobody can be told of a difference that the
proxy does not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.hop import Hop
from sidecar.policy.authz import KNOWN_METHODS, CompiledRule
from sidecar.policy.conditions import holds, seen
from sidecar.policy.propose import caller_text

if TYPE_CHECKING:
    from sidecar.hop import Token
    from sidecar.patterns import HeaderPattern

NO_IDENTITY: Final = "no identity"
_WEIGHT: Final = {  # how far a difference in this field is from "the right rule, but"
    "when": 1, "scopes": 1, "headers": 1, "source": 2, "port": 3, "host": 4, "operation": 5, "method": 5, "from": 6,
    "path": 7, "protocol": 8,
}  # fmt: skip
_SECRET: Final = frozenset((b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"))  # decision D9


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a rule, with what the hop has there."""

    field: str  # its YAML key: from, method, path, host, headers.<name>, source, port, when, …; or protocol
    wanted: str
    seen: str

    @property
    def key(self) -> str:
        """The YAML key alone: `headers` for each of them."""
        return self.field.partition(".")[0]

    def to_json(self) -> dict[str, str]:
        """The field as data."""
        return {"field": self.field, "wanted": self.wanted, "seen": self.seen}


def differences(rule: CompiledRule, hop: Hop) -> tuple[Difference, ...]:
    """Every field in which this rule and the hop disagree; empty where it matches."""
    return tuple(field for fits, field in _fields(rule, hop) if not fits)


def agreements(rule: CompiledRule, hop: Hop) -> tuple[Difference, ...]:
    """Every field that this rule names, or that says something by its absence, and that the hop fits."""
    return tuple(field for fits, field in _fields(rule, hop) if fits and field.wanted)


def distance(found: tuple[Difference, ...]) -> tuple[int, int]:
    """How far a rule is from matching: by the number of fields, of equals by their weight."""
    return len(found), sum(_WEIGHT[difference.key] for difference in found)


def _fields(rule: CompiledRule, hop: Hop) -> Iterator[tuple[bool, Difference]]:
    source = rule.source
    callers = one_of(source.callers) or ("" if rule.denies else "nobody")
    yield rule.caller_matches(hop.peer), Difference("from", callers, caller_of(hop))
    if hop.protocol == "tcp":
        if rule.http_only:
            yield False, Difference("protocol", "http, because the rule names something that only HTTP has", "tcp")
    else:
        yield from _http_fields(rule, hop)
    seen = str(hop.source or "unknown")
    yield rule.network_matches(hop.source), Difference("source", one_of(source.networks), seen)
    yield rule.port_matches(hop), Difference("port", one_of(source.ports), hop.listener or str(hop.port))
    yield from _more(rule, hop)


def _http_fields(rule: CompiledRule, hop: Hop) -> Iterator[tuple[bool, Difference]]:
    source = rule.source
    methods = one_of(source.methods or (() if rule.denies else sorted(KNOWN_METHODS)))
    yield rule.method_matches(hop.method), Difference("method", methods, hop.method)
    yield rule.path_matches(hop.segments) is not None, Difference("path", one_of(source.paths), path_of(hop))
    yield rule.host_matches(hop.host), Difference("host", one_of(source.hosts), hop.host or "no host")
    for pattern in source.headers:
        name = f"headers.{pattern.name.decode('ascii')}"
        yield rule.header_matches(pattern, hop), Difference(name, _wanted(pattern), _lines(pattern, hop))


def _more(rule: CompiledRule, hop: Hop) -> Iterator[tuple[bool, Difference]]:
    source = rule.source
    yield rule.operation_matches(hop), Difference("operation", one_of(source.operations), hop.operation or "none known")
    if source.scopes:
        yield rule.scopes_match(hop), Difference("scopes", " and ".join(source.scopes), _scopes(hop.token))
    path = next((path for path in source.paths if path.matches(hop.segments)), None)
    for condition in source.when:
        there = ", ".join(dict.fromkeys(seen(subject, hop, path) for subject in condition.subjects()))
        yield holds(condition, hop, path, denies=rule.denies), Difference("when", str(condition), there)


# ---- words ------------------------------------------------------------------------------------------------------


def safe(text: str) -> str:
    """Text that cannot move a terminal's cursor or hide its direction: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def request_line(method: str, host: str, path: str) -> str:
    """A request as people write it: `GET http://orders/orders/7`; a target that is no path stays as it was sent."""
    if not host or not path.startswith("/"):
        return f"{method} {path}".strip()
    return f"{method} http://{f'[{host}]' if ':' in host else host}{path}"


def caller_of(hop: Hop) -> str:
    """The caller as a rule of this service would name it."""
    if hop.peer is None:
        return NO_IDENTITY
    us = hop.destination
    if us is None:
        return hop.peer.text
    return caller_text(hop.peer, us.trust_domain, us.segments[1] if len(us.segments) > 1 else None)


def path_of(hop: Hop) -> str:
    """The path as received where that is known, else as judged."""
    if hop.path:
        return hop.path
    return "/" + "/".join(hop.segments) if hop.segments else "*"


def one_of(values: Iterable[object]) -> str:
    """What a field of a rule wants: any of these."""
    return " or ".join(map(str, values))


def _scopes(token: Token | None) -> str:
    if token is None:
        return "no verified token"
    return "nothing: the token is not kept" if token.forgotten else " ".join(sorted(token.scopes)) or "none"


def _wanted(pattern: HeaderPattern) -> str:
    if pattern.kind == "present":
        return "any value"
    return ("a value that begins with " if pattern.kind == "prefix" else "") + repr(pattern.value.decode("utf-8"))


def _lines(pattern: HeaderPattern, hop: Hop) -> str:
    values = [value for name, value in hop.headers if name == pattern.name]
    if not values:
        return "no such header"
    if pattern.name in _SECRET:
        return f"{len(values)} line(s), not shown"
    return ", ".join(repr(value.decode("utf-8", "backslashreplace")) for value in values)
