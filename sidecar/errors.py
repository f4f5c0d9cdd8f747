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

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or (self.__doc__ or "").splitlines()[0])

    @property
    def detail(self) -> str:
        """What happened, for the operator."""
        return str(self)


# ---- what the downstream did ------------------------------------------------------------------------------------


class ProtocolViolation(HopError):
    """The downstream sent what is not, or not unambiguously, the protocol of this listener."""

    name = "protocol_violation"
    fault = Fault.DOWNSTREAM
    flag = "DPE"


class Undetected(ProtocolViolation):
    """What the caller speaks is not HTTP, on a listener that detects protocols and has rules about HTTP."""

    name = "undetected"


class AmbiguousPath(ProtocolViolation):
    """The request target can be read in more than one way (decision D4)."""

    name = "ambiguous_path"


class HostMismatch(ProtocolViolation):
    """The host is missing, repeated, malformed, or differs between target and Host header."""

    name = "host_mismatch"


class AbusivePeer(ProtocolViolation):
    """The other side wastes our time within the letter of HTTP/2: a flood, a bomb, a stall. `reason` is stable."""

    name = "abuse"

    def __init__(self, detail: str = "", *, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


class HeadTooLarge(HopError):
    """The request head is over 32 KiB or 100 lines (decision D13)."""

    name = "head_too_large"
    fault = Fault.DOWNSTREAM
    flag = "DPE"


class BodyTooLarge(HopError):
    """The request body is larger than the route allows."""

    name = "body_too_large"
    fault = Fault.DOWNSTREAM
    flag = "SV"


class ContractBroken(HopError):
    """The request is not what the contract of the service says."""

    name = "contract_broken"
    fault = Fault.DOWNSTREAM
    flag = "SV"


class OperationUnknown(ContractBroken):
    """The contract of the service has no such operation."""

    name = "operation_unknown"


class OperationGone(HopError):
    """The operation is past the day until which the contract promises it."""

    name = "operation_gone"
    fault = Fault.DOWNSTREAM
    flag = "SV"


class UnsupportedContentType(HopError):
    """The request body has a content type that the route does not accept."""

    name = "unsupported_content_type"
    fault = Fault.DOWNSTREAM
    flag = "SV"


class UnsupportedFeature(HopError):
    """The request asks for something that this hop does not do (a method, coding, expectation or upgrade)."""

    name = "unsupported"
    fault = Fault.DOWNSTREAM
    flag = "DPE"


class RequestTimeout(HopError):
    """The downstream did not finish its request head in time."""

    name = "request_timeout"
    fault = Fault.DOWNSTREAM
    flag = "DT"


class DeadlinePast(HopError):
    """The deadline that came with the request (grpc-timeout, mesh-timeout, mesh-deadline) has passed."""

    name = "deadline_past"
    fault = Fault.DOWNSTREAM
    flag = "UT"


class DownstreamIdle(HopError):
    """Nothing moved on this hop for the idle time."""

    name = "idle"
    fault = Fault.DOWNSTREAM
    flag = "SI"


class DownstreamSlow(HopError):
    """The downstream fell too far behind the least rate of bodies. `reading`: in taking its answer, not in sending."""

    name = "too_slow"
    fault = Fault.DOWNSTREAM
    flag = "DT"

    def __init__(self, detail: str = "", *, reading: bool = False) -> None:
        super().__init__(detail)
        self.midway = "slow_reader" if reading else "slow_body"


class DownstreamGone(HopError):
    """The downstream went away before the answer was complete."""

    name = "downstream_gone"
    fault = Fault.DOWNSTREAM
    flag = "DC"


class LoopDetected(HopError):
    """The request has been through this sidecar before."""

    name = "loop"
    fault = Fault.DOWNSTREAM
    flag = "LR"


# ---- identity and policy -----------------------------------------------------------------------------------------


class IdentityRefused(HopError):
    """The other end did not prove an identity we accept. `reason` is short and stable.

    `presented` is the SPIFFE ID on a certificate whose chain held, although it was refused.
    """

    name = "identity_refused"
    fault = Fault.DOWNSTREAM
    flag = "ID"

    def __init__(self, reason: str, detail: str = "", presented: SpiffeId | None = None) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.presented = presented


class IdentityRevoked(IdentityRefused):
    """The identity behind an open connection was revoked: it is cut, and nobody is answered any more."""

    midway = "revoked"


class PeerIdentityMismatch(HopError):
    """The upstream proved an identity other than the one declared for it, or none we trust.

    `presented` is the SPIFFE ID that it did prove, or that stands on a certificate whose chain held.
    """

    name = "peer_identity"
    fault = Fault.UPSTREAM
    flag = "ID"

    def __init__(self, reason: str, detail: str = "", presented: SpiffeId | None = None) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.presented = presented


class NoIdentity(HopError):
    """This sidecar has no valid certificate of its own at this moment."""

    name = "no_identity"
    flag = "ID"


class CertificateEnded(HopError):
    """The certificate that an open connection rests on has ended, or ends soon and nothing moved (decision D17)."""

    name = "certificate_ended"
    flag = "ID"

    def __init__(self, detail: str = "", *, quiet: bool = False) -> None:
        super().__init__(detail)
        self.midway = "certificate_quiet" if quiet else "certificate_end"


class PolicyDenied(HopError):
    """No rule allows the hop, or a deny rule forbids it. `rule` names the deny rule, None where none allowed."""

    name = "policy_denied"
    fault = Fault.DOWNSTREAM
    flag = "PD"

    def __init__(self, detail: str = "", rule: str | None = None) -> None:
        super().__init__(detail)
        self.rule = rule


class UndeclaredUpstream(PolicyDenied):
    """The application asked for a host that none of its upstreams declares (decision D5). `hint` is YAML that would."""

    name = "undeclared_upstream"

    def __init__(self, detail: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.hint = hint


class AmbiguousUpstream(PolicyDenied):
    """Two upstreams hold the address that a captured connection was made to (decision D11)."""

    name = "ambiguous_upstream"


class UndeclaredPort(PolicyDenied):
    """A captured connection was made to a port that no inbound listener declares."""

    name = "undeclared_port"


class NotRedirected(PolicyDenied):
    """A connection was made to a capture port itself, and no rule has redirected it."""

    name = "not_redirected"


class CrossSite(PolicyDenied):
    """A browser marked this request to a local listener as cross-site (decision D5)."""

    name = "cross_site"


class AskDenied(PolicyDenied):
    """The rules permit it, and OPA, which was asked too, said no."""

    name = "ask_denied"
    flag = "UAEX"


class AskSilent(PolicyDenied):
    """The rules permit it, and OPA, which had to be asked too, said neither yes nor no."""

    name = "ask_silent"
    flag = "UAEX"


class EgressDenied(PolicyDenied):
    """The upstream's list of what may be asked of it does not have this. `hint` is YAML that would."""

    name = "egress_denied"

    def __init__(self, detail: str = "", hint: str = "") -> None:
        super().__init__(detail)
        self.hint = hint


class TokenMissing(HopError):
    """There is no token in `Authorization`, and the listener asks for one."""

    name = "token_missing"
    fault = Fault.DOWNSTREAM
    flag = "PD"


class ScopeMissing(PolicyDenied):
    """A rule would permit it, had its token these scopes."""

    name = "scope_missing"

    def __init__(self, detail: str = "", rule: str | None = None, *, scopes: tuple[str, ...] = ()) -> None:
        super().__init__(detail, rule)
        self.scopes = scopes  # all that the rule asks for


class TokenInvalid(HopError):
    """The token cannot be believed. `reason` is short and stable."""

    name = "token_invalid"
    fault = Fault.DOWNSTREAM
    flag = "PD"

    def __init__(self, detail: str = "", *, reason: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


class TokenUnverifiable(HopError):
    """The keys of its issuer are not to be had at this moment."""

    name = "token_unverifiable"
    flag = "UAEX"


class RateLimited(HopError):
    """A rate limit has no room for it at this moment."""

    name = "rate_limited"
    fault = Fault.DOWNSTREAM
    flag = "RL"

    def __init__(
        self, detail: str = "", *, limit: str = "", per: str = "", wait: float = 1.0,
        told: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.limit = limit  # its name
        self.per = per  # `listener`, `caller`, `endpoint` or `header`
        self.wait = wait  # seconds until there is room
        self.told = told  # the header fields that tell the caller so


class QuotaSpent(RateLimited):
    """A quota is used up for this hour, day or month."""

    name = "quota_spent"


class TcpLimited(RateLimited):
    """A TCP limit has no room for another connection."""

    name = "tcp_limited"


class QuotaUnknown(HopError):
    """Nobody can tell at this moment how much of a quota has been used: its store is away."""

    name = "quota_unknown"
    flag = "RL"
class Throttled(RateLimited):
    """A limit that lets requests wait has no place for it, or has shut its caller out for a time."""

    name = "throttled"
    flag = "TH"


class CallerBlocked(RateLimited):
    """A detector holds this caller for a time (`services.X.detectors`)."""

    name = "caller_blocked"
    flag = "TH"


class LimiterAway(HopError):
    """The Redis that a limit is counted in is away, and the configuration wants nobody let in meanwhile."""

    name = "limiter_away"
    flag = "RLSE"


class FaultInjected(HopError):
    """A fault of its route refused it, on purpose."""

    name = "fault_injected"
    flag = "FI"

    def __init__(self, detail: str = "", status: int = 503) -> None:
        super().__init__(detail)
        self.status = status  # of HTTP, as the operator has chosen it

# ---- what the upstream did ---------------------------------------------------------------------------------------


class TokenUnavailable(HopError):
    """The upstream wants a token of ours, and there is none at this moment: nothing was sent to it."""

    name = "token_unavailable"
    flag = "UAEX"


class ConnectFailed(HopError):
    """No connection to the upstream could be made."""

    name = "connect_failed"
    fault = Fault.UPSTREAM
    retry = Retry.YES
    flag = "UF"


class PrivateAddress(PolicyDenied):
    """The name of a host outside leads to an address inside, and no exception is listed."""

    name = "private_address"


class HandshakeFailed(ConnectFailed):
    """The TLS handshake with the upstream failed, and not by anybody's identity. `reason` is short and stable."""

    name = "handshake_failed"

    def __init__(self, detail: str = "", reason: str = "tls") -> None:
        super().__init__(detail)
        self.reason = reason


class UpstreamClosed(HopError):
    """The upstream closed the connection before it answered. `reused` tells of a pooled connection gone stale."""

    name = "upstream_closed"
    fault = Fault.UPSTREAM
    retry = Retry.IF_UNSENT
    flag = "UC"

    def __init__(self, detail: str = "", *, reused: bool = False) -> None:
        super().__init__(detail)
        self.reused = reused


class UpstreamReset(UpstreamClosed):
    """The upstream reset the connection before it answered."""

    name = "upstream_reset"
    flag = "UR"
    code: int | None = None  # of the reset, where it was one of HTTP/2


class UpstreamRefused(UpstreamReset):
    """The upstream said that it has not begun with the request (REFUSED_STREAM, or a GOAWAY that leaves it out)."""

    name = "upstream_refused"
    retry = Retry.YES


class ResponseTimeout(HopError):
    """The upstream did not begin its answer in time."""

    name = "response_timeout"
    fault = Fault.UPSTREAM
    flag = "UT"


class TotalTimeout(ResponseTimeout):
    """The whole exchange took longer than the operator gives it (timeouts.total)."""

    name = "total_timeout"


class TryTimeout(ResponseTimeout):
    """One try took longer than the operator gives it (timeouts.per_try); another may be quicker."""

    name = "try_timeout"


class UpstreamIdle(HopError):
    """The upstream stopped in the middle of its answer for the idle time."""

    name = "upstream_idle"
    fault = Fault.UPSTREAM
    flag = "SI"


class UpstreamProtocolViolation(HopError):
    """The upstream's answer is not valid HTTP."""

    name = "upstream_protocol"
    fault = Fault.UPSTREAM
    flag = "UPE"


class AnswerBroken(HopError):
    """The application's answer is not what its contract says. It counts against no endpoint: another says the same."""

    name = "answer_broken"
    flag = "SV"


class NoHealthyUpstream(HopError):
    """No endpoint is known for the upstream."""

    name = "no_endpoint"
    fault = Fault.UPSTREAM
    retry = Retry.YES
    flag = "UH"
    retry_after = 1.0  # seconds until one of them may be asked again


class NoRoute(HopError):
    """No upstream of this listener serves the requested host or path."""

    name = "no_route"
    fault = Fault.DOWNSTREAM
    flag = "NR"


# ---- ours --------------------------------------------------------------------------------------------------------


class Overflow(HopError):
    """A queue or a pool of this sidecar is full (decision D25)."""

    name = "overflow"
    flag = "UO"


class Overload(HopError):
    """The sidecar is short of descriptors or memory and refuses new connections (decision D25)."""

    name = "overload"
    flag = "OM"


class TooManyStreams(Overload):
    """There is no place for another upgrade or tunnel: those that last are at their limit (decision D25)."""

    name = "too_many_streams"


class Draining(HopError):
    """The sidecar is shutting down."""

    name = "draining"
    flag = "LR"


class AuditFull(HopError):
    """The audit record cannot be kept and `audit.on_full` is `refuse` (decision D9)."""

    name = "audit_full"
    flag = "OM"


class InternalError(HopError):
    """A fault of this sidecar itself."""

    name = "internal"
    flag = "LR"
