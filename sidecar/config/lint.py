"""What no single value shows: duplicates, clashing ports, listeners that reach too far, rules that can never match.

All of these are mistakes; what is allowed but odd is in `advice`. Codes are explained in `codes`. Where something is
wrong at a path already, nothing further is said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.config import balanced, egress, limited_how
from sidecar.config.allotted import amounts
from sidecar.config.assemble import Placed, View, is_loopback
from sidecar.config.contracts import contracted
from sidecar.config.exported import exports_wrong
from sidecar.config.mistakes import Book, nearest
from sidecar.config.posture import LONGEST, posture_of, show_moment
from sidecar.config.redirected import capture_ports, contradictions
from sidecar.config.routed import apps_of, routed
from sidecar.config.schema import MeshConfig
from sidecar.config.schema_inbound import Inbound, Rule
from sidecar.config.sentences import applies_to
from sidecar.config.terms import Address
from sidecar.config.tokened import issuers_wrong, listeners_wrong

RESERVED: Final = "mesh-"  # decision D6
# Decision D9: these never enter a log.
NEVER_LOGGED: Final = ("authorization", "cookie", "set-cookie", "proxy-authorization")


def lint(config: MeshConfig, views: Sequence[View], book: Book, now: float | None) -> None:
    """Note every mistake between parts, at this moment (seconds since the epoch). Raises TooMany."""
    _unique(views, lambda view: (view.identity.text, f"{view.path}.identity"), "identity", book)
    issuers_wrong(config, book)
    for view in views:
        listeners_wrong(view, config.issuers, book)
        _names(view, book)
        _identity(view, config, book)
        _identity_source(view, book)
        _loopback(view, book)
        _upstream_hosts(view, book)
        limited_how.contradictions(view, book)
        _access_log(view.built.access_log.headers, f"{view.path}.access_log.headers", book)
        for listener in view.inbound:
            _listener(listener, book)
            _posture(listener, book, now)
        for rule in (*view.allow, *view.deny):
            _rule(view, rule, book)
        for outbound in view.outbound:
            balanced.contradictions(view, outbound, book)
        routed(view, book)
        contradictions(view, book)
        egress.contradictions(view, book)
        contracted(view, book)
        exports_wrong(view, book)
    _access_log(config.defaults.access_log.headers, "defaults.access_log.headers", book)
    _ports(views, book)


def _unique(items: Iterable[object], name_of: Callable[..., tuple[str, str]], what: str, book: Book) -> None:
    first: dict[str, str] = {}
    for item in items:
        name, path = name_of(item)
        if name in first:
            where = book.place(first[name])
            book.at(path, f'duplicate {what} "{name}"', f"it stands in {where} already", "MESH010")
        else:
            first[name] = path


def _names(view: View, book: Book) -> None:
    rules = sorted((*view.allow, *view.deny), key=lambda each: _line(book, each.path))
    _unique(rules, lambda each: (each.value.name, f"{each.path}.name"), "rule name", book)
    limits = (*view.rates, *view.quotas)
    _unique(limits, lambda each: (each.value.name, f"{each.path}.name"), "limit name", book)
    amounts(view, book)
    _unique(view.inbound, lambda each: (each.value.name, f"{each.path}.name"), "listener name", book)
    _unique(view.outbound, lambda each: (each.value.name, f"{each.path}.to"), "upstream", book)


def _identity_source(view: View, book: Book) -> None:
    source = view.built.identity_source
    if source is not None and (source.workload_api is None) == (source.files is None):
        hint = "name one of the two: workload_api, or files"
        book.at(f"{view.path}.identity_source", "an identity comes from one place", hint)


def _line(book: Book, path: str) -> tuple[int, int]:
    where = book.place(path)
    return where.line, where.column


def _identity(view: View, config: MeshConfig, book: Book) -> None:
    if view.identity.trust_domain != config.trust_domain:
        message = f"is in trust domain {view.identity.trust_domain}, but this mesh is {config.trust_domain}"
        book.at(f"{view.path}.identity", message, "its CA could never issue this identity", "MESH011")


def _loopback(view: View, book: Book) -> None:
    """Plaintext never leaves the machine."""
    proxy = view.built.forward_proxy
    if proxy is not None:
        _must_be_loopback(proxy, f"{view.path}.forward_proxy", "anybody who reaches it speaks as this service", book)
    for inbound in view.inbound:
        _must_be_loopback(inbound.value.app, f"{inbound.path}.app", "the way to it would be plaintext", book)
    for outbound in view.outbound:
        listen = outbound.value.listen
        if listen is not None and not outbound.value.edge:
            _must_be_loopback(listen, f"{outbound.path}.listen", "anybody who reaches it speaks as this service", book)


def _must_be_loopback(address: Address, path: str, why: str, book: Book) -> None:
    if not address.unix and not is_loopback(address.host):
        book.at(path, f"{address} is not on loopback; {why}", f"write 127.0.0.1:{address.port}", "MESH012")


def _upstream_hosts(view: View, book: Book) -> None:
    """The forward proxy finds an upstream by its host alone."""
    if view.built.forward_proxy is not None:
        hosts = [each for each in view.outbound if each.value.name != each.value.to or each.value.host != each.value.to]
        others = [each for each in view.outbound if each not in hosts]
        _unique([*others, *hosts], lambda each: (each.value.host, f"{each.path}.host"), "upstream host", book)


def _listener(placed: Placed[Inbound], book: Book) -> None:
    name, protocol = placed.value.name, placed.value.protocol
    if placed.value.app_proxy_protocol != "none" and protocol != "tcp":
        message = f"listener {name} is {protocol}, whose connections to the application are shared by callers"
        hint = "declare it protocol: tcp, or let the application read x-forwarded-client-cert"
        book.at(f"{placed.path}.app_proxy_protocol", message, hint, "MESH009")
    if protocol != "tcp":
        return
    if placed.value.routes:
        book.at(f"{placed.path}.routes", f"listener {name} is tcp, which has no paths", "", "MESH014")
    if placed.value.xfcc_forwarders:
        book.at(f"{placed.path}.xfcc_forwarders", f"listener {name} is tcp, which has no headers", "", "MESH014")


def _posture(placed: Placed[Inbound], book: Book, now: float | None) -> None:
    """What weakens a listener ends by itself, and soon (decision D12)."""
    kind, path = placed.value.posture, f"{placed.path}.until"
    if kind == "strict" or book.has(path):
        return
    posture = posture_of(placed.value)
    if posture is None:
        hint = "add until: with a date at most 14 days ahead, after which the listener is strict again"
        book.at(f"{placed.path}.posture", f"{kind} without an end", hint, "MESH018")
    elif now is None:
        book.at(path, f"nobody said what time it is, so the end of {kind} cannot be judged", "", "MESH019")
    elif posture.until > now + LONGEST:
        hint = f"the latest at this moment is {show_moment(now + LONGEST)}"
        book.at(path, f"{kind} for more than 14 days", hint, "MESH019")


def _access_log(headers: Sequence[str], path: str, book: Book) -> None:
    for name in headers:
        if name.lower().replace("_", "-") in NEVER_LOGGED:
            hint = "credentials have no place in a log (docs/telemetry.md)"
            book.at(path, f'"{name}" is never logged', hint, "MESH015")


def _rule(view: View, placed: Placed[Rule], book: Book) -> None:
    rule, protocols = placed.value, applies_to(view.built, placed.value)
    if rule.http_only and set(protocols) == {"tcp"} and not view.incomplete:
        keys = ("host", "method", "path", "headers", "operation", "scopes", "when")
        field = next((key for key in keys if f"{placed.path}.{key}" in book.places), None)
        hint = "remove it, or declare the listener protocol: http"
        message = "never matches: every listener this rule applies to is tcp"
        if field is not None:  # a rule that follows from a grant has none; what its contract stands on is told
            book.at(f"{placed.path}.{field}", message, hint, "MESH016")
    for number, condition in enumerate(rule.when):
        for subject in condition.subjects():
            unnamed = [path for path in rule.paths if subject.name not in path.names]
            if subject.kind == "path" and (unnamed or not rule.paths):
                lacks = f"the path {unnamed[0]} has no {{{subject.name}}}" if unnamed else "the rule names no path"
                near = _near_name(subject.name, rule)
                book.at(f"{placed.path}.when[{number}]", f"can never hold: {lacks}", near, "MESH003")
    for header in rule.headers:
        name = header.name.decode("ascii")
        if name.replace("_", "-").startswith(RESERVED):
            hint = "headers mesh-* are the mesh's own and never the caller's to set"
            book.at(f"{placed.path}.headers.{name}", f'"{name}" is reserved', hint, "MESH017")


def _near_name(name: str, rule: Rule) -> str:
    known = [each for path in rule.paths for each in path.names if each != name]
    near = nearest(name, known)
    return f"did you mean {{{near}}}?" if near else "name it in braces in every path of the rule: /customers/{customer}"


# ---- ports -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Claim:
    """Somebody wants this address and port of a host. `app` claims are the applications' own listeners."""

    address: Address
    path: str
    what: str
    app: bool = False

    def clashes(self, other: _Claim) -> bool:
        """Whether both cannot be listened on, as far as the text tells."""
        mine, theirs = _bare(self.address.host), _bare(other.address.host)
        return self.address.port == other.address.port and (mine == theirs or "" in (mine, theirs))


