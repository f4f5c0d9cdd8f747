"""What an upstream's balancer sees, in words: for `mesh endpoints`, and for who is told that nobody may be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sidecar.errors import HopError, NoHealthyUpstream, Overflow

if TYPE_CHECKING:
    from sidecar.proxy.upstream import Upstream
    from sidecar.traffic.destination import Seen
    from sidecar.traffic.health import Health

STATES: Final = ("available", "unhealthy", "ejected", "open", "half-open")
MOST_NAMED: Final = 8  # endpoints in an error's text; the others are counted


def rows(upstream: Upstream) -> list[dict[str, Any]]:
    """A row for each endpoint, as `mesh endpoints` shows them."""
    now, destination = upstream.now, upstream.destination
    rules, budget = destination.rules, destination.budget
    return [
        {
            "upstream": upstream.name,
            "identity": upstream.identity.text if upstream.identity is not None else "",
            "balance": rules.balance,
            "affinity": str(upstream.affinity or ""),
            "our_zone": rules.zone,
            "endpoint": each.name,
            "weight": each.weight,
            "zone": each.zone,
            "state": each.state,
            "latency_ms": round(each.latency * 1e3, 3),
            "active": each.active,
            "back_in_s": round(each.until - now, 1) if each.until > now else None,
            "health": _health(each.health, now) if upstream.checks is not None else None,
            "last_failure": each.why,
            "connections": place.open,
            "retries_left": budget.left(now),
        }
        for each, place in zip(destination.seen(now), upstream.places.values(), strict=True)
    ]


def totals(upstream: Upstream) -> dict[str, Any]:
    """All endpoints in one row, as `mesh top` shows them."""
    now, destination = upstream.now, upstream.destination
    requests, seen, states = destination.ceilings.requests, destination.seen(now), counts(upstream)
    alone = {state: count for state, count in states.items() if count and state != "available"}
    return {
        "upstream": upstream.name,
        "identity": upstream.identity.text if upstream.identity is not None else "",
        "endpoints": len(seen),
        "available": states["available"],
        "left_alone": ", ".join(f"{count} {state}" for state, count in alone.items()),
        "requests": requests.count,
        "requests_most": requests.most,
        "retries_left": destination.budget.left(now),
        "slowest_ms": round(max((each.latency for each in seen), default=0.0) * 1e3, 3),
    }


def _health(health: Health | None, now: float) -> dict[str, Any]:
    """The last check of an endpoint."""
    if health is None or health.last is None:
        return {"result": "unchecked", "reason": "", "checked_s_ago": None, "for_s": None}
    return {
        "result": health.last.word,
        "reason": health.last.why,
        "checked_s_ago": round(now - health.at, 1),
        "for_s": round(now - health.since, 1) if health.judged else None,  # healthy, or not
    }


def counts(upstream: Upstream) -> dict[str, int]:
    """How many endpoints are in each state."""
    seen = [each.state for each in upstream.destination.seen(upstream.now)]
    return {state: seen.count(state) for state in STATES}


def nowhere(upstream: Upstream, now: float) -> HopError:
    """Why a request cannot go anywhere at this moment: each endpoint, its state and the reason of that."""
    destination = upstream.destination
    requests = destination.ceilings.requests
    if requests.count >= requests.most:
        requests.refused += 1
        return Overflow(f"{requests.count} requests to {upstream.name} are under way (limits.requests)")
    seen = destination.seen(now)
    if not seen:
        return NoHealthyUpstream(f"{upstream.name} has no endpoint{_why_none(upstream)}")
    wait = max(0.0, destination.retry_at(now) - now)
    states = "; ".join(_state(each) for each in seen[:MOST_NAMED])
    if len(seen) > MOST_NAMED:
        rest = [each.state for each in seen[MOST_NAMED:]]
        states += f"; of {len(rest)} more " + ", ".join(f"{rest.count(state)} {state}" for state in sorted(set(rest)))
    error = NoHealthyUpstream(f"no endpoint of {upstream.name} may be asked for the next {wait:.1f} s: {states}")
    error.retry_after = wait
    return error


def _state(seen: Seen) -> str:
    health = seen.health
    why = health.last.why if seen.state == "unhealthy" and health is not None and health.last is not None else seen.why
    return f"{seen.name} {seen.state}" + (f" ({why})" if why else "")


def _why_none(upstream: Upstream) -> str:
    """What became of all that was declared."""
    if upstream.loops:
        return f": {', '.join(map(str, upstream.loops[:MOST_NAMED]))} is where this sidecar itself listens"
    if upstream.why_none:
        return f": {upstream.why_none}"
    names = " and ".join(sorted({name.host for name in upstream.names}))
    return f": {names} stands for no address" if names else ""
