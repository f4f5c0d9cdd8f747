"""THE table: what a caller sees of each error. Status codes are Envoy's (semantics S24); reasons never leave
(decision D7).

A peer gets title, status and, once its identity is verified, an opaque decision id that its operator can quote to
ours; of a rate limit also its name, its size and when there is room again. The application on loopback also gets
`Proxy-Status` (RFC 9209) with flag and rule, which tells our 503 from its upstream's. On raw TCP every error is a
close: a reset where the other side must not take what it has for the whole.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from http import HTTPStatus

from sidecar import errors
from sidecar.hop import Headers, Hop
from sidecar.http.message import ResponseHead
from sidecar.proxy.behind import told_of

# error → (HTTP status, RFC 9209 error type)
TABLE: dict[type[errors.HopError], tuple[int, str]] = {
    errors.ProtocolViolation: (400, "http_request_error"),
    errors.AbusivePeer: (400, "http_request_error"),
    errors.Undetected: (400, "http_request_error"),
    errors.AmbiguousPath: (400, "http_request_error"),
    errors.HostMismatch: (400, "http_request_error"),
    errors.HeadTooLarge: (431, "http_request_error"),
    errors.BodyTooLarge: (413, "http_request_error"),
    errors.UnsupportedContentType: (415, "http_request_error"),
    errors.ContractBroken: (400, "http_request_error"),
    errors.OperationUnknown: (404, "http_request_denied"),
    errors.OperationGone: (410, "http_request_denied"),
    errors.AnswerBroken: (502, "http_protocol_error"),
    errors.UnsupportedFeature: (501, "http_request_error"),
    errors.RequestTimeout: (408, "http_request_error"),
    errors.DeadlinePast: (504, "http_response_timeout"),
    errors.DownstreamIdle: (408, "http_request_error"),
    errors.DownstreamSlow: (408, "http_request_error"),
    errors.LoopDetected: (508, "proxy_loop_detected"),
    errors.IdentityRefused: (403, "http_request_denied"),
    errors.CertificateEnded: (503, "connection_terminated"),
    errors.TokenEnded: (401, "connection_terminated"),
    errors.PolicyDenied: (403, "http_request_denied"),
    errors.AskDenied: (403, "http_request_denied"),
    errors.AskSilent: (403, "http_request_denied"),
    errors.EgressDenied: (403, "http_request_denied"),
    errors.PrivateAddress: (403, "destination_ip_prohibited"),
    errors.TokenUnavailable: (503, "proxy_internal_error"),
    errors.TokenMissing: (401, "http_request_denied"),
    errors.ScopeMissing: (403, "http_request_denied"),
    errors.TokenInvalid: (401, "http_request_denied"),
    errors.TokenUnverifiable: (503, "destination_unavailable"),
    errors.RateLimited: (429, "http_request_denied"),
    errors.FaultInjected: (503, "proxy_internal_response"),
    errors.QuotaSpent: (429, "http_request_denied"),
    errors.TcpLimited: (429, "http_request_denied"),
    errors.QuotaUnknown: (503, "proxy_internal_error"),
    errors.Throttled: (429, "http_request_denied"),
    errors.CallerBlocked: (429, "http_request_denied"),
    errors.LimiterAway: (503, "destination_unavailable"),
    errors.UndeclaredUpstream: (403, "http_request_denied"),
    errors.AmbiguousUpstream: (403, "http_request_denied"),
    errors.UndeclaredPort: (403, "http_request_denied"),
    errors.NotRedirected: (403, "http_request_denied"),
    errors.CrossSite: (403, "http_request_denied"),
    errors.PeerIdentityMismatch: (503, "tls_certificate_error"),
    errors.NoIdentity: (503, "proxy_internal_error"),
    errors.ConnectFailed: (503, "connection_refused"),
    errors.HandshakeFailed: (503, "tls_protocol_error"),
    errors.UpstreamClosed: (503, "connection_terminated"),
    errors.UpstreamReset: (503, "connection_terminated"),
    errors.UpstreamRefused: (503, "connection_terminated"),
    errors.ResponseTimeout: (504, "http_response_timeout"),
    errors.TotalTimeout: (504, "http_response_timeout"),
    errors.TryTimeout: (504, "http_response_timeout"),
    errors.UpstreamIdle: (504, "http_response_timeout"),
    errors.UpstreamProtocolViolation: (502, "http_protocol_error"),
    errors.NoHealthyUpstream: (503, "destination_unavailable"),
    errors.NoRoute: (404, "destination_not_found"),
    errors.Overflow: (503, "connection_limit_reached"),
    errors.Overload: (503, "connection_limit_reached"),
    errors.TooManyStreams: (503, "connection_limit_reached"),
    errors.Draining: (503, "destination_unavailable"),
    errors.AuditFull: (503, "proxy_internal_error"),
    errors.InternalError: (500, "proxy_internal_error"),
}
UNANSWERED = (errors.DownstreamGone, errors.IdentityRevoked)  # there is nobody left to answer
RETRY_AFTER = (
    errors.Overflow, errors.Overload, errors.Draining, errors.LimiterAway, errors.QuotaUnknown,
    errors.TokenUnavailable, errors.TokenUnverifiable,
)  # fmt: skip
# RFC 6750 section 3: nothing but the scheme to who has shown no token, and never a reason (decision D7).
CHALLENGES: dict[type[errors.HopError], bytes] = {
    errors.TokenMissing: b'Bearer realm="mesh"',
    errors.TokenInvalid: b'Bearer realm="mesh", error="invalid_token"',
}
UNSUPPORTED_EXPECTATION = 417
TITLES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal, ready to be framed."""

    head: ResponseHead
    body: bytes


