"""What an operator can say of amounts: quotas over windows of the calendar, and what raw TCP may take."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.config.terms import (
    Bandwidth,
    Count,
    HowMany,
    Label,
    ListenerRef,
    Method,
    Often,
    Per,
    TimeZone,
    Where,
    Whose,
    described,
)
from sidecar.patterns import IdentityPattern, PathTemplate


@dataclass(frozen=True, slots=True)
class QuotaLimit:
    """How much may be asked in an hour, a day or a month of the calendar, counted across restarts; see docs/quotas.md.
    Quotas are asked after everything else, rates included; over one a request is refused with 429.
    """

    name: Label = described(
        "A name, unique among the quotas and the limits of its service. The count goes by it: a quota that is renamed "
        "is a new one.",
        filled="`quota-1`, `quota-2`, … by its place in the list",
    )
    limit: HowMany = described("How many: `500/h`, `10000/d` or `200000/month`. Windows begin with the calendar's.")
    time_zone: TimeZone = described(
        "Whose calendar: a name of the IANA database, as `Europe/Berlin`. A day there has 23 or 25 hours where clocks "
        "are changed.",
        "UTC",
    )
    per: Whose = described(
        "Who shares it: `caller` (each identity has its own), `listener` (everybody who calls it), `endpoint` (each "
        "method of each path template has its own), `header x-api-key` or `claim sub` (each value has its own, and all "
        "requests without it one together).",
        Per("caller"),
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
    shared: Literal["off", "redis"] = described(
        "`redis`: one count for all instances of the service.",
        "off",
    )
    where: Where = described("Where the quota stands.", Where("", 0), hidden=True)

    @property
    def http_only(self) -> bool:
        """Whether it names something that only HTTP has."""
        return bool(self.methods or self.paths or self.per.kind == "endpoint" or self.per.invented)


@dataclass(frozen=True, slots=True)
class TcpLimit:
    """What raw connections may take: how often they come, how many are open, how many bytes a second they move; see
    docs/quotas.md. All limits that a connection comes under hold at once.
    """

    name: Label = described(
        "A name, unique among the TCP limits of its listener.", filled="`tcp-1`, `tcp-2`, … by its place in the list"
    )
    per: Literal["caller", "listener"] = described(
        "Who shares it: `caller` (each identity has its own) or `listener` (everybody who connects to it).", "caller"
    )
    callers: tuple[IdentityPattern, ...] = described(
        "Whom it is for, in the words of rules; absent means everybody.", (), yaml="from", some=True
    )
    connections_per_second: Often | None = described(
        "How often a connection may be made: `20/s`, `600/m`; as many may come at once after a pause. Over it a "
        "connection is closed at once. Absent: without limit.",
        None,
    )
    connections: Count | None = described(
        "How many may be open at once; one more is closed at once. Absent: without limit.", None
    )
    bandwidth: Bandwidth | None = described(
        "Bytes a second that all of them move together, both directions added: `10MiB/s`. Nothing is refused or lost: "
        "who sends faster is read more slowly. Absent: without limit.",
        None,
    )
    where: Where = described("Where the limit stands.", Where("", 0), hidden=True)
