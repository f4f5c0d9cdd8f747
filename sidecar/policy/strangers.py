"""By which rules a caller is judged that has proved no identity, on a listener that lets such callers in (D12).

No allow rule can name it, so the answer of the rules is always no; what the listener's posture lets pass is that no.
But what a deny rule forbids to everybody of the mesh (`from: "**"`) it forbids to whoever proves nothing, too: else
taking TLS away would open what no identity may do. A deny rule that names its callers more closely does not apply, for
nobody knows whether this is one of them; that is what such a posture costs, and why it has an end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar.policy.authz import RuleSet

if TYPE_CHECKING:
    from certs.spiffe import TrustDomain
    from sidecar.config.schema_inbound import Rule


def for_strangers(rules: RuleSet, trust_domain: TrustDomain) -> RuleSet:
    """The deny rules that mean everybody of this trust domain, as rules for anybody at all."""
    deny = [rule.source for rule in rules.rules if rule.denies]
    return RuleSet.compile((), [replace(rule, callers=()) for rule in deny if _means_everybody(rule, trust_domain)])


def _means_everybody(rule: Rule, trust_domain: TrustDomain) -> bool:
    return not rule.callers or any(
        caller.rest and not caller.segments and caller.trust_domain == trust_domain for caller in rule.callers
    )
