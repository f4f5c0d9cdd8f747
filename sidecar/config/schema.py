"""Everything an operator can say, with defaults and units. The reader, the reference and the JSON Schema all walk this.

`sidecar.config.terms` has the kinds of values; what is said of listeners and of upstreams has files of its own.
"""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from certs.spiffe import SpiffeId, TrustDomain
from sidecar.config import ports
from sidecar.config.schema_amounts import QuotaLimit
from sidecar.config.schema_audit import Audit
from sidecar.config.schema_contract import Grant
from sidecar.config.schema_detectors import Detectors
from sidecar.config.schema_inbound import Inbound, RateLimit, Rule
from sidecar.config.schema_opa import Opa
from sidecar.config.schema_outbound import Outbound
from sidecar.config.schema_redirect import Redirect
from sidecar.config.schema_redis import Redis
from sidecar.config.schema_tokens import Issuer
from sidecar.config.terms import (
    Address,
    Bytes,
    Command,
    Count,
    Delay,
    EnvironmentName,
    FilePath,
    HeaderName,
    HostName,
    KeyKind,
    Label,
    Namespace,
    Owner,
    Seconds,
    ServiceName,
    Share,
    Socket,
    UserId,
    Where,
    described,
)
from sidecar.patterns import IdentityPattern


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
    total: Seconds | None = described(
        "Request head to the end of the answer, all tries together; `off` for none. Never for upgrades, gRPC calls and "
        "event streams. What is left of it goes with the request to the next sidecar.",
        None,
        off=True,
    )
    per_try: Seconds | None = described(
        "One try of a request to an upstream, until its response head; `off` for none. Only where another try may "
        "follow: for requests that are idempotent or have an `Idempotency-Key`, and not for the last one.",
        None,
        off=True,
    )
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
    retries: Count = described(
        "Retries under way to one upstream, those that wait for their turn included; over it a failure is passed on.",
        102,
    )
    pending: Delay = described("How long a request waits for a place in a full pool; 1,024 may wait.", 1.0)


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
    redis: Redis | None = described("See `redis`.", None)


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
    zone: Label = described(
        "Where it runs, as the zones of endpoints are named: endpoints of this zone are preferred.", ""
    )
    run: Command = described(
        "Command that `mesh up` starts once the sidecar is ready: a list, or a line split like a shell's.", ()
    )
    env: Mapping[EnvironmentName, str] = described("Environment for that command.", factory=dict)
    inbound: tuple[Inbound, ...] = described("Listeners for peers.", ())
    outbound: tuple[Outbound, ...] = described("Upstreams that it may call.", ())
    forward_proxy: Address | None = described("Loopback address of the forward proxy; absent for none.", None)
    redirect: Redirect | None = described(
        "Rules of the kernel bring its connections to the sidecar, and the application knows nothing of that; absent "
        "for not. It is fixed when the sidecar starts, but for `passthrough`.",
        None,
    )
    allow: tuple[Rule, ...] = described("Who may call. Nobody may whom no rule allows.", ())
    deny: tuple[Rule, ...] = described("Who may not, whatever `allow` says.", ())
    opa: Opa | None = described(
        "Whom else to ask about requests that the rules permit: an Open Policy Agent. Absent for nobody.", None
    )
    grants: Mapping[IdentityPattern, Grant] = described(
        "What callers may do by the contract, and see of its answers, by caller, in the words of rules.", factory=dict
    )
    rates: tuple[RateLimit, ...] = described("How often it may be called; absent means without limit.", ())
    quotas: tuple[QuotaLimit, ...] = described("How much it may be called in an hour, a day or a month.", ())
    redis: Redis | None = described(
        "Where limits with `shared: redis` are counted; absent for nowhere. Over the one in `defaults`.", None
    )
    detectors: Detectors | None = described("What looks for conspicuous callers; absent for nothing.", None)
    owner: Owner = described(
        "Who answers for it, for `mesh inventory`: a team, a name, an address of mail or of a chat.", ""
    )
    health: Health = described("Probes and metrics.", factory=Health)
    unsafe_allow_bypass: bool = described(
        "Be ready although the application listens beyond loopback with no redirect rules before it, so that "
        "neighbours reach it past its sidecar and all rules. For a host whose firewall keeps them away.",
        False,
    )
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
    issuers: tuple[Issuer, ...] = described("Those whose tokens its listeners ask for.", (), hidden=True)
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
    issuers: Mapping[Label, Issuer] = described(
        "Who issues the bearer tokens that listeners ask for (`tokens`), by name.", factory=dict
    )
    include: tuple[FilePath, ...] = described(
        "Files with further `services`, beside the code perhaps; relative to this one, `*` and `**` as in a shell.", ()
    )
