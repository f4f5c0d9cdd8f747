"""What an operator can say of a listener for peers: who may come in, how often, and with what."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from sidecar.config import ports
from sidecar.config.conditions import OF_HTTP, OF_TOKENS, Condition
from sidecar.config.schema_amounts import TcpLimit
from sidecar.config.schema_contract import Contract
from sidecar.config.schema_routes import AppBranch, Fault
from sidecar.config.schema_tokens import Tokens
from sidecar.config.terms import (
    Address,
    BindAddress,
    Bytes,
    Count,
    Effect,
    Endpoint,
    HttpVersion,
    Label,
    ListenerRef,
    MediaType,
    Method,
    Moment,
    Often,
    Operation,
    Per,
    PortNumber,
    Protocol,
    ProxyHeaders,
    Scope,
    Seconds,
    Where,
    Whose,
    described,
)
from sidecar.patterns import HeaderPattern, HostPattern, IdentityPattern, PathTemplate, QueryPattern


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
    operations: tuple[Operation, ...] = described(
        "`operationId` of what is asked for, where the listener has a `contract`.", (), yaml="operation", some=True
    )
    scopes: tuple[Scope, ...] = described(
        "Scopes that the bearer token must have, all of them; see docs/conditions.md.", (), some=True
    )
    when: tuple[Condition, ...] = described(
        "Conditions, all of which must hold: `path customer is claim customer_id`, `claim role in [admin, support]`, "
        "`time between 08:00 and 18:00 Europe/Berlin`; see docs/conditions.md.",
        (),
        some=True,
    )
    shadow: bool = described("Judge, count and log this rule, but do not act on it.", False)
    where: Where = described("Where the rule stands.", Where("", 0), hidden=True)

    @property
    def http_only(self) -> bool:
        """Whether it names something that only HTTP has."""
        asks = any(subject.kind in OF_HTTP for condition in self.when for subject in condition.subjects())
        return bool(asks or self.methods or self.hosts or self.paths or self.headers or self.operations or self.scopes)

    @property
    def of_tokens(self) -> bool:
        """Whether it asks for the user behind the caller."""
        asked = (subject.kind for condition in self.when for subject in condition.subjects())
        return bool(self.scopes) or not OF_TOKENS.isdisjoint(asked)

    @property
    def conditional(self) -> bool:
        """Whether it asks for more than who calls what, from where."""
        return bool(self.operations or self.scopes or self.when)


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
        "method of each path template has its own), `header x-api-key` (each value has its own, and all requests "
        "without that header one together), or `claim sub` (the same of a claim of the bearer token, which has been "
        "verified only where the listener asks for `tokens`).",
        Per("listener"),
    )
    shared: Literal["none", "redis"] = described(
        "Who counts together: `none`, each sidecar by itself; or `redis`, all sidecars of this service, in the Redis "
        "that `redis:` names.",
        "none",
    )
    over: Literal["refuse", "delay"] = described(
        "What becomes of a request over it: `refuse`, 429 at once; or `delay`: it waits for its turn, when there are "
        "too many for that 429, and who goes on all the same is shut out for a time.",
        "refuse",
    )
    delay: Seconds = described("With `over: delay`: how long a request waits at most.", 5.0)
    waiting: Count = described(
        "With `over: delay`: how many requests wait at once, of all who share nothing but the limit; one alone gets "
        "half of the places.",
        256,
    )
    strikes: Count = described(
        "With `over: delay`: whoever is refused more often than this within `block` is shut out.", 100
    )
    block: Seconds = described("With `over: delay`: for how long.", 60.0)
    headers: Literal["refused", "always"] = described(
        "When an answer carries `RateLimit` and `RateLimit-Policy`: only where it was refused, or `always`, so that "
        "callers can see it coming.",
        "refused",
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
        return bool(self.methods or self.paths or self.per.kind in ("endpoint", "header", "claim"))


@dataclass(frozen=True, slots=True)
class Route:
    """What requests to some paths of an inbound listener must keep to, beyond being allowed, and where they go. The
    first whose every condition holds.
    """

    path: PathTemplate = described("Path template.")
    methods: tuple[Method, ...] = described("HTTP methods; absent means all.", (), yaml="method", some=True)
    callers: tuple[IdentityPattern, ...] = described(
        "Who calls, in the words of rules; absent means everybody.", (), yaml="from", some=True
    )
    hosts: tuple[HostPattern, ...] = described(
        "Host asked for: exact, or `*.` for one label; absent means all.", (), yaml="host", some=True
    )
    headers: tuple[HeaderPattern, ...] = described(
        "Headers: `name: value`, `name: {prefix: p}`, `name: {present: true}`.", (), some=True
    )
    query: tuple[QueryPattern, ...] = described("Query parameters, in the same words.", (), some=True)
    max_body: Bytes | None = described("Largest request body; over it 413.", None)
    content_types: tuple[MediaType, ...] = described(
        "Accepted media types of a request body; otherwise 415.", (), some=True
    )
    unsafe_encoded_slash: bool = described("Accept %2F inside a segment.", False)
    unsafe_empty_segments: bool = described("Accept `//`.", False)
    unsafe_path_parameters: bool = described("Accept `;` in a segment.", False)
    app: Endpoint | None = described(
        "Another application of this machine for these requests, in the words of the listener's `app`.",
        None,
        filled="the listener's",
    )
    split: tuple[AppBranch, ...] = described(
        "Several applications by weight, in the place of `app`: `[{app: '127.0.0.1:8081', weight: 5}, …]`.",
        (),
        some=True,
    )
    fault: Fault | None = described("Failures on purpose, after authorization.", None)

    @property
    def apps(self) -> tuple[AppBranch, ...]:
        """Where these requests go, where that is not the listener's application."""
        return self.split or ((AppBranch(self.app, 1),) if self.app is not None else ())


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
        "Port that peers connect to.",
        ports.INBOUND,
        filled=f"{ports.INBOUND}, or the next one free on this host; with `redirect` the application's",
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
    contract: Contract | None = described(
        "What requests and answers must keep to, as OpenAPI says it; absent for nothing.", None
    )
    tokens: Tokens | None = described(
        "Bearer tokens that callers must, or may, bring: the user behind the caller. Absent, `Authorization` passes "
        "unread.",
        None,
    )
    tcp_limits: tuple[TcpLimit, ...] = described("How much raw TCP may take; absent means without limit.", ())
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
