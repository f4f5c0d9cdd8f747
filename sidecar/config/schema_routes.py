"""What an operator can say of routes: where requests go, what is changed on the way, and which faults they meet."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.config.terms import (
    ChangedHeader,
    Endpoint,
    ErrorStatus,
    Few,
    FieldText,
    Label,
    Method,
    PathPrefix,
    Pause,
    Portion,
    Share,
    Where,
    described,
)
from sidecar.patterns import HeaderPattern, IdentityPattern, PathTemplate, QueryPattern


@dataclass(frozen=True, slots=True)
class Branch:
    """One destination of a split."""

    to: Label = described("An upstream of this service, by its name: another entry of `outbound`, or this one.")
    weight: Portion = described("Its part of the requests, as weighed against the others: 5 beside 95 is 5 %.")

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return self.to


@dataclass(frozen=True, slots=True)
class AppBranch:
    """One application of a split at an inbound listener."""

    app: Endpoint = described("Where it listens, in the words of the listener's own `app`.")
    weight: Portion = described("Its part of the requests, as weighed against the others: 5 beside 95 is 5 %.")

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return str(self.app)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Another front for the path. What follows the prefix is sent on byte for byte; the receiver's rules see the new
    path, our own log the one that was asked for.
    """

    prefix: PathPrefix = described("What is cut off, whole segments: `/v1`, or `/` for nothing.")
    to: PathPrefix = described("What is put there: `/orders`, or `/` for nothing.")


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Fields that are taken away, set, and added, in this order. Not those that frame a message, name its host, or
    belong to the connection or the mesh.
    """

    remove: tuple[ChangedHeader, ...] = described("Names of fields to take away.", ())
    replace: Mapping[ChangedHeader, FieldText] = described(
        "Fields that stand in the place of all of their name.", yaml="set", factory=dict
    )
    add: Mapping[ChangedHeader, FieldText] = described("Fields that come on top.", factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """Failures on purpose, to see how callers bear them: each request throws its dice once for the delay and once for
    the refusal. They count against no endpoint and are not tried again. `mesh check` warns of each that is in force.
    """

    delay: Pause = described("How long a request is held before it is sent on, at most 60s.", 0.0)
    delay_share: Share = described("The share of requests that are held.", 0.0)
    status: ErrorStatus | None = described(
        "With what a request is refused; a gRPC call by what that means there.", None
    )
    abort_share: Share = described("The share of requests that are refused.", 0.0)
    callers: tuple[IdentityPattern, ...] = described(
        "Whom it meets, in the words of rules; absent means everybody.", (), yaml="from", some=True
    )


@dataclass(frozen=True, slots=True)
class RouteRetries:
    """When a request on a route is sent again, where that differs from its upstream, whose budget it draws on."""

    resends: Few | None = described("How often; 0 for never.", None, filled="as the upstream says")
    statuses: tuple[ErrorStatus, ...] | None = described(
        "HTTP statuses after which it is sent again too, where it is idempotent or has an `Idempotency-Key`.",
        None,
        filled="as the upstream says",
    )


@dataclass(frozen=True, slots=True)
class OutboundRoute:
    """What becomes of some requests to an upstream; see docs/routes.md. The first route whose every condition holds is
    taken; a request on none goes to the upstream itself, unchanged.
    """

    name: Label = described(
        "A name, unique at its upstream, for logs, metrics and `mesh explain`.", filled="its first `path`, or `route-2`"
    )
    paths: tuple[PathTemplate, ...] = described(
        "Path templates, as in rules; absent means all.", (), yaml="path", some=True,
        filled="all; with `rewrite` its prefix and what is below",
    )  # fmt: skip
    methods: tuple[Method, ...] = described("HTTP methods; absent means all.", (), yaml="method", some=True)
    headers: tuple[HeaderPattern, ...] = described(
        "Headers: `name: value`, `name: {prefix: p}`, `name: {present: true}`.", (), some=True
    )
    query: tuple[QueryPattern, ...] = described("Query parameters, in the same words.", (), some=True)
    callers: tuple[IdentityPattern, ...] = described(
        "Who calls. That is this service itself: for files that several services include.", (), yaml="from", some=True
    )
    split: tuple[Branch, ...] = described(
        "Where to, by weight: `[{to: orders-v2, weight: 5}, {to: orders, weight: 95}]`. Each keeps its own identity, "
        "endpoints, breakers and budget. Absent means the upstream itself.",
        (),
        some=True,
    )
    rewrite: Rewrite | None = described("Another front for the path.", None)
    request_headers: HeaderEdits = described("What is changed in the header of a request.", factory=HeaderEdits)
    response_headers: HeaderEdits = described("What is changed in the header of an answer.", factory=HeaderEdits)
    fault: Fault | None = described("Failures on purpose.", None)
    retries: RouteRetries = described("When it is sent again.", factory=RouteRetries)
    where: Where = described("Where the route stands.", Where("", 0), hidden=True)
