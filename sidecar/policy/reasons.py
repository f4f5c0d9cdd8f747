"""Plain words for every failure: what happened, and what to do about it.

`HAPPENED` is keyed by the short name of an error (`sidecar.errors`), `IDENTITY` by the reason that a refused identity
carries, whichever end refused it. Placeholders stand for facts of the hop; one that is not known becomes a plain word.
A limit stands there with the whole config key that sets it and its value now, as `limits_of` knows them.
These sentences are for operators, through `mesh explain` and the log. Nothing of them reaches a peer (decision D7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sidecar.config.quantities import show_seconds, show_size
from sidecar.errors import HopError, IdentityRefused, PeerIdentityMismatch

if TYPE_CHECKING:
    from sidecar.config.schema import Service


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
_SECONDS: Final = (
    "connect", "handshake", "request_head", "response_head", "idle", "tcp_idle", "pool_idle_app", "pool_idle_peer",
)  # fmt: skip
_SIZES: Final = ("head_bytes",)
_NUMBERS: Final = ("head_lines", "connections", "pool")
LIMITS: Final = {  # what stands for a limit whose value is not known
    **{name: f"`timeouts.{name}`" for name in _SECONDS},
    **{name: f"`limits.{name}`" for name in (*_SIZES, *_NUMBERS, "pending")},
}

_CLOCK: Final = "Check the clocks of both machines first, then"

HAPPENED: Final[dict[str, Reason]] = {
    "hop_error": Reason("The hop failed: {detail}.", "Look at the detail and at the log around that moment."),
    "protocol_violation": Reason(
        "What {caller} sent on {listener} is not HTTP, or can be read in two ways: {detail}.",
        "Mend the client: no rule can make this pass. If the port carries no HTTP at all, declare its listener "
        "`protocol: tcp`.",
    ),
    "ambiguous_path": Reason(
        "The request target can be read in more than one way, so it was refused before any rule was asked: {detail}.",
        "Let the client send the plain path, without dot segments, backslashes, escaped controls or double encoding. "
        "No option accepts this one, because two servers could take it for two different paths.",
    ),
    "host_mismatch": Reason(
        "The host is missing, repeated, malformed, or not the one in the request target: {detail}.",
        "Let the client send exactly one Host line, without trailing dot; an absolute URL must name the same host.",
    ),
    "head_too_large": Reason(
        "The head is larger than this sidecar accepts: {detail}.",
        "Send less (large cookies are the usual cause), or raise {head_bytes}.",
    ),
    "body_too_large": Reason(
        "The body is over the limit of its route: {detail}.",
        "Send less, or raise `max_body` of that route of {listener}; nothing over it has reached the application.",
    ),
    "unsupported_content_type": Reason(
        "The route does not accept a body of this content type: {detail}.",
        "Send one of these, or add this one to `content_types` of that route of {listener}.",
    ),
    "unsupported": Reason(
        "The request asks for something that this hop does not do: {detail}.",
        "Ask for it in another way, or use a listener with `protocol: tcp`, which passes bytes as they are.",
    ),
    "request_timeout": Reason(
        "{caller} did not finish its request head in time: {detail}.",
        "Look for a slow or stuck client, or a lossy network; the limit is {request_head}.",
    ),
    "idle": Reason(
        "Nothing moved between {caller} and {listener} for the idle time: {detail}.",
        "Find out which side stopped. If such pauses are normal here, raise {idle}.",
    ),
    "downstream_gone": Reason(
        "{caller} went away before the answer was complete: {detail}.",
        "Nothing on this side. If it happens often, compare the caller's own time-out with how long answers take.",
    ),
    "loop": Reason(
        "It would go round for ever: {detail}.",
        "Find the upstream that leads back here: an `endpoints` or `app` that names this sidecar instead of an "
        "application, or an application that sends requests on to its caller.",
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
        "Read below which rule decided or came nearest, and what would change the answer.",
    ),
    "undeclared_upstream": Reason(
        "The application asked for {host}, which none of its upstreams declares: {detail}.",
        "If it should be reached, add `- to: {host}` to `outbound` of the calling service, and outside the mesh also "
        "`unmeshed: passthrough` and `endpoints`.",
    ),
    "cross_site": Reason(
        "A web page of another site asked a browser on this machine to send it: {detail}.",
        "Call the service from your application and not from a web page; a local listener is no public site.",
    ),
    "connect_failed": Reason(
        "No connection to {upstream}: {detail}.",
        "See on its side with `mesh status` whether its sidecar runs and listens at {endpoint}; then check the address "
        "in the config, then the firewall.",
    ),
    "handshake_failed": Reason(
        "The TLS handshake with {upstream} at {endpoint} failed: {detail}.",
        "Check that a mesh sidecar, not the application itself or another TLS server, listens at that address; if one "
        "does, its log says why.",
    ),
    "upstream_closed": Reason(
        "{upstream} closed the connection before it answered: {detail}.",
        "Look at its log for a crash or a restart at that moment.",
    ),
    "upstream_reset": Reason(
        "{upstream} reset the connection before it answered: {detail}.",
        "Look at its log for a crash or a restart at that moment.",
    ),
    "response_timeout": Reason(
        "{upstream} did not begin its answer in time: {detail}.",
        "Find out why it is slow; if such answers are normal, raise {response_head}.",
    ),
    "upstream_idle": Reason(
        "{upstream} stopped in the middle of its answer for the idle time: {detail}.",
        "Look at its log for where it got stuck; if it pauses that long on purpose, raise {idle}.",
    ),
    "upstream_protocol": Reason(
        "The answer of {upstream} is not valid HTTP: {detail}.",
        "Mend the service; nothing doubtful was passed on. If it does not speak HTTP, declare its listener "
        "`protocol: tcp`.",
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
        "Find out first whether {upstream} has become slow (its p99 in the metrics). If the load is right, raise "
        "{pool} or {pending}.",
    ),
    "overload": Reason(
        "This sidecar has no room for more connections: {detail}.",
        "See in `mesh status` how many connections are open; raise the process's limits (`ulimit -n`, memory), or "
        "lower {connections}.",
    ),
    "draining": Reason(
        "This sidecar is shutting down: {detail}.",
        "Nothing, if it was stopped on purpose; callers should try again elsewhere.",
    ),
    "audit_full": Reason(
        "Nothing is served while nothing can be recorded: {detail}.",
        "Make room on the disk that holds the audit; until then every request is refused. `audit.on_full: continue` "
        "would serve them unrecorded.",
    ),
    "internal": Reason(
        "A fault of this sidecar itself: {detail}.",
        "Please report it, with the log lines around that moment.",
    ),
}

# Where the facts tell more than the name of the error: (a word of its detail or of the upstream, happened, to do), the
# first that fits; empty text is that of `HAPPENED`.
_FINER: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "ambiguous_path": tuple(
        (word, "", f"Let the client send the path without {what}. If the application needs it there, a route of "
         f"{{listener}} accepts it by `{option}: true`; be sure that no rule is meant to cut in between.")
        for word, what, option in (
            ("encoded slash", "%2F", "unsafe_encoded_slash"),
            ("`//`", "`//`", "unsafe_empty_segments"),
            ("`;`", "`;`", "unsafe_path_parameters"),
        )
    ),
    "head_too_large": (
        ("header lines", "", "Let the client send fewer header fields, or raise {head_lines}."),
    ),
    "unsupported": (
        ("https://", "", "Let the application speak plain HTTP to its sidecar: ask for http:// instead, the hop is "
         "mTLS all the same. TLS of its own passes through an upstream with `protocol: tcp`."),
        ("raw TCP", "", "Let the application connect to the `listen` address of that upstream, or CONNECT to it."),
        ("CONNECT", "", "Nothing is to be allowed here: only the caller's own sidecar answers CONNECT, on loopback."),
        ("Expect", "", "Let the client leave the Expect line out, or send `Expect: 100-continue`."),
        ("Transfer-Encoding", "", "Let the client send the body with Content-Length, or `chunked` alone."),
    ),
    "idle": (
        ("tcp_idle", "", "Find out which side stopped. If such pauses are normal here, raise {tcp_idle}."),
        ("does not read", "{caller} stopped reading its answer: {detail}.",
         "Look for a stuck or overloaded client; the limit is {idle}."),
    ),
    "undeclared_upstream": (
        ("this listener is for", "The application asked for {host} at a listener that leads elsewhere: {detail}.",
         "Ask this listener for its own upstream only. For {host}, use the forward proxy, or give it a listener: "
         "`- {{to: {host}, listen: HOST:PORT}}` in `outbound`."),
    ),
    "connect_failed": (
        ("the application behind", "", "Check that the application runs and listens at {endpoint}; then that `app` of "
         "{listener} names that address. If it is only slow to accept, the limit is {connect}."),
        ("did not answer", "", "See on its side with `mesh status` whether its sidecar runs and listens at {endpoint}; "
         "an address that swallows packets is often a firewall's doing. The limit is {connect}."),
    ),
    "handshake_failed": (
        ("no handshake within", "", "Check that a mesh sidecar, not the application itself, listens at that address; "
         "something took the connection and said nothing. The limit is {handshake}."),
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
        "Look for a slow or blocked network, or a peer that connects and says nothing; the limit is {handshake}.",
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

    `facts` fill the placeholders: detail, caller, upstream, endpoint, listener, host, rule, and what `limits_of` says.
    An unknown name gets the words of `hop_error`.
    """
    found = _identity(identity_reason) if name in ("identity_refused", "peer_identity") else None
    found = found or _finer(name, facts) or HAPPENED.get(name) or HAPPENED["hop_error"]
    known = UNKNOWN | LIMITS | {key: str(value).rstrip(".") for key, value in facts.items() if value}
    if facts.get("listener"):
        known["listener"] = f"listener {facts['listener']}"
    known["detail"] = _inside(known["detail"])
    return Reason(_begin(found.happened.format_map(known)), _begin(found.todo.format_map(known)))


