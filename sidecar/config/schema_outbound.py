"""What an operator can say of an upstream: where it is, and what to do when it fails."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from certs.spiffe import SpiffeId
from sidecar.config.schema_routes import OutboundRoute
from sidecar.config.terms import (
    Endpoint,
    ErrorStatus,
    Few,
    HostName,
    ListenerRef,
    Protocol,
    ServiceName,
    Share,
    SocketMode,
    Where,
    described,
)


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
    routes: tuple[OutboundRoute, ...] = described(
        "What becomes of some requests: where they go, and what is changed on the way. First match wins.", ()
    )
    unmeshed: Literal["refuse", "passthrough"] = described(
        "`passthrough` sends plaintext to a host outside the mesh.", "refuse"
    )
    where: Where = described("Where the upstream stands.", Where("", 0), hidden=True)
    name: str = described(
        "`to`, or `to.listener` where a service is called on several of its listeners.", "", hidden=True
    )
