"""From a configuration with `redirect` to the sides of captured connections, and to whom their addresses mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.config.terms import Address
from sidecar.proxy.captured import CapturedSide
from sidecar.proxy.owners import Called, Held, Owners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sidecar.config.schema import Service
    from sidecar.config.schema_outbound import Outbound
    from sidecar.proxy.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Captured:
    """What one configuration came to, of captured connections."""

    owners: Owners
    sides: Mapping[str, CapturedSide]  # by name of the upstream
    called: tuple[Called, ...]  # for discovery to keep up to date
    listen: tuple[Address, Address]  # where the application's connections are brought to

    def shown(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """These rows of listeners for `mesh status`, each saying whether its connections are captured, and one more
        for each upstream.
        """
        return [row | {"captured": row["direction"] == "inbound"} for row in rows] + [
            {"name": name, "address": str(side.listen), "protocol": side.protocol, "direction": "outbound",
             "captured": True}
            for name, side in self.sides.items()
        ]  # fmt: skip


def captured(
    service: Service, upstreams: Mapping[str, Upstream], said: Callable[[str, Address], dict[str, Any]]
) -> Captured:
    """The captured sides of a service that is redirected; `said` is what every outbound side is told."""
    redirect = service.redirect
    assert redirect is not None
    listen = Address("127.0.0.1", redirect.capture_out), Address("::1", redirect.capture_out)
    outbound = [spec for spec in service.outbound if spec.name in upstreams]  # no address means a host `*.`
    called = {spec.name: Called(spec.name, spec.addresses) for spec in outbound}
    held = [Held(upstreams[spec.name], called[spec.name]) for spec in outbound]
    owners = Owners(held, redirect.passthrough)
    sides = {
        spec.name: CapturedSide(
            owners=owners, hosts=frozenset(hosts_of(spec)), only=upstreams[spec.name], **said(spec.name, listen[0])
        )
        for spec in outbound
    }
    return Captured(owners, sides, tuple(called.values()), listen)


def hosts_of(spec: Outbound) -> Iterator[str]:
    """The names by which an application may call an upstream, besides its declared host."""
    yield from (each.address.host for each in spec.endpoints if each.address.named)
    yield from (each.host for each in spec.addresses if each.named)
    cluster = spec.endpoints_from.kubernetes if spec.endpoints_from is not None else None
    if cluster is not None:  # the spellings that a pod's search path resolves
        short = f"{cluster.service}.{cluster.namespace}"
        yield from (cluster.service, short, f"{short}.svc", f"{short}.svc.cluster.local")
