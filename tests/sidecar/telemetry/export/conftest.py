"""An audit with lines of every kind, read back as events."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.schema_audit import Audit as Config
from sidecar.errors import PolicyDenied, RateLimited
from sidecar.hop import Token
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.export.feed import Event, Feed, Position
from sidecar.telemetry.record import Handshake
from tests.kit.hops import A_TLS, ORDERS, WEB, a_hop


@pytest.fixture(scope="session")
def events(tmp_path_factory) -> list[Event]:
    path: Path = tmp_path_factory.mktemp("forms") / "audit.jsonl"
    audit = Audit(Config(), str(path), instance="0a1b2c3d", service=ORDERS.text, wall=lambda: 1.7e9)
    audit.permit(a_hop(), 1.7e9)
    audit.refusal(a_hop(error=PolicyDenied(), host='h"]\\', method="DELETE"), 1.7e9)
    audit.limited(a_hop(error=RateLimited()), RateLimited(), 1.7e9)
    audit.handshake(Handshake("inbound", "http", True, peer=WEB, tls=A_TLS), "", 1.7e9)
    audit.handshake(Handshake("inbound", "http", False, reason="expired"), "0a1b2c3d-1", 1.7e9)
    audit.event("admin", {"action": "/drain", "status": 202, "uid": 1000, "pid": 7})
    audit.event("config", {"generation": 2, "changes": ["allow[0]"]})
    audit.event("config_refused", {"count": 1, "mistakes": ["mesh.yaml:3:1: unknown key"]})
    audit.token(a_hop(), Token("login", "ann", {}, frozenset(), 1.7e9 + 300, "0123456789abcdef"))
    audit.event("drain", {"why": "SIGTERM"})
    audit.event("certificate", {"what": "renewed", "serial": "ab", "not_after": "2026-01-01T00:00:00.000000Z"})
    audit.event("certificate", {"what": "not_renewed", "reason": "the CA is away"})
    audit.event("denylist", {"sequence": 2, "denied": 1})
    audit.event("denylist", {"what": "refused", "reason": "an old one came"})
    audit.event("bundle", {"trust_domain": "demo.mesh", "roots": ["0a" * 32]})
    audit.event("evicted", {"direction": "inbound", "peer": WEB.text, "connections": 2, "serials": "0a 0b"})
    audit.event("workload_api", {"action": "FetchX509SVID", "status": 200, "uid": 1000, "pid": 7})
    audit.turned_away("http", "connections", 1.7e9)
    audit.quota_reset("daily", "web", 0, 1)
    audit.detection({"detector": "stuffing", "caller": WEB.text, "what": "40 refusals", "action": "record"})
    audit.detection_lifted(WEB.text, "", 0, 1)
    audit._lose(1.7e9)
    audit._tell_loss(1.7e9)
    audit.close(1.7e9)
    return list(Feed(path, path.with_name("cursor"), 1 << 30).read(Position()).events)
