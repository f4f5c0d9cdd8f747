"""The OWASP API Security Top 10 (2023), and what of this mesh stands against each risk, by its configuration alone.

A *measure* is one thing that can be said in mesh.yaml (or that always holds), a predicate that tells whether a
service says it, a sentence of what it covers, and the YAML that would turn it on. Some only *help*: they make an attack
slow or loud, and do not prevent it; a risk against which nothing else is on is `partly` covered at most. Whatever is
new is one more line of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.config.schema_contract import Contract
    from sidecar.config.schema_detectors import Detector
    from sidecar.config.schema_inbound import Inbound, Rule

State = Literal["on", "shadow", "off"]
Overall = Literal["on", "partly", "shadow", "off", "none"]

RISKS: Final[Mapping[str, str]] = {  # https://owasp.org/API-Security/editions/2023/en/0x11-t10/
    "API1": "Broken Object Level Authorization",
    "API2": "Broken Authentication",
    "API3": "Broken Object Property Level Authorization",
    "API4": "Unrestricted Resource Consumption",
    "API5": "Broken Function Level Authorization",
    "API6": "Unrestricted Access to Sensitive Business Flows",
    "API7": "Server Side Request Forgery",
    "API8": "Security Misconfiguration",
    "API9": "Improper Inventory Management",
    "API10": "Unsafe Consumption of APIs",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that stands against a risk. `needed` tells whether it says anything about this service."""

    risk: str
    name: str
    covers: str  # a sentence
    state: Callable[[Service], State]
    yaml: str = ""  # under the service; empty for what always holds
    needed: Callable[[Service], bool] = lambda service: True
    helps: bool = False  # and no more


@dataclass(frozen=True, slots=True)
class Line:
    """One measure as it stands at one service."""

    service: str
    risk: str
    measure: str
    state: State
    covers: str
    yaml: str  # that would turn it on; empty where it is
    helps: bool = False

    def to_json(self) -> dict[str, Any]:
        """The line as data."""
        return {"service": self.service, "risk": self.risk, "title": RISKS[self.risk], "measure": self.measure,
                "state": self.state, "helps": self.helps, "covers": self.covers, "yaml": self.yaml}  # fmt: skip


def lines(config: MeshConfig, only: str | None = None) -> list[Line]:
    """Every measure of every service, or of this one, in the order of the risks."""
    services = [each for each in config.services.values() if only in (None, each.name)]
    return [line for service in services for line in _lines(service)]


def overall(lines: Iterable[Line]) -> Overall:
    """What the measures against one risk come to together; `none` where there is nothing to do about it."""
    found = list(lines)
    if not found:
        return "none"
    states = [line.state for line in found]
    if all(state == "on" for state in states) and not all(line.helps for line in found):
        return "on"
    if any(state == "on" for state in states):
        return "partly"
    return "shadow" if "shadow" in states else "off"


def summary(lines: Iterable[Line], service: str) -> dict[str, Overall]:
    """Each of the ten risks, as it stands at one service; of all its lines."""
    mine = [line for line in lines if line.service == service]
    return {risk: overall(line for line in mine if line.risk == risk) for risk in RISKS}


def _lines(service: Service) -> Iterator[Line]:
    for risk in RISKS:
        for measure in MEASURES:
            if measure.risk == risk and measure.needed(service):
                state = measure.state(service)
                yaml = "" if state == "on" else measure.yaml
                yield Line(service.name, risk, measure.name, state, measure.covers, yaml, measure.helps)


# ---- predicates ----------------------------------------------------------------------------------------------------


def _serves(service: Service) -> bool:
    return bool(service.inbound)


def _serves_http(service: Service) -> bool:
    return any(each.protocol != "tcp" for each in service.inbound)


def _serves_tcp(service: Service) -> bool:
    return any(each.protocol == "tcp" for each in service.inbound)


def _calls(service: Service) -> bool:
    return bool(service.outbound) or service.forward_proxy is not None or service.redirect is not None


def _always(service: Service) -> State:
    return "on"


