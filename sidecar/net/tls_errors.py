"""What OpenSSL says when TLS fails, in words: which alert, from which side, and why a chain was refused.

OpenSSL's error queue is a list of (library, function, reason). A reason such as "tlsv1 alert unknown ca" or "ssl/tls
alert certificate expired" means that the *peer* sent that alert; every other reason is our own finding. The prefix in
front of "alert" has changed with OpenSSL's versions and is not looked at.
"""

from __future__ import annotations

from typing import ClassVar, Final

import trio
from OpenSSL import SSL

from certs.errors import InvalidSpiffeId, InvalidSvid, MeshError
from certs.svid import check_leaf
from sidecar.net.contexts import VerifyFailure, verify_failure

# X509_V_ERR_* of OpenSSL's x509_vfy.h → (short reason, what it means to an operator). In the words, {whose} stands for
# the certificate that it is about, {claim} for what that says of itself.
_VERIFY: Final[dict[int, tuple[str, str]]] = {
    7: ("bad_chain", "a signature in the peer's certificate chain does not hold"),
    9: ("not_yet_valid", "{whose} is not valid before {begin}{claim}; check the clocks of both machines"),
    10: ("expired", "{whose} expired at {end}{claim}; check its renewal and the clocks of both machines"),
    18: ("unknown_ca", "the peer's certificate is self-signed{claim}"),
    19: ("unknown_ca", "the peer's chain ends in a root that is not in our trust bundle: {issuer}"),
    20: ("unknown_ca", "the peer's chain leads to no root in our trust bundle; its last issuer is {issuer}"),
    21: ("unknown_ca", "the peer's certificate leads to no root in our trust bundle; its issuer is {issuer}"),
    22: ("bad_chain", "the peer's certificate chain is too long"),
    24: ("bad_chain", "a certificate in the peer's chain is not a CA, yet it signs"),
    26: ("bad_chain", "{whose} is not meant for this side of TLS (key usage)"),
    32: ("bad_chain", "a CA in the peer's chain may not sign certificates (key usage)"),
    79: ("bad_chain", "a certificate in the peer's chain is not a CA, yet it signs"),
}
PURPOSE: Final = 26  # X509_V_ERR_INVALID_PURPOSE
_MAX_NAME: Final = 100  # characters of a name that a stranger wrote into a certificate

# The word after "alert" → (short reason, what the peer means by it); RFC 8446 section 6.2.
_ALERTS: Final[dict[str, tuple[str, str]]] = {
    "certificate expired": ("expired", "the peer says that our certificate has expired; check both clocks"),
    "unknown ca": ("unknown_ca", "the peer does not trust the root of our certificate"),
    "bad certificate": ("bad_certificate", "the peer says our certificate is bad or not valid yet; check both clocks"),
    "certificate required": ("no_certificate", "the peer demands a client certificate, and we showed none"),
    "protocol version": ("protocol_version", "we and the peer have no TLS version in common"),
    "handshake failure": ("handshake_failure", "we and the peer have no cipher suite or signature in common"),
    "no application protocol": ("alpn", "the peer speaks none of the application protocols that we offered"),
}

# A part of our own finding's reason → (short reason, what it means).
_FINDINGS: Final[tuple[tuple[str, tuple[str, str]], ...]] = (
    ("did not return a certificate", ("no_certificate", "the peer showed no certificate")),
    ("http request", ("plaintext", "the peer speaks plain HTTP where TLS is required")),
    ("https proxy request", ("plaintext", "the peer speaks plain HTTP where TLS is required")),
    ("no application protocol", ("alpn", "the peer offered no application protocol that we speak")),
    ("unsupported protocol", ("protocol_version", "the peer offers no TLS version that we accept")),
    ("wrong version number", ("plaintext", "what the peer sent is not TLS")),
    ("packet length too long", ("plaintext", "what the peer sent is not TLS")),
    ("unexpected message", ("plaintext", "what the peer sent is not a TLS handshake")),
    ("record layer failure", ("plaintext", "what the peer sent is not TLS")),
    ("no shared cipher", ("handshake_failure", "we and the peer have no cipher suite in common")),
    ("no suitable", ("handshake_failure", "we and the peer have no key exchange or signature in common")),
)


class TlsError(MeshError, trio.BrokenResourceError):
    """TLS failed, and the connection with it. The text says what happened and what to look at.

    `reason` is short and stable (`expired`, `unknown_ca`, `no_certificate`, `protocol_version`, `plaintext`, `alpn`,
    `truncated`, …), `alert` is the TLS alert's name where the peer sent one, else empty.
    """

    name: ClassVar[str] = "tls"

    def __init__(self, reason: str, detail: str, alert: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.alert = alert


def tls_error(error: SSL.Error, connection: SSL.Connection) -> TlsError:
    """Translate what pyOpenSSL raised on this connection."""
    if isinstance(error, SSL.SysCallError):
        return TlsError("truncated", "the peer closed the connection without ending TLS")
    if isinstance(error, SSL.ZeroReturnError):
        return TlsError("closed", "the peer ended TLS")
    reason = _queue(error)
    _, found, alert = reason.partition("alert ")
    if found:
        short, meaning = _ALERTS.get(alert, (alert.replace(" ", "_"), f"the peer refused with the TLS alert {alert!r}"))
        return TlsError(short, f"{meaning} (TLS alert: {alert})", alert)
    if "certificate verify failed" in reason and (failure := verify_failure(connection)) is not None:
        return TlsError(*_refused_chain(failure))
    for part, (short, meaning) in _FINDINGS:
        if part in reason:
            return TlsError(short, f"{meaning} (OpenSSL: {reason})")
    return TlsError("tls", f"TLS failed: {reason or type(error).__name__}")


def _refused_chain(failure: VerifyFailure) -> tuple[str, str]:
    """The short reason and the words for a chain that OpenSSL refused, with the certificate's own dates and names."""
    number, depth, certificate = failure
    short, meaning = _VERIFY.get(number, ("bad_chain", f"the peer's chain was refused (X509_V_ERR {number})"))
    if certificate is None:
        return "malformed", "the peer's chain holds a certificate that cannot be read"
    claim = ""
    if depth == 0:
        try:
            claim = f" (it claims to be {check_leaf(certificate)})"
        except (InvalidSvid, InvalidSpiffeId) as error:
            if number == PURPOSE:  # OpenSSL says that something is wrong, and we know what
                return getattr(error, "rule", "invalid_spiffe_id"), str(error)
    return short, meaning.format(
        whose="the peer's certificate" if depth == 0 else "a CA certificate in the peer's chain",
        claim=claim,
        begin=f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        end=f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        issuer=repr(certificate.issuer.rfc4514_string()[:_MAX_NAME]),
    )


def _queue(error: SSL.Error) -> str:
    """The reasons in pyOpenSSL's copy of the error queue, the first alert in front."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(entry[-1]) for entry in entries]
    return next((reason for reason in reasons if "alert " in reason), "; ".join(reasons))
