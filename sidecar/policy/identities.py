"""Plain words for every reason for which an identity is refused, whichever end refused it."""

from __future__ import annotations

from typing import Final

from sidecar.policy.words import Reason

_CLOCK: Final = "Check the clocks of both machines first, then"

IDENTITY: Final[dict[str, Reason]] = {
    "no_certificate": Reason(
        "The other end showed no certificate; a caller needs a client certificate of the mesh.",
        "Call through a sidecar of the mesh; without an identity nobody is let in.",
    ),
    "proxy_header": Reason(
        "The connection of a load balancer did not begin with a PROXY header that can be believed: {detail}.",
        "Let it send one, of version 1 or 2, before TLS (HAProxy: `send-proxy-v2`); or take its address off "
        "`proxy_protocol.from` of the listener.",
    ),
    "proxy_sender": Reason(
        "A PROXY header came from somebody who may not send any: {detail}.",
        "If it is a load balancer of yours, add its address to `proxy_protocol.from` of the listener.",
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
    "revoked": Reason(
        "The identity, or the certificate, was revoked: {detail}.",
        "If that was meant, there is nothing to do. If not: `mesh certs revoke --list` on the CA's machine says when "
        "and why, and `mesh certs unrevoke` lifts it.",
    ),
    "denylist_stale": Reason(
        "Nobody can be told from the revoked any more: {detail}.",
        "Bring the CA back into reach (`mesh status` says what keeps it away); `revocation.max_age` is how long this "
        "sidecar goes on without it.",
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

SAME: Final = {  # other short names for the same thing: of OpenSSL, of alerts, of finer profile rules
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
PROFILE: Final = frozenset((  # the finer rules of certs.svid, all of them `invalid_svid` here
    "chain_length", "chain_order", "chain_without_root", "digital_signature", "eku_both", "invalid_spiffe_id",
    "key_matches", "key_strength", "key_usage_critical", "malformed", "no_cert_sign", "no_crl_sign", "path_required",
    "san_critical_when_subject_empty", "serial_positive", "signature_hash", "signer_cert_sign", "signer_eku",
    "signer_is_ca", "signer_no_path", "signer_one_uri_san", "spiffe_scheme",
))  # fmt: skip


def identity_reason(reason: str) -> Reason | None:
    """Words for the reason of a refused identity; None for one that nobody knows."""
    short = reason.removeprefix("alert_")
    if short != reason and short not in _EITHER_END:  # the other end judged our certificate, and told us with an alert
        todo = IDENTITY["unknown_root" if short == "unknown_ca" else "bad_certificate"].todo
        return Reason(IDENTITY["bad_certificate"].happened, todo)
    if short in PROFILE:
        return IDENTITY["invalid_svid"]
    return IDENTITY.get(SAME.get(short, short))
