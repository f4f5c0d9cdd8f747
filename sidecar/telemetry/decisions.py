"""The last 10,000 decisions of this sidecar, so that `mesh explain ID` can tell what happened to a hop (decision D7).

A decision id is `<instance>-<counter>`: eight hex digits that name the sidecar process, and a counter in base 36. It
tells a caller nothing about the reason. What is kept is a small copy of the hop, redacted and bounded: never a body,
a query or a credential, and only those headers that a rule looks at or the access log may show.

Hops that went well have a ring of their own: where each is logged, they would push out every refusal in a second. So
have those that a rate limit refused, for the same reason.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal

from certs.spiffe import SpiffeId
from sidecar.errors import (
    AbusivePeer,
    HandshakeFailed,
    HopError,
    IdentityRefused,
    LimiterAway,
    PeerIdentityMismatch,
    QuotaSpent,
    RateLimited,
    TcpLimited,
    Throttled,
    TokenInvalid,
)
from sidecar.hop import Direction, Held, Hop, HopProtocol, Token, Waived
from sidecar.telemetry import outcome, redact
from sidecar.telemetry.clock import rfc3339

RING = 10_000
HANDSHAKE_RING = 1_000  # needs no identity to fill, so it has a ring of its own and pushes out no hop
LIMITED_RING = 1_000  # by rate limits: who asks too often does so often
PERMIT_RING = 1_000  # of hops that went well: with a full access log that is each, and they push out no refusal
TOO_MANY = 429
LIMITED = frozenset(
    each.name for each in (RateLimited, Throttled, LimiterAway, QuotaSpent, TcpLimited)
)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)  # of a counter's last two digits
_HUNDRED = 36 * 36  # in base 36
_MAX_SEGMENTS = 64
_FREE = Held()
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-z]{1,13}\Z")


# A plain hop that was logged: id, seconds since the epoch, port, line, segments, and those headers that may be kept.
# A decision is made of it only if somebody asks. It holds nothing that has not passed the redactor.
Logged = tuple[str, float, int, bytes, tuple[str, ...], dict[str, str] | None]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is remembered of one hop, or of one TLS handshake that failed."""

    id: str
    kind: Literal["hop", "handshake"]
    at: float  # seconds since the epoch
    direction: Direction
    listener: str
    port: int = 0
    protocol: HopProtocol = "http"
    verdict: outcome.VerdictWord = "deny"
    caller: str = ""  # SPIFFE ID, empty where none was proved
    destination: str = ""
    presented: str = ""  # of a handshake: the identity that the other end proved, though it was refused
    source: str = ""
    method: str = ""
    host: str = ""
    path: str = ""  # as received, without query
    segments: tuple[str, ...] = ()
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    error: str = ""  # short name of the error, empty where there was none
    reason: str = ""  # of an identity failure or a bad token, or the name of a flood
    detail: str = ""
    flag: str = "-"
    rule: str = ""
    route: str = ""
    shadow: tuple[str, ...] = ()  # "rule=permit" …
    waived: Waived | None = None  # what strict would have refused it for
    endpoint: str = ""
    attempts: int = 0
    tried: tuple[str, ...] = ()
    trace_id: str = ""
    delayed: float = 0.0  # seconds that a fault held it
    waited: float = 0.0  # seconds for its turn
    limit: str = ""  # at this rate limit
    alone: str = ""  # why a shared limit was held by this sidecar alone
    token: dict[str, Any] | None = None  # of a verified bearer token: `issuer`, `id` and `expires`, never a claim

    @classmethod
    def of_hop(cls, hop: Hop, now: float, wanted_headers: frozenset[bytes]) -> Decision:
        """Copy what may be kept of a finished hop."""
        error, held = hop.error, hop.held or _FREE
        return cls(
            id=hop.decision_id,
            kind="hop",
            at=now,
            direction=hop.direction,
            listener=hop.listener,
            port=hop.port,
            protocol=hop.protocol,
            verdict=outcome.verdict(hop),
            caller=hop.peer.text if hop.peer is not None else "",
            destination=hop.destination.text if hop.destination is not None else "",
            source=str(hop.source) if hop.source is not None else "",
            method=redact.text(hop.method, 32),
            host=redact.text(hop.host, 256),
            path=redact.target(hop.target),
            segments=bounded(hop.segments),
            version=hop.version,
            headers=redact.chosen_headers(hop.headers, wanted_headers) if wanted_headers else {},
            status=hop.status,
            error=error.name if error is not None else "",
            reason=reason_of(error),
            detail=redact.text(error.detail) if error is not None else "",
            flag=hop.flag,
            rule=hop.rule,
            route=hop.route,
            shadow=tuple(f"{each.rule}={each.effect}" for each in hop.shadow),
            waived=hop.waived,
            endpoint=hop.endpoint,
            attempts=hop.attempts,
            tried=hop.tried,
            trace_id=redact.text(hop.trace_id, 64),
            delayed=hop.delayed,
            waited=round(held.delayed, 3),
            limit=held.limit,
            alone=held.alone,
            token=token_facts(hop.token) if hop.token is not None else None,
        )

    @classmethod
    def of_line(cls, kept: Logged) -> Decision:
        """What `of_hop` had made of a plain hop, out of the line that was logged of it."""
        decision_id, at, port, line, segments, headers = kept
        of = json.loads(line)
        return cls(
            id=decision_id,
            kind="hop",
            at=at,
            direction=of["direction"],
            listener=of["listener"],
            port=port,
            protocol=of["protocol"],
            verdict="permit",
            caller=of["client.id"],
            destination=of["server.id"],
            source=of["client.addr"].rpartition(":")[0].strip("[]"),
            method=of["method"],
            host=of["host"],
            path=of["uri"],
            segments=bounded(segments),
            version=of["version"],
            headers=headers or {},
            status=of["status"],
            rule=of["rule"],
            route=of["route"],
            endpoint=of["endpoint"],
            attempts=of["attempt"],
            trace_id=of["trace_id"],
        )

    def to_json(self) -> dict[str, Any]:
        """The snapshot that the admin API serves under /decisions/<id>."""
        waived = asdict(self.waived) | {"until": rfc3339(self.waived.until)} if self.waived is not None else None
        lists = {name: list(getattr(self, name)) for name in ("segments", "shadow", "tried")}
        plain = {"at": rfc3339(self.at), **lists}
        return asdict(self) | plain | {"waived": waived}

    def to_hop(self) -> Hop:
        """The hop again, as far as it is known, for `policy.explain`. Redacted header values stay redacted."""
        return Hop(
            direction=self.direction,
            listener=self.listener,
            port=self.port,
            protocol=self.protocol,
            peer=SpiffeId.parse(self.caller) if self.caller else None,
            destination=SpiffeId.parse(self.destination) if self.destination else None,
            source=_address(self.source),
            method=self.method,
            host=self.host,
            target=self.path,
            segments=self.segments,
            headers=[(_bytes(name), _bytes(value)) for name, value in self.headers.items()],
            version=self.version,
            status=self.status,
            attempts=self.attempts,
            endpoint=self.endpoint,
            rule=self.rule,
            route=self.route,
            decision_id=self.id,
            trace_id=self.trace_id,
            token=self._token(),
        )

    def _token(self) -> Token | None:
        """The token without what was never kept of it."""
        if self.token is None:
            return None
        return Token(self.token["issuer"], "", {}, frozenset(), 0.0, self.token["id"], forgotten=True)


