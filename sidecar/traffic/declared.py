"""What the configuration says of routes and faults, in the words of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.http.changes import HeaderChanges, PrefixRewrite
from sidecar.traffic.faults import FaultRules
from sidecar.traffic.retry import RetryRules
from sidecar.traffic.routes import Route, Split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.config.schema import Service
    from sidecar.config.schema_inbound import Inbound
    from sidecar.config.schema_inbound import Route as InboundRoute
    from sidecar.config.schema_outbound import Outbound
    from sidecar.config.schema_routes import Fault, HeaderEdits, OutboundRoute


def outbound_route(spec: Outbound, route: OutboundRoute) -> Route:
    """One route of an upstream."""
    branches, rewrite = route.split, route.rewrite
    names = tuple(each.to for each in branches) or (spec.name,)
    weights = tuple(each.weight for each in branches) or (1,)
    return Route(
        route.name, Split(names, weights), paths=route.paths, methods=frozenset(route.methods), headers=route.headers,
        query=route.query, callers=route.callers,
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
