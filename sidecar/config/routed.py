"""Routes: what is filled in where it was not said, what cannot be, and what can never act.

Claims that a route is never reached rest on `cover`, and so on a proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from sidecar.config.assemble import Placed, View, is_loopback
from sidecar.config.cover import header_covers, identity_covers, path_covers
from sidecar.config.mistakes import Book, meant
from sidecar.config.schema_inbound import Inbound, Route
from sidecar.config.schema_outbound import Outbound
from sidecar.config.schema_routes import AppBranch, Branch, Fault, HeaderEdits, OutboundRoute
from sidecar.patterns import IdentityPattern, PathTemplate

T = TypeVar("T")


# ---- mistakes ------------------------------------------------------------------------------------------------------


def routed(view: View, book: Book) -> None:
    """Note every mistake in the routes of a service. Raises TooMany."""
    for upstream in view.outbound:
        _outbound(view, upstream, book)
    for listener in view.inbound:
        for index, route in enumerate(listener.value.routes):
            _inbound(listener, route, f"{listener.path}.routes[{index}]", book)


def _outbound(view: View, placed: Placed[Outbound], book: Book) -> None:
    upstream = placed.value
    if upstream.protocol == "tcp" and upstream.routes:
        book.at(f"{placed.path}.routes", f"{upstream.name} is raw TCP, which has no requests", "remove them")
        return
    first: dict[str, int] = {}
    for index, route in enumerate(upstream.routes):
        path = f"{placed.path}.routes[{index}]"
        earlier = first.setdefault(route.name, index)
        if earlier != index:
            place = book.place(f"{placed.path}.routes[{earlier}]")
            book.at(f"{path}.name", f'duplicate route name "{route.name}"', f"it stands in {place} already", "MESH010")
        _branches(view, route.split, path, book)
        _weights(route.split, path, book)
        if route.rewrite is not None:
            _under_prefix(route, path, book)


def _branches(view: View, split: Sequence[Branch], path: str, book: Book) -> None:
    known = {each.value.name: each.value for each in view.outbound}
    for index, branch in enumerate(split):
        upstream, here = known.get(branch.to), f"{path}.split[{index}].to"
        if upstream is None and not view.incomplete:
            hint = meant(branch.to, list(known), what="upstreams here")
            book.at(here, f'no upstream of {view.name} is called "{branch.to}"', hint)
        elif upstream is not None and upstream.protocol == "tcp":
            book.at(here, f"{branch.to} is raw TCP, which takes no requests", "name an http upstream")


def _weights(split: Sequence[Branch | AppBranch], path: str, book: Book) -> None:
    names = [branch.name for branch in split]
    for index, name in enumerate(names):
        if name in names[:index]:
            key = "to" if isinstance(split[index], Branch) else "app"
            book.at(f"{path}.split[{index}].{key}", f"{name} stands here twice", "add the weights up in one of them")
    if split and not sum(branch.weight for branch in split):
        book.at(f"{path}.split", "all weights are 0, so there is nowhere to go", "give one of them a weight")


def _under_prefix(route: OutboundRoute, path: str, book: Book) -> None:
    """Every path of the route has to begin with what is cut off."""
    assert route.rewrite is not None
    prefix = PathTemplate.parse(route.rewrite.prefix)
    bare = tuple(each for each in prefix.segments if each)
    for index, template in enumerate(route.paths):
        if template.segments[: len(bare)] != bare:
            hint = f"write paths under {route.rewrite.prefix}, or leave path: out for all of them"
            book.at(book.item(path, "path", index), f"{template} does not begin with {route.rewrite.prefix}", hint)


def _inbound(listener: Placed[Inbound], route: Route, path: str, book: Book) -> None:
    if route.app is not None and route.split:
        book.at(f"{path}.split", "app: and split: both say where these requests go", "remove one of them")
    _weights(route.split, path, book)
    for app, here in apps_of(route, path):
        if not app.app.unix and not is_loopback(app.app.host):
            message = f"{app.app} is not on loopback; the way to it would be plaintext"
            book.at(here, message, f"write 127.0.0.1:{app.app.port}", "MESH012")


def apps_of(route: Route, path: str) -> Iterable[tuple[AppBranch, str]]:
    """The applications of an inbound route, each with the path of where it is named."""
    if not route.split:
        return [(app, f"{path}.app") for app in route.apps]
    return [(branch, f"{path}.split[{index}].app") for index, branch in enumerate(route.split)]


# ---- what never acts -----------------------------------------------------------------------------------------------


def routes_odd(view: View, book: Book) -> None:
    """Note every route, or part of one, that can never act; and each fault that does."""
    for upstream in view.outbound:
        for index, route in enumerate(upstream.value.routes):
            path = f"{upstream.path}.routes[{index}]"
            _never_reached(upstream, index, path, book)
            _never_us(view, route, path, book)
            _retries(upstream.value, route, path, book)
            _edits(route.request_headers, f"{path}.request_headers", book)
            _edits(route.response_headers, f"{path}.response_headers", book)
            if route.fault is not None:
                _fault(route.fault, f"{path}.fault", upstream.value.name, book)
    for listener in view.inbound:
        for index, inbound in enumerate(listener.value.routes):
            if inbound.fault is not None:
                path = f"{listener.path}.routes[{index}].fault"
                if _somebody(view, listener.value, inbound.fault, path, book):
                    _fault(inbound.fault, path, f"{view.name}, listener {listener.value.name}", book)


def _never_reached(upstream: Placed[Outbound], index: int, path: str, book: Book) -> None:
    routes = upstream.value.routes
    number = next((each for each in range(index) if _covers(routes[each], routes[index])), None)
    if number is not None:
        place = book.place(f"{upstream.path}.routes[{number}]")
        message = f"is never reached: {routes[number].name} ({place}) comes first and takes all of it"
        book.warn("MESH110", path, message, "put the narrower route first")


def _covers(wide: OutboundRoute, narrow: OutboundRoute) -> bool:
    """Whether every request on the one is on the other too."""
    methods = not wide.methods or (bool(narrow.methods) and set(narrow.methods) <= set(wide.methods))
    paths = not wide.paths or (
        bool(narrow.paths) and all(any(path_covers(ours, theirs) for ours in wide.paths) for theirs in narrow.paths)
    )
    callers = not wide.callers or (
        bool(narrow.callers)
        and all(any(identity_covers(ours, theirs) for ours in wide.callers) for theirs in narrow.callers)
    )
    return (
        methods and paths and callers and header_covers(wide.headers, narrow.headers)
        and set(wide.query) <= set(narrow.query)
    )  # fmt: skip


def _never_us(view: View, route: OutboundRoute, path: str, book: Book) -> None:
    """On the way out the caller is this service, and nobody else."""
    for callers, here in ((route.callers, path), (route.fault.callers if route.fault else (), f"{path}.fault")):
        if callers and not any(pattern.matches(view.identity) for pattern in callers):
            message = f"never acts: whoever calls from here is {view.name}, which is none of these"
            hint = "remove from:; or write a fault into the inbound routes of the called service, which knows callers"
            book.warn("MESH111", f"{here}.from", message, hint)


def _retries(upstream: Outbound, route: OutboundRoute, path: str, book: Book) -> None:
    resends = route.retries.resends if route.retries.resends is not None else upstream.retries.resends
    if route.retries.statuses and not resends:
        message = "never acts: nothing is sent again here (resends: 0)"
        book.warn("MESH112", f"{path}.retries.statuses", message, "remove it, or let resends be 1 or more")


def _edits(edits: HeaderEdits, path: str, book: Book) -> None:
    for index, name in enumerate(edits.remove):
        if name in edits.replace:
            message = f"changes nothing: {name} is set as well, in the place of all of its name"
            book.warn("MESH113", book.item(path, "remove", index), message, "remove it here")


def _fault(fault: Fault, path: str, where: str, book: Book) -> None:
    delays, aborts = bool(fault.delay and fault.delay_share), bool(fault.status and fault.abort_share)
    half = [
        (fault.delay, fault.delay_share, "delay", "delay_share"),
        (fault.status, fault.abort_share, "status", "abort_share"),
    ]
    for value, share, key, other in half:
        if bool(value) != bool(share):
            said, lacks = (key, other) if value else (other, key)
            book.warn("MESH114", f"{path}.{said}", f"never acts: {lacks} is not said, or none", f"give {lacks} too")
    if not any((fault.delay, fault.delay_share, fault.status, fault.abort_share)):
        book.warn("MESH114", path, "never acts: it says neither what happens nor to whom", "remove it")
    if delays or aborts:
        does = [f"{fault.delay_share:.4g} of requests wait {fault.delay:g} s"] if delays else []
        does += [f"{fault.abort_share:.4g} are refused with {fault.status}"] if aborts else []
        message = f"faults are injected on {where}: {', '.join(does)}"
        book.warn("MESH115", path, message, "remove it when the trial is over")


def _somebody(view: View, listener: Inbound, fault: Fault, path: str, book: Book) -> bool:
    """Whether a fault may meet anybody whom a rule lets in; those whom none does are noted. A listener that is not
    strict lets others in too.
    """
    rules = [
        rule for rule in view.built.allow if not rule.shadow and (not rule.ports or listener.name in rule.ports)
    ]
    allowed = [pattern for rule in rules for pattern in rule.callers]
    if listener.posture != "strict" or not fault.callers or not allowed:
        return True
    met = [any(_meet(pattern, other) for other in allowed) for pattern in fault.callers]
    for index, pattern in enumerate(fault.callers):
        if not met[index]:
            message = f"never acts for {pattern}: no rule lets it in"
            hint = "compare with from: of the rules under allow:"
            book.warn("MESH116", book.item(path, "from", index), message, hint)
    return any(met)


def _meet(one: IdentityPattern, other: IdentityPattern) -> bool:
    """Whether somebody may be meant by both; where both are families that is not worked out."""
    return identity_covers(one, other) or identity_covers(other, one) or (one.exact is None and other.exact is None)
