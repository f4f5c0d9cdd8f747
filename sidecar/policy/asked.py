"""Whom else a request would be asked about that was never sent: for `mesh explain --from … --to …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.policy.ask import AskRules, place

if TYPE_CHECKING:
    from sidecar.config.schema import Service
    from sidecar.hop import Hop
    from sidecar.policy.explain import Explanation


def asked_of(service: Service, hop: Hop, explanation: Explanation) -> dict[str, Any]:
    """`{"asks": …}` with what OPA would be asked about a permitted hop; empty where it is asked nothing."""
    spec = service.opa
    rules = AskRules(spec) if spec is not None else None
    if spec is None or rules is None or not rules.concerns(hop):
        return {}
    hop.rule, hop.route = explanation.rule, explanation.route
    return {"asks": {
        "opa": place(spec), "input": rules.input(hop), "mode": spec.mode, "silent": spec.silent,
        "timeout_seconds": spec.timeout,
    }}  # fmt: skip
