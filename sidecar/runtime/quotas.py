"""What `mesh quota` is told of the quotas in force, and does to them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from certs.errors import MeshError
from sidecar.telemetry.clock import rfc3339
from sidecar.traffic.limits import ABSENT, NOBODY
from sidecar.traffic.quota_store import QuotaStoreFailed

if TYPE_CHECKING:
    from sidecar.answer.quota_desk import QuotaDesk
    from sidecar.config.schema_amounts import QuotaLimit
    from sidecar.traffic.quota import Quota
    from sidecar.traffic.quota_store import Use

NAMES = {NOBODY: "(no identity)", ABSENT: "(without the header)"}


class UnknownQuota(MeshError):
    """There is no quota of this name, or nobody of that key has used it."""

    name = "unknown_quota"


async def show(desk: QuotaDesk, wall: float) -> dict[str, Any]:
    """Each quota with what its keys have used in the window of this moment; `problem` says why nobody can tell."""
    quotas = desk.quotas
    rows: list[dict[str, Any]] = []
    problem = ""
    for spec in quotas.specs if quotas is not None else ():
        assert quotas is not None
        quota = quotas.by_name[spec.name]
        try:
            uses = await desk.line(quota).do(partial(_uses, quota.rules.name))
        except QuotaStoreFailed as error:
            uses, problem = [], str(error)
        rows.append(_quota(spec, quota, uses, wall))
    return {"quotas": rows, "problem": problem}


def _uses(name: str, store: Any) -> Any:
    return store.uses(name)


def _quota(spec: QuotaLimit, quota: Quota, uses: list[Use], wall: float) -> dict[str, Any]:
    start, end = quota.window(wall)
    used = {use.key: use.used for use in uses if use.start == start}
    for key, lease in list(quota.leases.items()):
        if spec.shared == "off" and lease.start == start and lease.known:  # what is leased and not used is nobody's use
            used[key] = max(0, used.get(key, lease.used - lease.debt) + lease.debt - lease.left)
    limit = quota.rules.limit
    return {
        "name": spec.name, "limit": limit, "window": spec.limit.window, "time_zone": spec.time_zone,
        "per": str(spec.per), "shared": spec.shared, "where": str(spec.where),
        "window_start": rfc3339(start), "window_end": rfc3339(end),
        "keys": [
            {"key": key, "shown": NAMES.get(key, key), "used": number, "left": max(0, limit - number)}
            for key, number in sorted(used.items(), key=lambda each: (-each[1], each[0]))
        ],
    }  # fmt: skip


async def reset(desk: QuotaDesk, name: str, key: str, wall: float) -> dict[str, Any]:
    """Give a key its quota anew. Raises UnknownQuota, QuotaStoreFailed."""
    quota = desk.quotas.by_name.get(name) if desk.quotas is not None else None
    if quota is None:
        raise UnknownQuota(f"no quota {name!r} here")
    key = next((stored for stored, shown in NAMES.items() if key == shown), key)
    found = (await show(desk, wall))["quotas"]
    used = next((row["used"] for each in found if each["name"] == name for row in each["keys"] if row["key"] == key), 0)
    if not used:
        raise UnknownQuota(f"{key or 'nobody'} has used nothing of {name} in this window")
    await desk.line(quota).do(lambda store: store.reset(quota.rules.name, key))
    quota.forgive(key)
    return {"quota": name, "key": key, "was": used}