def _if(holds: bool) -> State:
    return "on" if holds else "off"


def _strict(service: Service) -> State:
    postures = {each.posture for each in service.inbound}
    return "off" if "permissive" in postures else "shadow" if "observe" in postures else "on"


def _detected(detector: Callable[[Service], Detector | None]) -> Callable[[Service], State]:
    def state(service: Service) -> State:
        found = detector(service)
        return "off" if found is None else "shadow" if found.action == "record" else "on"

    return state


def _http_rules(service: Service) -> list[Rule]:
    """Allow rules, in force or in shadow, that are judged where HTTP is spoken."""
    names = {each.name for each in service.inbound if each.protocol != "tcp"}
    return [rule for rule in service.allow if not rule.ports or names & set(rule.ports)]


def _narrow(says: Callable[[Rule], bool]) -> Callable[[Service], State]:
    """Whether each rule in force says this; in shadow where it is said by rules that do not act yet."""

    def state(service: Service) -> State:
        rules = _http_rules(service)
        acting = [rule for rule in rules if not rule.shadow]
        if acting and all(map(says, acting)):
            return "on"
        return "shadow" if any(rule.shadow and says(rule) for rule in rules) else "off"

    return state


def _own_objects(rule: Rule) -> bool:
    """Whether a rule that lets callers name objects says whose they must be."""
    names = not rule.paths or any(path.rest or None in path.segments for path in rule.paths)
    return not names or any(subject.kind == "path" for each in rule.when for subject in each.subjects())


def _contracted(service: Service) -> State:
    """As the weakest of its listeners is held to a contract."""
    modes = {each.contract.mode if each.contract is not None else "off" for each in service.inbound
             if each.protocol != "tcp"}  # fmt: skip
    return "off" if "off" in modes else "shadow" if "shadow" in modes else "on"


def _checked_against(holds: Callable[[Contract], bool]) -> Callable[[Service], State]:
    """As `_contracted`, where every contract says this too."""

    def state(service: Service) -> State:
        contracts = [each.contract for each in service.inbound if each.contract is not None]
        return _contracted(service) if all(map(holds, contracts)) else "off"

    return state


def _no_private(service: Service) -> State:
    """Whether names outside lead to no private address, but for networks that are listed."""
    third = (each for each in service.outbound if each.unmeshed == "passthrough")
    return _if(all(each.tls is not None or each.token is not None or each.private is not None for each in third))


def _own_share(service: Service) -> State:
    each = any(rate.per.kind == "caller" for rate in service.rates)
    return _if(each or any(quota.per.kind == "caller" for quota in service.quotas))


def _bounded_bodies(service: Service) -> State:
    listeners: list[Inbound] = [each for each in service.inbound if each.protocol != "tcp"]
    return _if(all(any(route.max_body is not None for route in each.routes) for each in listeners))


def _flows(service: Service) -> State:
    narrow = any(rate.paths for rate in service.rates) or any(quota.paths for quota in service.quotas)
    return _if(narrow)


def _no_passthrough(service: Service) -> State:
    redirect = service.redirect
    return _if(redirect is None or not redirect.passthrough)


def _proved(service: Service) -> State:
    return _if(all(each.identity is not None or each.tls is not None for each in service.outbound))


def _in_time(service: Service) -> State:
    return _if(all(each.timeouts.total is not None for each in service.outbound))


def _nothing_unsafe(service: Service) -> State:
    routes = [route for each in service.inbound for route in each.routes]
    unsafe = any(each.unsafe_encoded_slash or each.unsafe_empty_segments or each.unsafe_path_parameters
                 for each in routes)  # fmt: skip
    in_the_clear = any(each.unsafe_plaintext for each in service.audit.export)
    return _if(not (unsafe or in_the_clear or service.unsafe_allow_bypass or service.tls.unsafe_tls12))


def _no_faults(service: Service) -> State:
    inbound = [route.fault for each in service.inbound for route in each.routes]
    outbound = [route.fault for each in service.outbound for route in each.routes]
    return _if(not any(fault is not None for fault in (*inbound, *outbound)))


