"""THE table: every error has its status, and no answer says more than its reader may know."""

from __future__ import annotations

import inspect
import json
from http import HTTPStatus

import pytest

from sidecar import errors
from sidecar.errors import HopError
from sidecar.proxy.respond import TABLE, UNANSWERED, peer_refused, proxy_status, refusal, status_of
from tests.kit.hops import a_hop

LEAVES = sorted(
    {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, HopError) and value is not HopError
    },
    key=lambda kind: kind.__name__,
)
SECRET = "operators-eyes-only 10.1.2.3"


def make(kind: type[HopError]) -> HopError:
    """An error of this kind, with a detail that must not leave."""
    return kind(SECRET)


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_has_a_row_or_nobody_to_answer(kind: type[HopError]) -> None:
    assert (kind in TABLE) is not issubclass(kind, UNANSWERED)
    if kind in TABLE:
        assert HTTPStatus(TABLE[kind][0]).phrase
        assert status_of(make(kind)) == TABLE[kind][0]
    else:
        assert status_of(make(kind)) == 0


@pytest.mark.parametrize("kind", LEAVES)
def test_faults_of_the_downstream_are_4xx_and_all_others_5xx(kind: type[HopError]) -> None:
    if kind in TABLE and kind not in (errors.UnsupportedFeature, errors.LoopDetected, errors.DeadlinePast):
        expected = 4 if kind.fault is errors.Fault.DOWNSTREAM or kind is errors.NoRoute else 5
        assert TABLE[kind][0] // 100 == expected


@pytest.mark.parametrize("kind", TABLE)
@pytest.mark.parametrize(("show_id", "show_why"), [(False, False), (True, False), (True, True)])
def test_no_answer_ever_carries_the_detail(kind: type[HopError], show_id: bool, show_why: bool) -> None:
    hop = a_hop(decision_id="cafe-1", rule="inner-rule")
    answer = refusal(hop, make(kind), show_id=show_id, show_why=show_why)
    everything = answer.body + b"".join(name + b": " + value for name, value in answer.head.headers)
    for word in SECRET.split():
        assert word.encode() not in everything
    assert (b"inner-rule" in everything) is show_why
    assert (b"cafe-1" in everything) is show_id
    assert (b"proxy-status" in everything) is show_why
    problem = json.loads(answer.body)
    assert problem["status"] == answer.head.status
    assert int(dict(answer.head.headers)[b"content-length"]) == len(answer.body)


def test_an_answer_to_head_has_the_length_of_the_body_it_does_not_have() -> None:
    answer = refusal(a_hop(method="HEAD"), errors.PolicyDenied(), show_id=False, show_why=False)
    assert answer.body == b""
    assert int(dict(answer.head.headers)[b"content-length"]) > 0


def test_an_expectation_that_is_not_met_has_a_status_of_its_own() -> None:
    assert status_of(errors.UnsupportedFeature("Expect: b'magic'")) == 417
    assert status_of(errors.UnsupportedFeature("CONNECT")) == 501


def test_who_may_come_again_is_told_when() -> None:
    for kind in (errors.Overflow, errors.Overload, errors.Draining):
        assert (b"retry-after", b"1") in refusal(a_hop(), kind(), show_id=False, show_why=False).head.headers


def test_proxy_status_is_a_structured_field() -> None:
    hop = a_hop(decision_id="cafe-1", rule='a "quoted\\ rule\r\nX: y')
    assert proxy_status(hop, errors.PolicyDenied()) == (
        b'mesh; error=http_request_denied; details="PD policy_denied rule=a \\"quoted\\\\ rule??X: y decision=cafe-1"'
    )
    assert peer_refused("cafe-1", 403) == b'mesh; received-status=403; details="refused by the peer, decision=cafe-1"'
