"""Events in the words of the Open Cybersecurity Schema Framework, version 1.3.0 (https://schema.ocsf.io/1.3.0).

    handshake, token                                Authentication 3002, activity Logon
    permit, refusal, limited, admin, quota_reset …  API Activity 6003
    certificate, denylist, config, config_refused   Entity Management 3004
    detection                                       Detection Finding 2004
    start, stop, drain, lost                        Application Lifecycle 6002

What OCSF has no word for stands in `unmapped`, by the key that the audit has; `metadata.uid` is the event's id.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from sidecar.telemetry.export.feed import Event

VERSION: Final = "1.3.0"
INFORMATIONAL, LOW, MEDIUM = 1, 2, 3
SUCCESS, FAILURE = 1, 2
_ACTIVITY_OF_METHOD = {"POST": 1, "GET": 2, "HEAD": 2, "OPTIONS": 2, "PUT": 3, "PATCH": 3, "DELETE": 4}
_OTHER = 99
_LIFECYCLE = {"start": 3, "stop": 4, "drain": 4}
_ENTITY = {"issued": 1, "renewed": 3}
_OWN = frozenset(("v", "service", "instance", "seq", "kind", "time", "chain", "n", "prev"))


def encode(event: Event) -> bytes:
    """One event as OCSF JSON, on one line without its newline."""
    return json.dumps(event_of(event), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def event_of(event: Event) -> dict[str, Any]:
    """One event of the audit as an OCSF event."""
    values, kind = event.values, str(event.values.get("kind", ""))
    if kind == "handshake":
        made = _authentication(values)
    elif kind == "token":
        made = _token(values)
    elif kind in ("certificate", "denylist", "config", "config_refused"):
        made = _entity(kind, values)
    elif kind == "detection":
        made = _finding(event.id, values)
    elif kind in _LIFECYCLE or kind == "lost":
        made = _lifecycle(kind, values)
    else:
        made = _api(kind, values)
    class_uid, activity = made["class_uid"], made["activity_id"]
    return {
        **made,
        "category_uid": class_uid // 1000,
        "type_uid": class_uid * 100 + activity,
        "time": _milliseconds(str(values.get("time", ""))),
        "message": kind,
        "metadata": {
            "version": VERSION, "uid": event.id, "log_name": "audit", "sequence": values.get("n", 0),
            "original_time": str(values.get("time", "")),
            "product": {"name": "mesh sidecar", "vendor_name": "mesh", "uid": str(values.get("instance", ""))},
        },
        "unmapped": {key: value for key, value in values.items() if key not in _OWN},
    }  # fmt: skip


def _authentication(values: dict[str, Any]) -> dict[str, Any]:
    good = bool(values.get("ok"))
    return {
        "class_uid": 3002, "activity_id": 1, "severity_id": INFORMATIONAL if good else MEDIUM,
        "status_id": SUCCESS if good else FAILURE, "status_detail": str(values.get("reason", "")),
        "auth_protocol_id": _OTHER, "auth_protocol": "mTLS", "is_remote": True, "is_mfa": False,
        "user": _who(values.get("peer")), "service": {"name": str(values.get("service", ""))},
        "src_endpoint": _endpoint(values), **({"certificate": _certificate(values)} if values.get("serial") else {}),
    }  # fmt: skip


def _token(values: dict[str, Any]) -> dict[str, Any]:
    token = values.get("token") or {}
    return {
        "class_uid": 3002, "activity_id": 1, "severity_id": INFORMATIONAL, "status_id": SUCCESS,
        "auth_protocol_id": _OTHER, "auth_protocol": "JWT", "is_remote": True, "is_mfa": False,
        "user": {"uid": str(token.get("id", "")), "domain": str(token.get("issuer", ""))},
        "actor": {"user": _who(values.get("caller"))}, "service": {"name": str(values.get("service", ""))},
        "src_endpoint": _endpoint(values),
    }  # fmt: skip


def _api(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    refused = kind in ("refusal", "limited")
    method = str(values.get("method", ""))
    local = "uid" in values  # by somebody on this machine
    user = {"uid": str(values["uid"]), "name": f"uid {values['uid']}"} if local else _who(values.get("caller"))
    name = values.get("operation") or values.get("action") or f"{method} {values.get('path_shape', '')}".strip() or kind
    status = values.get("status")
    bad = refused or (isinstance(status, int) and status >= 400)
    return {
        "class_uid": 6003, "activity_id": _ACTIVITY_OF_METHOD.get(method, _OTHER),
        "severity_id": LOW if bad else INFORMATIONAL, "status_id": FAILURE if bad else SUCCESS,
        "status_code": str(status or ""), "status_detail": str(values.get("error") or values.get("limit") or ""),
        "actor": {"user": user},
        "api": {"operation": str(name), "service": {"name": str(values.get("service", ""))}},
        "src_endpoint": {"name": "localhost"} if local else _endpoint(values),
        "dst_endpoint": {"name": str(values.get("destination") or values.get("service", ""))},
        "count": values["count"] if isinstance(values.get("count"), int) else 1,
    }  # fmt: skip


def _entity(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    what = str(values.get("what", kind))
    failed = kind == "config_refused"
    bad = failed or what in ("expired", "revoked")
    entity = {"name": str(values.get("service", "")), "type": kind, "uid": str(values.get("serial") or kind)}
    return {
        "class_uid": 3004, "activity_id": _ENTITY.get(what, 3 if kind != "certificate" else _OTHER),
        "severity_id": MEDIUM if bad else INFORMATIONAL, "status_id": FAILURE if failed else SUCCESS,
        "status_detail": what, "actor": {"app_name": "mesh sidecar"}, "entity": entity,
    }  # fmt: skip


def _finding(uid: str, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "class_uid": 2004, "activity_id": 1, "severity_id": MEDIUM, "status_id": 1,
        "finding_info": {
            "uid": uid, "title": f"{values.get('detector', '')}: {values.get('what', '')}",
            "types": [str(values.get("detector", ""))],
        },
        "evidences": [{"actor": {"user": _who(values.get("caller"))}}],
    }  # fmt: skip


def _lifecycle(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    lost = kind == "lost"
    return {
        "class_uid": 6002, "activity_id": _LIFECYCLE.get(kind, _OTHER),
        "severity_id": MEDIUM if lost else INFORMATIONAL,
        "status_id": FAILURE if lost else SUCCESS, "status_detail": str(values.get("why", "")),
        "app": {"name": "mesh sidecar", "vendor_name": "mesh", "uid": str(values.get("service", ""))},
    }  # fmt: skip


def _who(spiffe_id: object) -> dict[str, str]:
    name = str(spiffe_id or "")
    return {"uid": name, "name": name, "type": "Service"} if name else {"name": "unknown", "uid": "unknown"}


def _endpoint(values: dict[str, Any]) -> dict[str, str]:
    source = str(values.get("source", ""))
    return {"ip": source} if source else {"name": str(values.get("caller") or values.get("peer") or "unknown")}


def _certificate(values: dict[str, Any]) -> dict[str, Any]:
    ends = str(values.get("not_after", ""))
    return {
        "serial_number": str(values.get("serial", "")), "issuer": "unknown",
        **({"expiration_time": _milliseconds(ends)} if ends else {}),
    }  # fmt: skip


def _milliseconds(moment: str) -> int:
    try:
        return int(datetime.fromisoformat(moment).timestamp() * 1000)
    except ValueError:
        return 0
