"""START HERE. A hop is one exchange crossing the sidecar: an HTTP request and its answer, or one raw TCP connection.

It knows who (the peer's SPIFFE ID), what (method, host, path, headers), where (listener, upstream), when, and how it
ended. Logs, metrics, the audit, `mesh explain` and the live table are all views of hops.

A policy looks at a hop and returns a verdict: `Pass` (no objection), `Deny` (carrying the error), or, from
authorization alone, `Permit` (naming the rule). The road upstream takes a `Permit` as its ticket, so a hop that nobody
allowed has no way to go on, however many limits it passed. `check` has no clock, no dice and no I/O of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from math import inf
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from certs.spiffe import SpiffeId
    from sidecar.errors import HopError

Direction = Literal["inbound", "outbound"]
HopProtocol = Literal["http", "tcp"]
Headers = list[tuple[bytes, bytes]]  # lower-case names, values as received; order and repetition kept


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token whose signature, times and audience were verified: the user behind the caller."""

    issuer: str  # what mesh.yaml calls who issued it
    subject: str  # its `sub`, empty where it has none
    claims: Mapping[str, object]  # as JSON says them; never changed
    scopes: frozenset[str]
    expires: float  # seconds since the epoch
    id: str  # the first 16 hex digits of its SHA-256: what records call it by
    until: float = inf  # seconds since the epoch: when what lasts and rests on it ends; its end with the leeway
    forgotten: bool = False  # claims and scopes are not here, though it had them: of a decision that is judged again


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What a finished handshake agreed on, and the peer certificate it rests on."""

    version: str  # "TLSv1.3"
    cipher: str
    group: str  # "X25519MLKEM768"
    serial: str  # lower-case hex serial number of the peer's leaf
    not_after: float  # seconds since the epoch: the end of the peer's leaf
    not_before: float = 0.0  # and its beginning; 0 is unknown
    alpn: str = ""  # "h2", "http/1.1"; empty where the peers named no protocol


@dataclass(slots=True)
class Hop:
    """One exchange crossing the sidecar, from its first byte to its record."""

    direction: Direction
    listener: str  # name of the inbound listener, or of the upstream for outbound
    port: int  # local port that accepted
    protocol: HopProtocol
    peer: SpiffeId | None = None  # who calls: the verified peer inbound, our own application outbound
    destination: SpiffeId | None = None  # who is called: ourselves inbound, the declared upstream outbound
    source: IPv4Address | IPv6Address | None = None  # TCP address of the caller, or PROXY v2 from a listed sender
    source_port: int = 0

    method: str = ""  # as received; empty on TCP
    host: str = ""  # lower-case, without port
    target: str = ""  # the request target as received, query included; only for logs that cut the query
    segments: tuple[str, ...] = ()  # the path, split first and decoded once (decision D4)
    headers: Headers = field(default_factory=list)
    version: str = ""  # "1.0", "1.1", "2"

    started: float = 0.0  # monotonic seconds
    first_byte: float = 0.0  # monotonic seconds of the first response byte; 0 where there was none
    ended: float = 0.0
    received_bytes: int = 0  # body or stream bytes from downstream
    sent_bytes: int = 0  # body or stream bytes to downstream
    status: int = 0  # HTTP status sent downstream; 0 on TCP
    grpc_status: str = ""  # name of the status that a gRPC call ended with; empty for whatever is no call
    attempts: int = 0
    endpoint: str = ""  # "host:port" of the last attempt
    tried: tuple[str, ...] = ()  # what came of each attempt that was not the last word, and why there is no other
    exhausted: bool = False  # it was sent again as often as may be, and failed each time
    delayed: float = 0.0  # seconds that a fault was meant to hold it; 0 for none
    drawn: object = None  # what dice have decided before it came to the general way (sidecar.proxy.steering)
    tls: TlsInfo | None = None  # the mesh side of this hop: downstream's inbound, upstream's outbound
    trace_id: str = ""
    token: Token | None = None  # the user behind the caller, where a verified token names one
    operation: str = ""  # `operationId` in the contract of the service, where it has one that knows the request

    held: Held | None = None  # what rate limits did to it, where that was more than to let it in or refuse it

    rule: str = ""  # the rule that decided, empty where none did
    route: str = ""  # path template of that rule, outbound the name of the route: never the raw path
    judged: float = 0.0  # seconds since the epoch: when the rules were asked, where the time matters to one of them
    shadow: tuple[ShadowVerdict, ...] = ()
    waived: Waived | None = None  # what a strict listener would have refused it for, where it was let pass
    error: HopError | None = None
    decision_id: str = ""

    @property
    def flag(self) -> str:
        """Why the hop failed, in Envoy's letters; `-` where it did not. DI before that where a fault has held it, URX
        behind where it was sent again as often as may be. TH where it went well after it had to wait for its turn.
        """
        flag = self.error.flag if self.error is not None else "-"
        if not (self.delayed or self.exhausted or self.held):
            return flag
        if flag == "-":
            flag = "TH" if self.held is not None and self.held.delayed else ""
        said = ("DI" if self.delayed else "", flag, "URX" if self.exhausted else "")
        return ",".join(filter(None, said)) or "-"

    @property
    def path(self) -> str:
        """The target as received, without its query: what may be logged."""
        return self.target.partition("?")[0]


@dataclass(slots=True)
class Held:
    """What rate limits did to a hop."""

    delayed: float = 0.0  # seconds that it has waited for its turn
    limit: str = ""  # the limit by which
    alone: str = ""  # why only this sidecar has counted it, where it is shared with others; empty where all have
    told: Headers = field(default_factory=list)  # fields of its answer about how much is left


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """What a rule marked `shadow` would have done, had it been in force."""

    rule: str
    effect: Literal["permit", "deny"]


@dataclass(frozen=True, slots=True)
class Waived:
    """What a strict listener would have refused a hop for, that the listener's posture let pass (decision D12)."""

    posture: Literal["permissive", "observe"]
    until: float  # seconds since the epoch: when the posture ends
    error: str  # short name of the error that strict would have ended in
    flag: str  # and its flag
    reason: str = ""  # of an identity that strict would have refused
    rule: str = ""  # the deny rule that spoke; empty where none allowed
    detail: str = ""  # what strict would have told the operator

    @property
    def let_in_by(self) -> str:
        """What stands in the place of a rule's name; no rule can have such a one."""
        return f"posture:{self.posture}"


@dataclass(frozen=True, slots=True)
class Pass:
    """No objection."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Authorization's yes: the ticket upstream."""

    rule: str
    route: str  # the rule's path template that matched, `/**` where the rule has none
    shadow: tuple[ShadowVerdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Deny:
    """No, and why."""

    error: HopError
    rule: str = ""
    shadow: tuple[ShadowVerdict, ...] = ()


Verdict = Pass | Permit | Deny
PASS = Pass()


class Policy(Protocol):
    """A small object that judges hops without waiting for anything."""

    def check(self, hop: Hop, now: float) -> Verdict:
        """Judge this hop at this moment (seconds since the epoch)."""
        ...


class Observer(Protocol):
    """Whoever learns from finished hops: metrics, logs, the audit, the live table."""

    def observe(self, hop: Hop) -> None:
        """Take note of a hop that has ended. Never waits, never raises."""
        ...