class Decisions:
    """Rings of decisions, found by id: hops; failed handshakes, which strangers can cause at will; hops that a rate
    limit refused; and those that went well and were logged, of which there are many more.
    """

    def __init__(self, instance: str, size: int = RING) -> None:
        if not re.fullmatch(r"[0-9a-f]{8}", instance):
            raise ValueError(f"an instance is eight hex digits, not {instance!r}")
        self.instance = instance
        self._size = size
        self._counter = 0
        self._stem = ""  # of an id: instance and the counter's digits but for the last two
        self._hops: OrderedDict[str, Decision] = OrderedDict()
        self._handshakes: OrderedDict[str, Decision] = OrderedDict()
        self._limited: OrderedDict[str, Decision] = OrderedDict()
        self._permits: deque[Decision | Logged] = deque(maxlen=PERMIT_RING)

    def new_id(self) -> str:
        """An id that nobody else has, in this process or (by its first half) any other."""
        self._counter = counter = self._counter + 1
        last = counter % _HUNDRED
        if not last:
            self._stem = f"{self.instance}-{base36(counter // _HUNDRED)}"
        return self._stem + _PAIRS[last] if self._stem else f"{self.instance}-{base36(counter)}"

    def keep(self, decision: Decision) -> None:
        """Remember a decision; the oldest of its kind makes room."""
        ring, size = (self._hops, self._size) if decision.kind == "hop" else (self._handshakes, HANDSHAKE_RING)
        if decision.error in LIMITED or (decision.status == TOO_MANY and not decision.error):  # ours, a peer's
            ring, size = self._limited, LIMITED_RING
        ring[decision.id] = decision
        if len(ring) > size:
            ring.popitem(last=False)

    def keep_permit(self, permit: Decision | Logged) -> None:
        """Remember a hop that went well, in a ring of their own."""
        self._permits.append(permit)

    def find(self, decision_id: str) -> Decision | None:
        """The decision of this id; None where it was never kept or has left the ring."""
        for ring in (self._hops, self._handshakes, self._limited):
            if decision_id in ring:
                return ring[decision_id]
        return self._permit(decision_id)

    def _permit(self, decision_id: str) -> Decision | None:
        for permit in self._permits:
            if isinstance(permit, Decision):
                if permit.id == decision_id:
                    return permit
            elif permit[0] == decision_id:
                return Decision.of_line(permit)
        return None

    def lookup(self, decision_id: str) -> dict[str, Any] | None:
        """The same as JSON-ready values."""
        decision = self.find(decision_id)
        return decision.to_json() if decision is not None else None

    def __len__(self) -> int:
        return len(self._hops) + len(self._handshakes) + len(self._limited) + len(self._permits)


def token_facts(token: Token) -> dict[str, Any]:
    """What records say of a bearer token: by its `id`, a hash, it can be compared and not turned back."""
    return {"issuer": token.issuer, "id": token.id, "expires": rfc3339(token.expires)}


def is_decision_id(value: str) -> bool:
    """Whether this text has the form of a decision id."""
    return _ID.match(value) is not None


def base36(number: int) -> str:
    """A positive number in base 36, lower case."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits


def reason_of(error: HopError | None) -> str:
    """The short reason that the error of a failed handshake, a flood or a bad token carries; empty for any other."""
    told = AbusivePeer | IdentityRefused | PeerIdentityMismatch | HandshakeFailed | TokenInvalid
    return error.reason if isinstance(error, told) else ""


def bounded(segments: tuple[str, ...]) -> tuple[str, ...]:
    """The segments of a path, redacted, and no more of them than may be kept."""
    if len(segments) > _MAX_SEGMENTS or sum(map(len, segments)) > redact.MAX_TEXT:
        segments = tuple(segment[:64] for segment in segments[:16])
    return tuple(redact.text(segment) for segment in segments)


def _address(value: str) -> IPv4Address | IPv6Address | None:
    return ip_address(value) if value else None


def _bytes(value: str) -> bytes:
    return value.encode("latin-1", "replace")