# ---- the table -----------------------------------------------------------------------------------------------------

MEASURES: Final[tuple[Measure, ...]] = (
    Measure(
        "API1", "objects by rule", "Who may ask for an object is held to its own by a condition on the path.",
        _narrow(_own_objects), "allow: [{from: web, path: '/orders/{id}', when: ['path id is claim order_id']}]",
        _serves_http,
    ),
    Measure(
        "API1", "enumeration detector", "Whoever asks for one object after the other is told of, held or blocked.",
        _detected(lambda s: s.detectors.enumeration if s.detectors else None),
        "detectors: {enumeration: {action: block}}", _serves_http, helps=True,
    ),
    Measure(
        "API2", "mutual TLS", "Every caller proves its SPIFFE ID by a certificate; nobody comes in without.", _strict,
        "inbound: [{posture: strict}]", _serves,
    ),
    Measure(
        "API2", "bearer tokens", "The user behind the caller is proved by a token that the hop verifies.",
        lambda s: _if(all(each.tokens is not None and each.tokens.required for each in s.inbound
                          if each.protocol != "tcp")),
        "inbound: [{tokens: {from: [login], audience: orders}}]  # and issuers: at the top", _serves_http,
    ),
    Measure(
        "API2", "stuffing detector", "Bursts of 401 and 403 by one caller are told of, held or blocked.",
        _detected(lambda s: s.detectors.stuffing if s.detectors else None),
        "detectors: {stuffing: {action: block}}", _serves_http, helps=True,
    ),
    Measure(
        "API3", "methods by rule", "A caller that only reads cannot write properties that it should not set.",
        _narrow(lambda rule: bool(rule.methods)), "allow: [{from: web, method: GET, path: /orders/**}]", _serves_http,
        helps=True,
    ),
    Measure(
        "API3", "requests by contract", "What is not as the contract says never reaches the application.",
        _contracted, "inbound: [{contract: {openapi: openapi.yaml, mode: enforce}}]", _serves_http,
    ),
    Measure(
        "API3", "unknown fields", "Fields that no schema names are refused, also where the schema does not say so.",
        _checked_against(lambda contract: contract.unknown_fields == "refuse"),
        "inbound: [{contract: {openapi: openapi.yaml, mode: enforce, unknown_fields: refuse}}]", _serves_http,
    ),
    Measure(
        "API3", "fields by grant", "A caller sees the fields that are granted to it, whatever the application answers.",
        lambda s: "off" if not s.grants else _contracted(s),
        "grants: {web: {operations: [getOrder], fields: [id, total]}}", _serves_http,
    ),
    Measure(
        "API4", "a share of its own", "No caller takes more than its rate or quota; the others notice nothing.",
        _own_share, "rates: [{name: each-caller, per: caller, limit: 100/s}]", _serves,
    ),
    Measure(
        "API4", "bounded bodies", "A body over the bound is refused before the application holds it.", _bounded_bodies,
        "inbound: [{routes: [{path: /**, max_body: 1MiB}]}]", _serves_http,
    ),
    Measure(
        "API4", "bounded connections", "Raw TCP has bounds for connections and bandwidth.",
        lambda s: _if(all(each.tcp_limits for each in s.inbound if each.protocol == "tcp")),
        "inbound: [{protocol: tcp, tcp_limits: [{connections: 100}]}]", _serves_tcp,
    ),
    Measure(
        "API4", "bounded heads and slow peers", "Heads, pools, streams and slow senders have bounds.", _always,
        needed=_serves,
    ),
    Measure(
        "API5", "functions by rule", "Each rule names the paths that its callers may use; all else is 403.",
        _narrow(lambda rule: bool(rule.paths or rule.operations)),
        "allow: [{from: web, method: GET, path: /orders/**}]",
        _serves_http,
    ),
    Measure(
        "API5", "a second opinion", "An Open Policy Agent is asked about what the rules permit.",
        lambda s: "off" if s.opa is None else "shadow" if s.opa.mode == "shadow" else "on",
        needed=lambda s: s.opa is not None, helps=True,
    ),
    Measure(
        "API6", "a pace for flows", "A rate or a quota on a path holds who buys, books or signs up by machine.", _flows,
        "quotas: [{name: sign-ups, path: /sign-up, method: POST, limit: 20/d}]", _serves_http,
    ),
    Measure(
        "API6", "spikes detector", "A caller that asks for far more than ever is told of, held or blocked.",
        _detected(lambda s: s.detectors.spikes if s.detectors else None),
        "detectors: {spikes: {action: throttle}}", _serves, helps=True,
    ),
    Measure(
        "API7", "declared upstreams", "The application reaches what `outbound` names, and nothing else.",
        _no_passthrough, "redirect: {passthrough: []}", _calls,
    ),
    Measure(
        "API7", "public addresses alone", "A name outside leads to no private address, whoever answers for it; the one "
        "that was judged is dialled.", _no_private,
        "outbound: [{to: partner, unmeshed: passthrough, private: []}]",
        lambda s: any(each.unmeshed == "passthrough" for each in s.outbound),
    ),
    Measure(
        "API8", "no posture", "No listener waives what the rules say.", _strict, "inbound: [{posture: strict}]",
        _serves,
    ),
    Measure(
        "API8", "nothing unsafe", "No option with `unsafe` in its name is in force.", _nothing_unsafe,
        "# remove every key that begins with unsafe_",
    ),
    Measure(
        "API8", "no faults", "No failure is injected on purpose.", _no_faults, "# remove fault from every route",
    ),
    Measure(
        "API8", "one reading", "A request that can be read in two ways is refused, whoever asks.", _always,
        needed=_serves_http,
    ),
    Measure(
        "API9", "inventory", "Every edge that is allowed or used is known, with its last use (`mesh inventory`).",
        _always,
    ),
    Measure(
        "API9", "a record", "Who called what, and who was refused, stands in a record that shows if it was changed.",
        _always, helps=True,
    ),
    Measure(
        "API9", "a record elsewhere", "Whoever takes the machine does not have the record: it is sent as it is made.",
        lambda s: _if(bool(s.audit.export)),
        "audit: {export: [{kind: syslog, address: 'logs.internal:6514'}]}", _serves, helps=True,
    ),
    Measure(
        "API9", "nothing undocumented", "What the contract does not have is refused, and what nobody calls is told.",
        _checked_against(lambda contract: contract.undocumented == "refuse"),
        "inbound: [{contract: {openapi: openapi.yaml, mode: enforce}}]", _serves_http,
    ),
    Measure(
        "API9", "an owner", "Somebody answers for the service.", lambda s: _if(bool(s.owner)), "owner: team-orders",
    ),
    Measure(
        "API10", "upstreams prove who they are",
        "Each upstream shows the identity that is declared for it, or the certificate of its name.", _proved,
        "outbound: [{to: orders, identity: orders}]", lambda s: bool(s.outbound),
    ),
    Measure(
        "API10", "TLS outside", "Hosts outside the mesh prove their name by a certificate.",
        lambda s: _if(all(each.tls is not None for each in s.outbound if each.unmeshed == "passthrough")),
        "outbound: [{to: partner, unmeshed: passthrough, tls: {}}]",
        lambda s: any(each.unmeshed == "passthrough" for each in s.outbound),
    ),
    Measure(
        "API10", "only what is declared", "Of a host outside only the listed methods and paths are asked.",
        lambda s: _if(all(each.allow for each in s.outbound if each.unmeshed == "passthrough")),
        "outbound: [{to: partner, unmeshed: passthrough, allow: [{method: GET, path: /v1/**}]}]",
        lambda s: any(each.unmeshed == "passthrough" for each in s.outbound),
    ),
    Measure(
        "API10", "answers in time", "No upstream holds a request for longer than is declared.", _in_time,
        "timeouts: {total: 10s}", lambda s: bool(s.outbound),
    ),
)  # fmt: skip
