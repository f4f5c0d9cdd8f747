"""Rules and routes of one service that can never act, because another one takes all that they could match, or because
what they ask for never comes. Every claim rests on `cover`, and so on a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sidecar.config.assemble import Placed, View
from sidecar.config.cover import covers, host_covers, identity_covers, networks_cover, path_covers, route_covers, same
from sidecar.config.mistakes import Book
from sidecar.config.schema_inbound import Inbound, Route, Rule
from sidecar.errors import ProtocolViolation
from sidecar.http.canonical import Leniency, canonical_target
from sidecar.patterns import PathTemplate

_LISTS: Final[tuple[tuple[str, str, Callable[[Any, Any], bool]], ...]] = (
    ("from", "callers", identity_covers),
    ("host", "hosts", host_covers),
    ("method", "methods", lambda one, other: bool(one == other)),
    ("source", "networks", lambda one, other: networks_cover((one,), (other,))),
    ("port", "ports", lambda one, other: bool(one == other)),
)
_ANYTHING: Final = "x"  # stands for a placeholder when a template is tried out


def overlaps(view: View, book: Book) -> None:
    """Note every rule and route of a service that can never act."""
    listeners = [placed.value for placed in view.inbound]
    if listeners:
        for number, rule in enumerate(view.allow):
            if not _taken(rule, view.deny, "MESH030", "denies all that it allows", listeners, book):
                _among_its_own(number, rule, view.allow, listeners, book)
        for number, rule in enumerate(view.deny):
            _among_its_own(number, rule, view.deny, listeners, book)
    for rule in (*view.allow, *view.deny):
        _paths(rule, listeners, book)
        _values(rule, book)
    for listener in view.inbound:
        _routes(listener, book)


# ---- rule against rule ---------------------------------------------------------------------------------------------


def _taken(
    rule: Placed[Rule], denies: Sequence[Placed[Rule]], code: str, why: str, listeners: Sequence[Inbound], book: Book
) -> bool:
    """An allow whose every hop one deny takes away again."""
    for deny in denies:
        if not deny.value.shadow and covers(deny.value, rule.value, listeners):
            book.warn(code, rule.path, f"has no effect: {_named(deny, book)} {why}")
            return True
    return False


def _among_its_own(
    number: int, rule: Placed[Rule], rules: Sequence[Placed[Rule]], listeners: Sequence[Inbound], book: Book
) -> None:
    """What another rule of the same list leaves to this one: nothing, where that comes first and takes all."""
    for index, other in enumerate(rules):
        if index == number or not covers(other.value, rule.value, listeners):
            continue
        if rule.value.shadow and not other.value.shadow:
            message = f"shows nothing: {_named(other, book)} is in force and matches all that it does"
            book.warn("MESH033", rule.path, message, "remove it, or change what it is meant to try out")
            return
        if rule.value.shadow != other.value.shadow or index > number:
            continue
        if same(rule.value, other.value, listeners):
            book.warn("MESH032", rule.path, f"says the same as {_named(other, book)}", "remove one of the two")
            return
        if not rule.value.shadow:
            message = f"never decides: {_named(other, book)} comes first and matches all that it does"
            book.warn("MESH031", rule.path, message, "remove it, or put it before the other one to keep its name")
            return


def _named(rule: Placed[Rule], book: Book) -> str:
    return f"{rule.value.name} ({book.place(rule.path)})"


# ---- what never comes ----------------------------------------------------------------------------------------------


def _paths(rule: Placed[Rule], listeners: Sequence[Inbound], book: Book) -> None:
    """Paths that are refused before any rule is asked (decision D4)."""
    accepted = Leniency()
    for route in (route for listener in listeners for route in listener.routes):
        accepted |= _leniency(route)
    for index, path in enumerate(rule.value.paths):
        why = _refused(path, accepted)
        if why:
            hint = "such requests are refused before any rule is asked; a route can accept some by unsafe_…"
            book.warn("MESH034", book.item(rule.path, "path", index), f"{path} never matches: {why}", hint)


def _leniency(route: Route) -> Leniency:
    return Leniency(route.unsafe_encoded_slash, route.unsafe_empty_segments, route.unsafe_path_parameters)


def _refused(path: PathTemplate, accepted: Leniency) -> str:
    """Why no request with such a path gets through; empty where one does."""
    segments = [_ANYTHING if segment is None else _escaped(segment) for segment in path.segments]
    target = "/" + "/".join((*segments, _ANYTHING) if path.rest else segments)
    try:
        canonical_target(target.encode("ascii"), "GET", leniency=accepted)
    except ProtocolViolation as error:
        return error.detail
    return ""


def _escaped(segment: str) -> str:
    return "".join(f"%{byte:02X}" for byte in segment.encode("utf-8"))


def _values(rule: Placed[Rule], book: Book) -> None:
    """Values that another value of the same list includes. Of paths only an earlier one counts: it names the route."""
    for key, attribute, included in _LISTS:
        values = getattr(rule.value, attribute)
        for index, value in enumerate(values):
            for other, wide in enumerate(values):
                if other != index and included(wide, value) and (other < index or not included(value, wide)):
                    _adds_nothing(rule, key, index, value, wide, book)
                    break
    for index, path in enumerate(rule.value.paths):
        earlier = next((wide for wide in rule.value.paths[:index] if path_covers(wide, path)), None)
        if earlier is not None:
            _adds_nothing(rule, "path", index, path, earlier, book)


def _adds_nothing(rule: Placed[Rule], key: str, index: int, value: object, wide: object, book: Book) -> None:
    what = "stands here twice" if str(value) == str(wide) else f"adds nothing to {wide}"
    book.warn("MESH038", book.item(rule.path, key, index), f"{value} {what}", "remove it")


# ---- routes --------------------------------------------------------------------------------------------------------


def _routes(listener: Placed[Inbound], book: Book) -> None:
    routes = listener.value.routes
    for index, route in enumerate(routes):
        path = f"{listener.path}.routes[{index}]"
        why = _refused(route.path, _leniency(route))
        if why:
            book.warn("MESH041", f"{path}.path", f"{route.path} never matches: {why}", "see docs/protocols.md")
        earlier = next((number for number in range(index) if route_covers(routes[number], route)), None)
        if earlier is not None:
            place = book.place(f"{listener.path}.routes[{earlier}]")
            message = f"is never reached: {routes[earlier].path} ({place}) comes first and takes all of it"
            book.warn("MESH040", path, message, "put the narrower route first")