def status_of(error: errors.HopError) -> int:
    """The HTTP status of an error; 0 where nobody is left to answer, or may be."""
    if isinstance(error, UNANSWERED):
        return 0
    if isinstance(error, errors.UnsupportedFeature) and str(error).startswith("Expect:"):
        return UNSUPPORTED_EXPECTATION
    if isinstance(error, errors.FaultInjected):
        return error.status
    return TABLE[type(error)][0]


def refusal(hop: Hop, error: errors.HopError, *, show_id: bool, show_why: bool) -> Answer:
    """The response to a refused or failed request.

    `show_id`: the caller is a verified peer or our own application. `show_why`: it is our own application, on loopback.
    """
    status = status_of(error)
    title = TITLES.get(status, "Fault")  # an operator may give a fault any number
    problem: dict[str, object] = {"title": title, "status": status}
    headers: Headers = [(b"content-type", b"application/problem+json")]
    if show_id:
        problem["decision"] = hop.decision_id
        headers.append((b"mesh-decision-id", hop.decision_id.encode()))
        if not show_why:
            headers += told_of(error)
    if show_why:
        headers.append((b"proxy-status", proxy_status(hop, error)))
        hint = getattr(error, "hint", "")
        if hint:
            problem["hint"] = hint
    if type(error) in CHALLENGES:
        headers.append((b"www-authenticate", CHALLENGES[type(error)]))
    if isinstance(error, errors.ScopeMissing):  # RFC 6750 section 3.1
        challenge = f'Bearer realm="mesh", error="insufficient_scope", scope="{" ".join(error.scopes)}"'
        headers.append((b"www-authenticate", challenge.encode()))
    if isinstance(error, errors.NoHealthyUpstream):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    elif isinstance(error, errors.RateLimited):
        headers += error.told
    elif isinstance(error, RETRY_AFTER):
        headers.append((b"retry-after", b"1"))
    body = json.dumps(problem).encode() + b"\n"
    headers.append((b"content-length", b"%d" % len(body)))
    return Answer(ResponseHead(status, headers, title.encode()), b"" if hop.method == "HEAD" else body)


def proxy_status(hop: Hop, error: errors.HopError) -> bytes:
    """RFC 9209 section 2: who answered and why, for our own application only."""
    kind = TABLE[type(error)][1]
    rule = getattr(error, "rule", None) or hop.rule
    flag = hop.flag if hop.delayed else error.flag
    details = f"{flag} {error.name}" + (f" rule={rule}" if rule else "") + f" decision={hop.decision_id}"
    return f'mesh; error={kind}; details="{_quotable(details)}"'.encode()


def delayed(hop: Hop) -> bytes:
    """Proxy-Status for an answer that a fault has held, for our own application only."""
    return f'mesh; details="DI fault_injected: held {hop.delayed:g} s on purpose"'.encode()


def peer_refused(decision_id: str, status: int) -> bytes:
    """Proxy-Status for an answer that was made by the peer's sidecar, not by the peer."""
    return f'mesh; received-status={status}; details="refused by the peer, decision={_quotable(decision_id)}"'.encode()


def _quotable(text: str) -> str:
    """What may stand in a quoted string of RFC 8941: visible ASCII, backslash and quote escaped."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"')
