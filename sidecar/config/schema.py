"""Everything an operator can say, with defaults and units. The config reference and the JSON Schema are printed from here.

A field's docstring is the string that follows it in `metadata["doc"]`; `metadata["yaml"]` is its key where that differs
from the attribute. Durations are seconds as floats (`2s`, `500ms`, `5m`, `1h` in YAML), sizes are bytes (`64KiB`, `1MiB`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

from certs.spiffe import SpiffeId, TrustDomain
from sidecar.config import ports
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate

Protocol = Literal["http", "tcp"]
Effect = Literal["allow", "deny"]


def described(doc: str, default: Any = ..., *, yaml: str | None = None, factory: Any = None) -> Any:
    """A dataclass field that carries its documentation, and its YAML key where it is not the attribute's name."""
    metadata = {"doc": doc, "yaml": yaml}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a config file, for messages and `mesh explain`."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Address:
    """`host:port`; the host is an IP address or a DNS name, IPv6 in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long anything may take (decision D8)."""

    connect: float = described("TCP connect to an upstream.", 2.0)
    handshake: float = described("TLS handshake, either side.", 5.0)
    request_head: float = described("First byte to end of a request head.", 10.0)
    response_head: float = described("End of the request to the response head.", 15.0)
    idle: float = described("No byte of body or stream in either direction; off for upgrades.", 300.0)
    keep_alive: float = described("An idle HTTP connection from downstream.", 300.0)
    tcp_idle: float = described("No byte on a raw TCP connection, either direction.", 3600.0)
    pool_idle_app: float = described("A pooled connection to the application.", 3.0)
    pool_idle_peer: float = described("A pooled connection to a peer.", 60.0)
    lame_duck: float = described("After SIGTERM: not ready, still serving.", 0.0)
    drain: float = described("After that: how long requests in flight may take to finish.", 30.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much anything may take (decisions D13 and D25)."""

    head_bytes: int = described("Request or response head.", 32 * 1024)
    head_lines: int = described("Header lines in a head.", 100)
    connections: int = described("Open downstream connections of one sidecar.", 8192)
    pool: int = described("Open connections to one upstream.", 1024)
    pending: float = described("How long a request waits for a place in a full pool.", 1.0)


@dataclass(frozen=True, slots=True)
class AccessLog:
    """One JSON line for a hop; see docs/telemetry.md."""

    mode: Literal["off", "errors", "all"] = described("Which hops are logged: none, failures and refusals, or all.", "errors")
    sample: float = described("With mode `errors`: the share of the other hops that is logged too, 0 to 1.", 0.0)
    path: str = described("A file, or `-` for standard output.", "-")
    headers: tuple[str, ...] = described("Request headers that may be logged; credentials never are.", ())


@dataclass(frozen=True, slots=True)
class Audit:
    """Who was let in, and who was not; see docs/telemetry.md."""

    path: str = described("A file, `-` for standard output, or empty for `audit.jsonl` in the state folder.", "")
    permits: Literal["aggregated", "each"] = described("One line per kind of permitted hop a minute, or one for each.", "aggregated")
    on_full: Literal["continue", "refuse"] = described("What to do when the disk is full and 8 MiB are waiting.", "continue")


@dataclass(frozen=True, slots=True)
class Ca:
    """Where certificates come from."""

    address: Address | None = described("The CA's HTTPS address; the enrolment file's is used where this is absent.", None)
    enrolment: str = described("File with the proof of who we are and the roots to trust at first contact.", "")


@dataclass(frozen=True, slots=True)
class Tls:
    """What we speak on the wire. The defaults need no thought."""

    unsafe_tls12: bool = described("Also accept TLS 1.2 with AEAD suites.", False)


@dataclass(frozen=True, slots=True)
class Health:
    """Read-only HTTP for probes and Prometheus: /livez, /readyz, /metrics (decision D26)."""

    listen: Address | None = described("Where; `off` for none.", Address("127.0.0.1", ports.HEALTH))


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every service that does not say otherwise."""

    timeouts: Timeouts = described("See `timeouts`.", factory=Timeouts)
    limits: Limits = described("See `limits`.", factory=Limits)
    access_log: AccessLog = described("See `access_log`.", factory=AccessLog)
    audit: Audit = described("See `audit`.", factory=Audit)
    tls: Tls = described("See `tls`.", factory=Tls)


@dataclass(frozen=True, slots=True)
class Rule:
    """One AND of everything it names; a field that is absent does not narrow (decision D3). In a list, any one is enough."""

    name: str = described("A name, unique in its service; it appears in logs, metrics and `mesh explain`.")
    effect: Effect = described("`allow` or `deny`, from the list the rule stands in.")
    callers: tuple[IdentityPattern, ...] = described("Who calls: a service, `namespace/service`, or a SPIFFE ID pattern.", yaml="from")
    hosts: tuple[HostPattern, ...] = described("Host asked for: exact, or `*.` for one label.", (), yaml="host")
    methods: tuple[str, ...] = described("HTTP methods, upper case. A method outside RFC 9110 and PATCH passes only if listed.", (), yaml="method")
    paths: tuple[PathTemplate, ...] = described("Path templates: `/orders/{id}`, `/static/**`.", (), yaml="path")
    headers: tuple[HeaderPattern, ...] = described("Headers: `name: value`, `name: {prefix: p}`, `name: {present: true}`.", ())
    networks: tuple[IPv4Network | IPv6Network, ...] = described("Source networks in CIDR notation; they only narrow.", (), yaml="source")
    ports: tuple[str, ...] = described("Names or ports of inbound listeners.", (), yaml="port")
    shadow: bool = described("Judge, count and log this rule, but do not act on it.", False)
    where: Where = described("Where the rule stands.", Where("", 0))


@dataclass(frozen=True, slots=True)
class Route:
    """What requests to some paths of an inbound listener must keep to, beyond being allowed. First match wins."""

    path: PathTemplate = described("Path template.")
    methods: tuple[str, ...] = described("HTTP methods; none means all.", (), yaml="method")
    max_body: int | None = described("Largest request body; over it 413.", None)
    content_types: tuple[str, ...] = described("Accepted media types of a request body; otherwise 415.", ())
    unsafe_encoded_slash: bool = described("Accept %2F inside a segment.", False)
    unsafe_empty_segments: bool = described("Accept `//`.", False)
    unsafe_path_parameters: bool = described("Accept `;` in a segment.", False)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A listener for peers: mTLS in, plaintext to the application on loopback."""

    name: str = described("A name, unique in its service.")
    port: int = described("Port that peers connect to.", ports.INBOUND)
    bind: str = described("Address to listen on; the service's own address where that is an IP address, else all.", "")
    app: Address = described("Where the application listens, on loopback.", Address("127.0.0.1", 8080))
    protocol: Protocol = described("`http` or `tcp`. On `http` whatever cannot be read as HTTP is refused.", "http")
    routes: tuple[Route, ...] = described("Limits for some paths.", ())
    xfcc_forwarders: tuple[IdentityPattern, ...] = described("Peers whose x-forwarded-client-cert is kept and appended to.", ())
    where: Where = described("Where the listener stands.", Where("", 0))


@dataclass(frozen=True, slots=True)
class Outbound:
    """An upstream that the application may call. What is not declared is refused (decision D5)."""

    to: str = described("A service of this file, or a name for one that is not.")
    listener: str = described("Which inbound listener of that service, where it has several.", "", yaml="port")
    listen: Address | None = described("Loopback address where the application reaches it; absent, only the forward proxy does.", None)
    protocol: Protocol = described("`http` or `tcp`; taken from the service in this file.", "http")
    host: str = described("The host that requests carry; the service's name where absent.", "")
    identity: SpiffeId | None = described("The SPIFFE ID it must show; taken from the service in this file.", None)
    endpoints: tuple[Address, ...] = described("Where its sidecar listens; taken from the service in this file.", ())
    unmeshed: Literal["refuse", "passthrough"] = described("`passthrough` sends plaintext to a host outside the mesh.", "refuse")
    where: Where = described("Where the upstream stands.", Where("", 0))


@dataclass(frozen=True, slots=True)
class Service:
    """One service and its sidecar."""

    name: str = described("The key under `services`.")
    identity: SpiffeId = described("`service`, `namespace/service` or a SPIFFE ID; by default the key in the mesh's namespace.")
    address: str = described("Host under which peers reach its sidecar.", "127.0.0.1")
    run: tuple[str, ...] = described("Command that `mesh up` starts once the sidecar is ready.", ())
    env: Mapping[str, str] = described("Environment for that command.", factory=dict)
    inbound: tuple[Inbound, ...] = described("Listeners for peers.", ())
    outbound: tuple[Outbound, ...] = described("Upstreams that it may call.", ())
    forward_proxy: Address | None = described("Loopback address of the forward proxy; absent for none.", None)
    allow: tuple[Rule, ...] = described("Who may call. Nobody may whom no rule allows.", ())
    deny: tuple[Rule, ...] = described("Who may not, whatever `allow` says.", ())
    health: Health = described("Probes and metrics.", factory=Health)
    timeouts: Timeouts = described("Over the defaults.", factory=Timeouts)
    limits: Limits = described("Over the defaults.", factory=Limits)
    access_log: AccessLog = described("Over the defaults.", factory=AccessLog)
    audit: Audit = described("Over the defaults.", factory=Audit)
    tls: Tls = described("Over the defaults.", factory=Tls)
    where: Where = described("Where the service stands.", Where("", 0))


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """A whole `mesh.yaml`, with the files that it includes."""

    trust_domain: TrustDomain = described("The name of this mesh's root of trust, for example `prod.example.org`.")
    namespace: str = described("The namespace of services that name none.", "default")
    ca: Ca = described("Where certificates come from.", factory=Ca)
    services: Mapping[str, Service] = described("The services, by name.", factory=dict)
    files: tuple[str, ...] = described("Every file that was read.", ())
