"""What a sidecar says when it is asked why: of a decision that it has made, or of a request that was never sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from certs.errors import MeshError
from sidecar.errors import HopError
from sidecar.policy.asked import asked_of
from sidecar.policy.explain import explain
from sidecar.policy.question import BadQuestion, check_vouched, hop_of, moment_of, unknown_caller
from sidecar.policy.reasons import reason_for
from sidecar.policy.steered import led, let_out, refusal, steered
from sidecar.policy.strangers import for_strangers
from sidecar.policy.waived import observed, reason_of_waived, strict_says
from sidecar.policy.words import Reason, limits_of

if TYPE_CHECKING:
    from sidecar.config.schema import Service
    from sidecar.hop import Hop
    from sidecar.policy.authz import RuleSet
    from sidecar.runtime.worker import Worker
    from sidecar.telemetry.decisions import Decision


NOT_KEPT: Final = (
    "the bearer token of this request is not kept, so what rules say of its claims and scopes cannot be judged again; "
    "ask ahead with --from, --to, --claim and --scope"
)


def decided(worker: Worker, decision_id: str) -> dict[str, Any] | None:
    """One decision, with what happened, what to do, and, where policy decided, why."""
    found = worker.recorder.decisions.find(decision_id)
    if found is None:
        return None
    answer = found.to_json() | {"service": worker.service.name}
    answer["decided_here"] = decision_id.startswith(f"{worker.instance}-")
    if found.kind == "handshake":  # one end of it is us
        answer["caller" if found.direction == "outbound" else "destination"] = worker.service.identity.text
    if found.error:
        answer["explained"] = _reason(found, worker.service).to_json()
    elif not answer["decided_here"]:
        answer["explained"] = Reason(
            f"The sidecar of {found.listener} refused it, and its reasons do not leave its machine.",
            f"Ask there: mesh explain {decision_id}",
        ).to_json()
    if found.waived is not None:
        answer["strict"] = strict_says(found.waived)
        if not found.error:
            answer["explained"] = reason_of_waived(found.waived, **_facts(found, worker.service)).to_json()
    asked = found.error in ("", "policy_denied") or found.waived is not None
    asked = asked or (found.error == "scope_missing" and found.token is not None)
    if found.kind == "hop" and found.direction == "inbound" and asked and worker.proxy is not None:
        rules = worker.proxy.rules
        if not found.caller:  # only a posture lets such a hop come so far
            rules = _rules_for_strangers(rules, found, worker.service)
        answer |= _judged_again(rules, found, worker.service)
    return answer


def _judged_again(rules: RuleSet, found: Decision, service: Service) -> dict[str, Any]:
    """What the rules in force say of this request at its own moment; of one whose token is not kept and might have
    changed that, no verdict.
    """
    hop = found.to_hop()
    hop.operation = _operation(hop, service)
    explanation = explain(rules, hop, found.at)
    answer = {"policy": explanation.to_json(), "text": explanation.render()}
    if found.token is None or not any(rule.of_tokens and rule.caller_matches(hop.peer) for rule in rules.rules):
        return answer
    refused = "deny" if found.error or found.waived is not None else "permit"
    rule = found.waived.rule if found.waived is not None else found.rule
    same = (refused, rule) == (explanation.verdict, explanation.rule)
    return (answer if same else {}) | {"note": NOT_KEPT}


def _operation(hop: Hop, service: Service) -> str:
    """What the contract of the listener calls this request; empty where it has none, or knows no such request."""
    contract = next((each.contract for each in service.inbound if each.name == hop.listener), None)
    found = contract.api.find(hop.method, hop.segments) if contract is not None else None
    return found.id if found is not None else ""


def explained(worker: Worker, query: Mapping[str, Any]) -> dict[str, Any]:
    """What policy says of a request that was never sent. Raises BadQuestion."""
    if worker.proxy is None:
        raise MeshError("this sidecar has no policy yet; it is still waiting for its identity")
    if query.get("to"):
        return _let_out(worker, query)
    way = steered(worker.config, worker.service.name, query)
    if way.refused is not None and way.asked is not None:
        return refusal(way.refused, upstream=way.asked.name) | {"routes": list(way.words)}
    now = moment_of(query, worker.clock.wall())
    try:
        hop = hop_of(way.question, worker.service)
        check_vouched(hop, [bundle.trust_domain for bundle in worker.bundles.current])
    except HopError as error:
        return refusal(error)
    explanation = explain(worker.proxy.rules, hop, now)
    answer = explanation.to_json() | {"text": explanation.render()}
    if explanation.verdict != "deny":
        answer["limits"] = worker.proxy.show.limits_of(hop, explanation.route)
        answer |= asked_of(worker.service, hop, explanation)
    words = _asks_for_tokens(worker.service, hop.listener)
    passes = explanation.verdict == "deny" and observed(worker.service, hop.listener, now)
    answer["routes"] = [words for words in (*way.words, led(worker.service, hop)) if words]
    if notes := [note for note in (words, passes, unknown_caller(hop, worker.config), way.note) if note]:
        answer["note"] = "; ".join(notes)
    return answer


def _let_out(worker: Worker, query: Mapping[str, Any]) -> dict[str, Any]:
    """What we say of a request of our own application to an upstream outside. Raises BadQuestion."""
    called = str(query["to"])
    way = steered(worker.config, called, dict(query) | {"from": worker.service.identity.text})
    if way.asked is None or called in worker.config.services:
        raise BadQuestion(f"{worker.service.name} has no upstream {called!r} outside the mesh")
    return let_out(way)


def _asks_for_tokens(service: Service, listener: str) -> str:
    """What a listener wants beside the identity of who calls; empty for nothing."""
    asked = next((each.tokens for each in service.inbound if each.name == listener), None)
    if asked is None:
        return ""
    must = "must come" if asked.required else "may come"
    return f"before any rule is asked: it {must} with a good bearer token of {' or '.join(asked.issuers)}"


def _reason(decision: Decision, service: Service) -> Reason:
    """What happened and what to do, with the facts of this decision and the limits of this service."""
    return reason_for(decision.error, decision.reason, detail=decision.detail, **_facts(decision, service))


def _facts(decision: Decision, service: Service) -> dict[str, Any]:
    outbound = decision.direction == "outbound"
    return {
        "caller": decision.caller,
        "upstream": decision.listener if outbound else f"the application behind listener {decision.listener}",
        "endpoint": decision.endpoint,
        "listener": decision.listener,
        "host": decision.host,
        "rule": decision.rule,
        **limits_of(service),
    }


def _rules_for_strangers(rules: RuleSet, decision: Decision, service: Service) -> RuleSet:
    """Those by which a caller without identity was judged where one of them spoke; else all, which allow it nothing."""
    strangers = for_strangers(rules, service.identity.trust_domain)
    return strangers if strangers.check(decision.to_hop(), 0.0).rule else rules
