"""What counts against an endpoint, and what never does (decision D24)."""

from __future__ import annotations

import pytest

from sidecar import errors
from sidecar.errors import HopError
from sidecar.http.grpc import Status
from sidecar.traffic.outcome import Outcome, of_error, of_grpc, of_status

ALERT = errors.PeerIdentityMismatch("alert_unknown_ca")
STALE = errors.UpstreamClosed(reused=True)


@pytest.mark.parametrize(
    ("status", "outcome", "by_a_sidecar"),
    [
        (200, Outcome.GOOD, Outcome.GOOD),
        (304, Outcome.GOOD, Outcome.GOOD),
        (401, Outcome.GOOD, Outcome.NEUTRAL),
        (403, Outcome.GOOD, Outcome.NEUTRAL),
        (429, Outcome.LIMITED, Outcome.NEUTRAL),
        (500, Outcome.FAILED, Outcome.NEUTRAL),
        (501, Outcome.FAILED, Outcome.NEUTRAL),
        (502, Outcome.GATEWAY, Outcome.NEUTRAL),
        (503, Outcome.GATEWAY, Outcome.NEUTRAL),
        (504, Outcome.GATEWAY, Outcome.NEUTRAL),
    ],
)
def test_a_status_is_the_endpoints_own_unless_a_sidecar_has_said_it(status, outcome, by_a_sidecar):
    assert (of_status(status), of_status(status, by_mesh=True)) == (outcome, by_a_sidecar)


FAILURES = {
    Status.DATA_LOSS: Outcome.FAILED, Status.DEADLINE_EXCEEDED: Outcome.FAILED, Status.INTERNAL: Outcome.FAILED,
    Status.UNAVAILABLE: Outcome.GATEWAY, Status.RESOURCE_EXHAUSTED: Outcome.LIMITED,
}  # fmt: skip


@pytest.mark.parametrize("status", [*Status, 99])
def test_the_same_for_grpc(status):
    assert of_grpc(status) == FAILURES.get(status, Outcome.GOOD)
    assert of_grpc(status, by_mesh=True) == (Outcome.NEUTRAL if status else Outcome.GOOD)


def test_a_caller_whose_deadline_was_too_short_takes_no_endpoint_from_others():
    assert of_grpc(Status.DEADLINE_EXCEEDED, late=True) == Outcome.NEUTRAL
    assert of_grpc(Status.INTERNAL, late=True) == Outcome.FAILED


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.ConnectFailed(), Outcome.LOCAL),
        (errors.HandshakeFailed(), Outcome.LOCAL),
        (errors.UpstreamClosed(), Outcome.LOCAL),
        (errors.UpstreamReset(), Outcome.LOCAL),
        (errors.ResponseTimeout(), Outcome.LOCAL),
        (errors.TotalTimeout(), Outcome.LOCAL),
        (errors.TryTimeout(), Outcome.LOCAL),
        (errors.UpstreamIdle(), Outcome.LOCAL),
        (errors.UpstreamProtocolViolation(), Outcome.LOCAL),
        (errors.PeerIdentityMismatch("other_identity"), Outcome.LOCAL),
        (ALERT, Outcome.NEUTRAL),
        (STALE, Outcome.NEUTRAL),
        (errors.UpstreamRefused(), Outcome.NEUTRAL),
        (errors.NoHealthyUpstream(), Outcome.NEUTRAL),
        (errors.Overflow(), Outcome.NEUTRAL),
        (errors.Overload(), Outcome.NEUTRAL),
        (errors.PolicyDenied(), Outcome.NEUTRAL),
        (errors.IdentityRefused("expired"), Outcome.NEUTRAL),
        (errors.DownstreamGone(), Outcome.NEUTRAL),
        (errors.DeadlinePast(), Outcome.NEUTRAL),
        (errors.InternalError(), Outcome.NEUTRAL),
    ],
    ids=lambda each: each.name,
)
def test_only_an_upstreams_own_failures_count(error: HopError, outcome: Outcome):
    assert of_error(error) == outcome
