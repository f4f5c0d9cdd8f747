"""How a hop ended, in the three words that every view needs: was it let in, did we refuse it, did it fail.

*Refused* means that this sidecar decided against the hop: policy, identity, protocol, size, capacity, shutdown. A hop
that was let in and then went wrong (the upstream is down, the caller left) *failed* but was *permitted*. A few errors
can strike before or after the decision; for those the presence of a rule or of an attempt upstream tells which it
was.
"""

from __future__ import annotations

from typing import Literal

from sidecar import errors
from sidecar.hop import Hop
from sidecar.http.grpc import FAILURES

VerdictWord = Literal["permit", "deny"]

REFUSALS: tuple[type[errors.HopError], ...] = (
    errors.ProtocolViolation,
    errors.HeadTooLarge,
    errors.BodyTooLarge,
    errors.UnsupportedContentType,
    errors.ContractBroken,
    errors.OperationGone,
    errors.UnsupportedFeature,
    errors.LoopDetected,
    errors.IdentityRefused,
    errors.PeerIdentityMismatch,
    errors.NoIdentity,
    errors.PolicyDenied,
    errors.TokenMissing,
    errors.TokenInvalid,
    errors.TokenUnverifiable,
    errors.RateLimited,
    errors.QuotaUnknown,
    errors.LimiterAway,
    errors.NoRoute,
    errors.Overflow,
    errors.Overload,
    errors.Draining,
    errors.AuditFull,
)
_EITHER: tuple[type[errors.HopError], ...] = (
    errors.RequestTimeout,
    errors.DownstreamIdle,
    errors.DownstreamSlow,
    errors.DownstreamGone,
    errors.InternalError,
)
_CUT_OFF: tuple[type[errors.HopError], ...] = (
    errors.AnswerBroken,
    errors.UpstreamProtocolViolation,
    errors.TokenEnded,
    errors.CertificateEnded,
)


def refused(hop: Hop) -> bool:
    """Whether this sidecar decided against the hop."""
    return hop.error is not None and isinstance(hop.error, REFUSALS)


def cut_off(hop: Hop) -> bool:
    """Whether it was let in, and this sidecar then refused what was left of it: an answer that no contract or protocol
    allows, or an identity that has ended meanwhile. That a quiet connection is renewed in time is neither.
    """
    error = hop.error
    return error is not None and isinstance(error, _CUT_OFF) and error.midway != "certificate_quiet"


def verdict(hop: Hop) -> VerdictWord:
    """`permit` where the hop was let in, whatever befell it afterwards; else `deny`."""
    error = hop.error
    if error is None:
        return "permit"
    if isinstance(error, REFUSALS):
        return "deny"
    if isinstance(error, _EITHER):
        return "permit" if hop.rule or hop.attempts else "deny"
    return "permit"


def failed(hop: Hop) -> bool:
    """Whether the caller did not get what it asked for through a fault or refusal: any error, a status of 5xx, or what
    gRPC says in its place.
    """
    return hop.error is not None or hop.status >= 500 or hop.grpc_status in FAILURES
