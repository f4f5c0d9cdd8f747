"""Who may call what: explicit deny, then allow, then deny (S20, decision D3).

Theory of operation. One rule is one AND of everything it names. A deny rule that matches decides at once; otherwise the
first allow rule in file order decides and lends its name; otherwise the answer is no, the same no for a service without
any rule as for one where none matched. Rules marked `shadow` are judged apart and only reported.

Doubt means deny, and so the two effects read doubtful facts in opposite ways:

    what                            an allow rule                       a deny rule
    several lines of one header     every line must satisfy it          one line is enough
    a method nobody listed          only the seven known ones match     every method matches
    `source:`, address unknown      does not match                      matches
    no `from:` at all               matches nobody                      matches everybody
    conditions (`when:`)            sidecar.policy.conditions has a table of its own

What is absent satisfies nothing in either: a missing header, a missing host, no identity where `from:` is given, the
path of `OPTIONS *`. A rule with an HTTP field never matches raw TCP; `mesh check` says so where it is written.

Where no rule allows a hop, but one would if the user behind the caller had shown a token, or one with more scopes, the
answer says that and no more (RFC 6750 section 3.1): only to callers whom that rule names, for what else it names.

Speed. A rule is compiled to one small object whose tests run cheapest first. Which rules can apply to a caller depends
only on who it is, so the answer is kept per SPIFFE ID and protocol: a hop then looks at the few rules that name its
caller, and where those are many, at the few that an index by path and host finds (`sidecar.policy.index`). What is kept
is bounded, could be computed again at any time, and is forgotten whole when full.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

from sidecar.errors import HopError, PolicyDenied, ScopeMissing, TokenMissing
from sidecar.hop import Deny, Hop, HopProtocol, Permit, ShadowVerdict
from sidecar.policy.conditions import Conditions
from sidecar.policy.index import WORTH_IT, RuleIndex

if TYPE_CHECKING:
    from certs.spiffe import SpiffeId
    from sidecar.config.schema_inbound import Rule
    from sidecar.patterns import HeaderPattern, PathTemplate

KNOWN_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
ANY_PATH: Final = "/**"  # the route of a rule that names no path
NO_RULE: Final = "no rule allows this caller to do this"
_MAX_CALLERS: Final = 4096  # distinct SPIFFE IDs kept; about 1 KiB each with 20 rules

_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2: IPv4 addresses as a dual-stack socket shows them


class CompiledRule:
    """One rule, made ready for many hops. `source` is the rule as it was written."""

    __slots__ = (
        "_asks_more", "_exact_callers", "_exact_hosts", "_headers", "_methods", "_networks", "_operations", "_paths",
        "_ports", "_scopes", "_unconditional", "_wild_callers", "_wild_hosts", "conditions", "denies", "http_only",
        "of_tokens", "permits", "source", "verdict",
    )  # fmt: skip

    def __init__(self, rule: Rule) -> None:
        self.source = rule
        self.denies = rule.effect == "deny"
        self.verdict = ShadowVerdict(rule.name, "deny" if self.denies else "permit")
        self.permits = tuple(Permit(rule.name, path.text) for path in rule.paths) or (Permit(rule.name, ANY_PATH),)
        self._exact_callers = frozenset(caller.exact for caller in rule.callers if caller.exact is not None)
        self._wild_callers = tuple(caller for caller in rule.callers if caller.exact is None)
        self._methods = frozenset(rule.methods) or (None if self.denies else KNOWN_METHODS)
        self._exact_hosts = frozenset(host.host for host in rule.hosts if not host.wildcard)
        self._wild_hosts = tuple(host for host in rule.hosts if host.wildcard)
        self._paths = tuple(zip(rule.paths, self.permits, strict=False))  # empty where the rule names no path
        self._headers = rule.headers
        self._networks = tuple(_network(network) for network in rule.networks)
        self._ports = frozenset(rule.ports)
        self._operations = frozenset(rule.operations)
        self._scopes = frozenset(rule.scopes)
        self.conditions = Conditions(rule.when, denies=self.denies)
        self._asks_more = rule.conditional
        self._unconditional = not (rule.hosts or rule.headers or rule.networks or rule.ports or self._asks_more)
        self.http_only = rule.http_only
        self.of_tokens = rule.of_tokens

    def __repr__(self) -> str:
        return f"<{self.source.effect} rule {self.source.name!r}>"

    def match(self, hop: Hop) -> Permit | None:
        """The permit this rule stands for (of a deny rule only its route counts), None where it does not match."""
        if not self.caller_matches(hop.peer):
            return None
        if hop.protocol == "http":
            return self.match_http(hop)
        return None if self.http_only else self.match_tcp(hop)

    def match_http(self, hop: Hop) -> Permit | None:
        """As `match`, for an HTTP hop from one of this rule's callers."""
        if self._methods is not None and hop.method not in self._methods:
            return None
        permit = self.path_matches(hop.segments) if self._paths else self.permits[0]
        if permit is None or self._unconditional:
            return permit
        if (
            self.host_matches(hop.host)
            and all(self.header_matches(pattern, hop) for pattern in self._headers)
            and self.network_matches(hop.source)
            and self.port_matches(hop)
        ):
            return self.satisfied(hop) if self._asks_more else permit
        return None

    def match_tcp(self, hop: Hop) -> Permit | None:
        """As `match`, for a TCP hop from one of this rule's callers; the rule has no HTTP field."""
        if not (self.network_matches(hop.source) and self.port_matches(hop)):
            return None
        return self.satisfied(hop) if self._asks_more else self.permits[0]

    def satisfied(self, hop: Hop, *, tokens: bool = True) -> Permit | None:
        """The permit of the first template that matches and under which every condition holds; without `tokens`, every
        one that asks for no token.
        """
        if not self.operation_matches(hop) or (tokens and not self.scopes_match(hop)):
            return None
        if not self._paths:
            return self.permits[0] if self.conditions.hold(hop, None, tokens=tokens) else None
        for path, permit in self._paths:
            if path.matches(hop.segments) and self.conditions.hold(hop, path, tokens=tokens):
                return permit
        return None

    def lacks(self, hop: Hop) -> HopError | None:
        """What to tell a hop that this rule would allow if its token were there, or had its scopes; else None."""
        if not self.of_tokens or not self._matches_but_for_tokens(hop):
            return None
        name = self.source.name
        if hop.token is None:
            return TokenMissing(f"rule {name!r} would allow it to some users, and it shows no verified token")
        lacking = [scope for scope in self.source.scopes if scope not in hop.token.scopes]
        if lacking and self._holds_but_for_scopes(hop):
            detail = f"rule {name!r} would allow it, had the token the scope {' and '.join(lacking)}"
            return ScopeMissing(detail, None, scopes=self.source.scopes)
        return None

    def _matches_but_for_tokens(self, hop: Hop) -> bool:
        return (
            hop.protocol == "http"
            and self.method_matches(hop.method)
            and self.host_matches(hop.host)
            and all(self.header_matches(pattern, hop) for pattern in self._headers)
            and self.network_matches(hop.source)
            and self.port_matches(hop)
            and self.satisfied(hop, tokens=False) is not None
        )

    def _holds_but_for_scopes(self, hop: Hop) -> bool:
        paths: list[PathTemplate | None] = [path for path, _ in self._paths if path.matches(hop.segments)]
        return any(self.conditions.hold(hop, path) for path in paths or [None])

    # ---- one question per field, so that `explain` asks the very same ones -----------------------------------

    def caller_matches(self, peer: SpiffeId | None) -> bool:
        """Whether `from:` names this peer; without `from:` a deny rule means everybody, an allow rule nobody."""
        if not self.source.callers:
            return self.denies
        if peer is None:
            return False
        return peer.text in self._exact_callers or any(pattern.matches(peer) for pattern in self._wild_callers)

    def method_matches(self, method: str) -> bool:
        """Whether `method:` lists it; without `method:` an allow rule means the known ones, a deny rule all."""
        return self._methods is None or method in self._methods

    def path_matches(self, segments: tuple[str, ...]) -> Permit | None:
        """The permit that carries the first template that matches."""
        if not self._paths:
            return self.permits[0]
        for path, permit in self._paths:
            if path.matches(segments):
                return permit
        return None

    def host_matches(self, host: str) -> bool:
        """Whether `host:` names this canonical host."""
        if not self.source.hosts:
            return True
        return host in self._exact_hosts or any(wild.matches(host) for wild in self._wild_hosts)

    def header_matches(self, pattern: HeaderPattern, hop: Hop) -> bool:
        """Whether the request's lines satisfy one header pattern: all of them to allow, any to deny."""
        return pattern.matches_any(hop.headers) if self.denies else pattern.matches(hop.headers)

    def network_matches(self, source: IPv4Address | IPv6Address | None) -> bool:
        """Whether `source:` contains the TCP peer's address."""
        if not self._networks:
            return True
        if source is None:
            return self.denies
        version, number = _address(source)
        return any(version == ours and number & mask == base for ours, base, mask in self._networks)

    def operation_matches(self, hop: Hop) -> bool:
        """Whether `operation:` lists what the contract calls this request; of none it knows nothing."""
        return not self._operations or hop.operation in self._operations

    def scopes_match(self, hop: Hop) -> bool:
        """Whether the bearer token has all of `scopes:`."""
        return not self._scopes or (hop.token is not None and self._scopes <= hop.token.scopes)

    def port_matches(self, hop: Hop) -> bool:
        """Whether `port:` names this listener or its port."""
        return not self._ports or hop.listener in self._ports or str(hop.port) in self._ports


