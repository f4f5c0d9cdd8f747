"""Issuers and the listeners that ask for their tokens: what can never work, and what is odd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sidecar.config.assemble import Placed, View
from sidecar.config.mistakes import Book, meant
from sidecar.config.quantities import show_seconds
from sidecar.config.schema import MeshConfig
from sidecar.config.schema_inbound import Inbound, Rule
from sidecar.config.schema_tokens import Issuer, Tokens
from sidecar.config.urls import why_not_https

LONGEST_LEEWAY: Final = 300.0  # seconds; sidecar.policy.jwt.MAX_LEEWAY, and a test holds the two together
RARELY: Final = 86400.0  # seconds


def issuers_wrong(config: MeshConfig, book: Book) -> None:
    """Note every issuer that cannot be one."""
    for name, issuer in config.issuers.items():
        path = f"issuers.{name}"
        if bool(issuer.issuer) == (issuer.trust_domain is not None):
            hint = "name one of the two: issuer (what stands in `iss`), or trust_domain (JWT-SVIDs)"
            book.at(path, "tokens are those of an issuer, or JWT-SVIDs of a trust domain", hint)
        elif issuer.trust_domain is not None:
            _only_in_the_bundle(issuer, path, book)
        elif issuer.url and issuer.file:
            book.at(f"{path}.file", "a key set comes from one place", "name one of the two: url, or file")
        elif not (issuer.url or issuer.file) and (why := why_not_https(issuer.issuer)):
            hint = "say where its keys are, with url: or file:"
            book.at(f"{path}.issuer", f"{issuer.issuer[:64]} {why}", hint)
        if issuer.leeway > LONGEST_LEEWAY:
            longest = show_seconds(LONGEST_LEEWAY)
            book.at(f"{path}.leeway", f"{show_seconds(issuer.leeway)} is no difference of clocks", f"at most {longest}")


def _only_in_the_bundle(issuer: Issuer, path: str, book: Book) -> None:
    for key in ("url", "file"):
        if getattr(issuer, key):
            hint = "the keys of JWT-SVIDs are in the trust bundle; remove it"
            book.at(f"{path}.{key}", "a trust domain has no other key set", hint)
    if issuer.type == "at+jwt":
        book.at(f"{path}.type", "no JWT-SVID is of this type", "remove it")


def listeners_wrong(view: View, issuers: Mapping[str, Issuer], book: Book) -> None:
    """Note every listener that asks for what it cannot have."""
    for placed, tokens in _asking(view):
        path = f"{placed.path}.tokens"
        if placed.value.protocol == "tcp":
            book.at(path, f"listener {placed.value.name} is tcp, which has no headers", "", "MESH014")
        said: dict[str, str] = {}
        for index, name in enumerate(tokens.issuers):
            here = book.item(path, "from", index)
            issuer = issuers.get(name)
            if issuer is None:
                book.at(here, f'no issuer "{name}" in this file', meant(name, list(issuers), what="there are"))
                continue
            key = issuer.issuer or f"the trust domain {issuer.trust_domain}"
            if key in said and name != said[key]:
                hint = "two listeners may differ, one may not: nobody could say whose keys are meant"
                book.at(here, f"{name} and {said[key]} both mean {key}", hint)
            said[key] = name


def tokens_odd(config: MeshConfig, views: Sequence[View], book: Book) -> None:
    """Note what is allowed, and weak or without effect."""
    asked = {name for view in views for _, tokens in _asking(view) for name in tokens.issuers}
    for name, issuer in config.issuers.items():
        path = f"issuers.{name}"
        if name not in asked:
            hint = "name it in `tokens: {from: …}` of a listener, or remove it"
            book.warn("MESH150", path, f"no listener asks for tokens of {name}", hint)
        if issuer.ca_file and (issuer.file or issuer.trust_domain is not None):
            message = "never acts: its keys are not fetched by TLS"
            book.warn("MESH153", f"{path}.ca_file", message, "remove it, or name a url")
        if issuer.refresh > RARELY:
            message = f"a key that it withdraws stays good here for {show_seconds(issuer.refresh)}"
            book.warn("MESH152", f"{path}.refresh", message, "at most 1d; 10m is usual")
    for view in views:
        for placed, tokens in _asking(view):
            _listener_odd(placed, tokens, config.issuers, book)
        for rule in (*view.allow, *view.deny):
            _never_verified(rule, view, book)


def _listener_odd(
    placed: Placed[Inbound], tokens: Tokens, issuers: Mapping[str, Issuer], book: Book
) -> None:
    path = f"{placed.path}.tokens"
    for index, name in enumerate(tokens.issuers):
        issuer, here = issuers[name], book.item(path, "from", index)
        if issuer.issuer and not tokens.audience and not issuer.audience:
            message = f"only tokens of {name} that are for our SPIFFE ID are taken, since no audience is said"
            book.warn("MESH151", here, message, "add audience: with what stands in `aud` of its tokens")
        if tokens.bound and issuer.trust_domain is not None:
            message = f"every token of {name} is refused: a JWT-SVID is bound to no certificate"
            book.warn("MESH154", here, message, "remove bound:, or this issuer")


def _never_verified(placed: Placed[Rule], view: View, book: Book) -> None:
    """A rule about tokens, where no listener that it applies to verifies any."""
    rule = placed.value
    listeners = [each.value for each in view.inbound if not rule.ports or each.value.name in rule.ports]
    if rule.of_tokens and listeners and all(listener.tokens is None for listener in listeners):
        what = "lets nobody in" if rule.effect == "allow" else "stops only whom an absent token stops"
        hint = "say `tokens: {from: …}` at the listener, with one of `issuers`"
        book.warn("MESH155", placed.path, f"{what}: it asks for a token, and no listener here verifies any", hint)


def _asking(view: View) -> Iterator[tuple[Placed[Inbound], Tokens]]:
    for placed in view.inbound:
        if placed.value.tokens is not None:
            yield placed, placed.value.tokens
