"""What the documents say is what the code does."""

from __future__ import annotations

import json
from pathlib import Path

from sidecar.config.schema import AccessLog as AccessLogConfig
from sidecar.config.schema_audit import Audit as AuditConfig
from sidecar.errors import PolicyDenied
from sidecar.hop import ShadowVerdict, Waived
from sidecar.telemetry import definitions
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.record import Handshake
from tests.kit.hops import a_hop

DOCS = Path(__file__).parents[3] / "docs"


def test_the_list_of_metrics_is_current():
    assert (DOCS / "metrics.md").read_text() == definitions.markdown(), (
        "run: python -m sidecar.telemetry.definitions > docs/metrics.md"
    )


def test_every_key_of_the_access_log_is_documented(tmp_path):
    log = AccessLog(AccessLogConfig(path=str(tmp_path / "a"), headers=("user-agent",)), instance="0a1b2c3d")
    shadow, waived = (ShadowVerdict("a", "deny"),), Waived("observe", 0.0, "policy_denied", "PD")
    line = log.line(a_hop(headers=[(b"user-agent", b"x")], shadow=shadow, waived=waived, grpc_status="OK"), 0.0)
    text = (DOCS / "telemetry.md").read_text()
    assert [key for key in line if f"`{key}`" not in text] == []


def test_every_key_of_the_audit_is_documented(tmp_path):
    for permits in ("aggregated", "each"):
        audit = Audit(
            AuditConfig(permits=permits), str(tmp_path / "a"), instance="0a1b2c3d", service="s", wall=lambda: 0.0
        )
        audit.permit(a_hop(), 0.0)
        audit.refusal(a_hop(error=PolicyDenied(), waived=Waived("observe", 0.0, "policy_denied", "PD")), 0.0)
        audit.handshake(Handshake("inbound", "http", True), "", 0.0)
        audit._lose(0.0)
        audit._tell_loss(0.0)
        audit.close(0.0)
    lines = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    text = (DOCS / "telemetry.md").read_text().partition("## Audit")[2]
    assert {line["kind"] for line in lines} == {"start", "permit", "refusal", "handshake", "lost", "stop"}
    assert sorted({key for line in lines for key in line if f"`{key}`" not in text}) == []
    assert [
        kind for kind in ("start", "permit", "refusal", "handshake", "lost", "stop") if f"`{kind}`" not in text
    ] == []
