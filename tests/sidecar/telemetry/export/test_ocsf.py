"""Events in the words of OCSF, held to the schema that is published for 1.3.0, as a package has it (test only)."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from sidecar.telemetry.export import ocsf
from sidecar.telemetry.export.feed import Event
from tests.kit.hops import ORDERS, WEB

SIBLINGS = (("activity_id", "activity_name"), ("severity_id", "severity"), ("status_id", "status"))


@functools.cache
def published() -> dict[str, Any]:
    return get_ocsf_schema(version="1.3.0")


@functools.cache
def schema_of(class_uid: int, profiles: tuple[str, ...]) -> Draft202012Validator:
    schemas = OcsfJsonSchemaEmbedded(published())
    found = schemas.get_class_schema(schemas.lookup_class_name_from_uid(class_uid), [*profiles])
    return Draft202012Validator(found)


def mistakes(made: dict[str, Any]) -> list[str]:
    """What the published schema has against an event: its JSON Schema, then what that does not know."""
    profiles = tuple(made["metadata"].get("profiles", ()))
    found = [f"{each.json_path}: {each.message}" for each in schema_of(made["class_uid"], profiles).iter_errors(made)]
    (spec,) = (each for each in published()["classes"].values() if each["uid"] == made["class_uid"])
    if (made["class_name"], made["category_name"]) != (spec["caption"], spec["category_name"]):
        found.append("class_name or category_name is not the caption")
    attributes = spec["attributes"]
    for number, name in SIBLINGS:
        caption = attributes[number]["enum"][str(made[number])]["caption"]
        if made[number] != 99 and made[name] != caption:
            found.append(f"{name} is {made[name]!r}, and not {caption!r}")
    if made["type_name"] != attributes["type_uid"]["enum"][str(made["type_uid"])]["caption"]:
        found.append(f"type_name is {made['type_name']!r}")
    if made["type_uid"] != made["class_uid"] * 100 + made["activity_id"]:
        found.append("type_uid does not fit")
    return found


def an_event(kind: str, **values: Any) -> Event:
    whole = {
        "v": 1, "service": ORDERS.text, "instance": "0a1b2c3d", "seq": 1, "kind": kind,
        "time": "2026-01-31T12:00:00.000000Z", **values, "chain": "00112233aabbccdd", "n": 7, "prev": "0" * 64,
    }  # fmt: skip
    return Event("00112233aabbccdd-7", json.dumps(whole).encode(), whole)


def test_each_kind_is_what_the_schema_publishes(events):
    assert len({event.values["kind"] for event in events}) == 20
    for event in events:
        made = json.loads(ocsf.encode(event))
        assert mistakes(made) == [], event.values["kind"]
        assert made["time"] == 1_700_000_000_000
        assert (made["metadata"]["version"], made["metadata"]["uid"]) == ("1.3.0", event.id)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", ""])
@pytest.mark.parametrize("kind", ["permit", "refusal"])
def test_every_method_has_an_activity(kind, method):
    made = ocsf.event_of(an_event(kind, method=method, path="/orders/7", caller=WEB.text, source="192.0.2.1"))
    assert mistakes(made) == []
    assert ("http_method" in made["http_request"]) == (method not in ("PATCH", "BREW", ""))


@pytest.mark.parametrize(
    ("what", "activity", "severity"),
    [("issued", "Create", "Informational"), ("renewed", "Update", "Informational"), ("expired", "Deactivate", "Medium"),
     ("revoked", "Disable", "Medium"), ("else", "certificate", "Informational")],
)  # fmt: skip
def test_what_becomes_of_a_certificate_is_an_activity(what, activity, severity):
    made = ocsf.event_of(an_event("certificate", what=what, serial="0a1b", not_after="2026-01-31T13:00:00.000000Z"))
    assert mistakes(made) == []
    assert (made["activity_name"], made["severity"], made["entity"]["uid"]) == (activity, severity, "0a1b")


@pytest.mark.parametrize(
    ("action", "done"), [("record", (1, 17)), ("throttle", (1, 14)), ("block", (2, 2)), ("", (0, 0))]
)
def test_what_a_detector_did_is_a_disposition(action, done):
    made = ocsf.event_of(an_event("detection", detector="stuffing", caller=WEB.text, what="40 refusals", action=action))
    assert mistakes(made) == []
    assert (made["action_id"], made["disposition_id"]) == done


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize("source", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", ""])
def test_the_other_end_of_a_handshake_is_where_it_was(direction, source):
    event = an_event("handshake", direction=direction, ok=True, peer=WEB.text, source=source, serial="0a", reason="")
    made = ocsf.event_of(event)
    assert mistakes(made) == []
    end = "src_endpoint" if direction == "inbound" else "dst_endpoint"
    assert made[end] == ({"ip": source} if source else {"name": WEB.text})
    assert made["user"]["credential_uid"] == "0a"


@pytest.mark.parametrize("values", [{}, {"caller": None, "count": "x", "status": "y", "first": "", "last": 7}])
@pytest.mark.parametrize(
    "kind",
    ["permit", "refusal", "handshake", "token", "certificate", "config", "detection", "lost", "start", "new", ""],
)
def test_a_line_that_lacks_everything_is_an_event_still(kind, values):
    assert mistakes(ocsf.event_of(an_event(kind, **values))) == []


def test_a_refusal_is_a_failed_call_of_its_caller(events):
    (event,) = [event for event in events if event.values["kind"] == "refusal"]
    made = ocsf.event_of(event)
    assert (made["class_uid"], made["activity_id"], made["status_id"]) == (6003, 4, 2)
    assert made["actor"]["user"]["uid"] == event.values["caller"]
    assert made["status_detail"] == "policy_denied"


def test_the_schema_would_find_what_is_wrong(events):
    made = ocsf.event_of(events[0])
    assert mistakes({**made, "rule": "x"}) != []
    assert mistakes({**made, "severity": "Low"}) != []
    assert mistakes({key: value for key, value in made.items() if key != "app"}) != []
