"""What stands behind the codes about quotas and TCP limits; the others are in `codes`, where all come together."""

from __future__ import annotations

from typing import Final

from sidecar.config.codes_examples import services

_HTTP: Final = "inbound: [{protocol: http}]\nallow: [{from: [web], path: /orders}]\n"
_TCP: Final = "inbound: [{{protocol: {}, app: '127.0.0.1:5432', tcp_limits: [{{{}}}]}}]\nallow: [{{from: [web]}}]"

# code, title, why, what to do, wrong, right
AMOUNTS: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH075", "a quota that nothing comes under",
        "Nobody may do what the quota is for, or it looks at HTTP where only raw TCP passes. Whoever wrote it relies "
        "on a quota that is not there.",
        "Compare `from`, `method`, `path` and `port` with the rules under `allow`.",
        *services(
            _HTTP + "quotas: [{limit: 1000/d, path: /refunds}]", _HTTP + "quotas: [{limit: 1000/d, path: /orders}]"
        ),
    ),
    (
        "MESH076", "a quota that a rate leaves nothing to",
        "A rate limit for the same callers lets fewer in during a whole window than the quota would: nobody ever comes "
        "to its end.",
        "Lower the quota, raise the rate, or remove one of them.",
        *services(
            _HTTP + "rates: [{limit: 6/m, per: caller}]\nquotas: [{limit: 10000/d}]",
            _HTTP + "rates: [{limit: 60/m, per: caller}]\nquotas: [{limit: 10000/d}]",
        ),
    ),
    (
        "MESH077", "a quota that callers can walk around",
        "Each value of the header, or of the claim, has a quota of its own, and a caller may send what it likes: with "
        "another value each time it is never held. Each value also takes a place in the file of quotas.",
        "Put a rate with `per: caller` or `per: listener` beside it, which holds whoever invents values.",
        *services(
            _HTTP + "quotas: [{limit: 100/d, per: header x-api-key}]",
            _HTTP + "rates: [{limit: 10/s, per: caller}]\nquotas: [{limit: 100/d, per: header x-api-key}]",
        ),
    ),
    (
        "MESH078", "a TCP limit that nothing comes under",
        "Raw connections alone come under it, and here are none: the listener speaks HTTP, or no rule allows those "
        "whom the limit is for.",
        "Use `rates` for HTTP; compare `from` with the rules under `allow`.",
        *services(_TCP.format("http", "connections: 10"), _TCP.format("tcp", "connections: 10")),
    ),
    (
        "MESH079", "a number of connections that is never reached",
        "Another limit closes connections before there are so many: `limits.connections_per_peer` of one identity, "
        "`limits.connections` of all together.",
        "Lower this number, or raise the other.",
        *services(_TCP.format("tcp", "connections: 600"), _TCP.format("tcp", "connections: 100")),
    ),
)
