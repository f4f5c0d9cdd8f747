"""From a service's configuration to its Recorder: the one place that knows how the views are put together."""

from __future__ import annotations

import secrets
from pathlib import Path

from sidecar.config.schema import Service
from sidecar.net.clock import Clock
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.record import Recorder

AUDIT_FILE = "audit.jsonl"


def new_instance() -> str:
    """A name for this process: eight random hex digits, the first half of its decision ids."""
    return secrets.token_hex(4)


def make_recorder(
    service: Service, *, instance: str, state_dir: Path, log: Log, clock: Clock, version: str = ""
) -> Recorder:
    """The Recorder that this service's configuration asks for. Starts the audit; `Recorder.close` ends it."""
    access_log = AccessLog(
        service.access_log,
        instance=instance,
        on_problem=lambda problem: log.error(
            "the access log cannot be written", path=service.access_log.path, problem=problem
        ),
    )
    path = service.audit.path or str(state_dir / AUDIT_FILE)
    audit = Audit(
        service.audit,
        path,
        instance=instance,
        service=service.identity.text,
        wall=clock.wall,
        alarm=lambda problem: log.error(
            "the audit is in trouble", path=path, problem=problem, on_full=service.audit.on_full
        ),
    )
    return Recorder(
        instance=instance,
        metrics=Metrics(version),
        access_log=access_log,
        audit=audit,
        log=log,
        rule_headers=(header.name for rule in (*service.allow, *service.deny) for header in rule.headers),
        clock=clock,
    )
