"""The smallest change of YAML that would permit one refused request, and nothing more than has to be.

Two kinds. *Extend*: one value added to the one field in which the nearest rule differs. *Add*: a new rule as narrow as
the request, with its exact caller, its method and its literal path. Extending comes first only where it lets in no
other caller and no other method than the request's own; otherwise the new rule comes first, and the extension second,
with a sentence on whom it would let in besides.

A new rule names host, source network and port where some rule of the service does, because then they matter there. On
TCP it always names the port: without it, the rule would open the HTTP listeners of the service too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final, Literal

from certs.spiffe import SpiffeId, TrustDomain
from sidecar.config.schema_inbound import Rule
from sidecar.config.terms import Where
from sidecar.hop import Hop
from sidecar.patterns import HostPattern, IdentityPattern, PathTemplate, PatternError

if TYPE_CHECKING:
    from sidecar.policy.authz import CompiledRule, RuleSet

_METHOD = re.compile(r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*\Z", re.ASCII)  # what the configuration accepts
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z", re.ASCII)  # YAML scalars that every reader takes for text
_YAML_WORDS = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null"))  # YAML 1.1 thinks otherwise
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")
_MAX_NAME: Final = 48
_KEYS: Final = {  # YAML key -> attribute of Rule, in the order in which people write them
    "from": "callers",
    "method": "methods",
    "path": "paths",
    "host": "hosts",
    "source": "networks",
    "port": "ports",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One way to permit the request."""

    kind: Literal["extend", "add"]
    rule: Rule  # as it should be afterwards
    sentence: str
    note: str  # what else it would let in; empty where that is nothing worth a word

    @property
    def yaml(self) -> str:
        """The whole rule, as one item of the list `allow`."""
        return rule_yaml(self.rule)

    def applied_to(self, allow: Sequence[Rule]) -> tuple[Rule, ...]:
        """The list `allow` with this change made."""
        if self.kind == "add":
            return (*allow, self.rule)
        return tuple(self.rule if rule.name == self.rule.name else rule for rule in allow)

    def to_json(self) -> dict[str, Any]:
        """The change as data."""
        return {
            "kind": self.kind,
            "rule": self.rule.name,
            "where": str(self.rule.where) if self.kind == "extend" else None,
            "sentence": self.sentence,
            "note": self.note,
            "yaml": self.yaml,
        }


def propose(
    rules: RuleSet, hop: Hop, nearest: Rule | None, fields: Sequence[str], namespace: str | None
) -> list[Change]:
    """Changes that permit this hop, best first; `fields` are those in which the nearest rule differs.

    `namespace` is the one in which the service's rules are written; None works it out from short names in them, else
    from the called service's own identity.
    """
    if hop.method == "CONNECT":
        return []  # an inbound listener answers it to nobody, whatever the rules say
    namespace = _namespace_of(rules, hop) if namespace is None else namespace
    added = _add(rules, hop, namespace)
    extended = _extend(nearest, fields[0], hop, namespace) if nearest is not None and len(fields) == 1 else None
    if extended is not None and not extended.note:
        return [extended]
    return [change for change in (added, extended) if change is not None]


def sentence(rule: Rule) -> str:
    """What a rule says, in words: `web may GET, HEAD /orders/{id}`."""
    may = "may not" if rule.effect == "deny" else "may"
    words = f"{', '.join(map(str, rule.callers)) or ('everybody' if rule.effect == 'deny' else 'nobody')} {may} "
    if rule.methods or rule.paths or rule.hosts or rule.headers:
        words += ", ".join(rule.methods) or "use any method on"
        words += " " + (", ".join(map(str, rule.paths)) or "any path")
    else:
        words += "call"
    for lead, values in (
        (" of host ", rule.hosts),
        (" with header ", rule.headers),
        (" from network ", rule.networks),
        (" on port ", rule.ports),
        (" as operation ", rule.operations),
        (" with scope ", rule.scopes),
    ):
        words += lead + ", ".join(map(str, values)) if values else ""
    words += " if " + " and ".join(map(str, rule.when)) if rule.when else ""
    return words


def caller_text(peer: SpiffeId, trust_domain: TrustDomain | None, namespace: str | None) -> str:
    """The shortest way to name exactly this caller in a rule of that trust domain and namespace (decision D2)."""
    match peer.segments:
        case ("ns", theirs, "sa", service) if peer.trust_domain == trust_domain:
            return service if theirs == namespace else f"{theirs}/{service}"
    return peer.text


# ---- the two kinds ----------------------------------------------------------------------------------------------


def _add(rules: RuleSet, hop: Hop, namespace: str | None) -> Change | None:
    """A new rule, as narrow as the hop; None where nobody can be named or the configuration has no word for it."""
    callers, methods = _value("from", hop, namespace), _value("method", hop, namespace)
    if not callers or (hop.protocol == "http" and not methods):
        return None
    named = _named_fields(rule for rule in rules.rules if not rule.denies)
    paths = _value("path", hop, namespace)
    rule = Rule(
        name=_name(rules, callers[0], hop),
        effect="allow",
        callers=callers,
        hosts=_value("host", hop, namespace) if "host" in named else (),
        methods=methods,
        paths=paths,
        networks=_value("source", hop, namespace) if "source" in named else (),
        ports=_value("port", hop, namespace) if "port" in named or hop.protocol == "tcp" else (),
        where=Where("", 0),
    )
    note = "`source` is the caller's address now; leave it out if callers move" if rule.networks else ""
    if hop.protocol == "http" and not paths:
        note = "no path template can name this target, so the rule covers every path"
    elif paths and paths[0].rest:
        note = "no path template can name an empty segment, so the rule covers whatever is below that path"
    return Change("add", rule, "add a rule to `allow` for just this request", note)


