"""Grants that nobody uses, and what would remove them: a rule, one caller of a rule, a grant, one operation
of a grant, or an upstream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sidecar.config.removal import diff, without, without_grant

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.config.terms import Where
    from sidecar.policy.inventory import Row


@dataclass(frozen=True, slots=True)
class Removal:
    """One change of one file. Each stands for itself, against the file as it is."""

    what: str  # for people
    where: Where
    diff: str  # empty where it has to be done by hand
    caller: str = ""  # of the rule, where it is one of several
    grant: str | None = None  # an operation of a grant; empty for the whole grant

    def cut(self, text: str) -> str | None:
        """The text of the file without it; None where that has to be done by hand."""
        if self.grant is not None:
            return without_grant(text, self.where.line, self.grant)
        return without(text, self.where.line, self.where.column, self.caller)

    def to_json(self) -> dict[str, Any]:
        """The change as data."""
        return {"what": self.what, "where": str(self.where), "diff": self.diff}


def removals(config: MeshConfig, rows: Sequence[Row], sources: Mapping[str, str]) -> list[Removal]:
    """What removes the grants whose every row is dormant; `sources` are the texts of the config, by file."""
    found: list[Removal] = []
    for service in config.services.values():
        granted = {str(grant.where) for grant in service.grants.values()}
        for rule in service.allow:
            if str(rule.where) in granted:
                continue
            whose = (service.name, rule.name, "inbound")
            mine = [row for row in rows if (row.called, row.rule, row.direction) == whose]
            asleep = [
                pattern.text for pattern in rule.callers
                if (of := [row for row in mine if row.pattern == pattern.text]) and all(map(_dormant, of))
            ]  # fmt: skip
            if len(asleep) == len(rule.callers):
                found.append(_removal(f"{service.name}: rule {rule.name}, which nobody uses", rule.where, "", sources))
            else:
                found += [
                    _removal(f"{service.name}: {text} in rule {rule.name}, which it does not use", rule.where, text,
                             sources)
                    for text in asleep
                ]  # fmt: skip
        found += _grants(service, rows, sources)
        for spec in service.outbound:
            mine = [
                row for row in rows
                if row.direction == "outbound" and row.pattern == spec.name and row.caller == service.identity.text
            ]  # fmt: skip
            if mine and all(map(_dormant, mine)):
                what = f"{service.name}: upstream {spec.name}, which it does not call"
                found.append(_removal(what, spec.where, "", sources))
    return found


def _grants(service: Service, rows: Sequence[Row], sources: Mapping[str, str]) -> list[Removal]:
    """Whole grants, or single operations of them. A rule follows from each operation, and has the grant's place."""
    found = []
    for grant in service.grants.values():
        mine = {rule.name.rpartition(":")[2]: rule for rule in service.allow if rule.where == grant.where}
        whose = {name: [row for row in rows if (row.called, row.rule) == (service.name, rule.name)]
                 for name, rule in mine.items()}  # fmt: skip
        asleep = [name for name, of in whose.items() if of and all(map(_dormant, of))]
        if not asleep:
            continue
        caller = mine[asleep[0]].callers[0].text
        if len(asleep) == len(mine):
            what = f"{service.name}: the grant of {caller}, which it does not use"
            found.append(_removal(what, grant.where, "", sources, ""))
            continue
        for name in asleep:
            what = f"{service.name}: operation {name} in the grant of {caller}, which it does not use"
            found.append(_removal(what, grant.where, "", sources, name))
    return found


def _dormant(row: Row) -> bool:
    return row.state == "dormant"


def _removal(
    what: str, where: Where, caller: str, sources: Mapping[str, str], grant: str | None = None
) -> Removal:
    before = sources.get(where.file, "")
    found = Removal(what, where, "", caller, grant)
    after = found.cut(before)
    return replace(found, diff=diff(where.file, before, after)) if after is not None else found


def patch(removals: Sequence[Removal], sources: Mapping[str, str]) -> str:
    """All of them as one patch, from the bottom of each file up, so that no place moves before its turn."""
    texts = dict(sources)
    for each in sorted(removals, key=lambda each: (each.where.line, each.where.column), reverse=True):
        after = each.cut(texts.get(each.where.file, ""))
        if after is not None:
            texts[each.where.file] = after
    return "".join(diff(file, sources[file], text) for file, text in texts.items() if text != sources.get(file))
