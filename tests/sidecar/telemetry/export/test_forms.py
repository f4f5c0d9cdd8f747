"""What events look like elsewhere: OCSF by the attributes that its schema requires, syslog by its grammar, OTLP."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.schema_audit import Audit as Config
from sidecar.errors import PolicyDenied, RateLimited
from sidecar.hop import Token
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.export import ocsf, otlp, syslog
from sidecar.telemetry.export.feed import Event, Feed, Position
from sidecar.telemetry.record import Handshake
from tests.kit.hops import A_TLS, ORDERS, WEB, a_hop

# The attributes that OCSF 1.3.0 requires, from its published schema: of every event, and of each class.
BASE = ("activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid")
CLASSES = {
    6003: ("actor", "api", "src_endpoint"), 3002: ("user", "service"), 3004: ("entity",), 2004: ("finding_info",),
    6002: ("app",),
}  # fmt: skip
OBJECTS = {
    "metadata": ("product", "version"), "api": ("operation",), "finding_info": ("title", "uid"),
    "certificate": ("issuer", "serial_number"), "product": ("vendor_name",),
}  # fmt: skip
ONE_OF = {
    "actor": ("user", "app_name", "process", "session"), "user": ("name", "uid"), "entity": ("name", "uid"),
    "src_endpoint": ("ip", "name", "hostname", "uid"), "dst_endpoint": ("ip", "name", "hostname", "uid"),
}  # fmt: skip
SEVERITIES = range(7)
SYSLOG = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) "
    rb"([!-~]{1,32}) "
    rb'(\[[!-~]{1,32}( [!-<>-~]{1,32}="([^"\\\]]|\\["\\\]])*")*\]) \xef\xbb\xbf(.*)'
)


@pytest.fixture(scope="module")
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
    audit.event("denylist", {"sequence": 2, "denied": 1})
    audit.quota_reset("daily", "web", 0, 1)
    audit.detection({"detector": "stuffing", "caller": WEB.text, "what": "40 refusals", "action": "record"})
    audit.detection_lifted(WEB.text, "", 0, 1)
    audit._lose(1.7e9)
    audit._tell_loss(1.7e9)
    audit.close(1.7e9)
    return list(Feed(path, path.with_name("cursor"), 1 << 30).read(Position()).events)


def lacking(value: Any, name: str = "") -> list[str]:
    """What an object of OCSF lacks, and those in it."""
    if not isinstance(value, dict):
        return []
    found = [f"{name}.{key}" for key in OBJECTS.get(name, ()) if value.get(key) in (None, "")]
    if name in ONE_OF and not any(value.get(key) for key in ONE_OF[name]):
        found.append(f"{name}: one of {ONE_OF[name]}")
    return found + [one for key, inner in value.items() if key != "unmapped" for one in lacking(inner, key)]


def test_each_kind_is_a_whole_ocsf_event(events):
    kinds = {event.values["kind"] for event in events}
    assert len(kinds) == 17
    for event in events:
        made = json.loads(ocsf.encode(event))
        assert [key for key in (*BASE, *CLASSES[made["class_uid"]]) if key not in made] == []
        assert lacking(made) == []
        assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]
        assert made["category_uid"] == made["class_uid"] // 1000
        assert made["severity_id"] in SEVERITIES
        assert made["time"] == 1_700_000_000_000
        assert (made["metadata"]["version"], made["metadata"]["uid"]) == ("1.3.0", event.id)


def test_a_refusal_is_a_failed_call_of_its_caller(events):
    (event,) = [event for event in events if event.values["kind"] == "refusal"]
    made = ocsf.event_of(event)
    assert (made["class_uid"], made["activity_id"], made["status_id"]) == (6003, 4, 2)
    assert made["actor"]["user"]["uid"] == event.values["caller"]
    assert made["status_detail"] == "policy_denied"


def test_a_message_of_syslog_has_its_length_and_its_grammar(events):
    for event in events:
        length, _, rest = syslog.message(event, "host name", event.text).partition(b" ")
        assert int(length) == len(rest)
        match = SYSLOG.fullmatch(rest)
        assert match is not None, rest
        assert int(match[1]) // 8 == syslog.FACILITY
        assert json.loads(match[10]) == event.values
        assert f'id="{event.id}"'.encode() in match[7]


def test_a_refusal_is_a_warning_and_a_loss_an_error(events):
    found = {event.values["kind"]: syslog.severity(event) for event in events}
    assert (found["refusal"], found["lost"], found["permit"]) == (4, 3, 5)


def test_records_of_otlp_carry_the_line_and_its_id(events):
    made = json.loads(otlp.encode(events, "host", "1.0"))
    (resource,) = made["resourceLogs"]
    names = {each["key"]: each["value"]["stringValue"] for each in resource["resource"]["attributes"]}
    assert names["mesh.spiffe_id"] == ORDERS.text
    records = resource["scopeLogs"][0]["logRecords"]
    assert [record["body"]["stringValue"].encode() for record in records] == [event.text for event in events]
    assert [record["attributes"][0]["value"]["stringValue"] for record in records] == [event.id for event in events]
    assert {record["timeUnixNano"] for record in records} == {"1700000000000000000"}
    assert {record["severityNumber"] for record in records} == {9, 13, 17}


@pytest.mark.parametrize(
    ("answer", "count"),
    [(b"{}", 0), (b'{"partialSuccess":{"rejectedLogRecords":"3"}}', 3), (b"", 0), (b"[]", 0),
     (b'{"partialSuccess":{}}', 0), (b'{"partialSuccess":null}', 0),
     (b'{"partialSuccess":{"rejectedLogRecords":-1}}', 0)],
)  # fmt: skip
def test_what_a_collector_rejects_is_read(answer, count):
    assert otlp.rejected(answer) == count
