"""Conditions of rules, judged: `when:` over a hop. The language is in `sidecar.config.conditions`.

Whatever a condition looks at is a tuple of values: none, one, or several (lines of one header, parameters of one name,
the elements of a claim that is a list). As everywhere in rules, doubt means deny, and so the two effects read doubtful
facts in opposite ways:

    what                                    in an allow rule                in a deny rule
    nothing there                           does not hold                   holds for `is not` and `not in` alone
    several lines or parameters             every one must satisfy it       one is enough
    a claim that is a list (but for `has`)  does not hold                   one element is enough
    unlike types (7 and "7" of two claims)  are not equal                   are not equal

Claims keep the types that JSON gives them. Text from the request (a path parameter, a header, a query) equals a claim
that is a whole number where it is that number's only spelling: 7, never 07 or 7.0. Numbers with a fraction, objects and
null equal nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes
from zoneinfo import ZoneInfo

from sidecar.config.conditions import OF_TOKENS, Condition, Subject

if TYPE_CHECKING:
    from certs.spiffe import SpiffeId
    from sidecar.hop import Hop
    from sidecar.patterns import PathTemplate

Values = Sequence[object]
_NOTHING: Final[tuple[object, ...]] = ()
_MANY: Final = "claim"  # the one subject whose several values are one value of a type of its own


class Conditions:
    """The conditions of one rule, all of which must hold."""

    __slots__ = ("_conditions", "_denies", "timed")

    def __init__(self, conditions: Sequence[Condition], *, denies: bool) -> None:
        self._conditions = tuple((condition, _ready(condition)) for condition in conditions)
        self._denies = denies
        self.timed = any(condition.subject.kind in ("time", "day") for condition in conditions)

    def hold(self, hop: Hop, path: PathTemplate | None, *, tokens: bool = True) -> bool:
        """Whether all hold for a hop that matched this template; without `tokens`, all that look at none."""
        for condition, holds in self._conditions:
            if (tokens or not of_tokens(condition)) and not holds(hop, path, self._denies):
                return False
        return True


def of_tokens(condition: Condition) -> bool:
    """Whether it looks at the user behind the caller."""
    return any(subject.kind in OF_TOKENS for subject in condition.subjects())


def holds(condition: Condition, hop: Hop, path: PathTemplate | None, *, denies: bool) -> bool:
    """Whether one condition holds, as the rule that has it is read."""
    return _ready(condition)(hop, path, denies)


def seen(subject: Subject, hop: Hop, path: PathTemplate | None) -> str:
    """What there is of a subject, in words. Values of claims are not shown: they may be about people."""
    if subject.kind in ("time", "day"):
        return datetime.fromtimestamp(hop.judged, UTC).strftime("%a %H:%M UTC")
    values = _values(subject, hop, path)
    if subject.kind in OF_TOKENS and hop.token is None:
        return "no verified token"
    if not values and subject.kind in OF_TOKENS and hop.token is not None and hop.token.forgotten:
        return "nothing: the token is not kept"
    if not values:
        return f"no {subject}"
    if subject.kind == _MANY:
        return f"another {_type(hop.token.claims.get(subject.name) if hop.token else None)}"
    return ", ".join(repr(value) for value in values)


def parameters(path: PathTemplate) -> dict[str, int]:
    """Which segment of a path each `{name}` of a template is."""
    parts = path.text.split("/")[1:]
    return {part[1:-1]: index for index, part in enumerate(parts) if part.startswith("{") and part.endswith("}")}


# ---- one of them -------------------------------------------------------------------------------------------------


def _ready(condition: Condition) -> Callable[[Hop, PathTemplate | None, bool], bool]:
    """One condition, made ready for many hops."""
    subject, other, wanted, negated = condition.subject, condition.other, condition.values, condition.negated
    if subject.kind == "time":
        begin, end = (int(value) for value in wanted)
        return _within(begin, end, ZoneInfo(condition.zone))
    if subject.kind == "day":
        zone, days = ZoneInfo(condition.zone), frozenset(wanted)
        return lambda hop, path, denies: datetime.fromtimestamp(hop.judged, zone).weekday() in days
    if condition.operator == "exists":
        return lambda hop, path, denies: bool(_values(subject, hop, path))
    listed = condition.operator == "has"
    satisfies = _begins if condition.operator == "begins with" else _equals

    def judge(hop: Hop, path: PathTemplate | None, denies: bool) -> bool:
        values = _values(subject, hop, path)
        against: Values = wanted
        if other is not None:
            against = _values(other, hop, path)
            if not against or ((len(against) > 1 or _listed(other, hop)) and not denies):
                return negated and denies
        if not values:
            return negated and denies
        several = _listed(subject, hop)
        if listed:
            return (several or denies) and any(satisfies(value, each) for value in values for each in against)
        if several and not denies:
            return False
        fits = [any(satisfies(value, each) for each in against) is not negated for value in values]
        return any(fits) if denies else all(fits)

    return judge


def _within(begin: int, end: int, zone: ZoneInfo) -> Callable[[Hop, PathTemplate | None, bool], bool]:
    def judge(hop: Hop, path: PathTemplate | None, denies: bool) -> bool:
        now = datetime.fromtimestamp(hop.judged, zone)
        minute = now.hour * 60 + now.minute
        return begin <= minute < end if begin < end else minute >= begin or minute < end

    return judge


def _listed(subject: Subject, hop: Hop) -> bool:
    return subject.kind == _MANY and isinstance(_claim(hop, subject.name), list | tuple)


def _equals(value: object, wanted: object) -> bool:
    if type(value) is type(wanted):
        return isinstance(value, str | int) and value == wanted
    if isinstance(value, str) and isinstance(wanted, int) and not isinstance(wanted, bool):
        return value == str(wanted)
    if isinstance(wanted, str) and isinstance(value, int) and not isinstance(value, bool):
        return wanted == str(value)
    return False


def _begins(value: object, wanted: object) -> bool:
    return isinstance(value, str) and isinstance(wanted, str) and bool(wanted) and value.startswith(wanted)


# ---- what there is -----------------------------------------------------------------------------------------------


def _values(subject: Subject, hop: Hop, path: PathTemplate | None) -> Values:
    """The values of a subject; none where it is not there."""
    match subject.kind:
        case "path":
            index = parameters(path).get(subject.name) if path is not None else None
            return (hop.segments[index],) if index is not None and index < len(hop.segments) else _NOTHING
        case "claim":
            claim = _claim(hop, subject.name)
            values = claim if isinstance(claim, list | tuple) else (claim,)
            return tuple(value for value in values if isinstance(value, str | int))
        case "header":
            name = subject.name.encode("latin-1", "replace")
            return tuple(value.decode("utf-8", "backslashreplace") for key, value in hop.headers if key == name)
        case "query":
            return _query(hop.target, subject.name)
        case "method":
            return (hop.method,) if hop.method else _NOTHING
        case "subject":
            return (hop.token.subject,) if hop.token is not None and hop.token.subject else _NOTHING
        case "issuer":
            return (hop.token.issuer,) if hop.token is not None else _NOTHING
        case kind:
            return _identity(kind, hop.peer)


def _identity(kind: str, peer: SpiffeId | None) -> Values:
    if peer is None:
        return _NOTHING
    if kind == "caller":
        return (peer.text,)
    match peer.segments:
        case ("ns", namespace, "sa", service):
            return (namespace if kind == "namespace" else service,)
    return _NOTHING


def _claim(hop: Hop, name: str) -> Any:
    """A claim by its name; where there is none of that name, by the members that dots in it lead through."""
    if hop.token is None:
        return None
    found: Any = hop.token.claims
    if name in found:
        return found[name]
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _query(target: str, name: str) -> Values:
    """Every parameter of this name, decoded, `+` as a space; what is not UTF-8 equals nothing that can be written."""
    found = []
    for part in target.partition("?")[2].split("&"):
        key, _, value = part.partition("=")
        if _decoded(key) == name:
            found.append(_decoded(value))
    return tuple(found)


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "backslashreplace")


def _type(value: object) -> str:
    if isinstance(value, bool):
        return "truth value"
    return {str: "text", int: "number", list: "list"}.get(type(value), "value")
