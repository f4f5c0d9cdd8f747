"""What a running sidecar tells of itself on its admin socket, and does when asked there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import MeshError
from certs.svid import check_leaf
from sidecar.runtime import keeping
from sidecar.runtime.hygiene import of_this_process
from sidecar.runtime.quotas import reset, show
from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from sidecar.runtime.worker import Worker

ROTATE_SECONDS = 15.0  # how long `mesh certs rotate` waits for the new certificate


class RotationFailed(MeshError):
    """No new certificate came."""

    name = "rotation_failed"


class Inspector:
    """The `sidecar.admin.api.Inspect` of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def status(self) -> dict[str, Any]:
        """The state of everything, for `mesh status`."""
        worker = self._worker
        proxy = worker.proxy
        return {
            "service": worker.service.name,
            "spiffe_id": worker.service.identity.text,
            "instance": worker.instance,
            "state": worker.state,
            "not_ready": worker.not_ready(),
            "identity": worker.identity_status.current.as_json() | {"ca_survival_seconds": worker.survival()},
            "served": worker.served.latest.to_json() if worker.served is not None else None,
            "bypass": worker.bypass.latest.to_json() if worker.bypass is not None else None,
            "policy": {
                "rules": len(proxy.rules.rules) if proxy is not None else 0,
                "generation": worker.policy_generation,
            },
            "config": worker.reloader.to_json() if worker.reloader is not None else None,
            "drain": worker.drain.to_json() if worker.drain is not None else None,
            "listeners": proxy.show.listeners() if proxy is not None else [],
            "connections": proxy.connections if proxy is not None else 0,
            "in_flight": proxy.in_flight if proxy is not None else 0,
            "held": self._held(),
            "streams": proxy.streams if proxy is not None else 0,
            "engine": proxy.engine() if proxy is not None else None,
            "audit": worker.recording.to_json(),
            "tokens": worker.keys.to_json() if worker.keys is not None else [],
            "version": worker.version,
            "pid": os.getpid(),
            "hygiene": confined.to_json() if (confined := of_this_process()) is not None else None,
        }

    def _held(self) -> int:
        """How many callers detectors hold."""
        worker, detectors = self._worker, self._worker.proxy.detectors if self._worker.proxy is not None else None
        return len(detectors.holds.in_force(worker.clock.monotonic())) if detectors is not None else 0

    def hops(self, since: int | None) -> dict[str, Any]:
        """The live table of hops."""
        return self._worker.recorder.table.read(self._worker.clock.monotonic(), since)

    def endpoints(self) -> dict[str, Any]:
        """What the balancers see."""
        proxy = self._worker.proxy
        return {
            "service": self._worker.service.name,
            "endpoints": proxy.show.endpoints() if proxy is not None else [],
            "upstreams": proxy.show.totals() if proxy is not None else [],
            "sources": self._worker.lists(),
        }

    def plaintext(self) -> dict[str, Any]:
        """Who speaks plaintext, and by whose leave."""
        from sidecar.runtime.migrating import plaintext

        return plaintext(self._worker)

    async def quotas(self) -> dict[str, Any]:
        """What has been used of each quota."""
        worker = self._worker
        tcp = worker.proxy.show.tcp_limits() if worker.proxy is not None else []
        return {"service": worker.service.name, **await show(worker.quotas, worker.clock.wall()), "tcp_limits": tcp}

    async def reset_quota(self, query: dict[str, Any], uid: int, pid: int) -> dict[str, Any]:
        """Give a key its quota anew. Raises UnknownQuota, QuotaStoreFailed."""
        worker = self._worker
        name, key = str(query.get("quota", "")), str(query.get("key", ""))
        answer = await reset(worker.quotas, name, key, worker.clock.wall())
        if worker.recorder.audit is not None:
            worker.recorder.audit.quota_reset(name, key, uid, pid)
        worker.log.info("a quota was reset", quota=name, key=key, uid=uid, pid=pid)
        return {"service": worker.service.name, **answer}

    def inventory(self) -> dict[str, Any]:
        """Which edges were used, and when."""
        return keeping.show(self._worker)

    def detections(self) -> dict[str, Any]:
        """What detectors found, and whom they hold."""
        from sidecar.runtime.detecting import show as show_detections  # most have none, and it is memory

        return show_detections(self._worker)

    def unblock(self, query: Mapping[str, Any], uid: int, pid: int) -> dict[str, Any]:
        """Let a caller go that a detector holds. Raises NotHeld."""
        from sidecar.runtime.detecting import lift

        user = query.get("user")
        return lift(self._worker, str(query.get("caller", "")), None if user is None else str(user), uid, pid)

    def limits(self) -> dict[str, Any]:
        """How the rate limits stand."""
        worker = self._worker
        return {
            "service": worker.service.name,
            "limits": worker.proxy.show.limits() if worker.proxy is not None else [],
            "redis": worker.answers.to_json() if worker.answers is not None else None,
        }

    def contracts(self) -> dict[str, Any]:
        """What was seen of each contract since it came into force."""
        worker = self._worker
        rows = worker.proxy.show.contracts() if worker.proxy is not None else []
        return {"service": worker.service.name, "contracts": rows}

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """One decision, with what happened, what to do, and, where policy decided, why."""
        from sidecar.runtime.explaining import decided  # words for everything: memory, which few are asked for

        return decided(self._worker, decision_id)

    def explain(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """What policy says of a request that was never sent. Raises BadQuestion."""
        from sidecar.runtime.explaining import explained

        return explained(self._worker, query)

    def drain(self) -> dict[str, Any]:
        """Begin to drain, and say what is in flight."""
        self._worker.begin_drain("POST /drain on the admin socket")
        proxy = self._worker.proxy
        return {"state": self._worker.state, "in_flight": proxy.in_flight if proxy is not None else 0}

    async def rotate(self) -> dict[str, Any]:
        """Fetch a new certificate now. Raises RotationFailed, as soon as a try has failed."""
        worker = self._worker
        number, heard = worker.svids.number, worker.identity_status.number
        failures = worker.identity_status.current.consecutive_failures
        worker.renew_soon()
        with trio.move_on_after(ROTATE_SECONDS):
            while worker.svids.number == number:
                heard = await worker.identity_status.wait_past(heard)
                if worker.identity_status.current.consecutive_failures > failures:
                    raise RotationFailed(worker.identity_status.current.last_error)
            svid = worker.svids.current
            return {"service": worker.service.name, "serial": svid.serial, "not_after": svid.not_after}
        status = worker.identity_status.current
        raise RotationFailed(
            f"no new certificate within {ROTATE_SECONDS:g} s: {status.last_error or 'the CA is silent'}"
        )

    def certs(self) -> dict[str, Any]:
        """Our chain and the bundles that we trust; no keys."""
        worker = self._worker
        answer: dict[str, Any] = {
            "service": worker.service.name,
            "spiffe_id": worker.service.identity.text,
            "chain": [],
        }
        if worker.svids.number:
            svid = worker.svids.current
            answer |= {
                "serial": svid.serial,
                "not_before": svid.not_before,
                "not_after": svid.not_after,
                "verified_id": check_leaf(svid.leaf).text,
                "chain": [certificate.public_bytes(Encoding.PEM).decode() for certificate in svid.chain],
                "expires": rfc3339(svid.not_after),
            }
        if worker.bundles.number:
            answer["bundles"] = [
                {"trust_domain": bundle.trust_domain.name, "sequence": bundle.sequence,
                 "root_sha256": list(bundle.root_hashes()), "roots": bundle.to_pem().decode()}
                for bundle in worker.bundles.current
            ]  # fmt: skip
        return answer
