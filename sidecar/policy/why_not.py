"""Why a permitted request is not refused: what holds the permit up, what it would fall back on, what nearly refuses it.

Three questions, each answered by the functions that judge. By which of its fields does the rule permit? Any of these
with a value that it does not want, and that rule no longer matches. What would be said if that rule were not there? And
of each other rule in force: in which fields does it differ? A deny rule that differs in one field alone is one step
away from refusing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.hop import Hop, Permit
from sidecar.policy.authz import CompiledRule, RuleSet
from sidecar.policy.differences import Difference, agreements, differences, distance, safe
from sidecar.policy.propose import sentence

if TYPE_CHECKING:
    from sidecar.config.schema_inbound import Rule


@dataclass(frozen=True, slots=True)
class OtherRule:
    """A rule in force that did not decide, and all that is between it and the hop: nothing where it matches, too."""

    rule: Rule
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """The rule as data."""
        return {
            "effect": self.rule.effect,
            "rule": self.rule.name,
            "where": str(self.rule.where),
            "sentence": sentence(self.rule),
            "differences": [each.to_json() for each in self.differences],
        }

    def render(self) -> str:
        """One line: `rule 'x' (mesh.yaml:7) would refuse it if method were DELETE (it is GET)`."""
        name = f"rule {self.rule.name!r} ({self.rule.where})"
        if not self.differences:
            return f"{name} permits it, too, but comes later"
        would = "refuse" if self.rule.effect == "deny" else "permit"
        return f"{name} would {would} it if {' and '.join(map(_step, self.differences))}"


@dataclass(frozen=True, slots=True)
class WhyNot:
    """What would have to differ for a permitted request to be refused."""

    rule: str
    where: str
    because: tuple[Difference, ...]  # what the rule wants of each field, and what it saw: all of them fit
    without: str  # what would be said if that rule were not there
    denies: tuple[OtherRule, ...]  # nearest first
    allows: tuple[OtherRule, ...]  # nearest first

    def to_json(self) -> dict[str, Any]:
        """The answer as data, and the text that people get."""
        return {
            "rule": self.rule,
            "where": self.where,
            "because": [each.to_json() for each in self.because],
            "without": self.without,
            "denies": [each.to_json() for each in self.denies],
            "allows": [each.to_json() for each in self.allows],
            "text": self.render(),
        }

    def render(self) -> str:
        """The answer as text, without colour; safe for a terminal."""
        lines = [f"why not refused: rule {self.rule!r} ({self.where}) permits it, and needs every one of these:"]
        lines += [f"           {each.field} {each.wanted} (it is {each.seen})" for each in self.because]
        lines += [f"  else     {self.without}"]
        lines += [f"  deny     {each.render()}" for each in self.denies] or ["  deny     no deny rule is in force"]
        lines += [f"  allow    {each.render()}" for each in self.allows]
        return "\n".join(map(safe, lines)) + "\n"


def why_not(rules: RuleSet, hop: Hop, now: float, decided: CompiledRule) -> WhyNot:
    """What holds up the permit that `decided` gave this hop at this moment (seconds since the epoch)."""
    others = [rule for rule in rules.rules if rule is not decided and not rule.source.shadow]
    return WhyNot(
        rule=decided.source.name,
        where=str(decided.source.where),
        because=agreements(decided, hop),
        without=without(rules, decided, hop, now),
        denies=_nearest((rule for rule in others if rule.denies), hop),
        allows=_nearest((rule for rule in others if not rule.denies), hop),
    )


def without(rules: RuleSet, decided: CompiledRule, hop: Hop, now: float) -> str:
    """What would be said of the hop if the rule that decided were not there."""
    verdict = RuleSet(rule for rule in rules.rules if rule is not decided).check(hop, now)
    other = rules.rule(verdict.rule) if verdict.rule else None
    if other is None:
        return f"without {decided.source.name!r} no rule would allow it"
    what = "permit" if isinstance(verdict, Permit) else "refuse"
    place = f"{other.source.name!r} ({other.source.where})"
    return f"without {decided.source.name!r}, {other.source.effect} rule {place} would {what} it"


def _nearest(rules: Iterable[CompiledRule], hop: Hop) -> tuple[OtherRule, ...]:
    """Rules by how far they are from matching; of equals, in the order of the file."""
    found = [OtherRule(rule.source, differences(rule, hop)) for rule in rules]
    return tuple(sorted(found, key=lambda each: distance(each.differences)))


def _step(difference: Difference) -> str:
    return f"{difference.field} were {difference.wanted} (it is {difference.seen})"
