"""Routes, put to work: what the configuration says of them, with the upstreams that they lead to."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from sidecar.proxy.steering import AppRoutes, Course, Steering
from sidecar.traffic.declared import inbound_route, outbound_route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.config.schema_inbound import Inbound
    from sidecar.config.schema_outbound import Outbound
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
    return AppRoutes(reading, courses, apps, looks_at_headers=any(route.headers for route in spec.routes))


def addresses_of(spec: Inbound) -> list[Address]:
    """The applications that routes of a listener name beside its own."""
    named = [branch.app for route in spec.routes for branch in route.apps]
    return [address for address in dict.fromkeys(named) if address != spec.app]
