"""The audit: its lines, its arithmetic, and its honesty about what it could not keep."""

from __future__ import annotations

import json
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest

from sidecar.config.schema_audit import Audit as Config
from sidecar.errors import IdentityRefused, PolicyDenied, RateLimited
from sidecar.hop import ShadowVerdict
from sidecar.telemetry import audit as module
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.record import Handshake
from tests.kit.hops import A_TLS, DEMO, MALLORY, ORDERS, WEB, a_hop, a_tcp_hop
from tests.sidecar.telemetry.test_writer import eventually

NOW = 1_700_000_000.0
AT = "2023-11-14T22:13:20.000000Z"


class Stage:
    """An audit into a file that can be made full and given room again."""

    def __init__(self, tmp_path: Path, capacity: int = 1_000_000, full: bool = False, **config) -> None:
        self.path, self.room = tmp_path / "audit.jsonl", tmp_path / "room"
        self._new = tmp_path / "new"
        self.alarms: list[str] = []
        self.path.symlink_to("/dev/full" if full else self.room)
        self.audit = Audit(
            Config(**config), str(self.path), instance="0a1b2c3d", service=ORDERS.text, capacity=capacity,
            alarm=self.alarms.append, wall=lambda: NOW, retry_seconds=0.005,
        )  # fmt: skip

    def make_room(self) -> None:
        self._new.symlink_to(self.room)
        self._new.replace(self.path)
        eventually(lambda: self.audit.waiting_bytes == 0)

    def lines(self, *kinds: str) -> list[dict]:
        lines = [json.loads(line) for line in self.room.read_text().splitlines()]
        assert all((each["v"], each["service"], each["instance"]) == (1, ORDERS.text, "0a1b2c3d") for each in lines)
        return [each for each in lines if not kinds or each["kind"] in kinds]

    def close(self) -> int:
        return self.audit.close(NOW + 500)


def body(line: dict) -> dict:
    return {
        name: value for name, value in line.items()
        if name not in ("v", "service", "instance", "seq", "kind", "time", "chain", "n", "prev")
    }


def test_a_record_begins_ends_and_is_numbered(tmp_path):
    stage = Stage(tmp_path)
    stage.audit.refusal(a_hop(error=PolicyDenied()), NOW)
    assert stage.close() == 0
    assert [(each["seq"], each["kind"]) for each in stage.lines()] == [(1, "start"), (2, "refusal"), (3, "stop")]


def test_a_refusal_is_a_line(tmp_path):
    stage = Stage(tmp_path)
    stage.audit.refusal(
        a_hop(
            "/orders/17?token=SECRET",
            peer=MALLORY,
            error=PolicyDenied("x"),
            rule="",
            status=403,
            decision_id="0a1b2c3d-1",
        ),
        NOW,
    )
    stage.close()
    (line,) = stage.lines("refusal")
    assert line["time"] == AT
    assert body(line) == {
        "direction": "inbound", "listener": "http", "protocol": "http", "caller": MALLORY.text,
        "destination": ORDERS.text,
        "source": "192.0.2.7", "method": "GET", "host": "orders", "path": "/orders/17", "path_shape": "/orders/{id}",
        "rule": "", "flag": "PD", "error": "policy_denied", "reason": "", "status": 403, "shadow": {},
        "decision_id": "0a1b2c3d-1",
    }  # fmt: skip


def test_an_identity_refusal_tells_the_reason(tmp_path):
    stage = Stage(tmp_path)
    stage.audit.refusal(a_hop(error=IdentityRefused("expired")), NOW)
    stage.close()
    assert stage.lines("refusal")[0]["reason"] == "expired"


