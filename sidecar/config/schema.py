"""Everything an operator can say, with defaults and units. The reader, the reference and the JSON Schema all walk this.

A field's documentation is `metadata["doc"]`; `metadata["yaml"]` is its key where that differs from the attribute. The
type says how a value is written: `Seconds` as `2s`, `500ms`, `5m`, `1h`; `Bytes` as `64KiB`, `1MiB`; a `Moment` as
`2026-01-31T18:00:00Z`; an address as `host:port`. The names inside `Annotated` are those of `sidecar.config.kinds`.
"""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from certs.spiffe import SpiffeId, TrustDomain
from sidecar.config import ports
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate

UNIX = "unix:"  # before the path of a socket
Protocol = Literal["http", "tcp", "auto"]
KeyKind = Literal["p256", "p384", "ed25519", "rsa3072"]  # certs.keys.KEY_KINDS; a test holds the two together
HttpVersion = Literal["auto", "http1", "http2"]  # by which an application is asked
ProxyHeaders = Literal["none", "v1", "v2"]  # that we send
SocketMode = Literal["owner", "group"]
Effect = Literal["allow", "deny"]

Seconds = Annotated[float, "seconds"]  # more than none
Delay = Annotated[float, "delay"]  # none is allowed
Bytes = Annotated[int, "size"]
Count = Annotated[int, "count"]  # at least 1
Few = Annotated[int, "few"]  # 0 to 10
ErrorStatus = Annotated[int, "status"]  # 400 to 599
Share = Annotated[float, "share"]  # 0 to 1
Moment = Annotated[float, "moment"]  # seconds since the epoch
PortNumber = Annotated[int, "port"]
Label = Annotated[str, "label"]  # the name of a rule or a listener
ServiceName = Annotated[str, "service"]
Namespace = Annotated[str, "namespace"]
HostName = Annotated[str, "host"]  # an IP address or a DNS name
BindAddress = Annotated[str, "ip"]
ListenerRef = Annotated[str, "listener"]
Method = Annotated[str, "method"]
MediaType = Annotated[str, "media_type"]
HeaderName = Annotated[str, "header"]
EnvironmentName = Annotated[str, "environment"]
FilePath = Annotated[str, "path"]
Endpoint = Annotated["Address", "endpoint"]  # host:port, or a Unix socket
Often = Annotated["Frequency", "frequency"]
Whose = Annotated["Per", "per"]
Socket = Annotated["Address", "socket"]  # a Unix socket and nothing else
UserId = Annotated[int, "uid"]
Command = Annotated[tuple[str, ...], "command"]


