"""A line from a template is the line, and a permit that was logged is the decision: to the byte, whatever the hop."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.schema import AccessLog as Config
from sidecar.errors import ConnectFailed, PolicyDenied
from sidecar.hop import Hop, Waived
from sidecar.net.memory import MemoryClock
from sidecar.telemetry import plain_lines, redact
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.decisions import PERMIT_RING, Decision, Decisions, base36
from sidecar.telemetry.lines import json_line
from sidecar.telemetry.record import Recorder
from tests.kit.hops import A_TLS, MALLORY, ORDERS, WEB, a_hop

NOW = 1_700_000_000.0
ID = "0a1b2c3d-1"
WANTED = frozenset({b"user-agent", b"x-env", b"cookie", b"x-rule"})
SECRETS = (
    "/a?token=SECRET", "/token=SECRET", "/sid%3DSECRET", "/eyJhbGciOi.eyJzdWIi.c2ln", "Bearer SECRET", "/x#SECRET",
    "http://u:SECRET@orders/", "-----BEGIN PRIVATE KEY-----SECRET", "é", '"', "\\", "\n\x00\x7f\u2028", "\ud800", "€",
)  # fmt: skip
words = st.lists(st.text(max_size=8) | st.sampled_from(SECRETS), max_size=4).map("".join)
paths = st.from_regex(r"/[a-z0-9/._~-]{0,30}(\?[a-z=]{0,9})?", fullmatch=True)
sizes = st.integers(0, 2**40)
moments = st.floats(0.0, 4e9, allow_nan=False)
hops = st.builds(
    a_hop,
    path=st.just("/"),
    target=paths | words,
    segments=st.lists(words, max_size=3).map(tuple),
    method=st.sampled_from(["GET", "POST"]) | words,
    host=st.just("orders") | words,
    source=st.none() | st.ip_addresses(),
    source_port=st.integers(0, 65535),
    listener=words, route=words, rule=words, endpoint=words, trace_id=words,
    peer=st.sampled_from([None, WEB, MALLORY]),
    destination=st.sampled_from([None, ORDERS]),
    tls=st.sampled_from([None, A_TLS]) | words.map(lambda word: replace(A_TLS, group=word)),
    status=st.integers(0, 999),
    received_bytes=sizes, sent_bytes=sizes, attempts=st.integers(0, 3),
    started=moments, first_byte=st.just(0.0) | moments, ended=moments,
    headers=st.lists(st.tuples(st.sampled_from(sorted(WANTED)), st.binary(max_size=9))),
)  # fmt: skip


def an_access_log(*headers: str) -> AccessLog:
    return AccessLog(Config(mode="all", path="/dev/null", headers=headers), instance="0a1b2c3d")


LOGS = (an_access_log(), an_access_log("user-agent", "x-env", "cookie"))


def of_template(log: AccessLog, hop: Hop, like: Hop) -> bytes:
    headers = redact.chosen_headers(hop.headers, WANTED)
    return log.plain.line(log.plain.template(like), hop, NOW, hop.decision_id, headers)[0].encode("ascii")


@given(hops, st.sampled_from(LOGS))
def test_it_is_the_line_byte_for_byte(hop, log):
    hop.decision_id = ID
    kind = a_hop(**{
        name: getattr(hop, name)
        for name in ("listener", "route", "rule", "peer", "destination", "attempts", "version", "direction")
    })  # fmt: skip
    expected = json_line(log.line(hop, NOW))
    assert of_template(log, hop, kind) == expected
    assert of_template(log, hop, kind) == expected, "the second time, from memory"


@given(paths)
def test_what_is_taken_for_clean_holds_nothing_that_the_redactor_finds(path):
    match = plain_lines._CLEAN.match(path)
    if match is not None and plain_lines._BEGINS_JWT not in path:
        assert redact.target(path) == match[0]


@given(hops)
def test_a_permit_from_its_line_is_the_decision(hop):
    recorder = Recorder(instance="0a1b2c3d", access_log=LOGS[1], rule_headers=[b"x-rule"], clock=MemoryClock(0.0, NOW))
    before = replace(hop)
    assert recorder.observe_plain(hop, None) is not None
    assert hop == before, "the express uses it again"
    hop.decision_id = ID
    assert recorder.decisions.find(ID) == Decision.of_hop(hop, NOW, WANTED)


def test_each_request_on_one_hop_has_an_id_of_its_own(tmp_path):
    log = AccessLog(Config(mode="all", path=str(tmp_path / "log")), instance="0a1b2c3d")
    recorder = Recorder(instance="0a1b2c3d", access_log=log, clock=MemoryClock(0.0, NOW))
    hop, tally = a_hop(), None
    for number in range(3):
        hop.target = f"/orders/{number}?token=SECRET"
        tally = recorder.observe_plain(hop, tally)
    recorder.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["uri"], line["decision_id"]) for line in lines] == [
        (f"/orders/{number}", f"0a1b2c3d-{number + 1}") for number in range(3)
    ]
    assert [recorder.decisions.find(line["decision_id"]).path for line in lines] == [line["uri"] for line in lines]
    assert "SECRET" not in repr(recorder.decisions._permits)


@pytest.mark.parametrize("target", ["/a;token=SECRET/b", "/a/token%3DSECRET", "/eyJSECRET.SECRET.SECRET"])
def test_a_secret_in_a_path_is_not_kept_in_its_segments(target):
    recorder = Recorder(instance="0a1b2c3d", access_log=LOGS[0], clock=MemoryClock(0.0, NOW))
    segments = tuple(target.replace("%3D", "=").split("/")[1:])
    recorder.observe_plain(a_hop(target=target, segments=segments), None)
    assert "SECRET" not in repr([permit[4] for permit in recorder.decisions._permits])


def test_a_flood_of_logged_permits_pushes_out_no_refusal():
    recorder = Recorder(instance="0a1b2c3d", access_log=LOGS[0], clock=MemoryClock(0.0, NOW))
    refused, failed = a_hop(error=PolicyDenied()), a_hop(error=ConnectFailed())
    waived = a_hop(waived=Waived("observe", NOW, "policy_denied", "PD"))
    told = a_hop(decision_id="ffffffff-1", status=403)  # a peer's refusal, which we pass on
    for hop in (refused, failed, waived, told):
        recorder.observe(hop)
    tally = None
    for number in range(6000):
        tally = recorder.observe_plain(a_hop(), tally)
        if number % 2:
            recorder.observe(a_hop())
    found = [recorder.decisions.find(hop.decision_id) for hop in (refused, failed, waived, told)]
    assert [decision and decision.flag for decision in found] == ["PD", "UF", "-", "-"]
    assert len(recorder.decisions) == 4 + PERMIT_RING


def test_ids_go_on_counting_beyond_two_digits():
    decisions = Decisions("0a1b2c3d")
    assert [decisions.new_id() for _ in range(6000)] == [f"0a1b2c3d-{base36(number)}" for number in range(1, 6001)]


def test_what_is_remembered_is_bounded():
    plain = an_access_log().plain
    like = plain.template(a_hop())
    for number in range(3000):
        hop = a_hop(
            host=f"h{number}", method=f"M{number}", endpoint=f"e{number}", tls=replace(A_TLS, serial=f"{number:x}"),
            source=ip_address(number + 1),
        )  # fmt: skip
        plain.line(like, hop, NOW, ID, None)
    for known in (plain._hosts, plain._methods, plain._endpoints, plain._handshakes, plain._callers):
        assert 0 < len(known) <= plain_lines._MAX_KNOWN
