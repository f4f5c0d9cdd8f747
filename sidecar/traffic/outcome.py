"""What the end of an attempt says of the endpoint that it went to.

Only an endpoint's own failures count against it. Refusals by policy, authentication or limits, ours or a peer
sidecar's, never do (decision D24): else one caller without rights would take a service away from all the others, and
our own overflow would eject those who had nothing to do with it (pain 32). A peer sidecar's refusal is known by the
decision id that it carries (decision D21); where it has refused nothing, and tells that the application behind it has
failed (`sidecar.proxy.behind`), that is the endpoint's failure, without an answer of its own.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from sidecar import errors
from sidecar.errors import Fault, HopError
from sidecar.http.grpc import Status


class Outcome(IntEnum):
    """What an attempt has shown."""

    GOOD = 0  # an answer that is no failure of the endpoint's, 4xx included
    FAILED = 1  # 5xx
    GATEWAY = 2  # 502, 503 or 504, which Envoy counts twice
    LOCAL = 3  # no answer at all: no connection, a reset, a time-out
    LIMITED = 4  # the application itself refused for number: 429, RESOURCE_EXHAUSTED
    NEUTRAL = 5  # says nothing of the endpoint


_GATEWAY: Final = frozenset((502, 503, 504))
# S17, without PERMISSION_DENIED, which decision D24 takes out.
_GRPC: Final[dict[int, Outcome]] = {
    Status.DATA_LOSS: Outcome.FAILED,
    Status.DEADLINE_EXCEEDED: Outcome.FAILED,
    Status.INTERNAL: Outcome.FAILED,
    Status.UNAVAILABLE: Outcome.GATEWAY,
    Status.RESOURCE_EXHAUSTED: Outcome.LIMITED,
}


def of_status(status: int, *, by_mesh: bool = False) -> Outcome:
    """Of an HTTP answer; `by_mesh` where a peer's sidecar has made it and not the application."""
    if status < 400:
        return Outcome.GOOD
    if by_mesh:
        return Outcome.NEUTRAL
    if status == 429:
        return Outcome.LIMITED
    if status < 500:
        return Outcome.GOOD
    return Outcome.GATEWAY if status in _GATEWAY else Outcome.FAILED


def of_grpc(status: int, *, by_mesh: bool = False, late: bool = False) -> Outcome:
    """Of a gRPC answer, by its `grpc-status`; `late` where the deadline that the caller itself has set had passed: then
    the server tells of that, and not of itself.
    """
    if (by_mesh and status != Status.OK) or (late and status == Status.DEADLINE_EXCEEDED):
        return Outcome.NEUTRAL
    return _GRPC.get(status, Outcome.GOOD)


def of_error(error: HopError) -> Outcome:
    """Of an attempt that brought no answer.

    Neutral are a caller who left or whose own deadline passed (a short one must not take an endpoint from others; the
    time that it waited counts as latency all the same), an upstream that announced it would not begin (it shuts down
    in order), a kept connection that had gone stale, and a peer that refused *us*.
    """
    if error.fault is not Fault.UPSTREAM or isinstance(error, (errors.NoHealthyUpstream, errors.UpstreamRefused)):
        return Outcome.NEUTRAL
    if isinstance(error, errors.UpstreamClosed) and error.reused:
        return Outcome.NEUTRAL
    if isinstance(error, errors.PeerIdentityMismatch) and error.reason.startswith("alert_"):
        return Outcome.NEUTRAL
    return Outcome.LOCAL
