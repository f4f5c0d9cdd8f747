"""The Recorder: one hop in, every view agrees; it never raises and never costs much."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
import trio.testing

from sidecar import errors
from sidecar.config.load import load_text
from sidecar.config.schema import AccessLog as AccessLogConfig
from sidecar.config.schema_audit import Audit as AuditConfig
from sidecar.errors import (
    ConnectFailed,
    DownstreamGone,
    IdentityRefused,
    InternalError,
    PeerIdentityMismatch,
    PolicyDenied,
    RequestTimeout,
)
from sidecar.hop import Token
from sidecar.net.clock import TestClock
from sidecar.net.mtls import Peer
from sidecar.telemetry import outcome
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.log import Log
from sidecar.telemetry.record import TICK_SECONDS, Handshake, Recorder
from sidecar.telemetry.series import IDLE_SECONDS
from sidecar.telemetry.setup import make_recorder, new_instance
from tests.kit.hops import A_TLS, MALLORY, ORDERS, WEB, a_hop, a_tcp_hop

NOW = 1_700_000_000.0


@dataclass
class Now:
    """A clock that stands still until told."""

    mono: float = 100.0

    def monotonic(self) -> float:
        return self.mono

    def wall(self) -> float:
        return NOW + self.mono - 100.0


class Stage:
    def __init__(self, tmp_path: Path, *, mode: str = "errors") -> None:
        self.folder, self.clock = tmp_path, Now()
        self.errors = os.open(tmp_path / "stderr", os.O_CREAT | os.O_WRONLY, 0o600)
        self.log = Log(fd=self.errors, human=False)
        self.recorder = Recorder(
            instance="0a1b2c3d",
            access_log=AccessLog(AccessLogConfig(mode=mode, path=str(tmp_path / "access")), instance="0a1b2c3d"),
            audit=Audit(
                AuditConfig(), str(tmp_path / "audit"), instance="0a1b2c3d", service=ORDERS.text, wall=self.clock.wall
            ),
            log=self.log,
            rule_headers=[b"x-env"],
            clock=self.clock,
        )

    def close(self) -> None:
        self.recorder.close()
        self.log.close()
        os.close(self.errors)

    def read(self, name: str, *kinds: str) -> list[dict]:
        path = self.folder / name
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if not kinds or line["kind"] in kinds]


def count(recorder: Recorder, prefix: str) -> float:
    text = recorder.metrics.render().decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(prefix))


def test_the_books_balance(tmp_path):
    stage = Stage(tmp_path, mode="all")
    hops = [a_hop(f"/orders/{n}") for n in range(50)]
    hops += [a_hop(f"/orders/{n}", peer=MALLORY, rule="", error=PolicyDenied(), status=403) for n in range(20)]
    hops += [a_hop(error=ConnectFailed(), status=503) for _ in range(7)]
    hops += [a_tcp_hop() for _ in range(3)]
    for hop in hops:
        stage.recorder.observe(hop)
    table = stage.recorder.table.read(0.0)["hops"]
    stage.close()
    permits = sum(line["count"] for line in stage.read("audit", "permit"))
    refusals = stage.read("audit", "refusal")
    assert (permits, len(refusals)) == (60, 20)
    assert len(stage.read("access")) == len(hops) == 80
    assert count(stage.recorder, "mesh_requests_total{") == 80
    assert count(stage.recorder, "mesh_refusals_total{") == 20
    assert count(stage.recorder, "mesh_request_duration_seconds_count{") == 80
    assert sum(row["requests"] for row in table) == 80
    assert sum(row["requests"] for row in table if row["verdict"] == "deny") == 20
    assert sum(row["failures"] for row in table) == 27
    ids = {line["decision_id"] for line in stage.read("access")}
    assert len(ids) == len(stage.recorder.decisions) == 80
    assert {line["decision_id"] for line in refusals} <= ids
    assert count(stage.recorder, "mesh_telemetry_faults_total") == 0


def test_a_plain_permit_gets_no_decision_id(tmp_path):
    stage = Stage(tmp_path)
    hop = a_hop()
    stage.recorder.observe(hop)
    stage.close()
    assert hop.decision_id == ""
    assert len(stage.recorder.decisions) == 0
    assert stage.read("access") == []


def test_the_id_that_the_proxy_put_into_its_answer_is_kept(tmp_path):
    stage = Stage(tmp_path)
    hop = a_hop(error=PolicyDenied(), rule="", headers=[(b"x-env", b"prod"), (b"x-b", b"c")])
    hop.decision_id = stage.recorder.decision_id()
    stage.recorder.observe(hop)
    stage.close()
    found = stage.recorder.decisions.lookup(hop.decision_id)
    assert (found["error"], found["headers"]) == ("policy_denied", {"x-env": "prod"})
    assert stage.read("access")[0]["decision_id"] == stage.read("audit", "refusal")[0]["decision_id"] == hop.decision_id


def test_without_logs_refusals_are_still_explained():
    recorder = Recorder(instance="0a1b2c3d", clock=Now())
    hop = a_hop(error=PolicyDenied())
    recorder.observe(hop)
    assert recorder.decisions.find(hop.decision_id).flag == "PD"
    recorder.tick()
    recorder.close()


@pytest.mark.parametrize(
    ("changes", "verdict", "refused", "failed"),
    [
        ({}, "permit", False, False),
        ({"status": 500}, "permit", False, True),
        ({"error": PolicyDenied()}, "deny", True, True),
        ({"error": IdentityRefused("expired")}, "deny", True, True),
        ({"error": PeerIdentityMismatch("other")}, "deny", True, True),
        ({"error": ConnectFailed()}, "permit", False, True),
        ({"error": DownstreamGone()}, "permit", False, True),
        ({"error": DownstreamGone(), "rule": "", "attempts": 1}, "permit", False, True),
        ({"error": DownstreamGone(), "rule": "", "attempts": 0}, "deny", False, True),
        ({"error": RequestTimeout(), "rule": "", "attempts": 0}, "deny", False, True),
        ({"error": InternalError(), "rule": "", "attempts": 0}, "deny", False, True),
    ],
)
def test_outcomes(changes, verdict, refused, failed):
    hop = a_hop(**changes)
    assert (outcome.verdict(hop), outcome.refused(hop), outcome.failed(hop)) == (verdict, refused, failed)


def test_what_broke_a_contract_a_moment_ago_is_not_forgotten(tmp_path):
    stage = Stage(tmp_path)
    stage.clock.mono = 5000.0
    stage.recorder.outside_contract("http", "getOrder", "answer", refused=True)
    stage.recorder.sweep(stage.clock.mono + IDLE_SECONDS - 1)
    assert count(stage.recorder, "mesh_contract_broken_total{") == 1
    stage.recorder.sweep(stage.clock.mono + IDLE_SECONDS + 1)
    assert count(stage.recorder, "mesh_contract_broken_total{") == 0
    stage.close()


def test_a_token_that_was_found_good_is_a_line(tmp_path):
    stage = Stage(tmp_path)
    stage.recorder.token(a_hop(), Token("login", "ann", {"email": "a@b.c"}, frozenset(), NOW + 60, "0123456789abcdef"))
    stage.close()
    (line,) = stage.read("audit", "token")
    assert (line["caller"], line["token"]) == (WEB.text, {"issuer": "login", "id": "0123456789abcdef"})
    assert line["expires"].startswith("2023-11-14T22:14:20")
    assert "ann" not in str(line), "who the user is stays with the issuer"


def test_what_never_became_a_request_is_no_permit_in_the_audit(tmp_path):
    stage = Stage(tmp_path)
    stage.recorder.observe(a_hop(error=RequestTimeout(), rule="", attempts=0, status=408))
    stage.recorder.observe(a_hop(error=DownstreamGone()))
    stage.close()
    assert [line["count"] for line in stage.read("audit", "permit")] == [1]
    assert stage.read("audit", "refusal") == []
    assert len(stage.read("access")) == 2


def test_a_failed_handshake_has_an_id_that_explains_it(tmp_path):
    stage = Stage(tmp_path)
    source = ip_address("192.0.2.9")
    assert (
        stage.recorder.handshake(Handshake("inbound", "http", True, peer=WEB, source=source, tls=A_TLS, seconds=0.003))
        == ""
    )
    decision_id = stage.recorder.handshake(
        Handshake("inbound", "http", False, peer=MALLORY, source=source, reason="expired", detail="expired 2 d ago")
    )
    stage.close()
    found = stage.recorder.decisions.lookup(decision_id)
    assert found | {
        "kind": "handshake", "verdict": "deny", "presented": MALLORY.text, "source": "192.0.2.9",
        "error": "identity_refused", "reason": "expired", "detail": "expired 2 d ago", "flag": "ID",
    } == found  # fmt: skip
    good, bad = stage.read("audit", "handshake")
    assert (good["ok"], good["peer"], good["decision_id"]) == (True, WEB.text, "")
    assert (bad["ok"], bad["reason"], bad["decision_id"]) == (False, "expired", decision_id)
    (line,) = stage.read("stderr")
    assert (line["message"], line["decision_id"], line["reason"]) == ("a TLS handshake failed", decision_id, "expired")
    assert count(stage.recorder, 'mesh_tls_handshakes_total{direction="inbound",result="failed"') == 1


def test_an_outbound_handshake_names_what_was_expected(tmp_path):
    stage = Stage(tmp_path)
    decision_id = stage.recorder.handshake(
        Handshake("outbound", "orders", False, peer=MALLORY, expected=ORDERS, reason="other_identity")
    )
    stage.close()
    found = stage.recorder.decisions.lookup(decision_id)
    assert (found["error"], found["destination"], found["presented"], found["caller"]) == (
        "peer_identity", ORDERS.text, MALLORY.text, "",
    )  # fmt: skip


class Broken:
    def __getattr__(self, name):
        raise RuntimeError("a fault of ours")


def test_a_fault_of_ours_never_reaches_the_hop(tmp_path):
    stage = Stage(tmp_path)
    stage.recorder.table = Broken()
    stage.recorder.observe(a_hop())
    stage.recorder.metrics.observe_handshake = Broken().__getattr__
    assert stage.recorder.handshake(Handshake("inbound", "http", True)) == ""
    stage.recorder.tick()
    stage.close()
    assert count(stage.recorder, "mesh_telemetry_faults_total") == 3
    messages = {line["message"] for line in stage.read("stderr")}
    assert messages == {
        "a hop could not be recorded",
        "a handshake could not be recorded",
        "telemetry could not be swept",
    }


@pytest.mark.parametrize(
    "oddity", [{"status": -1}, {"ended": 0.0}, {"ended": float("nan")}, {"target": "\ud800"}, {"host": "\udcff\n"}]
)
def test_odd_hops_are_survived(tmp_path, oddity):
    stage = Stage(tmp_path, mode="all")
    stage.recorder.observe(a_hop(**oddity))
    stage.recorder.observe(a_hop())
    stage.close()
    assert len(stage.read("access")) >= 1


def test_a_round_sweeps_and_kinds_come_back(tmp_path):
    stage = Stage(tmp_path)
    stage.recorder.observe(a_hop())
    stage.clock.mono = 100.0 + IDLE_SECONDS + 1
    stage.recorder.tick()
    assert (len(stage.recorder.table), count(stage.recorder, "mesh_requests_total{")) == (0, 0)
    stage.recorder.observe(a_hop(started=stage.clock.mono, ended=stage.clock.mono, first_byte=0.0))
    assert (len(stage.recorder.table), count(stage.recorder, "mesh_requests_total{")) == (1, 1)
    stage.close()


def test_the_cache_of_kinds_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.telemetry.record._MAX_KINDS", 8)
    recorder = Recorder(instance="0a1b2c3d", clock=Now())
    for number in range(50):
        recorder.observe(a_hop(rule=f"r{number}"))
    assert len(recorder._kinds) <= 8
    assert count(recorder, "mesh_requests_total{") == 50


def test_the_task_flushes_each_minute(tmp_path):
    async def story() -> list[int]:
        clock, seen = TestClock(NOW), []
        audit = Audit(AuditConfig(), str(tmp_path / "audit"), instance="0a1b2c3d", service="s", wall=clock.wall)
        recorder = Recorder(instance="0a1b2c3d", audit=audit, clock=clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.run)
            for _ in range(3):
                audit.permit(a_hop(), clock.wall())
                await trio.sleep(TICK_SECONDS * 2 + 1)
                seen.append(len(audit._kinds))
            nursery.cancel_scope.cancel()
        recorder.close()
        return seen

    assert trio.run(story, clock=trio.testing.MockClock(autojump_threshold=0)) == [1, 0, 1]
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "audit").read_text().splitlines()]
    assert kinds == ["start", "permit", "permit", "stop"]


CONFIG = """
trust_domain: demo.mesh
services:
  web: {}
  orders:
    inbound:
      - name: http
        port: 17443
        app: 127.0.0.1:8080
    access_log: {mode: all, headers: [user-agent]}
    audit: {on_full: refuse}
    allow:
      - name: web-reads
        from: web
        headers: {x-env: prod}
