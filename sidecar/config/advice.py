"""What is allowed but odd: warnings, which never keep a config from loading.

Here is what concerns callers and upstreams. Rules and routes that can never act are in `overlap`, settings that can
never act in `inert`. Codes are explained in `codes`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sidecar.config.allotted import allotted
from sidecar.config.assemble import Placed, View
from sidecar.config.bypassed import bypassed
from sidecar.config.contracts import odd
from sidecar.config.cover import KNOWN_METHODS
from sidecar.config.edges import advise_edges
from sidecar.config.egress import advise_egress
from sidecar.config.exported import exports_odd
from sidecar.config.foreign import foreign
from sidecar.config.inert import settings
from sidecar.config.limited import limited
from sidecar.config.mistakes import Book, nearest
from sidecar.config.overlap import overlaps
from sidecar.config.posture import posture_of, show_moment
from sidecar.config.redirected import advise_redirected
from sidecar.config.routed import routes_odd
from sidecar.config.schema import MeshConfig
from sidecar.config.schema_inbound import Inbound, Rule
from sidecar.config.sentences import applies_to
from sidecar.config.sources import missing_files
from sidecar.config.spoken import spoken
from sidecar.config.tokened import tokens_odd
from sidecar.config.watched import watched

XFCC = b"x-forwarded-client-cert"


def advise(config: MeshConfig, views: Sequence[View], book: Book, now: float | None) -> None:
    """Note every warning in the book, at this moment (seconds since the epoch)."""
    by_name = {view.name: view for view in views}
    known = {view.identity.text for view in views}
    for view in views:
        _reachable(view, book)
        _upstreams(view, by_name, book)
        for listener in view.inbound:
            _posture(listener, book, now)
        for rule in (*view.allow, *view.deny):
            _callers(rule, config, list(by_name), known, book)
            _methods(rule, book)
            _headers(rule, book)
            _tcp(view, rule, book)
            _hosts(view, rule, views, book)
        overlaps(view, book)
        limited(view, book)
        routes_odd(view, book)
        allotted(view, book)
        spoken(view, book)
        missing_files(view, book)
        advise_redirected(view, book)
        advise_edges(view, book)
        odd(view, book)
        bypassed(view, book)
        watched(view, book)
        advise_egress(view, book)
        exports_odd(view, book)
    tokens_odd(config, views, book)
    foreign(config.trust_domain, views, book)
    settings(config, views, book)


def _reachable(view: View, book: Book) -> None:
    service = view.built
    if service.inbound and not any(not rule.shadow for rule in service.allow):
        hint = "add allow: [{from: …}]"
        book.warn("MESH020", view.path, "nobody may call this service: no allow rule is in force", hint)
    if not service.inbound and (service.allow or service.deny):
        message = "has rules but no inbound listener, so they are never asked"
        book.warn("MESH021", view.path, message, "add inbound:")


_MEANS = {
    "permissive": "whoever reaches the port is let in without identity and without rules, except for what a deny rule "
    "forbids everybody",
    "observe": "no rule refuses anybody who has an identity of this mesh",
}


def _posture(placed: Placed[Inbound], book: Book, now: float | None) -> None:
    """A listener that is not strict is told of each time."""
    listener, posture, path = placed.value, posture_of(placed.value), f"{placed.path}.until"
    if posture is None or now is None:
        if listener.until is not None:
            message = f"is for posture: permissive or observe; listener {listener.name} is strict, now and afterwards"
            book.warn("MESH062", path, message, "remove it")
    elif posture.in_force(now):
        message = f"{posture.kind} until {show_moment(posture.until)}: {_MEANS[posture.kind]}"
        hint = "make it strict as soon as mesh_posture_would_refuse_total stands still"
        book.warn("MESH063", f"{placed.path}.posture", message, hint)
    else:
        message = f"{posture.kind} has ended: listener {listener.name} is strict since {show_moment(posture.until)}"
        book.warn("MESH061", path, message, "remove posture: and until:")


def _upstreams(view: View, by_name: Mapping[str, View], book: Book) -> None:
    for upstream in view.outbound:
        target = by_name.get(upstream.value.to)
        if target is None or not target.allow:
            continue
        rules = [
            each.value for each in target.allow if not each.value.ports or upstream.value.listener in each.value.ports
        ]
        if not any(pattern.matches(view.identity) for rule in rules for pattern in rule.callers):
            hint = f"add a rule with from: {view.name} to services.{target.name}.allow"
            book.warn("MESH022", f"{upstream.path}.to", f"no rule of {target.name} allows {view.name} to call it", hint)


def _callers(
    placed: Placed[Rule], config: MeshConfig, names: Sequence[str], known: Collection[str], book: Book
) -> None:
    """A caller of our own trust domain that is nobody in this file may be a slip."""
    for index, pattern in enumerate(placed.value.callers):
        if pattern.trust_domain != config.trust_domain or pattern.exact is None:
            continue
        if pattern.exact not in known:
            near = nearest(pattern.text.rpartition("/")[2], names)
            hint = f'did you mean "{near}"?' if near else ""
            path = book.item(placed.path, "from", index)
            book.warn("MESH023", path, f"{pattern.text} is no service of this file", hint)


def _methods(placed: Placed[Rule], book: Book) -> None:
    for method in placed.value.methods:
        near = nearest(method, sorted(KNOWN_METHODS))
        if method == "CONNECT":
            message = "a peer's CONNECT is refused, whatever the rules say"
            hint = "remove it; the caller's own sidecar answers CONNECT"
            book.warn("MESH037", f"{placed.path}.method", message, hint)
        elif method not in KNOWN_METHODS and near is not None:
            book.warn("MESH024", f"{placed.path}.method", f"{method} is an unusual method", f"did you mean {near}?")


def _headers(placed: Placed[Rule], book: Book) -> None:
    for header in placed.value.headers:
        if header.name == XFCC:
            message = f"{XFCC.decode()} is what the caller wrote, before we replace it"
            hint = "name the caller in from: instead, which the handshake has proved"
            book.warn("MESH039", f"{placed.path}.headers.{XFCC.decode()}", message, hint)


def _tcp(view: View, placed: Placed[Rule], book: Book) -> None:
    protocols = applies_to(view.built, placed.value)
    if placed.value.http_only and "tcp" in protocols and set(protocols) != {"tcp"}:
        hint = "name the http listener with port:"
        message = "has an HTTP field, so it never matches on the tcp listeners of this service"
        book.warn("MESH025", placed.path, message, hint)


def _hosts(view: View, placed: Placed[Rule], views: Sequence[View], book: Book) -> None:
    """Callers that are all in this file ask for the hosts that their upstreams name, and for no others."""
    rule = placed.value
    callers = [each for each in views if any(pattern.exact == each.identity.text for pattern in rule.callers)]
    if not rule.hosts or len(callers) != len(rule.callers):
        return
    asked = [
        each.value.host
        for caller in callers
        for each in caller.outbound
        if each.value.to == view.name and (not rule.ports or each.value.listener in rule.ports)
    ]
    if asked and not any(pattern.matches(host) for pattern in rule.hosts for host in asked):
        message = f"never matches: its callers ask {view.name} for {' or '.join(sorted(set(asked)))}"
        book.warn("MESH035", f"{placed.path}.host", message, "compare with host: of their upstreams")