def _bare(host: str) -> str:
    """One spelling per address; empty for all addresses."""
    return {"0.0.0.0": "", "::": "", "localhost": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound


def _ports(views: Sequence[View], book: Book) -> None:
    hosts: dict[str, list[_Claim]] = {}
    for view in views:
        hosts.setdefault(view.host, []).extend(_claims(view))
    for claims in hosts.values():
        earlier: dict[int, list[_Claim]] = {}
        for claim in claims:
            others = earlier.setdefault(claim.address.port, [])
            for other in others:
                if claim.clashes(other) and not _shared(claim, other) and not book.has(other.path):
                    message = (
                        f"{claim.address} is {other.what} already" if not claim.app else _app_message(claim, other)
                    )
                    book.at(claim.path, message, f"see {book.place(other.path)}", "MESH013")
                    break
            others.append(claim)


def _app_message(claim: _Claim, other: _Claim) -> str:
    if other.app:
        return f"{claim.address} is {other.what} too, so one of the two would get what is meant for the other"
    return f"{claim.address} is {other.what}, not an application"


def _shared(claim: _Claim, other: _Claim) -> bool:
    """Several listeners of one service may lead to one application."""
    return claim.app and other.app and claim.what == other.what


def _claims(view: View) -> list[_Claim]:
    service = view.built
    name = view.name
    claims = [
        _Claim(Address(each.value.bind, each.value.port), f"{each.path}.port", f"listener {each.value.name} of {name}")
        for each in view.inbound
        if service.redirect is None
    ]
    if service.redirect is not None:
        claims += [
            _Claim(address, f"{view.path}.redirect.{key}", f"the capture port of {name} for {what}")
            for address, key, what in capture_ports(service.redirect)
        ]
    claims += [
        _Claim(each.value.listen, f"{each.path}.listen", f"the local listener for {each.value.name} of {name}")
        for each in view.outbound
        if each.value.listen is not None
    ]
    if service.forward_proxy is not None:
        claims.append(_Claim(service.forward_proxy, f"{view.path}.forward_proxy", f"the forward proxy of {name}"))
    if service.health.listen is not None:
        claims.append(_Claim(service.health.listen, f"{view.path}.health.listen", f"the health port of {name}"))
    if service.workload_api is not None:
        path = f"{view.path}.workload_api.listen"
        claims.append(_Claim(service.workload_api.listen, path, f"the Workload API of {name}"))
    own = service.health.listen if service.redirect is not None else None  # its page, served to peers (decision D26)
    apps = (
        _Claim(each.value.app, f"{each.path}.app", f"the application of {name}", app=True)
        for each in view.inbound
        if each.value.app != own
    )
    branches = (
        _Claim(branch.app, path, f"the application of {name}", app=True)
        for each in view.inbound
        for index, route in enumerate(each.value.routes)
        for branch, path in apps_of(route, f"{each.path}.routes[{index}]")
    )
    return [*claims, *apps, *branches]
