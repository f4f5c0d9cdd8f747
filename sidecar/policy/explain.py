"""Why a hop was permitted or refused: who was seen, which rule decided, which came nearest, what to change.

The verdict is `RuleSet.check`'s own, and the near miss asks `CompiledRule` the same question for each field, so that
an explanation cannot disagree with the proxy. The nearest rule is the allow rule in force that differs in the fewest
fields; of equals, the one that speaks of this path and method and lacks only a condition, then the first in the file.

A request that a deny rule refused gets no proposal to allow it: somebody wrote that rule on purpose. It is named with
its place, what there is to narrow in it, and what would be said without it. Where a rule would allow the request on a
condition that it does not fulfil, every proposal that goes around that condition says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from sidecar.hop import Hop, Permit, ShadowVerdict
from sidecar.policy.authz import CompiledRule, RuleSet
from sidecar.policy.differences import (
    NO_IDENTITY,
    Difference,
    caller_of,
    differences,
    distance,
    path_of,
    request_line,
    safe,
)
from sidecar.policy.propose import Change, propose, sentence
from sidecar.policy.why_not import WhyNot, why_not, without

if TYPE_CHECKING:
    from sidecar.config.schema_inbound import Rule

_CONDITIONS: Final = frozenset(("headers", "source", "scopes", "when"))


@dataclass(frozen=True, slots=True)
class NearMiss:
    """The allow rule that came closest, and all that is between it and the hop."""

    rule: str
    where: str
    sentence: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one verdict, for people and for programs."""

    verdict: Literal["permit", "deny"]
    request: str  # "web GET http://orders/orders/7 on http"
    identity: str  # the caller's SPIFFE ID, or `no identity`
    decision: str  # what decided, in a sentence
    rule: str  # the rule that decided, empty where none did
    where: str  # its place, "file:line"
    route: str  # the path template that matched, for a permit
    nearest: NearMiss | None = None
    changes: tuple[Change, ...] = ()
    advice: tuple[str, ...] = ()
    shadow: tuple[ShadowVerdict, ...] = ()
    why_not: WhyNot | None = None  # of a permit: what would have to differ

    def to_json(self) -> dict[str, Any]:
        """The explanation as data that `json` can write."""
        near = self.nearest
        return {
            "verdict": self.verdict,
            "request": self.request,
            "identity": self.identity,
            "decision": self.decision,
            "rule": self.rule,
            "where": self.where,
            "route": self.route,
            "nearest": near
            and {
                "rule": near.rule,
                "where": near.where,
                "sentence": near.sentence,
                "differences": [{"field": d.field, "wanted": d.wanted, "seen": d.seen} for d in near.differences],
            },
            "changes": [change.to_json() for change in self.changes],
            "advice": list(self.advice),
            "shadow": [{"rule": verdict.rule, "effect": verdict.effect} for verdict in self.shadow],
            "why_not": self.why_not and self.why_not.to_json(),
        }

    def render(self) -> str:
        """The explanation as text, without colour; safe for a terminal."""
        lines = [f"{self.verdict}: {self.request}", f"  caller   {self.identity}", f"  decided  {self.decision}"]
        if self.nearest is not None:
            lines += [f"  nearest  rule {self.nearest.rule!r} ({self.nearest.where}): {self.nearest.sentence}"]
            lines += [f"           {d.field}: wanted {d.wanted}, seen {d.seen}" for d in self.nearest.differences]
        lines += [f"  advice   {advice}" for advice in self.advice]
        for number, change in enumerate(self.changes):
            place = f" ({change.rule.where})" if change.kind == "extend" else ""
            lines.append(f"  {'change ' if number == 0 else 'or     '}  {change.sentence}{place}:")
            lines += [f"             {line}" for line in change.yaml.splitlines()]
            lines += [f"           note: {change.note}"] if change.note else []
        lines += [f"  shadow   rule {verdict.rule!r} would {verdict.effect}" for verdict in self.shadow]
        return "\n".join(map(safe, lines)) + "\n"