"""


def test_made_from_a_service(tmp_path):
    service = load_text(CONFIG).services["orders"]
    errors = os.open(tmp_path / "stderr", os.O_CREAT | os.O_WRONLY, 0o600)
    log = Log(fd=errors, human=False)
    recorder = make_recorder(service, instance=new_instance(), state_dir=tmp_path, log=log, clock=Now(), version="9.9")
    assert recorder._wanted_headers == {b"x-env", b"user-agent"}
    recorder.audit.permit(a_hop(), NOW)
    recorder.close()
    log.close()
    os.close(errors)
    assert '"service":"spiffe://demo.mesh/ns/default/sa/orders"' in (tmp_path / "audit.jsonl").read_text()
    assert b'mesh_build_info{version="9.9"} 1\n' in recorder.metrics.render()


# What became of a hop that was let in, and failed: the audit counts it as permitted. All else is a line that says why.
LET_IN = {
    "deadline_past", "fault_injected", "token_unavailable", "connect_failed",
    "handshake_failed", "upstream_closed", "upstream_reset", "upstream_refused", "response_timeout", "total_timeout",
    "try_timeout", "upstream_idle", "no_endpoint", "hop_error",
}  # fmt: skip
UNDECIDED = {"request_timeout", "idle", "too_slow", "downstream_gone", "internal"}  # ended before there was a decision
COUNTED = {"rate_limited", "quota_spent", "tcp_limited", "throttled", "caller_blocked"}


def every_error() -> list[type[errors.HopError]]:
    found, waiting = list[type[errors.HopError]](), [errors.HopError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return sorted({kind for kind in found if kind.__module__ == errors.__name__}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_each_refusal_is_in_the_audit(tmp_path, kind):
    stage = Stage(tmp_path)
    error = kind("expired") if issubclass(kind, IdentityRefused | PeerIdentityMismatch) else kind()
    stage.recorder.observe(a_hop(error=error, rule="", attempts=0))
    stage.close()
    lines = [line["kind"] for line in stage.read("audit") if line["kind"] not in ("start", "stop")]
    name = kind.name
    expected = "limited" if name in COUNTED else "permit" if name in LET_IN else "refusal"
    assert lines == ([] if name in UNDECIDED else [expected])


def test_what_is_cut_off_later_is_a_refusal_and_a_quiet_renewal_is_none(tmp_path):
    stage = Stage(tmp_path)
    for error in (errors.TokenEnded(), errors.CertificateEnded(), errors.AnswerBroken(), errors.IdentityRevoked("x")):
        stage.recorder.observe(a_hop(error=error, attempts=1))
    stage.recorder.observe(a_hop(error=errors.CertificateEnded(quiet=True), attempts=1))
    stage.close()
    names = [line["error"] for line in stage.read("audit", "refusal")]
    assert names == ["token_ended", "certificate_ended", "answer_broken", "identity_refused"]
    assert [line["count"] for line in stage.read("audit", "permit")] == [1]


def test_who_is_revoked_is_cut_off_on_the_record_even_between_two_requests(tmp_path):
    stage = Stage(tmp_path)
    stage.recorder.evicted([Peer(WEB, A_TLS, "0a"), Peer(WEB, A_TLS, "0a"), Peer(MALLORY, A_TLS, "0b")], 2)
    stage.recorder.evicted([], 0)
    stage.close()
    told = [(line["direction"], line["peer"], line["connections"]) for line in stage.read("audit", "evicted")]
    assert told == [("inbound", WEB.text, 2), ("inbound", MALLORY.text, 1), ("outbound", "", 2)]
    assert stage.read("audit", "evicted")[0]["serials"] == A_TLS.serial


def test_connections_that_are_not_even_taken_are_counted_in_the_audit(tmp_path):
    stage = Stage(tmp_path)
    for why in ("connections", "connections", "memory"):
        stage.recorder.connection_refused("inbound", "http", why)
    stage.close()
    told = [(line["listener"], line["limit"], line["count"]) for line in stage.read("audit", "limited")]
    assert told == [("http", "connections", 2), ("http", "memory", 1)]