def _extend(rule: Rule, key: str, hop: Hop, namespace: str | None) -> Change | None:
    """The rule with one value more; None where the field cannot be extended by a value."""
    attribute = _KEYS.get(key)
    values: tuple[Any, ...] = getattr(rule, attribute) if attribute else ()
    added = _value(key, hop, namespace) if attribute else ()
    if attribute is None or not values or not added:  # an empty field means "all"; a value would narrow it
        return None
    note = "" if _lets_in_nobody_else(rule, key, hop) else f"permits this: {sentence(_with(rule, attribute, added))}"
    after = _with(rule, attribute, (*values, *added))
    return Change("extend", after, f"add {added[0]} to `{key}` of rule {rule.name!r}", note)


def _with(rule: Rule, attribute: str, values: tuple[Any, ...]) -> Rule:
    changed: dict[str, Any] = {attribute: values}
    return replace(rule, **changed)


def _lets_in_nobody_else(rule: Rule, key: str, hop: Hop) -> bool:
    """Whether extending this field permits only this hop's caller, and only its method."""
    one_caller = key == "from" or (len(rule.callers) == 1 and rule.callers[0].exact is not None)
    if hop.protocol == "tcp":
        return one_caller and (key == "port" or len(rule.ports) == 1)  # without port it opens the HTTP listeners too
    return one_caller and (key == "method" or len(rule.methods) == 1)


def _value(key: str, hop: Hop, namespace: str | None) -> tuple[Any, ...]:
    """What this hop would need to find in a field of a rule, as that field's values; () where it has nothing."""
    match key:
        case "from" if hop.peer is not None:
            ours = hop.destination.trust_domain if hop.destination is not None else None
            text = caller_text(hop.peer, ours, namespace)
            return (IdentityPattern.parse(text, ours or hop.peer.trust_domain, namespace or ""),)
        case "method" if _METHOD.match(hop.method):
            return (hop.method,)
        case "path" if hop.segments:
            return (PathTemplate.naming(hop.segments),)
        case "host" if hop.host:
            return _host(hop.host)
        case "source" if hop.source is not None:
            return (ip_network(str(hop.source).partition("%")[0]),)
        case "port" if hop.listener or hop.port:
            return (hop.listener or str(hop.port),)
    return ()


def _host(host: str) -> tuple[HostPattern, ...]:
    try:
        return (HostPattern.parse(host),)
    except PatternError:  # a hop made by hand; the proxy only makes canonical hosts
        return ()


def _named_fields(rules: Iterable[CompiledRule]) -> set[str]:
    """The fields that some rule names."""
    return {key for rule in rules for key, attribute in _KEYS.items() if getattr(rule.source, attribute)}


def _namespace_of(rules: RuleSet, hop: Hop) -> str | None:
    """The namespace that short names in these rules are read in."""
    for rule in rules.rules:
        for caller in rule.source.callers:
            if caller.text != "**" and "/" not in caller.text:
                return caller.segments[1]
    match hop.destination.segments if hop.destination is not None else ():
        case ("ns", namespace, "sa", _):
            return namespace
    return None


def _name(rules: RuleSet, caller: IdentityPattern, hop: Hop) -> str:
    """A name that no rule of the service has yet: `web-get-orders`."""
    first = hop.segments[0] if hop.segments else hop.listener
    words = (caller.text.rpartition("/")[2], hop.method or "tcp", first)
    stem = "-".join(filter(None, (_NOT_IN_A_NAME.sub("-", word.lower()).strip("-") for word in words)))
    stem = stem[:_MAX_NAME].strip("-") or "allow"
    taken = {rule.source.name for rule in rules.rules}
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


# ---- YAML -------------------------------------------------------------------------------------------------------


def rule_yaml(rule: Rule) -> str:
    """A rule as one item of a list, ready to be pasted under `allow:` or `deny:`."""
    lines = [f"- name: {scalar(rule.name)}"]
    for key, attribute in _KEYS.items():
        values = getattr(rule, attribute)
        if values:
            lines.append(f"  {key}: [{', '.join(scalar(str(value)) for value in values)}]")
    if rule.headers:
        pairs = (f"{scalar(header.name.decode('ascii'))}: {_flow(header.spec())}" for header in rule.headers)
        lines.append(f"  headers: {{{', '.join(pairs)}}}")
    for key, values in (("operation", rule.operations), ("scopes", rule.scopes), ("when", rule.when)):
        if values:
            lines.append(f"  {key}: [{', '.join(scalar(str(value)) for value in values)}]")
    if rule.shadow:
        lines.append("  shadow: true")
    return "\n".join(lines) + "\n"


def scalar(text: str) -> str:
    """Text as a YAML scalar; quoted wherever some reader could take it for anything else."""
    if _PLAIN.match(text) and text.lower() not in _YAML_WORDS:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _flow(spec: object) -> str:
    if isinstance(spec, dict):
        return "{" + ", ".join(f"{key}: {_flow(value)}" for key, value in spec.items()) + "}"
    return "true" if spec is True else scalar(str(spec))


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if " " <= character <= "~" else f"\\U{ord(character):08x}"
