"""Every edge that is allowed or was seen, as rows: who may call what, by which rule, proved how, and when it did last.

Pure: the configuration, and what sidecars told (`sidecar.telemetry.edges`), become rows. A rule that names a family
(`shop/*`) has a row for each caller that used it, or one for the family where nobody did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from certs.errors import InvalidSpiffeId
from certs.spiffe import SpiffeId

if TYPE_CHECKING:
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.config.schema_inbound import Inbound, Rule
    from sidecar.config.schema_outbound import Outbound
    from sidecar.patterns import IdentityPattern

State = Literal["used", "dormant", "unused", "unknown", "not_allowed"]
DAY: Final = 86_400.0
ANYBODY: Final = "(no identity)"
WORDS: Final[Mapping[State, str]] = {
    "used": "used lately",
    "dormant": "not used for as long as was asked for",
    "unused": "not used yet, and the record is younger than was asked for",
    "unknown": "no sidecar of it was asked",
    "not_allowed": "seen, and no rule of this config allows it",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One edge."""

    caller: str  # SPIFFE ID, or the pattern of a family that nobody used
    called: str  # service, or upstream outside of the mesh
    owner: str  # of what is called
    direction: str  # inbound: as the called sidecar has it; outbound: as the caller's
    listener: str
    protocol: str
    auth: str
    rule: str
    route: str
    methods: str
    state: State
    first: float | None  # seconds since the epoch
    last: float | None
    count: int
    where: str  # file:line of what allows it
    pattern: str = ""  # that the caller came by, as it stands in the rule

    def to_json(self) -> dict[str, Any]:
        """The row as data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one sidecar told."""

    since: float  # when its record begins, seconds since the epoch
    edges: tuple[Mapping[str, Any], ...]


def rows(config: MeshConfig, seen: Mapping[str, Seen], now: float, days: float) -> list[Row]:
    """All rows. `seen` is by service; what was not used for `days` is dormant."""
    found: list[Row] = []
    for service in config.services.values():
        book = seen.get(service.name)
        taken: set[int] = set()
        for rule in service.allow:
            if not rule.shadow:
                found += _allowed(service, rule, book, taken, now - days * DAY)
        found += _postures(service, book, taken)
        for spec in service.outbound:
            found += _outbound(config, service, spec, book, taken, now - days * DAY)
        if book is not None:
            found += _left(service, book, taken)
    return found


# ---- inbound -------------------------------------------------------------------------------------------------------


def _allowed(service: Service, rule: Rule, book: Seen | None, taken: set[int], earliest: float) -> Iterator[Row]:
    """The rows of one rule: for each caller and each path that it names."""
    listeners = [each for each in service.inbound if not rule.ports or each.name in rule.ports]
    base = Row(
        caller="", called=service.name, owner=service.owner, direction="inbound",
        listener=" ".join(each.name for each in listeners), protocol=_protocols(listeners), auth=_auth(listeners),
        rule=rule.name, route="", methods=" ".join(rule.methods), state="unknown", first=None, last=None, count=0,
        where=str(rule.where),
    )  # fmt: skip
    for pattern in rule.callers:
        for route in [path.text for path in rule.paths] or ["/**"]:
            mine = replace(base, caller=pattern.exact or pattern.text, route=route, pattern=pattern.text)
            uses = list(_uses(book, "inbound", rule.name, route, pattern, taken))
            if not uses:
                yield replace(mine, state=_never(book, earliest))
            for each in _joined(uses):
                yield _used(replace(mine, caller=each["caller"]), each, earliest)


def _uses(
    book: Seen | None, direction: str, rule: str, route: str, pattern: IdentityPattern, taken: set[int]
) -> Iterator[Mapping[str, Any]]:
    for number, edge in enumerate(book.edges if book is not None else ()):
        if edge["verdict"] != "permit" or (edge["direction"], edge["rule"], edge["route"]) != (direction, rule, route):
            continue
        try:
            matches = pattern.matches(SpiffeId.parse(edge["caller"]))
        except InvalidSpiffeId:
            continue
        if matches:
            taken.add(number)
            yield edge