def explain(rules: RuleSet, hop: Hop, now: float = 0.0, *, namespace: str | None = None) -> Explanation:
    """Explain the verdict on a hop at this moment (seconds since the epoch).

    `namespace` is the one in which the service's rules are written; None works it out from their short names.
    """
    verdict = rules.check(hop, now)
    decided = rules.rule(verdict.rule) if verdict.rule else None
    nearest: NearMiss | None = None
    changes: list[Change] = []
    advice: list[str] = []
    if decided is None:
        nearest, changes, advice = _refused(rules, hop, namespace)
    elif decided.denies:
        advice = [_narrow(decided.source), without(rules, decided, hop, now)]
    return Explanation(
        verdict="permit" if isinstance(verdict, Permit) else "deny",
        request=_request(hop),
        identity=hop.peer.text if hop.peer is not None else NO_IDENTITY,
        decision=_decision(rules, decided),
        rule=verdict.rule,
        where=str(decided.source.where) if decided is not None else "",
        route=verdict.route if isinstance(verdict, Permit) else "",
        nearest=nearest,
        changes=tuple(changes),
        advice=tuple(advice),
        shadow=verdict.shadow,
        why_not=why_not(rules, hop, now, decided) if decided is not None and not decided.denies else None,
    )


def _refused(rules: RuleSet, hop: Hop, namespace: str | None) -> tuple[NearMiss | None, list[Change], list[str]]:
    """Near miss, changes and advice where no rule allowed the hop."""
    live = [rule for rule in rules.rules if not rule.denies and not rule.source.shadow]
    missed = [(differences(rule, hop), rule.source) for rule in live]
    found, source = min(missed, key=lambda miss: distance(miss[0]), default=((), None))
    nearest = None
    if source is not None:
        nearest = NearMiss(source.name, str(source.where), sentence(source), found)
    changes = propose(rules, hop, source, [difference.field for difference in found], namespace)
    conditions = [(rule, missing) for missing, rule in missed if {each.key for each in missing} <= _CONDITIONS]
    changes = [replace(change, note=_around(change, conditions)) for change in changes]
    return nearest, changes, list(_advice(rules, hop, found, changes))


def _around(change: Change, conditions: list[tuple[Rule, tuple[Difference, ...]]]) -> str:
    """The note of a change, with the conditions that other rules set for this very request and that it goes around."""
    notes = [change.note] if change.note else []
    for rule, missing in conditions:
        if change.kind == "add" or change.rule.name != rule.name:
            wanted = " and ".join(f"`{difference.field}` {difference.wanted}" for difference in missing)
            notes.append(f"goes around rule {rule.name!r} ({rule.where}), which permits this only with {wanted}")
    return "; ".join(notes)


def _advice(rules: RuleSet, hop: Hop, found: tuple[Difference, ...], changes: list[Change]) -> Iterable[str]:
    if hop.peer is None:
        yield "the caller proved no identity, so no rule can name it; it must speak mTLS through a sidecar of its own"
    elif hop.method == "CONNECT":
        yield "CONNECT is answered by the caller's own sidecar alone, on loopback; from a peer no rule can make it pass"
    elif not changes:
        yield f"method {hop.method!r} cannot be listed in a rule; methods are upper case and case-sensitive"
    if any(difference.key == "scopes" for difference in found):
        yield "if the rule is right, let the client ask its token's issuer for a token with these scopes"
    if any(difference.field.startswith("headers.") for difference in found):
        yield "if the rule is right, let the caller send the header it asks for"
    for rule in rules.rules:
        if rule.source.shadow and not rule.denies and rule.match(hop) is not None:
            yield f"shadow rule {rule.source.name!r} ({rule.source.where}) would permit it, were it in force"


def _decision(rules: RuleSet, decided: CompiledRule | None) -> str:
    if decided is not None:
        rule = decided.source
        return f"{rule.effect} rule {rule.name!r} ({rule.where}): {sentence(rule)}"
    if not any(not rule.denies for rule in rules.rules):
        return "the service has no allow rule, and what no rule allows is refused"
    return "no rule allows it, and what no rule allows is refused"


def _narrow(rule: Rule) -> str:
    named = [key for key, values in (
        ("from", rule.callers), ("method", rule.methods), ("path", rule.paths), ("host", rule.hosts),
        ("headers", rule.headers), ("source", rule.networks), ("port", rule.ports),
        ("operation", rule.operations), ("scopes", rule.scopes), ("when", rule.when),
    ) if values]  # fmt: skip
    fields = " and ".join(f"`{key}`" for key in named) or "no field at all"
    return (
        f"a deny rule beats every allow rule; if this request should pass, narrow {rule.name!r} at {rule.where} "
        f"(it names {fields}) so that it no longer covers the request"
    )


def _request(hop: Hop) -> str:
    what = request_line(hop.method, hop.host, path_of(hop)) if hop.protocol == "http" else "TCP"
    return f"{caller_of(hop)} {what} on {hop.listener or hop.port}"