def described(
    doc: str,
    default: Any = ...,
    *,
    yaml: str | None = None,
    factory: Any = None,
    filled: str = "",
    hidden: bool = False,
    some: bool = False,
) -> Any:
    """A dataclass field that carries its documentation, and its YAML key where it is not the attribute's name.

    `filled` says in words what the loader puts in where the key is absent; `hidden` fields are not written in YAML at
    all; `some` forbids an empty list, which would otherwise read as "does not narrow".
    """
    metadata = {"doc": doc, "yaml": yaml, "filled": filled, "hidden": hidden, "some": some}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a config file, for messages and `mesh explain`. Lines and columns count from 1; 0 is unknown."""

    file: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Address:
    """`host:port`; the host is an IP address or a DNS name, IPv6 in brackets. Or `unix:/path`, whose port is 0."""

    host: str
    port: int

    @property
    def unix(self) -> bool:
        """Whether it is a Unix socket of this machine."""
        return self.host.startswith(UNIX)

    @property
    def named(self) -> bool:
        """Whether the host is a DNS name that somebody has to be asked for; `localhost` is not (RFC 6761)."""
        return not self.unix and ":" not in self.host and not self.host[-1:].isdigit() and self.host != "localhost"

    @property
    def path(self) -> str:
        """Where that socket is; empty for any other address."""
        return self.host[len(UNIX) :] if self.unix else ""

    def __str__(self) -> str:
        if self.unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Frequency:
    """`100/s`: so many in a second, minute, hour or day."""

    count: int
    unit: Literal["s", "m", "h", "d"]

    @property
    def per_second(self) -> float:
        """The same as a rate."""
        return self.count / {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[self.unit]

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"


@dataclass(frozen=True, slots=True)
class Per:
    """Who has a limit together: all at a listener, each caller, each endpoint, or each value of a header."""

    kind: Literal["listener", "caller", "endpoint", "header"]
    header: str = ""  # lower-case; only of that kind

    def __str__(self) -> str:
        return f"header {self.header}" if self.header else self.kind


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long anything may take (decision D8)."""

    connect: Seconds = described("TCP connect to an upstream.", 2.0)
    handshake: Seconds = described("TLS handshake, either side.", 5.0)
    detect: Seconds = described(
        "With `protocol: auto`: how long to wait for bytes that tell the protocol; a caller who has said nothing by "
        "then waits for the server to speak first.",
        10.0,
    )
    request_head: Seconds = described("First byte to end of a request head.", 10.0)
    response_head: Seconds = described("End of the request to the response head; off for gRPC.", 15.0)
    idle: Seconds = described("No byte of body or stream in either direction; off for upgrades and gRPC.", 300.0)
    slow: Seconds = described("How far a peer may fall behind `limits.body_rate` before its request is ended.", 20.0)
    keep_alive: Seconds = described("An idle HTTP connection from downstream.", 300.0)
    tcp_idle: Seconds = described("No byte on a raw TCP connection, either direction.", 3600.0)
    pool_idle_app: Seconds = described("A pooled connection to the application.", 3.0)
    pool_idle_peer: Seconds = described("A pooled connection to a peer.", 60.0)
    lame_duck: Delay = described("After SIGTERM: not ready, still serving.", 0.0)
    drain: Delay = described("After that: how long requests in flight may take to finish.", 30.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much anything may take (decisions D13 and D25)."""

    head_bytes: Bytes = described("Request or response head.", 32 * 1024)
    head_lines: Count = described("Header lines in a head.", 100)
    connections: Count = described("Open downstream connections of one sidecar.", 8192)
    connections_per_peer: Count = described("Open connections of one verified identity; at most half of all.", 512)
    handshakes_open: Count = described("Peers that have not proved who they are; the oldest makes room.", 512)
    handshakes_per_second: Count = described(
        "TLS handshakes begun; more of them wait. Each costs about a millisecond.", 300
    )
    streams: Share = described(
        "Upgrades, tunnels, raw TCP connections and requests older than 30 s, as a share of the descriptors; over it "
        "new upgrades and tunnels are refused.",
        0.4,
    )
    body_rate: Bytes | None = described(
        "Bytes a second that a peer must manage at least while we wait for a body that it has promised, or for it to "
        "take its answer; `off` for none.",
        500,
    )
    pool: Count = described("Open connections to one endpoint of an upstream.", 1024)
    requests: Count = described("Requests under way to one upstream; over it they are refused at once.", 512)
    pending: Delay = described("How long a request waits for a place in a full pool.", 1.0)


@dataclass(frozen=True, slots=True)
class AccessLog:
    """One JSON line for a hop; see docs/telemetry.md."""

    mode: Literal["off", "errors", "all"] = described(
        "Which hops are logged: none, failures and refusals, or all.", "errors"
    )
    sample: Share = described("With mode `errors`: the share of the other hops that is logged too, 0 to 1.", 0.0)
    path: FilePath = described("A file, or `-` for standard output.", "-")
    headers: tuple[HeaderName, ...] = described("Request headers that may be logged; credentials never are.", ())


@dataclass(frozen=True, slots=True)
class Audit:
    """Who was let in, and who was not; see docs/telemetry.md."""

    path: FilePath = described("A file, `-` for standard output, or empty for `audit.jsonl` in the state folder.", "")
    permits: Literal["aggregated", "each"] = described(
        "One line per kind of permitted hop a minute, or one for each.", "aggregated"
    )
    on_full: Literal["continue", "refuse"] = described(
        "What to do when the disk is full and 8 MiB are waiting.", "continue"
    )


@dataclass(frozen=True, slots=True)
class Ca:
    """Where certificates come from."""

    address: Address | None = described(
        "The CA's HTTPS address; the enrolment file's is used where this is absent.", None
    )
    enrolment: FilePath = described("File with the proof of who we are and the roots to trust at first contact.", "")


@dataclass(frozen=True, slots=True)
class Tls:
    """What we speak on the wire. The defaults need no thought."""

    unsafe_tls12: bool = described("Also accept TLS 1.2 with AEAD suites.", False)
    key: KeyKind = described(
        "Of which kind our key is: ECDSA on P-256 or P-384, Ed25519, or RSA with 3072 bits. Peers need not have the "
        "same. A reload that changes it takes effect with the next certificate.",
        "p256",
    )


@dataclass(frozen=True, slots=True)
class Revocation:
    """What becomes of connections to peers while the CA cannot say who was revoked (decision D10)."""

    max_age: Seconds | None = described(
        "Fail closed: once the denylist is older than this, or where there is none, no peer is let in or called, and "
        "open connections to peers are cut. It is signed anew every ten minutes, so say well over that. Absent, its "
        "age only alarms, from 1h on: the mesh goes on without its CA.",
        None,
    )


@dataclass(frozen=True, slots=True)
class Health:
    """Read-only HTTP for probes and Prometheus: /livez, /readyz, /metrics (decision D26)."""

    listen: Address | None = described(
        "Where; `off` for none.",
        Address("127.0.0.1", ports.HEALTH),
        filled=f"`127.0.0.1:{ports.HEALTH}`, or the next port free on this host",
    )


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every service that does not say otherwise."""

    timeouts: Timeouts = described("See `timeouts`.", factory=Timeouts)
    limits: Limits = described("See `limits`.", factory=Limits)
    access_log: AccessLog = described("See `access_log`.", factory=AccessLog)
    audit: Audit = described("See `audit`.", factory=Audit)
    tls: Tls = described("See `tls`.", factory=Tls)
    revocation: Revocation = described("See `revocation`.", factory=Revocation)


@dataclass(frozen=True, slots=True)
class Rule:
    """One AND of all it names; an absent field does not narrow (decision D3). In a list, any one is enough."""

    name: Label = described(
        "A name, unique in its service, for logs, metrics and `mesh explain`. Name the rules that dashboards know.",
        filled="`allow-1`, `deny-2`, … by its place in the list",
    )
    effect: Effect = described("`allow` or `deny`, from the list the rule stands in.", hidden=True)
    callers: tuple[IdentityPattern, ...] = described(
        "Who calls: a service, `namespace/service`, `*` (any service of this namespace), `**` (anybody of this trust "
        "domain), or a SPIFFE ID pattern.",
        yaml="from",
        some=True,
    )
    hosts: tuple[HostPattern, ...] = described(
        "Host asked for: exact, or `*.` for one label.", (), yaml="host", some=True
    )
    methods: tuple[Method, ...] = described(
        "HTTP methods, upper case. One outside GET HEAD POST PUT PATCH DELETE OPTIONS passes only if listed.",
        (),
        yaml="method",
        some=True,
    )
    paths: tuple[PathTemplate, ...] = described(
        "Path templates: `/orders/{id}`, `/static/**`.", (), yaml="path", some=True
    )
    headers: tuple[HeaderPattern, ...] = described(
        "Headers: `name: value`, `name: {prefix: p}`, `name: {present: true}`.", (), some=True
    )
    networks: tuple[IPv4Network | IPv6Network, ...] = described(
        "Source networks in CIDR notation; they only narrow.", (), yaml="source", some=True
    )
    ports: tuple[ListenerRef, ...] = described("Names or ports of inbound listeners.", (), yaml="port", some=True)
    shadow: bool = described("Judge, count and log this rule, but do not act on it.", False)
    where: Where = described("Where the rule stands.", Where("", 0), hidden=True)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How often something may be asked, by how many together; see docs/rate-limits.md. All limits that a request comes
    under hold at once; over any of them it is refused with 429, and takes nothing from the others.
    """

    name: Label = described(
        "A name, unique among the limits of its service, for callers, logs, metrics and `mesh explain`.",
        filled="`rate-1`, `rate-2`, … by its place in the list",
    )
    limit: Often = described("How often: `100/s`, `6000/m`, `500/h` or `1000/d`.")
    burst: Count = described(
        "How many may come at once after a pause.", filled="as many as `limit` names: 100 of `100/s`"
    )
    per: Whose = described(
        "Who shares it: `listener` (everybody who calls it), `caller` (each identity has its own), `endpoint` (each "
        "method of each path template has its own), or `header x-api-key` (each value has its own, and all requests "
        "without that header one together).",
        Per("listener"),
    )
    callers: tuple[IdentityPattern, ...] = described(
        "Whom it is for, in the words of rules; absent means everybody.", (), yaml="from", some=True
    )
    methods: tuple[Method, ...] = described("HTTP methods; absent means all.", (), yaml="method", some=True)
    paths: tuple[PathTemplate, ...] = described(
        "Path templates, as in rules; absent means all.", (), yaml="path", some=True
    )
    ports: tuple[ListenerRef, ...] = described(
        "Names or ports of inbound listeners; absent means all.", (), yaml="port", some=True
    )
    where: Where = described("Where the limit stands.", Where("", 0), hidden=True)

    @property
    def http_only(self) -> bool:
        """Whether it names something that only HTTP has."""
        return bool(self.methods or self.paths or self.per.kind in ("endpoint", "header"))


@dataclass(frozen=True, slots=True)
class Route:
    """What requests to some paths of an inbound listener must keep to, beyond being allowed. First match wins."""

    path: PathTemplate = described("Path template.")
    methods: tuple[Method, ...] = described("HTTP methods; absent means all.", (), yaml="method", some=True)
    max_body: Bytes | None = described("Largest request body; over it 413.", None)
    content_types: tuple[MediaType, ...] = described(
        "Accepted media types of a request body; otherwise 415.", (), some=True
    )
    unsafe_encoded_slash: bool = described("Accept %2F inside a segment.", False)
    unsafe_empty_segments: bool = described("Accept `//`.", False)
    unsafe_path_parameters: bool = described("Accept `;` in a segment.", False)


@dataclass(frozen=True, slots=True)
class ProxyProtocol:
    """A load balancer in front of an inbound listener that tells whose connections it brings."""

    senders: tuple[IPv4Network | IPv6Network, ...] = described(
        "Networks of the load balancers, in CIDR notation. Each of their connections must begin with a PROXY header, "
        "of version 1 or 2, before TLS; nobody else's may.",
        yaml="from",
        some=True,
    )


@dataclass(frozen=True, slots=True)
class Inbound:
    """A listener for peers: mTLS in, plaintext to the application on loopback."""

    name: Label = described("A name, unique in its service.", filled="the protocol")
    port: PortNumber = described(
        "Port that peers connect to.", ports.INBOUND, filled=f"{ports.INBOUND}, or the next one free on this host"
    )
    bind: BindAddress = described(
        "IP address to listen on.", "", filled="the service's own address where that is an IP address, else `0.0.0.0`"
    )
    app: Endpoint = described(
        "Where the application listens: an address on loopback, or `unix:/run/app.sock`, which nobody can reach from "
        "another machine.",
        Address("127.0.0.1", 8080),
    )
    protocol: Protocol = described(
        "`http`, `tcp` or `auto`. On `http` whatever cannot be read as HTTP is refused. `auto` goes by ALPN, and "
        "without it by the first bytes; what is not HTTP passes as raw TCP, unless a rule or a route looks at HTTP: "
        "then it is refused.",
        "http",
    )
    app_http: HttpVersion = described(
        "By which version of HTTP the application is asked: `http1`, `http2` (without TLS, by prior knowledge), or "
        "`auto`: gRPC, which needs it, by HTTP/2, and everything else by HTTP/1.1.",
        "auto",
    )
    proxy_protocol: ProxyProtocol | None = described(
        "Load balancers in front that tell the caller's address by the PROXY protocol; absent for none.", None
    )
    app_proxy_protocol: ProxyHeaders = described(
        "On a `tcp` listener: tell the application the caller's address by a PROXY header of version `v1` or `v2`.",
        "none",
    )
    routes: tuple[Route, ...] = described("Limits for some paths.", ())
    xfcc_forwarders: tuple[IdentityPattern, ...] = described(
        "Peers whose x-forwarded-client-cert is kept and appended to.", ()
    )
    posture: Literal["strict", "permissive", "observe"] = described(
        "`strict`; or, until a day you name: `permissive` lets plaintext in beside mTLS, `observe` judges by the rules "
        "and counts, but refuses nobody. See docs/operations.md.",
        "strict",
    )
    until: Moment | None = described(
        "When a posture other than `strict` ends by itself: a date (its first moment, UTC) or `2026-01-31T18:00:00Z`, "
        "at most 14 days ahead.",
        None,
    )
    where: Where = described("Where the listener stands.", Where("", 0), hidden=True)


@dataclass(frozen=True, slots=True)
class Retries:
    """When a request that failed is sent again; see docs/traffic.md. By itself only where the upstream provably has not
    begun with it.
    """

    resends: Few = described("How often a request may be sent again; 0 for never.", 2)
    statuses: tuple[ErrorStatus, ...] = described(
        "HTTP statuses after which it is sent again too, where it is idempotent or has an `Idempotency-Key`.", ()
    )
    budget: Share = described("Retries as a share of the requests of ten seconds; one a second is always let.", 0.2)


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
    host: HostName = described("The host that requests carry.", "", filled="the service's name")
    identity: SpiffeId | None = described(
        "The SPIFFE ID it must show.", None, filled="that of the service in this file"
    )
    endpoints: tuple[Endpoint, ...] = described(
        "Where its sidecar listens. With `unmeshed: passthrough`, where it listens itself, which may be a Unix socket: "
        "`unix:/run/db.sock`.",
        (),
        filled="address and port of the service in this file",
        some=True,
    )
    balance: Literal["least_loaded", "round_robin"] = described(
        "Which endpoint a request goes to: of two taken by chance the one with less load (latency times requests under "
        "way), or one after the other.",
        "least_loaded",
    )
    retries: Retries = described("When a request that failed is sent again.", factory=Retries)
    breaker: Literal["on", "off"] = described(
        "Whether endpoints that fail are left alone for a while: by a breaker of their own where there are fewer than "
        "five, else by comparing them.",
        "on",
    )
    unmeshed: Literal["refuse", "passthrough"] = described(
        "`passthrough` sends plaintext to a host outside the mesh.", "refuse"
    )
    where: Where = described("Where the upstream stands.", Where("", 0), hidden=True)
    name: str = described(
        "`to`, or `to.listener` where a service is called on several of its listeners.", "", hidden=True
    )


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """PEM files that somebody else renews. They are read again when they change, all three as of one moment."""

    cert: FilePath = described("The certificate, and after it the CAs above it but for the root.")
    key: FilePath = described("Its private key, not encrypted; nobody else may be able to read it but our group.")
    bundle: FilePath = described("The roots of our trust domain, as PEM or as SPIFFE's JWK Set.")


@dataclass(frozen=True, slots=True)
class IdentitySource:
    """Where the identity comes from, if not from our CA: exactly one of these."""

    workload_api: Socket | None = described("The Workload API of another agent, as `unix:/run/spire/agent.sock`.", None)
    files: IdentityFiles | None = described("Files that somebody else renews.", None)


@dataclass(frozen=True, slots=True)
class WorkloadApi:
    """The SPIFFE Workload API for the application: whoever may ask gets the service's certificate *with its key*."""

    listen: Socket = described(
        "Its socket, as `unix:/run/mesh/orders/api.sock`, in a folder that nobody but us and root can write."
    )
    allow_uids: tuple[UserId, ...] = described(
        "Users who may ask, by number, besides our own and root. Without any the socket is 0600.", ()
    )


@dataclass(frozen=True, slots=True)
class Service:
    """One service and its sidecar."""

    name: str = described("The key under `services`.", hidden=True)
    identity: SpiffeId = described(
        "`service`, `namespace/service` or a SPIFFE ID.", filled="the key, in the mesh's namespace"
    )
    address: HostName = described("Host under which peers reach its sidecar.", "127.0.0.1")
    run: Command = described(
        "Command that `mesh up` starts once the sidecar is ready: a list, or a line split like a shell's.", ()
    )
    env: Mapping[EnvironmentName, str] = described("Environment for that command.", factory=dict)
    inbound: tuple[Inbound, ...] = described("Listeners for peers.", ())
    outbound: tuple[Outbound, ...] = described("Upstreams that it may call.", ())
    forward_proxy: Address | None = described("Loopback address of the forward proxy; absent for none.", None)
    allow: tuple[Rule, ...] = described("Who may call. Nobody may whom no rule allows.", ())
    deny: tuple[Rule, ...] = described("Who may not, whatever `allow` says.", ())
    rates: tuple[RateLimit, ...] = described("How often it may be called; absent means without limit.", ())
    health: Health = described("Probes and metrics.", factory=Health)
    workload_api: WorkloadApi | None = described(
        "Serve the SPIFFE Workload API to the application; absent for not.", None
    )
    identity_source: IdentitySource | None = described(
        "Where the identity comes from: another agent's Workload API, or files. Absent: from the CA, by enrolment.",
        None,
    )
    timeouts: Timeouts = described("Over the defaults.", factory=Timeouts)
    limits: Limits = described("Over the defaults.", factory=Limits)
    access_log: AccessLog = described("Over the defaults.", factory=AccessLog)
    audit: Audit = described("Over the defaults.", factory=Audit)
    tls: Tls = described("Over the defaults.", factory=Tls)
    revocation: Revocation = described("Over the defaults.", factory=Revocation)
    where: Where = described("Where the service stands.", Where("", 0), hidden=True)


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """A whole `mesh.yaml`, with the files that it includes."""

    trust_domain: TrustDomain = described("The name of this mesh's root of trust, for example `prod.example.org`.")
    namespace: Namespace = described("The namespace of services that name none.", "default")
    ca: Ca = described("Where certificates come from.", factory=Ca)
    services: Mapping[ServiceName, Service] = described("The services, by name.", factory=dict)
    files: tuple[str, ...] = described("Every file that was read.", (), hidden=True)
    defaults: Defaults = described(
        "What holds for every service that does not say otherwise, field by field.", factory=Defaults
    )
    include: tuple[FilePath, ...] = described(
        "Files with further `services`, beside the code perhaps; relative to this one, `*` and `**` as in a shell.", ()
    )