def _joined(uses: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One for each caller."""
    by_caller: dict[str, dict[str, Any]] = {}
    for edge in uses:
        known = by_caller.setdefault(edge["caller"], dict(edge) | {"count": 0})
        known["count"] += edge["count"]
        known["first"], known["last"] = min(known["first"], edge["first"]), max(known["last"], edge["last"])
    return list(by_caller.values())


def _used(row: Row, edge: Mapping[str, Any], earliest: float) -> Row:
    state: State = "used" if edge["last"] >= earliest else "dormant"
    return replace(row, state=state, first=edge["first"], last=edge["last"], count=edge["count"])


def _never(book: Seen | None, earliest: float) -> State:
    if book is None:
        return "unknown"
    return "dormant" if book.since <= earliest else "unused"


def _auth(listeners: Sequence[Inbound]) -> str:
    plain = any(each.posture == "permissive" for each in listeners)
    issuers = sorted({issuer for each in listeners if each.tokens is not None for issuer in each.tokens.issuers})
    proof = f"mTLS + token ({', '.join(issuers)})" if issuers else "mTLS"
    return f"{proof}, or plaintext (posture)" if plain else proof


def _protocols(listeners: Sequence[Inbound]) -> str:
    return " ".join(dict.fromkeys(each.protocol for each in listeners))


def _postures(service: Service, book: Seen | None, taken: set[int]) -> Iterator[Row]:
    """What postures let pass."""
    for listener in service.inbound:
        if listener.posture == "strict":
            continue
        rule, caller = f"posture:{listener.posture}", ANYBODY if listener.posture == "permissive" else "**"
        base = Row(
            caller, service.name, service.owner, "inbound", listener.name, listener.protocol,
            "plaintext (posture)" if listener.posture == "permissive" else "mTLS", rule, "/**", "", "unused",
            None, None, 0, str(listener.where), caller,
        )  # fmt: skip
        uses = []
        for number, edge in enumerate(book.edges if book is not None else ()):
            if edge["rule"] == rule and edge["verdict"] == "permit":
                taken.add(number)
                uses.append(edge)
        yield from [_used(replace(base, caller=e["caller"] or caller), e, 0.0) for e in _joined(uses)] or [base]


# ---- outbound ------------------------------------------------------------------------------------------------------


def _outbound(
    config: MeshConfig, service: Service, spec: Outbound, book: Seen | None, taken: set[int], earliest: float
) -> Iterator[Row]:
    """The row of one upstream, as its caller has it."""
    target = config.services.get(spec.to)
    base = Row(
        service.identity.text, spec.to, target.owner if target is not None else "", "outbound", spec.name,
        spec.protocol, _outside(spec), "", "", "", "unknown",
        None, None, 0, str(spec.where), spec.name,
    )  # fmt: skip
    uses = []
    for number, edge in enumerate(book.edges if book is not None else ()):
        if edge["direction"] == "outbound" and edge["listener"] == spec.name and edge["verdict"] == "permit":
            taken.add(number)
            uses.append({**edge, "caller": base.caller})
    yield from [_used(base, each, earliest) for each in _joined(uses)] or [replace(base, state=_never(book, earliest))]


def _outside(spec: Outbound) -> str:
    """How both sides of an upstream prove who they are."""
    if spec.identity is not None:
        return "mTLS"
    proofs = ["TLS"] if spec.tls is not None else []
    proofs += ["our certificate"] if spec.tls is not None and spec.tls.certificate else []
    proofs += ["our token"] if spec.token is not None else []
    return f"{' + '.join(proofs) or 'none'} ({spec.unmeshed})"


def _left(service: Service, book: Seen, taken: set[int]) -> Iterator[Row]:
    """What was let pass once and no rule of today allows. What was refused is no edge."""
    for number, edge in enumerate(book.edges):
        if number in taken or edge["verdict"] != "permit":
            continue
        yield Row(
            edge["caller"] or ANYBODY, edge["called"] or edge["listener"], service.owner, edge["direction"],
            edge["listener"], edge["protocol"], edge["auth"], edge["rule"], edge["route"], "", "not_allowed",
            edge["first"], edge["last"], edge["count"], "",
        )  # fmt: skip
