"""Events as log records of OpenTelemetry: OTLP over HTTP in its JSON encoding (OTLP specification 1.3, "JSON Protobuf
Encoding"), an `ExportLogsServiceRequest` for each batch.

The body of a record is the line of the audit as it is; `log.record.uid` is the event's id. A record may come twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sidecar.telemetry.export.feed import Event
from sidecar.telemetry.export.syslog import ERROR, WARNING, severity

SEVERITY: Final = {ERROR: (17, "ERROR"), WARNING: (13, "WARN")}
RETRYABLE: Final = frozenset((429, 502, 503, 504))  # OTLP/HTTP, "Retryable Response Codes"


def encode(events: Sequence[Event], host: str, version: str) -> bytes:
    """The request for these events, which are all of one sidecar."""
    service = str(events[0].values.get("service", ""))
    resource = [
        _attribute("service.name", service.rpartition("/")[2]), _attribute("service.instance.id", _instance(events[0])),
        _attribute("service.version", version), _attribute("host.name", host), _attribute("mesh.spiffe_id", service),
    ]  # fmt: skip
    records = [_record(event) for event in events]
    scope = {"name": "mesh.audit", "version": version}
    whole = {"resourceLogs": [
        {"resource": {"attributes": resource}, "scopeLogs": [{"scope": scope, "logRecords": records}]}
    ]}  # fmt: skip
    return json.dumps(whole, separators=(",", ":")).encode()


def rejected(answer: bytes) -> int:
    """How many records the collector has taken for good and thrown away (`partialSuccess`)."""
    try:
        partial = json.loads(answer)["partialSuccess"]
        return max(0, int(partial.get("rejectedLogRecords", 0)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0


def _record(event: Event) -> dict[str, Any]:
    values = event.values
    number, text = SEVERITY.get(severity(event), (9, "INFO"))
    nanoseconds = str(_nanoseconds(str(values.get("time", ""))))
    attributes = [_attribute("log.record.uid", event.id), _attribute("event.name", f"mesh.{values.get('kind', '')}")]
    for key, name in (("caller", "mesh.caller"), ("peer", "mesh.peer"), ("rule", "mesh.rule"), ("error", "error.type"),
                      ("decision_id", "mesh.decision_id")):  # fmt: skip
        if values.get(key):
            attributes.append(_attribute(name, str(values[key])))
    return {
        "timeUnixNano": nanoseconds, "observedTimeUnixNano": nanoseconds, "severityNumber": number,
        "severityText": text, "body": {"stringValue": event.text.decode("utf-8", "replace")}, "attributes": attributes,
    }  # fmt: skip


def _instance(event: Event) -> str:
    return str(event.values.get("instance", ""))


def _attribute(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def _nanoseconds(moment: str) -> int:
    try:
        return int(datetime.fromisoformat(moment).timestamp() * 1_000_000) * 1000
    except ValueError:
        return 0