def test_each_handshake_is_a_line(tmp_path):
    stage = Stage(tmp_path)
    source = ip_address("192.0.2.7")
    stage.audit.handshake(Handshake("inbound", "http", True, peer=WEB, source=source, tls=A_TLS), "", NOW)
    failed = Handshake(
        "outbound", "orders", False, peer=MALLORY, expected=ORDERS, source=source, reason="other_identity", detail="x"
    )
    stage.audit.handshake(failed, "0a1b2c3d-1", NOW)
    stage.close()
    good, bad = stage.lines("handshake")
    assert body(good) == {
        "direction": "inbound", "listener": "http", "ok": True, "peer": WEB.text, "expected": "", "source": "192.0.2.7",
        "reason": "", "detail": "", "tls_version": "TLSv1.3", "tls_group": "X25519MLKEM768", "serial": "0a1b2c",
        "not_after": "2027-01-15T08:00:00.000000Z", "decision_id": "",
    }  # fmt: skip
    assert (bad["ok"], bad["peer"], bad["expected"], bad["reason"]) == (
        False,
        MALLORY.text,
        ORDERS.text,
        "other_identity",
    )
    assert (bad["decision_id"], bad["tls_version"]) == ("0a1b2c3d-1", "")


def test_permits_are_counted_by_kind_with_first_and_last(tmp_path):
    stage = Stage(tmp_path)
    for number in range(1000):
        stage.audit.permit(a_hop(f"/orders/{number}"), NOW + number * 0.001)
    stage.audit.permit(a_hop("/orders/17", method="POST"), NOW)
    stage.audit.permit(a_hop("/orders/17", peer=None), NOW)
    stage.audit.permit(a_hop("/orders/17", shadow=(ShadowVerdict("new", "deny"),)), NOW)
    stage.audit.permit(a_tcp_hop(), NOW)
    stage.audit.flush(NOW + 60)
    stage.close()
    lines = stage.lines("permit")
    assert len(lines) == 5
    assert lines[0]["time"] == "2023-11-14T22:14:20.000000Z"
    assert body(lines[0]) == {
        "direction": "inbound", "listener": "http", "caller": WEB.text, "destination": ORDERS.text, "method": "GET",
        "host": "orders", "path_shape": "/orders/{id}", "rule": "web-reads", "shadow": {}, "count": 1000,
        "first": AT, "last": "2023-11-14T22:13:20.999000Z",
    }  # fmt: skip
    assert lines[3]["shadow"] == {"new": "deny"}
    assert (lines[4]["listener"], lines[4]["method"], lines[4]["path_shape"]) == ("db", "", "")
    assert sum(line["count"] for line in lines) == 1004


def test_counts_start_anew_after_a_flush(tmp_path):
    stage = Stage(tmp_path)
    stage.audit.permit(a_hop(), NOW)
    stage.audit.flush(NOW)
    stage.audit.permit(a_hop(), NOW + 1)
    stage.audit.permit(a_hop(), NOW + 2)
    stage.close()
    assert [(line["count"], line["first"][17:19]) for line in stage.lines("permit")] == [(1, "20"), (2, "21")]


def limited(name: str) -> RateLimited:
    return RateLimited("over it", limit=name, per="caller")


def test_refusals_by_rate_limits_are_counted_so_that_asking_too_often_fills_no_disk(tmp_path):
    stage = Stage(tmp_path)
    for number in range(3):
        stage.audit.limited(a_hop(), limited("few"), NOW + number)
    stage.audit.limited(a_hop(peer=MALLORY), limited("few"), NOW)
    stage.audit.limited(a_hop(peer=None), limited("all"), NOW)
    assert stage.close() == 0
    first, second, third = (body(line) for line in stage.lines("limited"))
    assert first == {
        "listener": "http", "caller": WEB.text, "destination": ORDERS.text, "limit": "few", "count": 3, "first": AT,
        "last": "2023-11-14T22:13:22.000000Z",
    }  # fmt: skip
    assert (second["caller"], second["count"], third["caller"], third["limit"]) == (MALLORY.text, 1, "", "all")
    assert not stage.lines("refusal")


