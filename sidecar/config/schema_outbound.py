"""What an operator can say of an upstream: where it is, and what to do when it fails."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from certs.spiffe import SpiffeId
from sidecar.config.schema_contract import Grant
from sidecar.config.schema_egress import ClientToken, EgressRule, OutboundTls
from sidecar.config.schema_routes import OutboundRoute
from sidecar.config.schema_sources import EndpointsFrom
from sidecar.config.terms import (
    Address,
    By,
    CheckedPath,
    Count,
    Delay,
    Endpoint,
    ErrorStatus,
    Few,
    GrpcService,
    GrpcStatus,
    Label,
    ListenerRef,
    PortNumber,
    Protocol,
    Seconds,
    ServiceName,
    Share,
    SocketMode,
    Statuses,
    StatusRange,
    UpstreamHost,
    Weight,
    Where,
    described,
)

Balance = Literal["least_loaded", "round_robin", "weighted", "maglev"]


@dataclass(frozen=True, slots=True)
class Retries:
    """When a request that failed is sent again; see docs/traffic.md. By itself only where the upstream provably has not
    begun with it.
    """

    resends: Few = described("How often a request may be sent again; 0 for never.", 2)
    statuses: tuple[ErrorStatus, ...] = described(
        "HTTP statuses after which it is sent again too, where it is idempotent or has an `Idempotency-Key`.", ()
    )
    grpc_statuses: tuple[GrpcStatus, ...] = described(
        "Statuses of gRPC, by name as in `[unavailable]`, after which a call is sent again too, where its caller has "
        "put an `idempotency-key` into its metadata and the answer is nothing but that status.",
        (),
    )
    budget: Share = described("Retries as a share of the requests of ten seconds; one a second is always let.", 0.2)


@dataclass(frozen=True, slots=True)
class EndpointEntry:
    """One place where an upstream is, with what is said of it; its address alone may stand for it."""

    address: Endpoint = described("Where it is.", alone=True)
    weight: Weight = described("How much it can take, beside the others.", 1)
    zone: Label = described("Where it stands, for those who prefer their own zone.", "")

    @property
    def name(self) -> str:
        """Its address, as text."""
        return str(self.address)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How each endpoint is asked again and again whether it is well: `http`, `grpc` or `tcp`, one of them. Until the
    first answer it counts as well.
    """

    http: CheckedPath = described("The path of a GET, which has to be answered with a status in `expect`.", "")
    grpc: GrpcService | None = described(
        'A service to ask for by grpc.health.v1.Health/Check, or `""` for the whole server; the answer has to be '
        "SERVING.",
        None,
    )
    tcp: bool = described("A connection; toward a peer with its TLS handshake, toward others without.", False)
    every: Seconds = described("From one check of an endpoint to its next, a tenth more or less by chance.", 10.0)
    within: Seconds = described("How long one may take, from connecting on.", 1.0)
    healthy: Count = described("So many good ones in a row let an unhealthy endpoint in again.", 2)
    unhealthy: Count = described("So many bad ones in a row take a healthy endpoint out. The first decides at once.", 3)
    expect: Statuses = described("The statuses of a good answer to `http`.", StatusRange(200, 399))


@dataclass(frozen=True, slots=True)
class OutboundTimeouts:
    """Time-outs of one upstream, over those of the service; see `timeouts`."""

    response_head: Seconds = described("As there.", 15.0, filled="the service's")
    total: Seconds | None = described("As there.", None, filled="the service's", off=True)
    per_try: Seconds | None = described("As there.", None, filled="the service's", off=True)


