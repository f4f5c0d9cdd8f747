"""Which hops are logged, and what a line may hold."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from sidecar.config.schema import AccessLog as Config
from sidecar.errors import ConnectFailed, PolicyDenied
from sidecar.hop import ShadowVerdict, Token
from sidecar.telemetry.access_log import AccessLog
from tests.kit.hops import ORDERS, WEB, a_hop, a_tcp_hop

NOW = 1_700_000_000.0


def an_access_log(tmp_path: Path, dice: float = 0.5, capacity: int = 1_000_000, **config) -> AccessLog:
    settings = Config(**{"path": str(tmp_path / "access.jsonl"), **config})
    return AccessLog(settings, instance="0a1b2c3d", capacity=capacity, dice=lambda: dice)


@pytest.mark.parametrize(
    ("mode", "sample", "good", "refused", "failed", "broken"),
    [
        ("off", 0.0, False, False, False, False),
        ("off", 1.0, False, False, False, False),
        ("errors", 0.0, False, True, True, True),
        ("errors", 0.4, False, True, True, True),
        ("errors", 0.6, True, True, True, True),
        ("all", 0.0, True, True, True, True),
    ],
)
def test_what_is_logged(tmp_path, mode, sample, good, refused, failed, broken):
    log = an_access_log(tmp_path, mode=mode, sample=sample)
    assert log.wants(a_hop()) is good
    assert log.wants(a_hop(status=404)) is good, "an answer of the application's"
    assert log.wants(a_hop(error=PolicyDenied(), status=403)) is refused
    assert log.wants(a_hop(error=ConnectFailed(), status=503)) is failed
    assert log.wants(a_hop(status=500)) is broken
    assert log.wants(a_hop(status=200, grpc_status="NOT_FOUND")) is good
    assert log.wants(a_hop(status=200, grpc_status="UNAVAILABLE")) is broken


def test_a_line(tmp_path):
    log = an_access_log(tmp_path)
    log.write(a_hop("/orders/17?q=1", decision_id="0a1b2c3d-1", trace_id="ab" * 16), NOW)
    log.close()
    (line,) = (tmp_path / "access.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "timestamp": "2023-11-14T22:13:19.980000Z",
        "instance": "0a1b2c3d",
        "direction": "inbound",
        "listener": "http",
        "protocol": "http",
        "client.addr": "192.0.2.7:40000",
        "client.id": WEB.text,
        "server.id": ORDERS.text,
        "method": "GET",
        "host": "orders",
        "uri": "/orders/17",
        "version": "1.1",
        "status": 200,
        "request_bytes": 3,
        "response_bytes": 50,
        "processing_ns": pytest.approx(10_000_000, abs=2),
        "total_ns": pytest.approx(20_000_000, abs=2),
        "attempt": 1,
        "endpoint": "127.0.0.1:8080",
        "route": "/orders/{id}",
        "rule": "web-reads",
        "flags": "-",
        "error": "",
        "detail": "",
        "decision_id": "0a1b2c3d-1",
        "trace_id": "ab" * 16,
        "tls.version": "TLSv1.3",
        "tls.group": "X25519MLKEM768",
        "peer.cert_serial": "0a1b2c",
    }


def test_no_secret_is_logged_even_where_its_header_is_asked_for(tmp_path):
    log = an_access_log(tmp_path, headers=("Authorization", "cookie", "user-agent", "X-Env"))
    hop = a_hop(
        "/a?token=SECRET#SECRET",
        headers=[
            (b"authorization", b"Bearer SECRET"), (b"cookie", b"a=SECRET"), (b"set-cookie", b"SECRET"),
            (b"proxy-authorization", b"SECRET"), (b"user-agent", b"curl/8"), (b"x-env", b"prod"),
            (b"x-other", b"SECRET"),
        ],
        error=PolicyDenied("saw Bearer SECRET1"),
    )  # fmt: skip
    line = log.line(hop, NOW)
    assert "SECRET" not in json.dumps(line)
    assert line["headers"] == {"authorization": "[redacted]", "cookie": "[redacted]", "x-env": "prod"}
    assert line["user_agent"] == "curl/8"


def test_headers_are_absent_unless_listed(tmp_path):
    line = an_access_log(tmp_path).line(a_hop(headers=[(b"user-agent", b"curl/8")]), NOW)
    assert "headers" not in line
    assert "user_agent" not in line


def test_refusals_shadows_and_tcp(tmp_path):
    log = an_access_log(tmp_path)
    refused = log.line(a_hop(error=PolicyDenied("no rule allows it"), shadow=(ShadowVerdict("new", "permit"),)), NOW)
    assert (refused["flags"], refused["error"], refused["detail"]) == ("PD", "policy_denied", "no rule allows it")
    assert refused["shadow"] == {"new": "permit"}
    tcp = log.line(a_tcp_hop(peer=None, tls=None, source=ip_address("2001:db8::1"), first_byte=0.0), NOW)
    assert (tcp["client.addr"], tcp["client.id"], tcp["uri"], tcp["processing_ns"]) == (
        "[2001:db8::1]:40000",
        "",
        "",
        0,
    )
    assert log.line(a_hop(source=None), NOW)["client.addr"] == ""


def test_only_the_line_of_a_grpc_call_has_its_status(tmp_path):
    log = an_access_log(tmp_path)
    assert log.line(a_hop(grpc_status="ABORTED"), NOW)["grpc_status"] == "ABORTED"
    assert "grpc_status" not in log.line(a_hop(), NOW)


def test_a_line_is_bounded_and_one_line(tmp_path):
    log = an_access_log(tmp_path, headers=("x",))
    hop = a_hop(target="/" + "é\n" * 20000, host="h" * 30000, method="M" * 9000, headers=[(b"x", b"y" * 9000)] * 50)
    log.write(hop, NOW)
    log.close()
    content = (tmp_path / "access.jsonl").read_bytes()
    assert content.count(b"\n") == 1
    assert len(content) < 16_000


def test_a_stuck_writer_drops_and_counts_exactly(tmp_path):
    (tmp_path / "access.jsonl").symlink_to("/dev/full")
    size = len(json.dumps(an_access_log(tmp_path).line(a_hop(), NOW), separators=(",", ":"))) + 1
    log = an_access_log(tmp_path, capacity=10 * size)
    for _ in range(35):
        log.write(a_hop(), NOW)
    assert log.dropped == 25
    assert log.close(0.3) == 10


def test_a_token_is_named_by_its_issuer_and_a_hash_and_by_nothing_else(tmp_path):
    token = Token("login", "anna", {"sub": "anna", "email": "anna@example.org"}, frozenset({"read"}), NOW, "ab" * 8)
    line = an_access_log(tmp_path).line(a_hop(token=token), NOW)
    assert line["token"] == {"issuer": "login", "id": "ab" * 8}
    assert "anna" not in json.dumps(line)
