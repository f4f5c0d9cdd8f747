"""What can go wrong on a hop: one tree, each kind knowing whose fault it is, whether to try again, and its short names.

Pure code raises or returns these and knows nothing of HTTP; `sidecar.proxy.respond` alone turns them into answers. The
message of an error is for the operator's log and `mesh explain`; nothing of it ever reaches a peer.

`flag` is Envoy's response-flag vocabulary, to which we add PD (policy denied), ID (identity failure), SV (schema or
size) and TH (throttled).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from certs.errors import MeshError

if TYPE_CHECKING:
    from certs.spiffe import SpiffeId


class Fault(Enum):
    """Whose doing a failure is. Only an upstream's own failures count against its endpoints (decision D24)."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    OURS = "ours"


class Retry(Enum):
    """Whether the same request may be sent again."""

    NEVER = "never"
    IF_UNSENT = "if_unsent"
    YES = "yes"


class HopError(MeshError):
    """A hop came to an end that its caller did not want."""

    name: ClassVar[str] = "hop_error"
    fault: ClassVar[Fault] = Fault.OURS
    retry: ClassVar[Retry] = Retry.NEVER
    flag: ClassVar[str] = "-"
    endpoint: str = ""  # "host:port" that was tried, where the hop failed on the way there
    midway: str = ""  # why it ended what had been let in and was under way; see mesh_connections_ended_early_total
    hint: str = ""  # what our own application may be told to do about it; never leaves the machine

    def __init_subclass__(
        cls, *, name: str = "", fault: Fault | None = None, retry: Retry | None = None, flag: str = ""
    ) -> None:
        """What a kind does not say of itself is as with the kind above it."""
        cls.name, cls.fault = name or cls.name, fault or cls.fault
        cls.retry, cls.flag = retry or cls.retry, flag or cls.flag

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or (self.__doc__ or "").splitlines()[0])

    @property
    def detail(self) -> str:
        """What happened, for the operator."""
        return str(self)


# ---- what the downstream did ------------------------------------------------------------------------------------


class ProtocolViolation(HopError, name="protocol_violation", fault=Fault.DOWNSTREAM, flag="DPE"):
    """The downstream sent what is not, or not unambiguously, the protocol of this listener."""


class Undetected(ProtocolViolation, name="undetected"):
    """What the caller speaks is not HTTP, on a listener that detects protocols and has rules about HTTP."""


class AmbiguousPath(ProtocolViolation, name="ambiguous_path"):
    """The request target can be read in more than one way (decision D4)."""


class HostMismatch(ProtocolViolation, name="host_mismatch"):
    """The host is missing, repeated, malformed, or differs between target and Host header."""


