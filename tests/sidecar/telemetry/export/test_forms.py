"""What events look like elsewhere: syslog by its grammar, OTLP. (OCSF has a file of its own.)"""

from __future__ import annotations

import json
import re

import pytest

from sidecar.telemetry.export import otlp, syslog
from tests.kit.hops import ORDERS

SYSLOG = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) "
    rb"([!-~]{1,32}) "
    rb'(\[[!-~]{1,32}( [!-<>-~]{1,32}="([^"\\\]]|\\["\\\]])*")*\]) \xef\xbb\xbf(.*)'
)


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
