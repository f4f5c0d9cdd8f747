"""Which of many rules can match a request, found by its path and host instead of by asking each.

The templates of all rules make one tree: a level for each segment, an edge for each literal and one for `{id}`. A path
walks it once and collects the rules whose template ends where the path ends, and those whose `/**` it passes. Rules
without a path but with exact hosts are found by host; what has neither is always asked. The index only narrows: each
rule it names is still asked in full, in the order of the file, so it can be too generous but never changes a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from sidecar.patterns import HostPattern, PathTemplate

WORTH_IT = 8  # rules; asking so few one by one is quicker than any index


class Indexable(Protocol):
    """What the index looks at in a rule."""

    @property
    def paths(self) -> Sequence[PathTemplate]:
        """The templates, any of which may match; empty for all paths."""
        ...

    @property
    def hosts(self) -> Sequence[HostPattern]:
        """The hosts, any of which may match; empty for all hosts."""
        ...


T = TypeVar("T")


class _Node:
    __slots__ = ("any", "end", "literals", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.any: _Node | None = None  # `{id}`
        self.end: list[int] = []  # rules with a template that ends here
        self.rest: list[int] = []  # rules with a template that has `/**` here

    def follow(self, segment: str | None) -> _Node:
        if segment is None:
            if self.any is None:
                self.any = _Node()
            return self.any
        return self.literals.setdefault(segment, _Node())


class RuleIndex(Generic[T]):
    """Rules in file order, found by path and host."""

    __slots__ = ("_always", "_by_host", "_root", "_rules")

    def __init__(self, rules: Sequence[tuple[T, Indexable]]) -> None:
        self._rules = tuple(rule for rule, _ in rules)
        self._root = _Node()
        self._by_host: dict[str, list[int]] = {}
        self._always: list[int] = []
        for number, (_, looks_at) in enumerate(rules):
            if looks_at.paths:
                for template in looks_at.paths:
                    self._plant(template, number)
            elif looks_at.hosts and not any(host.wildcard for host in looks_at.hosts):
                for host in looks_at.hosts:
                    self._by_host.setdefault(host.host, []).append(number)
            else:
                self._always.append(number)

    def _plant(self, template: PathTemplate, number: int) -> None:
        node = self._root
        for segment in template.segments:
            node = node.follow(segment)
        (node.rest if template.rest else node.end).append(number)

    def candidates(self, segments: tuple[str, ...], host: str) -> list[T]:
        """Every rule that could match this path and host, in file order; perhaps some more."""
        found = self._always + self._by_host.get(host, [])
        nodes = [self._root]
        for segment in segments:
            below: list[_Node] = []
            for node in nodes:
                if node.rest:
                    found += node.rest
                child = node.literals.get(segment)
                if child is not None:
                    below.append(child)
                if node.any is not None and segment:
                    below.append(node.any)
            nodes = below
            if not nodes:
                break
        for node in nodes:
            found += node.end
        rules = self._rules
        return [rules[number] for number in (sorted(set(found)) if len(found) > 1 else found)]
