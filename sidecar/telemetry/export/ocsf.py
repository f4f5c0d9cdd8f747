"""Events in the words of the Open Cybersecurity Schema Framework, version 1.3.0 (https://schema.ocsf.io/1.3.0).

    handshake, token                                Authentication 3002, activity Logon
    permit, refusal, limited, evicted, admin …      API Activity 6003
    certificate, bundle, denylist, config …         Entity Management 3004
    detection                                       Detection Finding 2004, profile security_control
    start, stop, drain, lost                        Application Lifecycle 6002

What OCSF has no word for stands in `unmapped`, by the key that the audit has; `metadata.uid` is the event's id. The
tests hold each kind to the published schema. Two of its rules shape what is here: an attribute that it does not know is
a mistake, and where an enumeration is 99 (Other), the attribute beside it has our own word.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from sidecar.telemetry.export.feed import Event

VERSION: Final = "1.3.0"
OTHER: Final = 99
INFORMATIONAL, LOW, MEDIUM = 1, 2, 3
SUCCESS, FAILURE = 1, 2
_OF_METHOD = {"POST": 1, "GET": 2, "HEAD": 2, "OPTIONS": 2, "PUT": 3, "PATCH": 3, "DELETE": 4}
_HTTP_METHODS = frozenset(("OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"))  # that OCSF lists
_LIFECYCLE = {"start": 3, "stop": 4, "drain": 4}
_ENTITY = {"issued": 1, "renewed": 3, "expired": 11, "revoked": 9, "not_renewed": 3, "refused": 3,
           "bundle": 3, "denylist": 3, "config": 3, "config_refused": 3}  # fmt: skip
_POLICY: Final = 5
# What a detector did, as (action_id, disposition_id): allowed and logged, allowed and delayed, denied and blocked.
_DONE = {"record": (1, 17), "throttle": (1, 14), "block": (2, 2)}
_OWN = frozenset(("v", "service", "instance", "seq", "kind", "time", "chain", "n", "prev"))

_CATEGORIES = {2: "Findings", 3: "Identity & Access Management", 6: "Application Activity"}
_CLASSES: dict[int, tuple[str, dict[int, str]]] = {
    2004: ("Detection Finding", {1: "Create"}),
    3002: ("Authentication", {1: "Logon"}),
    3004: ("Entity Management", {1: "Create", 3: "Update", 9: "Disable", 11: "Deactivate"}),
    6002: ("Application Lifecycle", {3: "Start", 4: "Stop"}),
    6003: ("API Activity", {1: "Create", 2: "Read", 3: "Update", 4: "Delete"}),
}
_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium"}
_STATUSES = {1: "Success", 2: "Failure"}


def encode(event: Event) -> bytes:
    """One event as OCSF JSON, on one line without its newline."""
    return json.dumps(event_of(event), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def event_of(event: Event) -> dict[str, Any]:
    """One event of the audit as an OCSF event."""
    values, kind = event.values, str(event.values.get("kind", ""))
    if kind == "handshake":
        made = _handshake(values)
    elif kind == "token":
        made = _token(values)
    elif kind in ("certificate", "bundle", "denylist", "config", "config_refused"):
        made = _entity(kind, values)
    elif kind == "detection":
        made = _finding(event.id, values)
    elif kind in _LIFECYCLE or kind == "lost":
        made = _lifecycle(kind, values)
    else:
        made = _api(kind, values)
    return {
        **_classified(kind, made),
        "time": _milliseconds(values.get("time")),
        **_span(values),
        "message": kind,
        "metadata": {
            "version": VERSION, "uid": event.id, "event_code": kind, "log_name": "audit", "log_provider": "mesh",
            "log_version": str(values.get("v", "")), "sequence": _count(values.get("n")),
            "original_time": str(values.get("time", "")),
            "product": {"name": "mesh sidecar", "vendor_name": "mesh", "uid": str(values.get("instance", ""))},
            **({"profiles": ["security_control"]} if kind == "detection" else {}),
        },
        "unmapped": {key: value for key, value in values.items() if key not in _OWN},
    }  # fmt: skip


def _classified(kind: str, made: dict[str, Any]) -> dict[str, Any]:
    """An event with its class, category and type, and the captions of all of them."""
    uid, activity = made["class_uid"], made["activity_id"]
    name, activities = _CLASSES[uid]
    did = activities.get(activity, kind)
    status = {} if uid == 2004 else {"status": _STATUSES[made["status_id"]]}
    return {
        **made, **status, "class_name": name, "category_uid": uid // 1000, "category_name": _CATEGORIES[uid // 1000],
        "activity_name": did, "type_uid": uid * 100 + activity,
        "type_name": f"{name}: {did if activity in activities else 'Other'}",
        "severity": _SEVERITIES[made["severity_id"]],
    }  # fmt: skip


def _handshake(values: dict[str, Any]) -> dict[str, Any]:
    good, other = bool(values.get("ok")), _endpoint(values)
    user = _who(values.get("peer"))
    if values.get("serial"):
        user["credential_uid"] = str(values["serial"])
    return {
        **_authentication("mTLS", good), "status_detail": str(values.get("reason", "")), "user": user,
        "service": {"name": str(values.get("service", ""))},
        ("dst_endpoint" if values.get("direction") == "outbound" else "src_endpoint"): other,
    }  # fmt: skip


def _token(values: dict[str, Any]) -> dict[str, Any]:
    token = values.get("token") or {}
    return {
        **_authentication("JWT", True),
        "user": {"uid": str(token.get("id", "")), "domain": str(token.get("issuer", ""))},
        "actor": {"user": _who(values.get("caller"))}, "service": {"name": str(values.get("service", ""))},
        "src_endpoint": _endpoint(values),
    }  # fmt: skip


def _authentication(protocol: str, good: bool) -> dict[str, Any]:
    return {
        "class_uid": 3002, "activity_id": 1, "severity_id": INFORMATIONAL if good else MEDIUM,
        "status_id": SUCCESS if good else FAILURE, "auth_protocol_id": OTHER, "auth_protocol": protocol,
        "logon_type_id": 3, "logon_type": "Network", "is_remote": True, "is_mfa": False, "is_cleartext": False,
    }  # fmt: skip


def _api(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    method, status = str(values.get("method", "")), values.get("status")
    local = "uid" in values  # by somebody on this machine
    name = values.get("operation") or values.get("action") or f"{method} {values.get('path_shape', '')}".strip() or kind
    bad = kind in ("refusal", "limited", "evicted") or (isinstance(status, int) and status >= 400)
    why = "revoked" if kind == "evicted" else str(values.get("error") or values.get("limit") or "")
    called = str(values.get("destination") or values.get("service", ""))
    activity = 3 if kind in ("quota_reset", "detection_lifted") else _OF_METHOD.get(method, OTHER)
    return {
        "class_uid": 6003, "activity_id": activity,
        "severity_id": LOW if bad else INFORMATIONAL, "status_id": FAILURE if bad else SUCCESS,
        "status_code": str(status or ""), "status_detail": why,
        "actor": _local(values) if local else {"user": _who(values.get("caller") or values.get("peer"))},
        "api": {"operation": str(name), "service": {"name": called}},
        "src_endpoint": {"name": "localhost"} if local else _endpoint(values),
        "dst_endpoint": {"name": called}, "count": _count(values.get("count"), 1), **_request(method, values),
    }  # fmt: skip


def _request(method: str, values: dict[str, Any]) -> dict[str, Any]:
    path = values.get("path") or values.get("path_shape")
    if not path:
        return {}
    return {"http_request": {
        **({"http_method": method} if method in _HTTP_METHODS else {}), "url": {"path": str(path)},
    }}  # fmt: skip


def _entity(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    what, service = str(values.get("what", kind)), str(values.get("service", ""))
    failed = kind == "config_refused" or what in ("not_renewed", "refused")
    bad = failed or what in ("expired", "revoked")
    entity: dict[str, Any] = {"name": f"{kind.partition('_')[0]} of {service}"}
    if kind == "certificate":
        entity |= {"type_id": OTHER, "type": kind, "uid": str(values.get("serial", ""))}
    else:
        entity |= {"type_id": _POLICY, "type": "Policy", "policy": {"name": kind.partition("_")[0]}}
        if version := values.get("generation", values.get("sequence")):
            entity["version"] = str(version)
    return {
        "class_uid": 3004, "activity_id": _ENTITY.get(what, OTHER),
        "severity_id": MEDIUM if bad else INFORMATIONAL, "status_id": FAILURE if failed else SUCCESS,
        "status_detail": str(values.get("reason") or what), "entity": entity,
    }  # fmt: skip


def _finding(uid: str, values: dict[str, Any]) -> dict[str, Any]:
    detector, caller = str(values.get("detector", "")), _who(values.get("caller"))
    action, disposition = _DONE.get(str(values.get("action", "")), (0, 0))
    return {
        "class_uid": 2004, "activity_id": 1, "severity_id": MEDIUM, "status_id": 1, "status": "New",
        "action_id": action, "disposition_id": disposition,
        "finding_info": {
            "uid": uid, "title": f"{detector}: {values.get('what', '')}", "types": [detector],
            "analytic": {"name": detector or "unknown", "type_id": 2, "type": "Behavioral"},
        },
        "evidences": [{"actor": {"user": caller}, "dst_endpoint": {"name": str(values.get("service", ""))}}],
    }  # fmt: skip


def _lifecycle(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    lost = kind == "lost"
    return {
        "class_uid": 6002, "activity_id": _LIFECYCLE.get(kind, OTHER),
        "severity_id": MEDIUM if lost else INFORMATIONAL,
        "status_id": FAILURE if lost else SUCCESS, "status_detail": str(values.get("why", "")),
        "app": {"name": "mesh sidecar", "vendor_name": "mesh", "uid": str(values.get("service", ""))},
        **({"count": _count(values.get("count"), 1)} if lost else {}),
    }  # fmt: skip


def _who(spiffe_id: object) -> dict[str, Any]:
    name = str(spiffe_id or "")
    if not name:
        return {"name": "unknown", "type_id": 0, "type": "Unknown"}
    return {"uid": name, "name": name, "type_id": OTHER, "type": "Service"}


def _local(values: dict[str, Any]) -> dict[str, Any]:
    user = {"uid": str(values["uid"]), "name": f"uid {values['uid']}", "type_id": 1, "type": "User"}
    return {"user": user, "process": {"pid": _count(values.get("pid"))}}


def _endpoint(values: dict[str, Any]) -> dict[str, str]:
    source = str(values.get("source", ""))
    return {"ip": source} if source else {"name": str(values.get("caller") or values.get("peer") or "unknown")}


def _span(values: dict[str, Any]) -> dict[str, int]:
    """From when to when it happened, of a line that counts."""
    if not (values.get("first") and values.get("last")):
        return {}
    return {"start_time": _milliseconds(values["first"]), "end_time": _milliseconds(values["last"])}


def _count(number: object, otherwise: int = 0) -> int:
    return number if isinstance(number, int) else otherwise


def _milliseconds(moment: object) -> int:
    try:
        return int(datetime.fromisoformat(str(moment)).timestamp() * 1000)
    except ValueError:
        return 0
