"""How a limit stands, for people: who is nearest to it, how many it has refused, who waits.

Only identities are named. The keys of a limit per header or per claim are what callers have sent, perhaps credentials:
of those it says how many there are, and how full the fullest is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sidecar.traffic.limits import Rates

if TYPE_CHECKING:
    from sidecar.config.schema import Service
    from sidecar.hop import Hop
    from sidecar.traffic.limits import Limit, RateLimits

HOTTEST: Final = 5  # keys that are shown of one limit


def shown(limit: Limit, now: float) -> dict[str, Any]:
    """One limit, ready for JSON."""
    spec, rate, throttle = limit.spec, limit.rate, limit.throttle
    hidden = spec.per.invented
    return {
        "limit": spec.name,
        "per": str(spec.per),
        "rate": str(spec.limit),
        "burst": spec.burst,
        "over": spec.over,
        "shared": spec.shared,
        "where": str(spec.where),
        "keys": rate.keys,
        "hottest": [
            {"key": "" if hidden else key, "remaining": standing.remaining, "full_in_s": round(standing.reset, 3)}
            for key, standing in rate.hottest(now, HOTTEST)
        ],
        "refused": rate.refused,
        "delayed": rate.delayed,
        "waiting": throttle.waiting if throttle is not None else 0,
        "blocked": throttle.blocked if throttle is not None else 0,
    }


def applies(limits: RateLimits | None, hop: Hop, route: str, now: float | None = None) -> list[dict[str, Any]]:
    """The limits that a hop on this route of the rules comes under, in the order in which they are asked; with how much
    is left for it, where there is a `now`.
    """
    dues = limits.dues(hop, route) if limits is not None else None
    if dues is None:
        return []
    rows = []
    for limit, key in zip(dues.limits, dues.keys_of(hop.headers), strict=True):
        row: dict[str, Any] = {"limit": limit.spec.name, "says": how(limit), "where": str(limit.spec.where)}
        if now is not None:
            row["remaining"] = limit.rate.standing(now, key).remaining
        rows.append(row)
    return rows


def applies_by(service: Service, hop: Hop, route: str) -> list[dict[str, Any]]:
    """The same by a configuration that nobody runs."""
    return applies(Rates(service.rates).limits(hop.listener), hop, route)


def how(limit: Limit) -> str:
    """A limit in a few words."""
    spec = limit.spec
    words = f"{spec.limit} per {spec.per}, {spec.burst} at once"
    if spec.shared == "redis":
        words += ", counted by all sidecars together"
    return words + (f", then up to {spec.delay:g} s of waiting" if spec.over == "delay" else "")
