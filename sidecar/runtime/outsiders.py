"""What is special of an upstream outside the mesh, out of what the configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.policy.egress import EgressRules
from sidecar.policy.reach import Reach
from sidecar.proxy.outsiders import Outsider, OutsideWay

if TYPE_CHECKING:
    from sidecar.config.terms import Address
    from sidecar.proxy.outsiders import Secured, Tokens
    from sidecar.runtime.generation import OutsideFacts


def outsider(
    name: str, host: str, declared: frozenset[Address], facts: OutsideFacts, tokens: Tokens | None
) -> Outsider:
    """The special side of the upstream of this name, which is asked for by this host."""
    allow = EgressRules(name, facts.allow) if facts.allow else None
    if not facts.judged:
        return Outsider(name, allow=allow)
    secured: Secured | None = None
    if facts.tls is not None:
        from sidecar.net.web_tls import WebTls

        secured = WebTls(facts.tls, host)
    way = OutsideWay(secured, Reach(private=facts.third_party, exceptions=facts.private), declared)
    return Outsider(name, way, tokens, allow)