def reason_of(error: HopError, **facts: Any) -> Reason:
    """Words for an error at hand."""
    identity = error.reason if isinstance(error, IdentityRefused | PeerIdentityMismatch) else ""
    return reason_for(error.name, identity, **({"detail": error.detail} | facts))


def limits_of(service: Service) -> dict[str, str]:
    """The limits of a service as facts for these sentences: `services.orders.timeouts.idle` (now 5m)."""
    timeouts, limits = service.timeouts, service.limits
    shown = {f"timeouts.{name}": show_seconds(getattr(timeouts, name)) for name in _SECONDS}
    shown |= {f"limits.{name}": show_size(getattr(limits, name)) for name in _SIZES}
    shown |= {f"limits.{name}": str(getattr(limits, name)) for name in _NUMBERS}
    shown["limits.pending"] = show_seconds(limits.pending)
    return {
        key.partition(".")[2]: f"`services.{service.name}.{key}` (now {value})" for key, value in shown.items()
    }


def _identity(reason: str) -> Reason | None:
    short = reason.removeprefix("alert_")
    if short != reason and short not in _EITHER_END:  # the other end judged our certificate, and told us with an alert
        todo = IDENTITY["unknown_root" if short == "unknown_ca" else "bad_certificate"].todo
        return Reason(IDENTITY["bad_certificate"].happened, todo)
    if short in _PROFILE:
        return IDENTITY["invalid_svid"]
    return IDENTITY.get(_SAME.get(short, short))


def _finer(name: str, facts: Mapping[str, Any]) -> Reason | None:
    """Words for this very case of an error, where there are some."""
    said = f"{facts.get('detail') or ''} {facts.get('upstream') or ''}"
    for word, happened, todo in _FINER.get(name, ()):
        if word in said:
            return Reason(happened or HAPPENED[name].happened, todo)
    return None


def _begin(text: str) -> str:
    """A sentence begins with a capital, also where a placeholder stood first; a SPIFFE ID or a name stays as it is."""
    plain = (*UNKNOWN.values(), "the application ", "listener ")
    return text[:1].upper() + text[1:] if text.startswith(plain) else text


def _inside(text: str) -> str:
    """A whole sentence, as it stands after a colon: an article at its beginning needs no capital there."""
    return text[:1].lower() + text[1:] if text.startswith(("The ", "A ", "No ", "Nothing ", "This ")) else text
