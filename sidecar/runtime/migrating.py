"""What a sidecar tells of plaintext, for `mesh migrate status`: who speaks it, by whose leave, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.config.assemble import is_loopback
from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from sidecar.proxy.upstream import Upstream
    from sidecar.runtime.worker import Worker


def plaintext(worker: Worker) -> dict[str, Any]:
    """All of it, since the sidecar started."""
    proxy, recorder, service = worker.proxy, worker.recorder, worker.service
    rows = proxy.show.listeners() if proxy is not None else []
    upstreams = proxy.upstreams if proxy is not None else []
    redirect = service.redirect
    return {
        "service": service.name,
        "now": rfc3339(worker.clock.wall()),
        "listeners": [_listener(row) for row in rows if row["direction"] == "inbound"],
        "connections": recorder.plaintext.to_json(),
        "forgotten": recorder.plaintext.forgotten,
        "upstreams": [found for each in upstreams if (found := _upstream(each)) is not None],
        "passthrough": [str(each) for each in redirect.passthrough] if redirect is not None else [],
    }


def _listener(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "address", "posture", "declared_posture", "until", "would_refuse")
    return {key: row[key] for key in kept if key in row}


def _upstream(upstream: Upstream) -> dict[str, Any] | None:
    """An upstream to which plaintext leaves this machine; None for every other."""
    if upstream.meshed or not upstream.guarded:
        return None
    away = [each.address for each in upstream.places if not each.address.unix and not is_loopback(each.address.host)]
    if not away:
        return None
    dialer = upstream.dialer
    return {
        "name": upstream.name,
        "endpoints": [str(address) for address in away],
        "connections": dialer.plain,
        "open": sum(place.open for place in upstream.places.values()),
        "last": rfc3339(dialer.plain_at) if dialer.plain else "",
    }