def test_the_callers_that_limits_refuse_are_bounded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_KINDS", 2)
    stage = Stage(tmp_path)
    for peer in (WEB, MALLORY, ORDERS, DEMO.id("x"), WEB):
        stage.audit.limited(a_hop(peer=peer), limited("few"), NOW)
    stage.close()
    assert [(line["caller"], line["count"]) for line in stage.lines("limited")] == [
        (WEB.text, 2), (MALLORY.text, 1), ("other", 2),
    ]  # fmt: skip


def test_counts_of_rate_limits_wait_for_room_as_those_of_permits_do(tmp_path):
    stage = Stage(tmp_path, capacity=600, full=True)
    for number in range(40):
        stage.audit.limited(a_hop(), limited(f"limit-{number}"), NOW)
    assert stage.audit.flush(NOW) > 0
    for _ in range(40):
        stage.make_room() if stage.path.readlink() != stage.room else eventually(lambda: not stage.audit.waiting_bytes)
        if not stage.audit.flush(NOW):
            break
    stage.close()
    assert sum(line["count"] for line in stage.lines("limited")) == 40


def test_each_of_them_is_a_line_where_each_permit_is(tmp_path):
    stage = Stage(tmp_path, permits="each")
    stage.audit.limited(a_hop(error=limited("few"), status=429), limited("few"), NOW)
    stage.close()
    (line,) = stage.lines("refusal")
    assert (line["error"], line["flag"], line["status"]) == ("rate_limited", "RL", 429)


def test_a_tick_flushes_each_minute(tmp_path):
    stage = Stage(tmp_path)
    stage.audit.permit(a_hop(), NOW)
    for after in (15, 30, 45, 59.9):
        stage.audit.tick(NOW + after)
    assert len(stage.audit._kinds) == 1
    stage.audit.tick(NOW + 60)
    assert len(stage.audit._kinds) == 0
    stage.audit.permit(a_hop(), NOW)
    stage.audit.tick(NOW - 3600)
    assert len(stage.audit._kinds) == 0, "a clock that was set back must not stop the flushing"
    stage.close()


def test_each_permit_where_asked_for(tmp_path):
    stage = Stage(tmp_path, permits="each")
    stage.audit.permit(a_hop("/orders/17?x"), NOW)
    stage.audit.permit(a_hop("/orders/18"), NOW + 1)
    stage.close()
    lines = stage.lines("permit")
    assert [(line["path"], line["path_shape"], line["count"]) for line in lines] == [
        ("/orders/17", "/orders/{id}", 1), ("/orders/18", "/orders/{id}", 1)
    ]  # fmt: skip
    assert lines[0]["first"] == lines[0]["last"] == AT
    assert (lines[0]["source"], lines[0]["status"]) == ("192.0.2.7", 200)


def test_a_caller_that_invents_kinds_fills_only_its_own_places(tmp_path):
    stage = Stage(tmp_path)
    names = ["".join(chr(97 + int(digit)) for digit in f"{number:04}") for number in range(5000)]
    for name in names:
        stage.audit.permit(a_hop(f"/{name}", peer=MALLORY), NOW)
    stage.audit.permit(a_hop("/orders/1"), NOW)
    assert len(stage.audit._kinds) <= module.MAX_KINDS_OF_CALLER + 2
    stage.close()
    lines = stage.lines("permit")
    by_shape = Counter({(line["caller"], line["path_shape"]): line["count"] for line in lines})
    assert by_shape[MALLORY.text, "other"] == 5000 - module.MAX_KINDS_OF_CALLER
    assert by_shape[WEB.text, "/orders/{id}"] == 1
    assert sum(by_shape.values()) == 5001


def test_all_kinds_together_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_KINDS", 20)
    stage = Stage(tmp_path)
    for number in range(200):
        stage.audit.permit(a_hop("/x", peer=DEMO.id("sa", f"s{number}")), NOW)
    assert len(stage.audit._kinds) <= 42
    assert sum(each.count for each in stage.audit._kinds.values()) == 200
    stage.audit.flush(NOW)
    assert (stage.audit._kinds, stage.audit._of_caller) == ({}, {})
    stage.close()