@dataclass(frozen=True, slots=True)
class Outbound:
    """An upstream that the application may call. What is not declared is refused (decision D5)."""

    to: ServiceName = described("A service of this file, or a name for one that is not.")
    listener: ListenerRef = described(
        "Which inbound listener of that service, by name or port; needed where it has several.",
        "",
        yaml="port",
        filled="its only one",
    )
    listen: Endpoint | None = described(
        "Where the application reaches it: an address on loopback, or `unix:/run/mesh/orders.sock`; absent, only the "
        "forward proxy does.",
        None,
    )
    listen_mode: SocketMode = described(
        "Who may use that socket: our own user (`owner`, mode 0600), or our group too (`group`, mode 0660).", "owner"
    )
    edge: bool = described(
        "A door into the mesh: `listen` is an address that strangers may reach, in plaintext, and they speak as this "
        "service. They may ask for any host, and learn nothing of why they are refused. Give it a service of its own, "
        "which nothing else runs as.",
        False,
    )
    protocol: Protocol = described(
        "`http`, `tcp` or `auto`, as for inbound listeners; toward one that is `auto` any of the three.",
        "http",
        filled="that of the service's listener; `http` for one outside this file",
    )
    upgrade: Literal["none", "h2"] = described(
        "`h2` asks by HTTP/2 also for what the application asked by HTTP/1.1: many requests share a connection, and "
        "so do WebSockets where the other side takes them there. `none` keeps the application's version.",
        "none",
    )
    host: UpstreamHost = described(
        "The host that requests carry. With `unmeshed: passthrough` it may be `*.partner.com`: whatever single label "
        "the forward proxy is asked for stands for a host of its own, which is looked up by that name.",
        "",
        filled="the service's name",
    )
    host_port: PortNumber = described(
        "With such a host: the port that each of them is asked at.", 0, filled="443 with `tls`, else 80"
    )
    identity: SpiffeId | None = described(
        "The SPIFFE ID it must show.", None, filled="that of the service in this file"
    )
    endpoints: tuple[EndpointEntry, ...] = described(
        "Where its sidecar listens. With `unmeshed: passthrough`, where it listens itself, which may be a Unix socket: "
        "`unix:/run/db.sock`. With a weight or a zone: `{address: 10.0.0.7:17443, weight: 3, zone: eu-1b}`.",
        (),
        filled="address and port of the service in this file",
        some=True,
    )
    endpoints_from: EndpointsFrom | None = described(
        "Where its endpoints are learned from, instead of `endpoints`. Each still has to show `identity`.", None
    )
    addresses: tuple[Address, ...] = described(
        "With `redirect`: where the application connects to when it means this upstream, besides its endpoints: a "
        "service's own address, say, as `orders.shop.svc:80`. Names are looked up again and again.",
        (),
        some=True,
    )
    balance: Balance = described(
        "Which endpoint a request goes to. `least_loaded`: of two taken by chance the one with less load (latency "
        "times requests under way, by weight); `round_robin`: one after the other; `weighted`: by weight alone; "
        "`maglev`: by `affinity`, and by load where a request does not have what that names.",
        "least_loaded",
        filled="`maglev` where there is an `affinity`, else `least_loaded`",
    )
    affinity: By | None = described(
        "What requests stick to an endpoint by: `header x-user`, `cookie session`, or `caller`, which is this service. "
        "Nothing is set by the sidecar.",
        None,
    )
    slow_start: Delay = described("How long a new or readmitted endpoint takes to come to its whole share.", 10.0)
    health: HealthCheck | None = described("Whether and how endpoints are asked if they are well.", None)
    retries: Retries = described("When a request that failed is sent again.", factory=Retries)
    timeouts: OutboundTimeouts = described("How long a request to it may take.", factory=OutboundTimeouts)
    breaker: Literal["on", "off"] = described(
        "Whether endpoints that fail are left alone for a while: by a breaker of their own where there are fewer than "
        "five, else by comparing them.",
        "on",
    )
    routes: tuple[OutboundRoute, ...] = described(
        "What becomes of some requests: where they go, and what is changed on the way. First match wins.", ()
    )
    unmeshed: Literal["refuse", "passthrough"] = described(
        "`passthrough` sends plaintext to a host outside the mesh.", "refuse"
    )
    tls: OutboundTls | None = described(
        "With `unmeshed: passthrough`: speak TLS to it, as to a host of the web. `{}` for all defaults.", None
    )
    token: ClientToken | None = described(
        "With `unmeshed: passthrough`: a bearer token that the sidecar gets and puts on every request.", None
    )
    allow: tuple[EgressRule, ...] = described(
        "What may be asked of it; whatever else is refused with 403. Absent, everything may.", (), some=True
    )
    private: tuple[IPv4Network | IPv6Network, ...] | None = described(
        "Networks in which its names may lie although they are private: loopback, private, shared, link-local and the "
        "like are refused where a name leads there (docs/egress.md).",
        None,
        filled="none with a host `*.`, `tls` or `token`; elsewhere any but link-local and multicast ones",
    )
    consumes: Grant | None = described(
        "What we use of its contract: only for `mesh grants diff`. What we get is for its own `grants` to say.", None
    )
    where: Where = described("Where the upstream stands.", Where("", 0), hidden=True)
    name: str = described(
        "`to`, or `to.listener` where a service is called on several of its listeners.", "", hidden=True
    )
