"""Plain words for every failure: what happened, and what to do about it.

`HAPPENED` is keyed by the short name of an error (`sidecar.errors`), `IDENTITY` by the reason that a refused identity
carries, whichever end refused it. Placeholders stand for facts of the hop; one that is not known becomes a plain word.
These sentences are for operators, through `mesh explain` and the log. Nothing of them reaches a peer (decision D7).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sidecar.errors import HopError, IdentityRefused, PeerIdentityMismatch


class Reason(NamedTuple):
    """What happened and what to do, each one or two sentences."""

    happened: str
    todo: str

    def to_json(self) -> dict[str, str]:
        """The reason as data."""
        return {"happened": self.happened, "todo": self.todo}


UNKNOWN: Final = {  # what stands for a fact that is not known
    "detail": "no detail was kept",
    "caller": "the caller",
    "upstream": "the upstream",
    "endpoint": "its endpoint",
    "listener": "this listener",
    "host": "that host",
    "rule": "a rule",
}

_CLOCK: Final = "Check the clocks of both machines first, then"

HAPPENED: Final[dict[str, Reason]] = {
    "hop_error": Reason("The hop failed: {detail}.", "Look at the detail and at the log around that moment."),
    "protocol_violation": Reason(
        "What {caller} sent on {listener} is not unambiguous HTTP: {detail}.",
        "Mend the client, or declare the listener `protocol: tcp` if it does not speak HTTP.",
    ),
    "ambiguous_path": Reason(
        "The request target can be read in more than one way, so it was refused before any rule was asked: {detail}.",
        "Let the client send the path without dot segments, `//`, backslashes, `;` or double encoding. A route can "
        "accept %2F, `//` or `;` by `unsafe_encoded_slash`, `unsafe_empty_segments` or `unsafe_path_parameters`.",
    ),
    "host_mismatch": Reason(
        "The host is missing, repeated, malformed, or not the one in the request target: {detail}.",
        "Let the client send exactly one Host line, without trailing dot; an absolute URL must name the same host.",
    ),
    "head_too_large": Reason(
        "The head is larger than this sidecar accepts: {detail}.",
        "Send less (large cookies are the usual cause), or raise `limits.head_bytes` or `limits.head_lines`.",
    ),
    "body_too_large": Reason(
        "The request body is larger than the route allows: {detail}.",
        "Send less, or raise `max_body` of that route.",
    ),
    "unsupported_content_type": Reason(
        "The route does not accept a body of this content type: {detail}.",
        "Send one of the route's `content_types`, or add this one to them.",
    ),
    "unsupported": Reason(
        "The request asks for something that this hop does not do: {detail}.",
        "Use another method, coding or upgrade; or a listener with `protocol: tcp`, which passes bytes as they are.",
    ),
    "request_timeout": Reason(
        "{caller} did not finish its request head in time: {detail}.",
        "Look for a slow or stuck client; `timeouts.request_head` is the limit.",
    ),
    "idle": Reason(
        "Nothing moved between {caller} and {listener} for the idle time: {detail}.",
        "Raise `timeouts.idle` (or `timeouts.tcp_idle` for raw TCP) if such pauses are normal for this service.",
    ),
    "downstream_gone": Reason(
        "{caller} went away before the answer was complete: {detail}.",
        "Nothing on this side. If it happens often, compare the caller's own time-out with how long answers take.",
    ),
    "loop": Reason(
        "The request has been through this sidecar before: {detail}.",
        "Look for an upstream whose endpoint leads back to the service's own sidecar.",
    ),
    "identity_refused": Reason(
        "{caller} did not prove an identity that {listener} accepts: {detail}.",
        "Look at its certificate with `mesh certs verify`, and at its sidecar with `mesh status`.",
    ),
    "peer_identity": Reason(
        "{upstream} proved another identity than the one declared for it, or none that we trust: {detail}.",
        "Check `identity` of that upstream, and which sidecar really listens at {endpoint}.",
    ),
    "certificate_ended": Reason(
        "The connection was ended because the certificate it rested on was ending: {detail}.",
        "Nothing; connect again, with the new certificate. Where that is too often, give the entry a longer lifetime: "
        "`mesh ca entry add --ttl 7d`.",
    ),
    "no_identity": Reason(
        "This sidecar has no valid certificate of its own at this moment: {detail}.",
        "Check this machine's clock, that the CA can be reached, and that the enrolment file is right: `mesh status`, "
        "then `mesh certs rotate`.",
    ),
    "policy_denied": Reason(
        "The rules of the called service refuse it: {detail}.",
        "Look below for the nearest rule and the smallest change that would permit it.",
    ),
    "undeclared_upstream": Reason(
        "The application asked for {host}, which none of its upstreams declares: {detail}.",
        "Add it to `outbound` of the calling service; for a host outside the mesh, with `unmeshed: passthrough`.",
    ),
    "cross_site": Reason(
        "A browser marked this request to a local listener as coming from another site: {detail}.",
        "Call the service from your application and not from a web page; a local listener is no public site.",
    ),
    "connect_failed": Reason(
        "No connection to {upstream}: {detail}.",
        "Check that it runs and listens there (for a peer: `mesh status` on its side), then address and firewall.",
    ),
    "handshake_failed": Reason(
        "The TLS handshake with {upstream} at {endpoint} failed: {detail}.",
        "Check that a mesh sidecar, not the application itself or another TLS server, listens at that address; if one "
        "does, its log says why.",
    ),
    "upstream_closed": Reason(
        "{upstream} closed the connection before it answered: {detail}.",
        "Look at its log. On a reused connection its keep-alive time is probably shorter than our pool's.",
    ),
    "upstream_reset": Reason(
        "{upstream} reset the connection before it answered: {detail}.",
        "Look at its log for a crash or a restart at that moment.",
    ),
    "response_timeout": Reason(
        "{upstream} did not begin its answer in time: {detail}.",
        "Find out why it is slow, or raise `timeouts.response_head` if such answers are normal.",
    ),
    "upstream_idle": Reason(
        "{upstream} stopped in the middle of its answer for the idle time: {detail}.",
        "Raise `timeouts.idle` if it pauses that long on purpose.",
    ),
    "upstream_protocol": Reason(
        "The answer of {upstream} is not valid HTTP: {detail}.",
        "Mend the service, or declare the listener `protocol: tcp` if it does not speak HTTP.",
    ),
    "no_endpoint": Reason(
        "No endpoint of {upstream} is known: {detail}.",
        "Give the upstream `endpoints`, or check the discovery that should supply them.",
    ),
    "no_route": Reason(
        "No upstream of {listener} serves what was asked for: {detail}.",
        "Check the host and path that the client sends against the upstreams of the service.",
    ),
    "overflow": Reason(
        "The pool to {upstream} stayed full for as long as a request may wait: {detail}.",
        "Find out whether the upstream is slow; raise `limits.pool` or `limits.pending` if the load is right.",
    ),
    "overload": Reason(
        "This sidecar is short of descriptors or memory and refuses new connections: {detail}.",
        "Raise the process's limits or lower `limits.connections`; `mesh status` shows how many are open.",
    ),
    "draining": Reason(
        "This sidecar is shutting down: {detail}.",
        "Nothing, if it was stopped on purpose; callers should try again elsewhere.",
    ),
    "audit_full": Reason(
        "The audit record cannot be kept and `audit.on_full` says `refuse`: {detail}.",
        "Make room on the disk that holds the audit, or choose `audit.on_full: continue`.",
    ),
    "internal": Reason(
        "A fault of this sidecar itself: {detail}.",
        "Please report it, with the log lines around that moment.",
    ),
}

IDENTITY: Final[dict[str, Reason]] = {
    "no_certificate": Reason(
        "The other end showed no certificate; a caller needs a client certificate of the mesh.",
        "Call through a sidecar of the mesh; without an identity nobody is let in.",
    ),
    "wrong_trust_domain": Reason(
        "The certificate is of another trust domain than its root, or than the one we expect: {detail}.",
        "Check that both ends are enrolled with the same CA, and that both configurations agree on `trust_domain`.",
    ),
    "no_bundle": Reason(
        "The certificate is of a trust domain whose roots we do not have: {detail}.",
        "Check `trust_domain` on both ends; a root vouches only for its own trust domain.",
    ),
    "expired": Reason(
        "The certificate has expired: {detail}.",
        f"{_CLOCK} why its sidecar could not renew: `mesh status` there shows the last error.",
    ),
    "not_yet_valid": Reason(
        "The certificate is not valid yet: {detail}.",
        f"{_CLOCK} that of the CA; a clock that is behind by more than a minute makes fresh certificates look early.",
    ),
    "one_uri_san": Reason(
        "The certificate has not exactly one URI name, so it says of itself to be nobody or several: {detail}.",
        "Issue it from the mesh's CA, or let the other CA put exactly one SPIFFE ID into it.",
    ),
    "not_a_ca": Reason(
        "A CA certificate was shown as the identity of a workload: {detail}.",
        "Use a leaf certificate; a CA's key belongs to the CA alone.",
    ),
    "invalid_svid": Reason(
        "The certificate breaks a rule of the X.509-SVID profile: {detail}.",
        "Issue it from the mesh's CA, or mend the template of the other CA; `mesh certs verify FILE` names every rule.",
    ),
    "unknown_root": Reason(
        "No path leads from the certificate to a root that we trust: {detail}.",
        "Check that both ends are enrolled with the same CA, and have its new bundle if the root has just changed.",
    ),
    "bad_chain": Reason(
        "The certificate chain does not hold: {detail}.",
        "Look at it with `mesh certs verify`; an intermediate may be missing, too many, or signed by somebody else.",
    ),
    "bad_certificate": Reason(
        "The other end refused our certificate: {detail}.",
        f"{_CLOCK} `mesh certs verify` on this side.",
    ),
    "not_pinned": Reason(
        "At first contact the CA showed no root that the enrolment file names: {detail}.",
        "Make a new enrolment file with `mesh ca token`, and check that the address is really the CA's.",
    ),
    "protocol_version": Reason(
        "The other end does not offer TLS 1.3, for example only TLS 1.2: {detail}.",
        "Bring that end up to date. `tls.unsafe_tls12` accepts TLS 1.2 with AEAD suites until then.",
    ),
    "plaintext": Reason(
        "Plaintext, or something else that is not TLS, arrived on an mTLS port: {detail}.",
        "Let the client speak plain HTTP to its own sidecar, which speaks mTLS to this one.",
    ),
    "alpn": Reason(
        "The two ends have no application protocol in common: {detail}.",
        "Check that both declare the same `protocol` for this listener.",
    ),
    "handshake_failure": Reason(
        "The two ends have no cipher suite, key exchange or signature in common: {detail}.",
        "Bring the older end up to date; the mesh keeps to TLS 1.3 and OpenSSL's default groups.",
    ),
    "handshake_timeout": Reason(
        "The handshake did not end in time: {detail}.",
        "Look for a slow or blocked network; `timeouts.handshake` is the limit.",
    ),
    "reset": Reason(
        "The other end left in the middle of the handshake: {detail}.",
        "Look at its log: it may have refused our certificate, or not speak TLS at all.",
    ),
    "other_identity": Reason(
        "{upstream} proved an identity, but not the one declared for it: {detail}.",
        "Check `identity` of that upstream, and which sidecar really listens at {endpoint}.",
    ),
}

_SAME: Final = {  # other short names for the same thing: of OpenSSL, of alerts, of finer profile rules
    "unknown_ca": "unknown_root",
    "truncated": "reset",
    "closed": "reset",
    "bad_signature": "bad_chain",
    "path_length": "bad_chain",
    "invalid_issuer": "bad_chain",
    "chain_too_long": "bad_chain",
    "signer_trust_domain": "wrong_trust_domain",
    "certificate_expired": "expired",
    "certificate_required": "no_certificate",
}
_EITHER_END: Final = frozenset(("protocol_version", "alpn", "handshake_failure"))  # no matter who noticed
_PROFILE: Final = frozenset((  # the finer rules of certs.svid, all of them `invalid_svid` here
    "chain_length", "chain_order", "chain_without_root", "digital_signature", "eku_both", "invalid_spiffe_id",
    "key_matches", "key_strength", "key_usage_critical", "malformed", "no_cert_sign", "no_crl_sign", "path_required",
    "san_critical_when_subject_empty", "serial_positive", "signature_hash", "signer_cert_sign", "signer_eku",
    "signer_is_ca", "signer_no_path", "signer_one_uri_san", "spiffe_scheme",
))  # fmt: skip


def reason_for(name: str, identity_reason: str = "", **facts: Any) -> Reason:
    """Words for an error's short name; for identity failures its reason says more.

    `facts` fill the placeholders: detail, caller, upstream, endpoint, listener, host, rule. An unknown name gets the
    words of `hop_error`.
    """
    found = _identity(identity_reason) if name in ("identity_refused", "peer_identity") else None
    found = found or HAPPENED.get(name) or HAPPENED["hop_error"]
    known = UNKNOWN | {key: str(value).rstrip(".") for key, value in facts.items() if value}
    return Reason(_begin(found.happened.format_map(known)), _begin(found.todo.format_map(known)))


def reason_of(error: HopError, **facts: Any) -> Reason:
    """Words for an error at hand."""
    identity = error.reason if isinstance(error, IdentityRefused | PeerIdentityMismatch) else ""
    return reason_for(error.name, identity, **({"detail": error.detail} | facts))


def _identity(reason: str) -> Reason | None:
    short = reason.removeprefix("alert_")
    if short != reason and short not in _EITHER_END:  # the other end judged our certificate, and told us with an alert
        todo = IDENTITY["unknown_root" if short == "unknown_ca" else "bad_certificate"].todo
        return Reason(IDENTITY["bad_certificate"].happened, todo)
    if short in _PROFILE:
        return IDENTITY["invalid_svid"]
    return IDENTITY.get(_SAME.get(short, short))


def _begin(text: str) -> str:
    """A sentence begins with a capital, also where a placeholder stood first; a SPIFFE ID or a name stays as it is."""
    first = next((word for word in UNKNOWN.values() if text.startswith(word)), "")
    return text[:1].upper() + text[1:] if first else text