@dataclass(frozen=True, slots=True)
class _Applicable:
    """The rules that can apply to one caller on one protocol, in file order; many of them with an index."""

    deny: tuple[CompiledRule, ...]
    allow: tuple[CompiledRule, ...]
    shadow: tuple[CompiledRule, ...]
    denials: RuleIndex[CompiledRule] | None
    allowances: RuleIndex[CompiledRule] | None
    looks_at: frozenset[str]  # see RuleSet.looks_at
    tokens: tuple[CompiledRule, ...]  # those of allow that ask for the user behind the caller


class RuleSet:
    """All rules of one service. Immutable in all that can be observed; a reload makes a new one."""

    __slots__ = ("_http", "_tcp", "_timed", "rules")

    def __init__(self, rules: Iterable[CompiledRule]) -> None:
        self.rules = tuple(rules)  # deny rules first, each list in file order
        self._timed = any(rule.conditions.timed for rule in self.rules)
        self._http: dict[str, _Applicable] = {}
        self._tcp: dict[str, _Applicable] = {}

    @classmethod
    def compile(cls, allow: Sequence[Rule], deny: Sequence[Rule] = ()) -> RuleSet:
        """Make a service's two lists ready. A rule's `effect` must be that of its list (ValueError)."""
        for rules, effect in ((allow, "allow"), (deny, "deny")):
            for rule in rules:
                if rule.effect != effect:
                    raise ValueError(f"rule {rule.name!r} says {rule.effect} in the list of {effect} rules")
        return cls(CompiledRule(rule) for rule in (*deny, *allow))

    def check(self, hop: Hop, now: float) -> Permit | Deny:
        """Judge a hop at this moment (seconds since the epoch), which matters to conditions about time alone."""
        peer = hop.peer
        key = "" if peer is None else peer.text
        if hop.protocol == "http":
            rules, match = self._http.get(key), CompiledRule.match_http
        else:
            rules, match = self._tcp.get(key), CompiledRule.match_tcp
        if rules is None:
            rules = self._applicable(key, peer, hop.protocol)
        if self._timed:
            hop.judged = now
        denials, allowances = rules.denials, rules.allowances
        for rule in rules.deny if denials is None else denials.candidates(hop.segments, hop.host):
            if match(rule, hop) is not None:
                name = rule.source.name
                return Deny(PolicyDenied(f"deny rule {name!r} forbids it", name), name, _shadow(rules, hop))
        for rule in rules.allow if allowances is None else allowances.candidates(hop.segments, hop.host):
            permit = match(rule, hop)
            if permit is not None:
                return Permit(permit.rule, permit.route, _shadow(rules, hop)) if rules.shadow else permit
        lacking = next(filter(None, (rule.lacks(hop) for rule in rules.tokens)), None)
        return Deny(lacking or PolicyDenied(NO_RULE), "", _shadow(rules, hop))

    def looks_at(self, peer: SpiffeId) -> frozenset[str]:
        """What of an HTTP hop, beside caller, listener, method, host and path, can change the verdict for this caller:
        "headers", "source", "more" (operation, token, query, time, path parameters), some of them or none.
        """
        return (self._http.get(peer.text) or self._applicable(peer.text, peer, "http")).looks_at

    def rule(self, name: str) -> CompiledRule | None:
        """The rule of this name, if there is one."""
        return next((rule for rule in self.rules if rule.source.name == name), None)

    def _applicable(self, key: str, peer: SpiffeId | None, protocol: HopProtocol) -> _Applicable:
        """Work out, and keep, which rules can apply to this caller."""
        kept = self._http if protocol == "http" else self._tcp
        ours = [rule for rule in self.rules if rule.caller_matches(peer) and (protocol == "http" or not rule.http_only)]
        live = [rule for rule in ours if not rule.source.shadow]
        deny = tuple(rule for rule in live if rule.denies)
        allow = tuple(rule for rule in live if not rule.denies)
        shadow = tuple(rule for rule in ours if rule.source.shadow)
        http = protocol == "http"
        looks_at = {"headers" for rule in ours if rule.source.headers}
        looks_at |= {"source" for rule in ours if rule.source.networks}
        looks_at |= {"more" for rule in ours if rule.source.conditional}
        found = _Applicable(
            deny, allow, shadow, _index(deny, http), _index(allow, http), frozenset(looks_at),
            tuple(rule for rule in allow if rule.of_tokens),
        )  # fmt: skip
        if len(kept) >= _MAX_CALLERS:
            kept.clear()
        kept[key] = found
        return found


def _index(rules: tuple[CompiledRule, ...], http: bool) -> RuleIndex[CompiledRule] | None:
    """An index where there are enough rules for one; raw TCP has neither path nor host to look up."""
    return RuleIndex([(rule, rule.source) for rule in rules]) if http and len(rules) >= WORTH_IT else None


def _shadow(rules: _Applicable, hop: Hop) -> tuple[ShadowVerdict, ...]:
    """What each matching shadow rule would have done."""
    if not rules.shadow:
        return ()
    return tuple(rule.verdict for rule in rules.shadow if rule.match(hop) is not None)


def _address(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    """Version and number; an IPv4 address that a dual-stack socket wrapped in IPv6 is unwrapped."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, int(address)


def _network(network: IPv4Network | IPv6Network) -> tuple[int, int, int]:
    """Version, base and mask; networks within ::ffff:0:0/96 mean IPv4."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        network = IPv4Network((mapped, network.prefixlen - 96))
    return network.version, int(network.network_address), int(network.netmask)
