"""A hop that only a posture let pass, in every view: the same count, the same words, and never a refusal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.schema import AccessLog as LogConfig
from sidecar.errors import ConnectFailed, HopError, PolicyDenied
from sidecar.hop import Hop, Waived
from sidecar.telemetry import outcome
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.decisions import Decision
from sidecar.telemetry.record import Recorder
from tests.kit.hops import WEB, a_hop
from tests.sidecar.telemetry.test_audit import NOW, Stage

UNTIL = NOW + 3600.0
NO_RULE = Waived("observe", UNTIL, "policy_denied", "PD", detail="no rule allows this caller to do this")
BY_RULE = Waived("observe", UNTIL, "policy_denied", "PD", rule="no-x", detail="deny rule 'no-x' forbids it")
PLAINTEXT = Waived("permissive", UNTIL, "identity_refused", "ID", "plaintext", detail="the caller speaks no TLS")
WORDS = {"posture": "observe", "error": "policy_denied", "flag": "PD", "rule": "no-x"}


def passed(waived: Waived, **changes: Any) -> Hop:
    """A hop that went well."""
    facts = {"waived": waived, "rule": waived.let_in_by, "route": "", "decision_id": "0a1b2c3d-1"}
    if waived.posture == "permissive":
        facts |= {"peer": None, "tls": None}
    return a_hop(**(facts | changes))


def test_a_posture_has_a_name_that_no_rule_can_have() -> None:
    assert PLAINTEXT.let_in_by == "posture:permissive"
    assert BY_RULE.let_in_by == "posture:observe"


ENDS = [(None, "permit"), (ConnectFailed(), "permit"), (PolicyDenied(), "deny")]


@pytest.mark.parametrize(("error", "verdict"), ENDS)
def test_it_was_let_in_whatever_befell_it_but_a_refusal(error: HopError | None, verdict: str) -> None:
    assert outcome.verdict(passed(BY_RULE, error=error)) == verdict


@pytest.mark.parametrize("mode", ["off", "errors", "all"])
def test_the_access_log_has_it_wherever_it_would_have_a_refusal(tmp_path: Path, mode: Any) -> None:
    log = AccessLog(LogConfig(mode=mode, path=str(tmp_path / "log")), instance="0a1b2c3d", dice=lambda: 1.0)
    assert log.wants(passed(BY_RULE)) is (mode != "off")
    line = log.line(passed(BY_RULE), NOW)
    assert (line["rule"], line["flags"], line["error"], line["status"]) == ("posture:observe", "-", "", 200)
    assert line["would_refuse"] == WORDS
    assert "would_refuse" not in log.line(a_hop(), NOW)
    log.close()


def test_the_audit_counts_what_strict_would_have_refused_apart_by_what_it_would_have_said(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for waived in (NO_RULE, BY_RULE, BY_RULE, PLAINTEXT):
        stage.audit.permit(passed(waived), NOW)
    stage.audit.permit(a_hop(), NOW)
    stage.audit.refusal(passed(BY_RULE, error=PolicyDenied(), status=413), NOW)
    stage.close()
    found = Counter[tuple[str, ...]]()
    for line in stage.lines("permit"):
        it = line.get("would_refuse", dict.fromkeys(WORDS, ""))
        found[(line["caller"], line["rule"], *it.values())] += line["count"]
    assert found == {
        (WEB.text, "posture:observe", "observe", "policy_denied", "PD", ""): 1,
        (WEB.text, "posture:observe", "observe", "policy_denied", "PD", "no-x"): 2,
        ("", "posture:permissive", "permissive", "identity_refused", "ID", ""): 1,
        (WEB.text, "web-reads", "", "", "", ""): 1,
    }
    (refusal,) = stage.lines("refusal")
    assert refusal["would_refuse"] == WORDS


def test_one_line_each_where_that_was_asked_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path, permits="each")
    stage.audit.permit(passed(BY_RULE), NOW)
    stage.audit.permit(a_hop(), NOW)
    stage.close()
    waived, plain = stage.lines("permit")
    assert (waived["would_refuse"], waived["decision_id"]) == (WORDS, "0a1b2c3d-1")
    assert "would_refuse" not in plain


def test_a_caller_that_invents_kinds_does_not_hide_what_strict_would_have_said(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for number in range(300):
        stage.audit.permit(passed(BY_RULE, host=f"h{number}"), NOW)
    stage.close()
    lines = stage.lines("permit")
    assert sum(line["count"] for line in lines) == 300
    assert len(lines) <= 257
    assert all(line["would_refuse"] == WORDS for line in lines)


def test_a_decision_remembers_it_whole() -> None:
    decision = Decision.of_hop(passed(PLAINTEXT), NOW, frozenset())
    assert (decision.verdict, decision.error, decision.caller) == ("permit", "", "")
    assert decision.to_json()["waived"] == {
        "posture": "permissive", "until": "2023-11-14T23:13:20.000000Z", "error": "identity_refused", "flag": "ID",
        "reason": "plaintext", "rule": "", "detail": "the caller speaks no TLS",
    }  # fmt: skip
    assert Decision.of_hop(a_hop(), NOW, frozenset()).to_json()["waived"] is None


def test_metrics_and_the_ring_count_each_of_them_once() -> None:
    recorder = Recorder(instance="0a1b2c3d")
    for waived in (NO_RULE, BY_RULE, BY_RULE, PLAINTEXT):
        recorder.observe(passed(waived, decision_id=recorder.decision_id()))
    recorder.observe(a_hop())
    text = recorder.metrics.render().decode()
    start = 'mesh_posture_would_refuse_total{listener="http",posture='
    web = f'"observe",source="{WEB}"'
    assert [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)] == [
        f'{web},rule="-",flag="PD",error="policy_denied"}} 1',
        f'{web},rule="no-x",flag="PD",error="policy_denied"}} 2',
        '"permissive",source="-",rule="-",flag="ID",error="identity_refused"} 1',
    ]
    assert recorder.metrics.would_refuse == {"http": 4}
    assert "mesh_refusals_total{" not in text
    assert len(recorder.decisions) == 4
    rows = {row["rule"]: row["requests"] for row in recorder.table.read(0.0)["hops"]}
    assert rows == {"posture:observe": 3, "posture:permissive": 1, "web-reads": 1}
