"""Quotas and TCP limits that contradict themselves, change nothing, or hold nobody back. That one never acts is proved:
nothing comes under it, or something else refuses all that it would.
"""

from __future__ import annotations

from typing import Final

from sidecar.config.assemble import Placed, View
from sidecar.config.limited import covers, is_kept, listeners_of, same_caller, why_never
from sidecar.config.mistakes import Book
from sidecar.config.schema import Service
from sidecar.config.schema_amounts import QuotaLimit, TcpLimit
from sidecar.config.schema_inbound import Inbound, RateLimit

LONGEST: Final = {"h": 3600.0, "d": 25 * 3600.0, "month": 31 * 86400.0 + 3600.0}  # seconds of a window, at most
_WINDOW: Final = {"h": "an hour", "d": "a day", "month": "a month"}


def amounts(view: View, book: Book) -> None:
    """Note what cannot be done."""
    for placed in view.quotas:
        if placed.value.shared == "redis" and view.built.redis is None:
            hint = f"add redis: {{url: redis://HOST:6379}} to {view.path}, or to defaults"
            book.at(f"{placed.path}.shared", f"{view.name} has no Redis to count in", hint)
    for listener in view.inbound:
        names: dict[str, str] = {}
        for index, limit in enumerate(listener.value.tcp_limits):
            path = f"{listener.path}.tcp_limits[{index}]"
            if limit.connections_per_second is None and limit.connections is None and limit.bandwidth is None:
                hint = "say connections_per_second, connections or bandwidth"
                book.at(path, f"{limit.name} limits nothing", hint)
            if limit.name in names:
                hint = f"it stands in {book.place(names[limit.name])} already"
                book.at(f"{path}.name", f'duplicate limit name "{limit.name}"', hint, "MESH010")
            names.setdefault(limit.name, f"{path}.name")


def allotted(view: View, book: Book) -> None:
    """Note every odd quota and TCP limit of a service."""
    for placed in view.quotas:
        _quota(placed, view, book)
    for listener in view.inbound:
        for index, limit in enumerate(listener.value.tcp_limits):
            _tcp(limit, listener.value, f"{listener.path}.tcp_limits[{index}]", view.built, book)


def _quota(placed: Placed[QuotaLimit], view: View, book: Book) -> None:
    quota, service = placed.value, view.built
    listeners = listeners_of(quota, service.inbound)
    why = why_never(quota, listeners, service.allow)
    if why:
        book.warn("MESH075", placed.path, f"{quota.name} never acts: {why[0]}", why[1])
        return
    tight = next((each for each in view.rates if _refuses_first(each.value, quota, listeners)), None)
    if tight is not None:
        most = _most(tight.value, quota)
        message = (
            f"{quota.name} never acts: {tight.value.name} ({book.place(tight.path)}) lets {most:.0f} in at most in "
            f"{_WINDOW[quota.limit.window]}"
        )
        book.warn("MESH076", f"{placed.path}.limit", message, "lower the quota, or raise the rate")
    elif quota.per.invented and not is_kept(quota, service.rates, listeners):
        what = quota.per.header or f"the claim {quota.per.claim}, in a token that nobody verifies,"
        message = f"{quota.name} holds nobody back who sends another value of {what} each time"
        book.warn("MESH077", f"{placed.path}.per", message, "add a rate or a quota per: caller beside it")


def _refuses_first(rate: RateLimit, quota: QuotaLimit, listeners: list[Inbound]) -> bool:
    """Whether whoever shares the quota comes under this one rate together, and that lets fewer in."""
    if not covers(rate, quota, listeners) or _most(rate, quota) >= quota.limit.count:
        return False
    if quota.shared == "redis" and rate.shared != "redis":
        return False
    return rate.per == quota.per or (rate.per.kind == "listener" and len(listeners) == 1)


def _most(rate: RateLimit, quota: QuotaLimit) -> float:
    """How many the rate lets in during a window."""
    waiting = rate.waiting if rate.over == "delay" else 0
    return rate.burst + waiting + rate.limit.per_second * LONGEST[quota.limit.window]


def _tcp(limit: TcpLimit, listener: Inbound, path: str, service: Service, book: Book) -> None:
    why = _never(limit, listener, service)
    if why:
        book.warn("MESH078", path, f"{limit.name} never acts: {why[0]}", why[1])
        return
    most = service.limits.connections_per_peer if limit.per == "caller" else service.limits.connections
    key = "limits.connections_per_peer" if limit.per == "caller" else "limits.connections"
    if limit.connections is not None and limit.connections >= most:
        message = f"{limit.name} never acts: {key} lets {most} in at most"
        book.warn("MESH079", f"{path}.connections", message, f"lower it, or raise {key}")


def _never(limit: TcpLimit, listener: Inbound, service: Service) -> tuple[str, str] | None:
    """Why no raw connection ever comes under it, and what to do; None where one may."""
    if listener.protocol == "http":
        hint = "put it on a listener with protocol: tcp or auto, or use rates:"
        return f"listener {listener.name} speaks HTTP alone", hint
    if not limit.callers or listener.posture != "strict":
        return None
    rules = [rule for rule in service.allow if not rule.shadow and (not rule.ports or listener.name in rule.ports)]
    if any(same_caller(a, b) for rule in rules for a in limit.callers for b in rule.callers):
        return None
    return "no rule allows anybody whom it is for", "compare from: with the rules under allow:"
