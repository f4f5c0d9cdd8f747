"""Each rule as one plain English sentence, so that what a file means can be read back and not only hoped for."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.config.quantities import show_seconds
from sidecar.config.schema import MeshConfig, Service
from sidecar.config.schema_amounts import QuotaLimit
from sidecar.config.schema_inbound import Inbound, RateLimit, Rule
from sidecar.patterns import IdentityPattern

_UNITS = {"s": "a second", "m": "a minute", "h": "an hour", "d": "a day"}


def sentences(config: MeshConfig) -> list[str]:
    """Every rule of every service, deny before allow as they are judged, then its limits; and who may not be called."""
    lines = []
    for service in config.services.values():
        lines += [sentence(service, rule) for rule in (*service.deny, *service.allow)]
        lines += [limited(service, rate) for rate in service.rates]
        lines += [allotted(service, quota) for quota in service.quotas]
        if service.inbound and not any(not rule.shadow for rule in service.allow):
            lines.append(f"{service.name}: nobody may call it")
    return lines


def sentence(service: Service, rule: Rule) -> str:
    """One rule: "orders: web may GET /orders/{id}"."""
    may = "may" if rule.effect == "allow" else "may not"
    parts = [f"{service.name}: {_either(map(caller, rule.callers))} {may} {_what(service, rule)}"]
    if rule.hosts:
        parts.append(f"at host {_either(map(str, rule.hosts))}")
    parts += [f"with header {header}" for header in map(str, rule.headers)]
    if rule.networks:
        parts.append(f"from {_either(map(str, rule.networks))}")
    if rule.ports:
        parts.append(f"on {_either(rule.ports)}")
    if rule.operations:
        parts.append(f"as operation {_either(rule.operations)}")
    if rule.scopes:
        parts.append(f"with a token that has the scope {' and '.join(rule.scopes)}")
    if rule.when:
        parts.append(f"if {' and '.join(map(str, rule.when))}")
    if rule.shadow:
        parts.append("(shadow: judged and logged, without effect)")
    return " ".join(parts)


def limited(service: Service, rate: RateLimit) -> str:
    """One rate limit: "orders: each caller may POST /orders 10 times a second"."""
    parts = [_shared(service, rate, rate.limit.count), _UNITS[rate.limit.unit], *_for_each(rate)]
    if rate.burst != rate.limit.count:
        parts.append(f"({rate.burst} at once)")
    if rate.ports:
        parts.append(f"on {_either(rate.ports)}")
    if rate.shared == "redis":
        parts.append("at all its sidecars together (Redis)")
    if rate.over == "delay":
        parts.append(f"and then waits for its turn, up to {show_seconds(rate.delay)}")
    return " ".join(parts)


def allotted(service: Service, quota: QuotaLimit) -> str:
    """One quota: "orders: each caller may call anything 10000 times in a day of Europe/Berlin"."""
    window = {"h": "in an hour", "d": "in a day", "month": "in a month"}[quota.limit.window]
    parts = [_shared(service, quota, quota.limit.count), f"{window} of {quota.time_zone}", *_for_each(quota)]
    if quota.ports:
        parts.append(f"on {_either(quota.ports)}")
    return " ".join(parts)


def _shared(service: Service, limit: RateLimit | QuotaLimit, number: int) -> str:
    """Who may do what how often."""
    shares = {
        "listener": f"{_either(map(caller, limit.callers)) if limit.callers else 'all callers'} together may",
        "caller": f"each caller{f' of {_either(map(caller, limit.callers))}' if limit.callers else ''} may",
    }
    who = shares.get(limit.per.kind) or f"{_either(map(caller, limit.callers)) if limit.callers else 'all callers'} may"
    what = f"{_either(limit.methods) if limit.methods else 'call'} "
    what += _either(map(str, limit.paths)) if limit.paths else "any path" if limit.http_only else "anything"
    return f"{service.name}: {who} {what} {'once' if number == 1 else f'{number} times'}"


def _for_each(limit: RateLimit | QuotaLimit) -> list[str]:
    if limit.per.kind == "endpoint":
        return ["for each endpoint"]
    return [f"for each value of {limit.per.header or f'the claim {limit.per.claim}'}"] if limit.per.invented else []


def caller(pattern: IdentityPattern) -> str:
    """A pattern as people say it."""
    if pattern.text == "**":
        return "anybody in the mesh"
    if pattern.text == "*":
        namespace = pattern.segments[1] if len(pattern.segments) > 1 else ""
        return f"any service of namespace {namespace}"
    return pattern.text


def applies_to(service: Service, rule: Rule) -> list[str]:
    """Protocols of the inbound listeners that the rule is judged on."""
    return [each.protocol for each in service.inbound if not rule.ports or each.name in rule.ports]


def needs_http(service: Service, listener: Inbound) -> bool:
    """Whether anything here is about HTTP (a route, a limit, tokens, a rule in force), by raw TCP by-passed (S9)."""
    rules = (*service.allow, *service.deny)
    asked = (rule for rule in rules if not rule.shadow and (not rule.ports or listener.name in rule.ports))
    rates = (rate for rate in service.rates if not rate.ports or listener.name in rate.ports)
    quotas = (quota for quota in service.quotas if not quota.ports or listener.name in quota.ports)
    amounts = any(rate.http_only for rate in rates) or any(quota.http_only for quota in quotas)
    return bool(listener.routes or listener.tokens) or any(rule.http_only for rule in asked) or amounts


def _what(service: Service, rule: Rule) -> str:
    if not rule.http_only:
        protocols = set(applies_to(service, rule))
        if protocols == {"tcp"}:
            return "connect"
        return "call anything" if protocols == {"http"} else "connect and call anything"
    methods = _either(rule.methods) if rule.methods else "call"
    return f"{methods} {_either(map(str, rule.paths)) if rule.paths else 'any path'}"


def _either(words: Iterable[str]) -> str:
    *most, last = list(words) or [""]
    return f"{', '.join(most)} or {last}" if most else last
