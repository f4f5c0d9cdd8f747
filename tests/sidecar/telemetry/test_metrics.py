"""Every hop is counted once; label sets are closed, capped and expire."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.errors import BodyTooLarge, ConnectFailed, PolicyDenied
from sidecar.hop import ShadowVerdict
from sidecar.identity.status import IdentityStatus
from sidecar.telemetry.definitions import DEFINITIONS, HOP_CAP, HOP_METRICS, LABELS
from sidecar.telemetry.metrics import Metrics, status_class
from sidecar.telemetry.record import Recorder
from sidecar.telemetry.series import IDLE_SECONDS
from tests.kit.hops import A_TLS, DEMO, ORDERS, WEB, a_hop, a_tcp_hop


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.render()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = [v for (n, ls), v in samples(metrics).items() if n == name and set(labels.items()) <= ls]
    return sum(found)


def test_a_hop_is_counted_with_its_labels():
    metrics = Metrics()
    metrics.observe(a_hop())
    labels = {
        "direction": "inbound", "source": WEB.text, "destination": ORDERS.text,
        "route": "/orders/{id}", "status_class": "2xx", "flag": "-",
    }  # fmt: skip
    got = samples(metrics)
    key = frozenset(labels.items())
    assert got["mesh_requests_total", key] == 1
    assert got["mesh_received_bytes_total", key] == 3
    assert got["mesh_sent_bytes_total", key] == 50
    assert got["mesh_request_duration_seconds_count", key] == 1
    assert got["mesh_request_duration_seconds_sum", key] == pytest.approx(0.020)
    assert got["mesh_request_first_byte_seconds_sum", key] == pytest.approx(0.010)
    assert got["mesh_request_duration_seconds_bucket", key | {("le", "0.01")}] == 0
    assert got["mesh_request_duration_seconds_bucket", key | {("le", "0.025")}] == 1
    assert got["mesh_request_duration_seconds_bucket", key | {("le", "+Inf")}] == 1


def test_a_grpc_call_is_counted_by_the_status_that_its_caller_got():
    recorder = Recorder(instance="0a1b2c3d")
    recorder.observe(a_hop(grpc_status="OK"))
    recorder.observe(a_hop(grpc_status="NOT_FOUND", route="/shop.Orders/Get"))
    recorder.observe(a_hop(grpc_status="PERMISSION_DENIED", route="", peer=None, error=PolicyDenied()))
    recorder.observe(a_hop())
    metrics, name = recorder.metrics, "mesh_grpc_calls_total"
    assert value(metrics, name) == 3
    assert value(metrics, name, grpc_status="NOT_FOUND", route="/shop.Orders/Get", source=WEB.text) == 1
    assert value(metrics, name, grpc_status="PERMISSION_DENIED", route="-", source="-", destination=ORDERS.text) == 1


def test_a_hop_without_an_answer_has_no_first_byte():
    metrics = Metrics()
    metrics.observe(a_hop(first_byte=0.0, status=0, error=ConnectFailed()))
    assert value(metrics, "mesh_request_first_byte_seconds_count") == 0
    assert value(metrics, "mesh_requests_total", status_class="-", flag="UF") == 1
    assert value(metrics, "mesh_refusals_total") == 0, "a failure is no refusal"


@pytest.mark.parametrize(
    ("status", "label"), [(0, "-"), (99, "-"), (101, "1xx"), (204, "2xx"), (599, "5xx"), (600, "-"), (9999, "-")]
)
def test_status_classes_are_closed(status, label):
    assert status_class(a_hop(status=status)) == label


def test_tcp_has_no_status_class():
    metrics = Metrics()
    metrics.observe(a_tcp_hop())
    assert value(metrics, "mesh_requests_total", status_class="-") == 1


def test_refusals_name_rule_flag_and_error():
    metrics = Metrics()
    metrics.observe(a_hop(error=PolicyDenied("x"), rule="no-mallory", status=403))
    metrics.observe(a_hop(error=BodyTooLarge(), status=413))
    assert value(metrics, "mesh_refusals_total", rule="no-mallory", flag="PD", error="policy_denied") == 1
    assert value(metrics, "mesh_refusals_total", flag="SV", error="body_too_large") == 1


def test_shadow_verdicts_are_counted_without_effect():
    metrics = Metrics()
    metrics.observe(a_hop(shadow=(ShadowVerdict("new-rule", "deny"),)))
    assert value(metrics, "mesh_shadow_verdicts_total", rule="new-rule", effect="deny") == 1
    assert value(metrics, "mesh_refusals_total") == 0


def test_no_byte_that_a_caller_chose_becomes_a_label():
    metrics = Metrics()
    metrics.observe(
        a_hop(
            "/secret-path/evil?q=1",
            host="evil.example",
            method="EVIL",
            headers=[(b"x", b"evil")],
            error=PolicyDenied("evil"),
        )
    )
    text = metrics.render()
    assert b"evil" not in text.lower()
    assert b"secret-path" not in text


def test_past_the_cap_identities_become_other_and_hops_still_count():
    metrics = Metrics()
    for number in range(HOP_CAP + 7):
        metrics.observe(a_hop(peer=DEMO.id("ns", "default", "sa", f"s{number}")))
    assert value(metrics, "mesh_requests_total") == HOP_CAP + 7
    assert (
        value(metrics, "mesh_requests_total", source="other", destination="other", direction="inbound", flag="-") == 7
    )
    assert value(metrics, "mesh_metric_series_dropped_total", metric="mesh_requests_total") == 7
    assert len([1 for name, _ in samples(metrics) if name == "mesh_requests_total"]) == HOP_CAP + 1


def test_idle_series_expire_and_leave_room():
    metrics = Metrics()
    metrics.observe(a_hop(ended=100.0))
    metrics.observe(a_hop(peer=None, ended=100.0 + IDLE_SECONDS))
    metrics.observe(a_hop(peer=None, ended=100.0 + IDLE_SECONDS, error=PolicyDenied()))
    assert metrics.sweep(100.0 + IDLE_SECONDS) == 0
    assert metrics.sweep(100.1 + IDLE_SECONDS) == 1
    assert value(metrics, "mesh_requests_total", source=WEB.text) == 0
    assert value(metrics, "mesh_requests_total", source="-") == 2
    assert metrics.sweep(1e9) == 3
    assert value(metrics, "mesh_requests_total") == 0
    assert value(metrics, "mesh_refusals_total") == 0


def test_gauges_of_open_connections_never_expire():
    metrics = Metrics()
    for _ in range(3):
        metrics.connection_opened("inbound", "http")
    metrics.connection_closed("inbound", "http")
    metrics.sweep(1e9)
    assert value(metrics, "mesh_connections_open", listener="http") == 2
    assert value(metrics, "mesh_connections_opened_total") == 3
    assert value(metrics, "mesh_connections_closed_total") == 1


def test_handshakes():
    metrics = Metrics()
    metrics.observe_handshake("inbound", "http", True, "", A_TLS, 0.004)
    metrics.observe_handshake("inbound", "http", False, "expired", None, 0.001)
    metrics.observe_handshake("inbound", "http", False, "Reason With\nBytes of the caller", None, 0.001)
    assert value(metrics, "mesh_tls_handshakes_total", result="ok", version="TLSv1.3", group="X25519MLKEM768") == 1
    assert value(metrics, "mesh_tls_handshakes_total", result="failed", version="-", group="-") == 2
    assert value(metrics, "mesh_tls_handshake_failures_total", reason="expired") == 1
    assert value(metrics, "mesh_tls_handshake_failures_total", reason="other") == 1
    assert value(metrics, "mesh_tls_handshake_seconds_count") == 1


def test_identity_gauges():
    metrics = Metrics("1.2.3")
    metrics.identity(IdentityStatus(WEB.text))
    assert ("mesh_certificate_expires_at_seconds", frozenset({("certificate", "svid")})) not in samples(metrics), (
        "none yet"
    )
    metrics.identity(
        IdentityStatus(
            WEB.text, not_after=2e9, next_renewal_at=1.9e9, consecutive_failures=2, clock_skew_seconds=-1.5,
            bundle_sequence=3,
            ca_connected=True,
        )
    )  # fmt: skip
    assert value(metrics, "mesh_certificate_expires_at_seconds", certificate="svid") == 2e9
    assert value(metrics, "mesh_certificate_renewal_at_seconds") == 1.9e9
    assert value(metrics, "mesh_clock_skew_seconds") == -1.5
    assert value(metrics, "mesh_identity_failures") == 2
    assert value(metrics, "mesh_ca_connected") == 1
    assert value(metrics, "mesh_trust_bundle_sequence") == 3
    assert value(metrics, "mesh_build_info", version="1.2.3") == 1


def test_every_sample_survives_the_parser_whatever_its_label():
    metrics = Metrics()
    rule = 'a "rule"\\ with\n everything'
    metrics.observe(a_hop(error=PolicyDenied(), rule=rule))
    assert value(metrics, "mesh_refusals_total", rule=rule) == 1
    text = metrics.render()
    assert text.endswith(b"\n")
    families = {family.name for family in text_string_to_metric_families(text.decode())}
    assert {each.name.removesuffix("_total") for each in (*HOP_METRICS, *DEFINITIONS)} <= families
    assert "process_cpu_seconds" in families


def test_an_unknown_metric_is_a_mistake():
    with pytest.raises(KeyError):
        Metrics().counter("mesh_nothing")
    with pytest.raises(KeyError):
        Metrics().counter("mesh_tls_handshake_seconds")


def test_names_follow_the_rules():
    for each in (*HOP_METRICS, *DEFINITIONS):
        assert re.fullmatch(r"mesh_[a-z_]+", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.kind != "histogram" or (each.name.endswith("_seconds") and each.buckets)
        assert set(each.labels) <= set(LABELS), each.name
        assert each.doc.endswith(".")
    assert {label for each in (*HOP_METRICS, *DEFINITIONS) for label in each.labels} == set(LABELS)