class AbusivePeer(ProtocolViolation, name="abuse"):
    """The other side wastes our time within the letter of HTTP/2: a flood, a bomb, a stall. `reason` is stable."""

    def __init__(self, detail: str = "", *, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


class HeadTooLarge(HopError, name="head_too_large", fault=Fault.DOWNSTREAM, flag="DPE"):
    """The request head is over 32 KiB or 100 lines (decision D13)."""


class BodyTooLarge(HopError, name="body_too_large", fault=Fault.DOWNSTREAM, flag="SV"):
    """The request body is larger than the route allows."""


class ContractBroken(HopError, name="contract_broken", fault=Fault.DOWNSTREAM, flag="SV"):
    """The request is not what the contract of the service says."""


class OperationUnknown(ContractBroken, name="operation_unknown"):
    """The contract of the service has no such operation."""


class OperationGone(HopError, name="operation_gone", fault=Fault.DOWNSTREAM, flag="SV"):
    """The operation is past the day until which the contract promises it."""


class UnsupportedContentType(HopError, name="unsupported_content_type", fault=Fault.DOWNSTREAM, flag="SV"):
    """The request body has a content type that the route does not accept."""


class UnsupportedFeature(HopError, name="unsupported", fault=Fault.DOWNSTREAM, flag="DPE"):
    """The request asks for something that this hop does not do (a method, coding, expectation or upgrade)."""


class RequestTimeout(HopError, name="request_timeout", fault=Fault.DOWNSTREAM, flag="DT"):
    """The downstream did not finish its request head in time."""


class DeadlinePast(HopError, name="deadline_past", fault=Fault.DOWNSTREAM, flag="UT"):
    """The deadline that came with the request (grpc-timeout, mesh-timeout, mesh-deadline) has passed."""


class DownstreamIdle(HopError, name="idle", fault=Fault.DOWNSTREAM, flag="SI"):
    """Nothing moved on this hop for the idle time."""


class DownstreamSlow(HopError, name="too_slow", fault=Fault.DOWNSTREAM, flag="DT"):
    """The downstream fell too far behind the least rate of bodies. `reading`: in taking its answer, not in sending."""

    def __init__(self, detail: str = "", *, reading: bool = False) -> None:
        super().__init__(detail)
        self.midway = "slow_reader" if reading else "slow_body"


class DownstreamGone(HopError, name="downstream_gone", fault=Fault.DOWNSTREAM, flag="DC"):
    """The downstream went away before the answer was complete."""


class LoopDetected(HopError, name="loop", fault=Fault.DOWNSTREAM, flag="LR"):
    """The request has been through this sidecar before."""


# ---- identity and policy -----------------------------------------------------------------------------------------


class IdentityRefused(HopError, name="identity_refused", fault=Fault.DOWNSTREAM, flag="ID"):
    """The other end did not prove an identity we accept. `reason` is short and stable.

    `presented` is the SPIFFE ID on a certificate whose chain held, although it was refused.
    """

    def __init__(self, reason: str, detail: str = "", presented: SpiffeId | None = None) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.presented = presented


class IdentityRevoked(IdentityRefused):
    """The identity behind an open connection was revoked: it is cut, and nobody is answered any more."""

    midway = "revoked"


class PeerIdentityMismatch(HopError, name="peer_identity", fault=Fault.UPSTREAM, flag="ID"):
    """The upstream proved an identity other than the one declared for it, or none we trust.

    `presented` is the SPIFFE ID that it did prove, or that stands on a certificate whose chain held.
    """

    def __init__(self, reason: str, detail: str = "", presented: SpiffeId | None = None) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.presented = presented


class NoIdentity(HopError, name="no_identity", flag="ID"):
    """This sidecar has no valid certificate of its own at this moment."""


class CertificateEnded(HopError, name="certificate_ended", flag="ID"):
    """The certificate that an open connection rests on has ended, or ends soon and nothing moved (decision D17)."""

    def __init__(self, detail: str = "", *, quiet: bool = False) -> None:
        super().__init__(detail)
        self.midway = "certificate_quiet" if quiet else "certificate_end"


class PolicyDenied(HopError, name="policy_denied", fault=Fault.DOWNSTREAM, flag="PD"):
    """No rule allows the hop, or a deny rule forbids it. `rule` names the deny rule, None where none allowed."""

    def __init__(self, detail: str = "", rule: str | None = None) -> None:
        super().__init__(detail)
        self.rule = rule


class UndeclaredUpstream(PolicyDenied, name="undeclared_upstream"):
    """The application asked for a host that none of its upstreams declares (decision D5). `hint` is YAML that would."""

    def __init__(self, detail: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.hint = hint


class AmbiguousUpstream(PolicyDenied, name="ambiguous_upstream"):
    """Two upstreams hold the address that a captured connection was made to (decision D11)."""


class UndeclaredPort(PolicyDenied, name="undeclared_port"):
    """A captured connection was made to a port that no inbound listener declares."""


class NotRedirected(PolicyDenied, name="not_redirected"):
    """A connection was made to a capture port itself, and no rule has redirected it."""


class CrossSite(PolicyDenied, name="cross_site"):
    """A browser marked this request to a local listener as cross-site (decision D5)."""


class ScopeMissing(PolicyDenied, name="scope_missing"):
    """A rule would permit it, had its token these scopes."""

    def __init__(self, detail: str = "", rule: str | None = None, *, scopes: tuple[str, ...] = ()) -> None:
        super().__init__(detail, rule)
        self.scopes = scopes  # all that the rule asks for


class AskDenied(PolicyDenied, name="ask_denied", flag="UAEX"):
    """The rules permit it, and OPA, which was asked too, said no."""


class AskSilent(PolicyDenied, name="ask_silent", flag="UAEX"):
    """The rules permit it, and OPA, which had to be asked too, said neither yes nor no."""


class EgressDenied(PolicyDenied, name="egress_denied"):
    """The upstream's list of what may be asked of it does not have this. `hint` is YAML that would."""

    def __init__(self, detail: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.hint = hint


class PrivateAddress(PolicyDenied, name="private_address"):
    """The name of a host outside leads to an address inside, and no exception is listed."""


class TokenMissing(HopError, name="token_missing", fault=Fault.DOWNSTREAM, flag="PD"):
    """There is no token in `Authorization`, and the listener asks for one."""


class TokenInvalid(HopError, name="token_invalid", fault=Fault.DOWNSTREAM, flag="PD"):
    """The token cannot be believed. `reason` is short and stable."""

    def __init__(self, detail: str = "", *, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


class TokenEnded(HopError, name="token_ended", fault=Fault.DOWNSTREAM, flag="PD"):
    """The bearer token that a stream was let in by has ended, and the stream with it."""

    midway = "token_end"


class TokenUnverifiable(HopError, name="token_unverifiable", flag="UAEX"):
    """The keys of its issuer are not to be had at this moment."""


class RateLimited(HopError, name="rate_limited", fault=Fault.DOWNSTREAM, flag="RL"):
    """A rate limit has no room for it at this moment."""

    def __init__(
        self, detail: str = "", *, limit: str = "", per: str = "", wait: float = 1.0,
        told: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.limit = limit  # its name
        self.per = per  # `listener`, `caller`, `endpoint` or `header`
        self.wait = wait  # seconds until there is room
        self.told = told  # the header fields that tell the caller so


class QuotaSpent(RateLimited, name="quota_spent"):
    """A quota is used up for this hour, day or month."""


class TcpLimited(RateLimited, name="tcp_limited"):
    """A TCP limit has no room for another connection."""


class QuotaUnknown(HopError, name="quota_unknown", flag="RL"):
    """Nobody can tell at this moment how much of a quota has been used: its store is away."""


class Throttled(RateLimited, name="throttled", flag="TH"):
    """A limit that lets requests wait has no place for it, or has shut its caller out for a time."""


class CallerBlocked(RateLimited, name="caller_blocked", flag="TH"):
    """A detector holds this caller for a time (`services.X.detectors`)."""


class LimiterAway(HopError, name="limiter_away", flag="RLSE"):
    """The Redis that a limit is counted in is away, and the configuration wants nobody let in meanwhile."""


class FaultInjected(HopError, name="fault_injected", flag="FI"):
    """A fault of its route refused it, on purpose."""

    def __init__(self, detail: str = "", status: int = 503) -> None:
        super().__init__(detail)
        self.status = status  # of HTTP, as the operator has chosen it


# ---- what the upstream did ---------------------------------------------------------------------------------------


class TokenUnavailable(HopError, name="token_unavailable", flag="UAEX"):
    """The upstream wants a token of ours, and there is none at this moment: nothing was sent to it."""


class ConnectFailed(HopError, name="connect_failed", fault=Fault.UPSTREAM, retry=Retry.YES, flag="UF"):
    """No connection to the upstream could be made."""


class HandshakeFailed(ConnectFailed, name="handshake_failed"):
    """The TLS handshake with the upstream failed, and not by anybody's identity. `reason` is short and stable."""

    def __init__(self, detail: str = "", reason: str = "tls") -> None:
        super().__init__(detail)
        self.reason = reason


class UpstreamClosed(HopError, name="upstream_closed", fault=Fault.UPSTREAM, retry=Retry.IF_UNSENT, flag="UC"):
    """The upstream closed the connection before it answered. `reused` tells of a pooled connection gone stale."""

    def __init__(self, detail: str = "", *, reused: bool = False) -> None:
        super().__init__(detail)
        self.reused = reused


class UpstreamReset(UpstreamClosed, name="upstream_reset", flag="UR"):
    """The upstream reset the connection before it answered."""
    code: int | None = None  # of the reset, where it was one of HTTP/2


class UpstreamRefused(UpstreamReset, name="upstream_refused", retry=Retry.YES):
    """The upstream said that it has not begun with the request (REFUSED_STREAM, or a GOAWAY that leaves it out)."""


class ResponseTimeout(HopError, name="response_timeout", fault=Fault.UPSTREAM, flag="UT"):
    """The upstream did not begin its answer in time."""


class TotalTimeout(ResponseTimeout, name="total_timeout"):
    """The whole exchange took longer than the operator gives it (timeouts.total)."""


class TryTimeout(ResponseTimeout, name="try_timeout"):
    """One try took longer than the operator gives it (timeouts.per_try); another may be quicker."""


class UpstreamIdle(HopError, name="upstream_idle", fault=Fault.UPSTREAM, flag="SI"):
    """The upstream stopped in the middle of its answer for the idle time."""


class UpstreamProtocolViolation(HopError, name="upstream_protocol", fault=Fault.UPSTREAM, flag="UPE"):
    """The upstream's answer is not valid HTTP."""


class AnswerBroken(HopError, name="answer_broken", flag="SV"):
    """The application's answer is not what its contract says. It counts against no endpoint: another says the same."""


class NoHealthyUpstream(HopError, name="no_endpoint", fault=Fault.UPSTREAM, retry=Retry.YES, flag="UH"):
    """No endpoint is known for the upstream."""
    retry_after = 1.0  # seconds until one of them may be asked again


class NoRoute(HopError, name="no_route", fault=Fault.DOWNSTREAM, flag="NR"):
    """No upstream of this listener serves the requested host or path."""


# ---- ours --------------------------------------------------------------------------------------------------------


class Overflow(HopError, name="overflow", flag="UO"):
    """A queue or a pool of this sidecar is full (decision D25)."""


class Overload(HopError, name="overload", flag="OM"):
    """The sidecar is short of descriptors or memory and refuses new connections (decision D25)."""


class TooManyStreams(Overload, name="too_many_streams"):
    """There is no place for another upgrade or tunnel: those that last are at their limit (decision D25)."""


class Draining(HopError, name="draining", flag="LR"):
    """The sidecar is shutting down."""


class AuditFull(HopError, name="audit_full", flag="OM"):
    """The audit record cannot be kept and `audit.on_full` is `refuse` (decision D9)."""


class InternalError(HopError, name="internal", flag="LR"):
    """A fault of this sidecar itself."""
