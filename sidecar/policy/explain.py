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
from sidecar.policy.authz import KNOWN_METHODS, CompiledRule, RuleSet
from sidecar.policy.propose import Change, caller_text, propose, sentence

if TYPE_CHECKING:
    from sidecar.config.schema import Rule
    from sidecar.patterns import HeaderPattern

NO_IDENTITY: Final = "no identity"
_WEIGHT: Final = {  # how far a difference in this field is from "the right rule, but"
    "headers": 1, "source": 2, "port": 3, "host": 4, "method": 5, "from": 6, "path": 7, "protocol": 8,
}  # fmt: skip
_CONDITIONS: Final = frozenset(("headers", "source"))
_SECRET: Final = frozenset((b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"))  # decision D9


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which a rule and the hop disagree."""

    field: str  # its YAML key: from, method, path, host, headers.<name>, source, port; or protocol
    wanted: str
    seen: str


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
        advice = [_narrow(decided.source), _without(rules, decided, hop, now)]
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
    )


def differences(rule: CompiledRule, hop: Hop) -> tuple[Difference, ...]:
    """Every field in which this rule and the hop disagree; empty where it matches."""
    return tuple(_differences(rule, hop))


def _differences(rule: CompiledRule, hop: Hop) -> Iterable[Difference]:
    source = rule.source
    if not rule.caller_matches(hop.peer):
        yield Difference("from", _one_of(source.callers) or "nobody", _caller(hop))
    if hop.protocol == "tcp":
        if rule.http_only:
            yield Difference("protocol", "http, because the rule names something that only HTTP has", "tcp")
    else:
        yield from _http_differences(rule, hop)
    if not rule.network_matches(hop.source):
        yield Difference("source", _one_of(source.networks), str(hop.source or "unknown"))
    if not rule.port_matches(hop):
        yield Difference("port", _one_of(source.ports), hop.listener or str(hop.port))


def _http_differences(rule: CompiledRule, hop: Hop) -> Iterable[Difference]:
    source = rule.source
    if not rule.method_matches(hop.method):
        yield Difference("method", _one_of(source.methods or sorted(KNOWN_METHODS)), hop.method)
    if rule.path_matches(hop.segments) is None:
        yield Difference("path", _one_of(source.paths), _path(hop))
    if not rule.host_matches(hop.host):
        yield Difference("host", _one_of(source.hosts), hop.host or "no host")
    for pattern in source.headers:
        if not rule.header_matches(pattern, hop):
            yield Difference(f"headers.{pattern.name.decode('ascii')}", _wanted(pattern), _lines(pattern, hop))


def _refused(rules: RuleSet, hop: Hop, namespace: str | None) -> tuple[NearMiss | None, list[Change], list[str]]:
    """Near miss, changes and advice where no rule allowed the hop."""
    live = [rule for rule in rules.rules if not rule.denies and not rule.source.shadow]
    missed = [(differences(rule, hop), rule.source) for rule in live]
    found, source = min(missed, key=lambda miss: _distance(miss[0]), default=((), None))
    nearest = None
    if source is not None:
        nearest = NearMiss(source.name, str(source.where), sentence(source), found)
    changes = propose(rules, hop, source, [difference.field for difference in found], namespace)
    conditions = [(rule, missing) for missing, rule in missed if {_field(each) for each in missing} <= _CONDITIONS]
    changes = [replace(change, note=_around(change, conditions)) for change in changes]
    return nearest, changes, list(_advice(rules, hop, found, changes))


def _field(difference: Difference) -> str:
    return difference.field.partition(".")[0]


def _distance(found: tuple[Difference, ...]) -> tuple[int, int]:
    return len(found), sum(_WEIGHT[_field(difference)] for difference in found)


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
    ) if values]  # fmt: skip
    fields = " and ".join(f"`{key}`" for key in named) or "no field at all"
    return (
        f"a deny rule beats every allow rule; if this request should pass, narrow {rule.name!r} at {rule.where} "
        f"(it names {fields}) so that it no longer covers the request"
    )


def _without(rules: RuleSet, decided: CompiledRule, hop: Hop, now: float) -> str:
    """What would be said of the hop if the rule that decided were not there."""
    verdict = RuleSet(rule for rule in rules.rules if rule is not decided).check(hop, now)
    other = rules.rule(verdict.rule) if verdict.rule else None
    if other is None:
        return f"without {decided.source.name!r} no rule would allow it"
    what = "permit" if isinstance(verdict, Permit) else "refuse"
    return f"without {decided.source.name!r}, {_named(other.source)} would {what} it"


def _named(rule: Rule) -> str:
    return f"{rule.effect} rule {rule.name!r} ({rule.where})"


# ---- words ------------------------------------------------------------------------------------------------------


def safe(text: str) -> str:
    """Text that cannot move a terminal's cursor or hide its direction: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def request_line(method: str, host: str, path: str) -> str:
    """A request as people write it: `GET http://orders/orders/7`; a target that is no path stays as it was sent."""
    if not host or not path.startswith("/"):
        return f"{method} {path}".strip()
    return f"{method} http://{f'[{host}]' if ':' in host else host}{path}"


def _request(hop: Hop) -> str:
    what = request_line(hop.method, hop.host, _path(hop)) if hop.protocol == "http" else "TCP"
    return f"{_caller(hop)} {what} on {hop.listener or hop.port}"


def _caller(hop: Hop) -> str:
    if hop.peer is None:
        return NO_IDENTITY
    us = hop.destination
    if us is None:
        return hop.peer.text
    return caller_text(hop.peer, us.trust_domain, us.segments[1] if len(us.segments) > 1 else None)


def _path(hop: Hop) -> str:
    """The path as received where that is known, else as judged."""
    if hop.path:
        return hop.path
    return "/" + "/".join(hop.segments) if hop.segments else "*"


def _one_of(values: Iterable[object]) -> str:
    return " or ".join(map(str, values))


def _wanted(pattern: HeaderPattern) -> str:
    if pattern.kind == "present":
        return "any value"
    return ("a value that begins with " if pattern.kind == "prefix" else "") + repr(pattern.value.decode("utf-8"))


def _lines(pattern: HeaderPattern, hop: Hop) -> str:
    values = [value for name, value in hop.headers if name == pattern.name]
    if not values:
        return "no such header"
    if pattern.name in _SECRET:
        return f"{len(values)} line(s), not shown"
    return ", ".join(repr(value.decode("utf-8", "backslashreplace")) for value in values)
