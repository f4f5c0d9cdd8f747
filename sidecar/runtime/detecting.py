"""What becomes of a detection, and what `mesh detections` is told and may ask for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from certs.errors import MeshError
from sidecar.telemetry.clock import rfc3339
from sidecar.traffic.detectors import Detection, Detectors

if TYPE_CHECKING:
    from sidecar.config.schema import Service
    from sidecar.net.clock import Clock
    from sidecar.runtime.worker import Worker
    from sidecar.telemetry.record import Recorder


class NotHeld(MeshError):
    """No detector holds this caller."""

    name = "not_held"


def detectors_of(service: Service, before: Detectors | None, recorder: Recorder) -> Detectors | None:
    """The detectors of this configuration: those that are there, with all they know, where nothing of them has changed;
    None for none.
    """
    spec = service.detectors
    if spec is None or not spec.named:
        return None
    if before is not None and before.spec == spec:
        return before
    return Detectors(spec, partial(told, recorder=recorder), recorder.clock.monotonic())


def told(found: Detection, recorder: Recorder) -> None:
    """Tell metric, log and audit."""
    recorder.metrics.counter("mesh_detections_total").add((found.who[0], found.detector, found.action), now=found.at)
    caller, user = found.who
    if recorder.log is not None:
        recorder.log.warning(
            "a caller is conspicuous", detector=found.detector, caller=caller, user=user or None,
            route=found.route or None, what=found.what, action=found.action,
            seconds=found.until - found.at or None,
        )  # fmt: skip
    if recorder.audit is not None:
        recorder.audit.detection({
            "detector": found.detector, "caller": caller, "user": user, "route": found.route, "what": found.what,
            "action": found.action, "until": rfc3339(_wall(found.until, recorder.clock)),
        })  # fmt: skip


def show(worker: Worker) -> dict[str, Any]:
    """What was found lately, newest first, and who is held."""
    detectors = worker.proxy.detectors if worker.proxy is not None else None
    clock, now = worker.clock, worker.clock.monotonic()
    answer: dict[str, Any] = {"service": worker.service.name, "on": [], "held": [], "found": []}
    if detectors is None:
        return answer
    answer["on"] = [{"detector": name, "action": spec.action} for name, spec in detectors.spec.named]
    answer["held"] = [
        {"caller": hold.who[0], "user": hold.who[1], "detector": hold.detector, "action": hold.action,
         "what": hold.what, "since": rfc3339(_wall(hold.since, clock)), "until": rfc3339(_wall(hold.until, clock)),
         "seconds_left": round(hold.until - now, 1), "refused": hold.refused}
        for hold in detectors.holds.in_force(now)
    ]  # fmt: skip
    answer["found"] = [
        {"detector": each.detector, "caller": each.who[0], "user": each.who[1], "route": each.route, "what": each.what,
         "action": each.action, "at": rfc3339(_wall(each.at, clock))}
        for each in reversed(detectors.found)
    ]  # fmt: skip
    return answer


def lift(worker: Worker, caller: str, user: str | None, uid: int, pid: int) -> dict[str, Any]:
    """Let a caller go, on behalf of this user. Raises NotHeld."""
    detectors = worker.proxy.detectors if worker.proxy is not None else None
    lifted = detectors.lift(caller, user, worker.clock.monotonic()) if detectors is not None else []
    if not lifted:
        raise NotHeld(f"no detector of {worker.service.name} holds {caller}")
    for hold in lifted:
        if worker.recorder.audit is not None:
            worker.recorder.audit.detection_lifted(caller, hold.who[1], uid, pid)
    worker.log.info("a caller is not held any more", caller=caller, user=user, uid=uid, pid=pid)
    return {"service": worker.service.name, "caller": caller, "lifted": [hold.detector for hold in lifted]}


def _wall(at: float, clock: Clock) -> float:
    return clock.wall() - clock.monotonic() + at
