"""What is allowed but odd: warnings, which never keep a config from loading."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sidecar.config.assemble import Placed, View
from sidecar.config.mistakes import Book, nearest
from sidecar.config.schema import MeshConfig, Rule
from sidecar.config.sentences import applies_to, is_http

KNOWN_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def advise(config: MeshConfig, views: Sequence[View], book: Book) -> None:
    """Note every warning in the book."""
    by_name = {view.name: view for view in views}
    known = {view.identity.text for view in views}
    for view in views:
        _reachable(view, book)
        _upstreams(view, by_name, book)
        for rule in (*view.allow, *view.deny):
            _callers(rule, config, list(by_name), known, book)
            _methods(rule, book)
            _tcp(view, rule, book)
        for rule in view.allow:
            _shadowed(rule, view.deny, book)


def _reachable(view: View, book: Book) -> None:
    service = view.built
    if service.inbound and not any(not rule.shadow for rule in service.allow):
        book.warn(view.path, "nobody may call this service: no allow rule is in force", "add allow: [{from: …}]")
    if not service.inbound and (service.allow or service.deny):
        book.warn(view.path, "has rules but no inbound listener, so they are never asked", "add inbound:")


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
            book.warn(f"{upstream.path}.to", f"no rule of {target.name} allows {view.name} to call it", hint)


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
            listed = f"{placed.path}.from[{index}]"
            path = listed if listed in book.places else f"{placed.path}.from"
            book.warn(path, f"{pattern.text} is no service of this file", hint)


def _methods(placed: Placed[Rule], book: Book) -> None:
    for method in placed.value.methods:
        near = nearest(method, KNOWN_METHODS)
        if method not in KNOWN_METHODS and near is not None:
            book.warn(f"{placed.path}.method", f"{method} is an unusual method", f"did you mean {near}?")


def _tcp(view: View, placed: Placed[Rule], book: Book) -> None:
    protocols = applies_to(view.built, placed.value)
    if is_http(placed.value) and "tcp" in protocols and "http" in protocols:
        hint = "name the http listener with port:"
        book.warn(placed.path, "has an HTTP field, so it never matches on the tcp listeners of this service", hint)


def _shadowed(placed: Placed[Rule], denies: Sequence[Placed[Rule]], book: Book) -> None:
    """An allow whose every hop one deny takes away again."""
    for deny in denies:
        if not deny.value.shadow and not placed.value.shadow and _covers(deny.value, placed.value):
            where = book.place(deny.path)
            book.warn(placed.path, f"has no effect: {deny.value.name} ({where}) denies all that it allows")
            return


def _covers(deny: Rule, allow: Rule) -> bool:
    """Whether the deny matches wherever the allow does, judged by equal patterns only."""
    return all(
        _wider(getattr(deny, name), getattr(allow, name))
        for name in ("callers", "hosts", "methods", "paths", "networks", "ports")
    ) and set(deny.headers) <= set(allow.headers)


def _wider(deny: Collection[Any], allow: Collection[Any]) -> bool:
    return not deny or (bool(allow) and set(allow) <= set(deny))
