"""What the configuration says of routes, in the words of `sidecar.traffic`, and put to work."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from sidecar.http.changes import HeaderChanges, PrefixRewrite
from sidecar.proxy.steering import AppRoutes, Course, Steering
from sidecar.traffic.faults import FaultRules
from sidecar.traffic.retry import RetryRules
from sidecar.traffic.routes import Route, Split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sidecar.config.schema import Service
    from sidecar.config.schema_inbound import Inbound
    from sidecar.config.schema_inbound import Route as InboundRoute
    from sidecar.config.schema_outbound import Outbound
    from sidecar.config.schema_routes import Fault, HeaderEdits, OutboundRoute
    from sidecar.config.terms import Address
    from sidecar.policy.reading import Reading
    from sidecar.proxy.upstream import Upstream

    Count = Callable[[str, str, str], None]  # of a request that a split has sent: listener, route, where to

DICE: Final = random.random  # no secret: which request goes where, and which one meets a fault


def steering(spec: Outbound, upstreams: Mapping[str, Upstream], count: Count) -> Steering | None:
    """The routes of one upstream; None where it has none."""
    if not spec.routes:
        return None
    return Steering([Course(spec.name, outbound_route(spec, each), upstreams, DICE, count) for each in spec.routes])


def app_routes(spec: Inbound, reading: Reading, apps: Mapping[str, Upstream], count: Count) -> AppRoutes | None:
    """The routes of one listener that do more than limit; None where there are none."""
    acting = [route for route in spec.routes if route.apps or route.fault is not None]
    if not acting:
        return None
    courses = {id(route): Course(spec.name, inbound_route(spec, route), apps, DICE, count) for route in acting}
    return AppRoutes(reading, courses, looks_at_headers=any(route.headers for route in spec.routes))


def addresses_of(spec: Inbound) -> list[Address]:
    """The applications that routes of a listener name beside its own."""
    named = [branch.app for route in spec.routes for branch in route.apps]
    return [address for address in dict.fromkeys(named) if address != spec.app]


def outbound_route(spec: Outbound, route: OutboundRoute) -> Route:
    """One route of an upstream."""
    rewrite = route.rewrite
    return Route(
        route.name,
        Split(tuple(each.to for each in route.split), tuple(each.weight for each in route.split))
        if route.split else Split((spec.name,), (1,)),
        paths=route.paths, methods=frozenset(route.methods), headers=route.headers, query=route.query,
        callers=route.callers,
        rewrite=PrefixRewrite.parse(rewrite.prefix, rewrite.to) if rewrite is not None else None,
        request=_changes(route.request_headers), response=_changes(route.response_headers),
        fault=fault_rules(route.fault), retries=_retries(spec, route),
    )  # fmt: skip


def inbound_route(spec: Inbound, route: InboundRoute) -> Route:
    """One route of a listener; its conditions are for `sidecar.policy.reading` to judge."""
    names = tuple(each.name for each in route.apps) or (str(spec.app),)
    weights = tuple(each.weight for each in route.apps) or (1,)
    return Route(route.path.text, Split(names, weights), fault=fault_rules(route.fault))


def fault_rules(fault: Fault | None) -> FaultRules | None:
    """The fault; None also for one that never strikes."""
    if fault is None:
        return None
    rules = FaultRules(fault.delay, fault.delay_share, fault.status or 0, fault.abort_share, fault.callers)
    return rules if rules.acts else None


def faults_in(service: Service) -> Iterator[dict[str, str]]:
    """Where faults are in force, for a warning that nobody misses."""
    declared = [("outbound", each.name, route.name, route.fault) for each in service.outbound for route in each.routes]
    declared += [
        ("inbound", each.name, route.path.text, route.fault) for each in service.inbound for route in each.routes
    ]
    for direction, listener, name, fault in declared:
        rules = fault_rules(fault)
        if rules is not None:
            yield {"direction": direction, "listener": listener, "route": name, "fault": str(rules), "flag": "DI, FI"}


def _changes(edits: HeaderEdits) -> HeaderChanges:
    return HeaderChanges.parse(edits.remove, edits.replace, edits.add)


def _retries(spec: Outbound, route: OutboundRoute) -> RetryRules | None:
    own, usual = route.retries, spec.retries
    if own.resends is None and own.statuses is None:
        return None
    resends = own.resends if own.resends is not None else usual.resends
    return RetryRules(1 + resends, statuses=frozenset(own.statuses if own.statuses is not None else usual.statuses))
