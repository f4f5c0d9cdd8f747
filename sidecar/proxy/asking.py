"""Asking OPA about a request that the rules have permitted: what is done with its yes, its no and its silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.errors import AskDenied, AskSilent
from sidecar.hop import ShadowVerdict
from sidecar.policy.ask import RULE, AskRules, Said, Unsaid, place

if TYPE_CHECKING:
    from sidecar.config.schema_opa import Opa
    from sidecar.errors import PolicyDenied
    from sidecar.hop import Hop
    from sidecar.net.port import Port
    from sidecar.telemetry.metrics import Metrics


class Opinion(Protocol):
    """Who asks OPA: `sidecar.answer.opa`, and whoever stands for it in a test."""

    async def ask(self, port: Port, body: bytes) -> tuple[Said, bool]:
        """What OPA says, and whether it had said so before. Raises Unsaid."""
        ...


class Asking:
    """What one configuration says of OPA, and whom to ask."""

    def __init__(self, spec: Opa, opinion: Opinion, metrics: Metrics) -> None:
        self._spec = spec
        self._rules = AskRules(spec)
        self._opinion = opinion
        self._metrics = metrics

    def concerns(self, hop: Hop) -> bool:
        """Whether OPA is asked about this hop."""
        return self._rules.concerns(hop)

    async def judge(self, port: Port, hop: Hop) -> PolicyDenied | None:
        """Why the hop may not go on; None where it may. In shadow mode it always may, and the hop says what OPA did."""
        error: PolicyDenied | None = None
        try:
            said, known = await self._opinion.ask(port, self._rules.question(hop))
        except Unsaid as silence:
            result = "silent"
            if self._spec.silent == "deny":
                error = AskSilent(f"{place(self._spec)}: {silence}", rule=RULE)
        else:
            result = ("cached_" if known else "") + ("permit" if said.allow else "deny")
            if not said.allow:
                error = AskDenied(f"{place(self._spec)} said no{f': {said.reason}' if said.reason else ''}", rule=RULE)
        self._metrics.counter("mesh_asks_total").add((hop.listener, result))
        if self._spec.mode == "enforce":
            return error
        hop.shadow = (*hop.shadow, ShadowVerdict(RULE, "deny" if error is not None else "permit"))
        return None