def test_long_targets_are_not_kept_in_the_short_cut(tmp_path):
    stage = Stage(tmp_path)
    for number in range(10):
        stage.audit.permit(a_hop("/orders/" + str(number) + "x" * 600), NOW)
    assert len(stage.audit._short_cut) == 0
    assert [each.count for each in stage.audit._kinds.values()] == [10]
    stage.close()


# ---- the full disk -----------------------------------------------------------------------------------------------


def fill(stage: Stage, lines: int) -> None:
    for number in range(lines):
        stage.audit.refusal(a_hop(error=PolicyDenied(), decision_id=f"0a1b2c3d-{number:04}"), NOW + number)


def test_the_exact_number_lost_enters_the_record(tmp_path):
    stage = Stage(tmp_path, capacity=20_000, full=True)
    fill(stage, 200)
    lost = stage.audit.lost
    assert 100 < lost < 200
    assert stage.audit.accepting(), "on_full: continue"
    eventually(lambda: stage.audit.problem == "No space left on device")
    assert "No space left on device" in stage.alarms
    assert any("lost" in alarm for alarm in stage.alarms)

    stage.make_room()
    stage.audit.tick(NOW + 300)
    stage.audit.refusal(a_hop(error=PolicyDenied(), decision_id="0a1b2c3d-last"), NOW + 301)
    assert stage.close() == 0
    lines = stage.lines()
    kept = [line for line in lines if line["kind"] == "refusal"]
    (record,) = [line for line in lines if line["kind"] == "lost"]
    assert record["count"] == lost == 201 - len(kept)
    assert record["first"] == module.rfc3339(NOW + 200 - lost)
    assert record["last"] == module.rfc3339(NOW + 199)
    assert lines.index(record) == len(lines) - 3, "where the gap is, before what came after"
    numbers = [line["seq"] for line in lines]
    assert numbers[-1] - len(numbers) == lost, "the gap in the numbers is the number lost"


def test_a_loss_is_told_by_the_next_line_too(tmp_path):
    stage = Stage(tmp_path, capacity=5_000, full=True)
    fill(stage, 50)
    stage.make_room()
    fill(stage, 1)
    stage.close()
    assert [line["kind"] for line in stage.lines()][-3:] == ["lost", "refusal", "stop"]


def test_counts_of_permits_are_never_lost_to_a_full_disk(tmp_path):
    stage = Stage(tmp_path, capacity=5_000, full=True)
    fill(stage, 50)
    for _ in range(1000):
        stage.audit.permit(a_hop(), NOW)
    assert stage.audit.flush(NOW) == 1
    for _ in range(500):
        stage.audit.permit(a_hop(), NOW + 1)
    lost = stage.audit.lost
    stage.make_room()
    assert stage.audit.flush(NOW + 60) == 0
    stage.close()
    assert [line["count"] for line in stage.lines("permit")] == [1500]
    assert [line["count"] for line in stage.lines("lost")] == [lost]


def test_on_full_refuse_stops_accepting_and_comes_back(tmp_path):
    stage = Stage(tmp_path, capacity=20_000, full=True, on_full="refuse")
    assert stage.audit.accepting()
    while stage.audit.accepting():
        fill(stage, 1)
    assert stage.audit.lost == 0, "it refuses before it loses"
    assert stage.audit.waiting_bytes >= 15_000
    stage.make_room()
    assert stage.audit.accepting()
    assert stage.close() == 0


def test_an_end_with_a_full_disk_tells_how_much_was_not_kept(tmp_path):
    stage = Stage(tmp_path, full=True)
    fill(stage, 7)
    stage.audit.permit(a_hop(), NOW)
    assert stage.audit.close(NOW, timeout=0.5) == 1 + 7 + 1 + 1


@pytest.mark.parametrize("on_full", ["continue", "refuse"])
def test_a_disk_with_room_always_accepts(tmp_path, on_full):
    stage = Stage(tmp_path, on_full=on_full)
    fill(stage, 10)
    assert stage.audit.accepting()
    assert stage.close() == 0
