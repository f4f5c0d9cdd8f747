"""What the CA can answer other than yes. `ca.api` alone turns these into HTTP; the CLI prints them and exits with 1."""

from __future__ import annotations

from certs.errors import MeshError


class CaError(MeshError):
    """The CA will not, or cannot, do what was asked. The message says what to do and holds no secret."""

    name = "ca_error"


class BadRequest(CaError):
    """The request is not one that this API has: malformed JSON, a missing field, a wrong type."""

    name = "bad_request"


class InvalidEntry(CaError):
    """A registration entry breaks a rule: its SPIFFE ID, a DNS name, its lifetime."""

    name = "invalid_entry"


class UnknownEntry(CaError):
    """No live registration entry goes by this name."""

    name = "unknown_entry"


class ProofRefused(CaError):
    """The proof of identity does not hold: unknown or expired token, no live key made this signature, stale nonce."""

    name = "proof_refused"


class TokenUsed(ProofRefused):
    """The join token has bought its one enrolment already."""

    name = "token_used"


class Revoked(CaError):
    """This SPIFFE ID, or the certificate that was shown, has been revoked (decision D10)."""

    name = "revoked"


class RenewalRefused(CaError):
    """The certificate shown does not entitle to a new one."""

    name = "renewal_refused"


class ClientCertificateNeeded(CaError):
    """This call is answered only over mTLS."""

    name = "client_certificate_needed"


class TooManyIssuances(CaError):
    """The issuance bucket is empty, or whoever verifies the proof is too busy; `retry_after` seconds from now it is not
    (decision D19).
    """

    name = "too_many_issuances"

    def __init__(self, retry_after: float, why: str = "the CA issues at most 100 certificates a second") -> None:
        super().__init__(f"{why}; come back in {retry_after:.1f} s")
        self.retry_after = retry_after


class IssuerUnusable(CaError):
    """The issuing CA cannot sign now: expired, not yet valid, or about to end."""

    name = "issuer_unusable"


class TemplateViolation(CaError):
    """The certificate we signed is not the one we meant to sign. It is thrown away; this is a fault of ours."""

    name = "template_violation"


class StoreUnavailable(CaError):
    """The store cannot be read or written, so nothing is issued. With `full` it is for want of space.

    The message is for the CA's own log; `advice` says what to do to whoever asks, and holds no path.
    """

    name = "store_unavailable"

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full

    @property
    def advice(self) -> str:
        """What a caller is told."""
        if self.full:
            return "the disk of the CA's store is full; once there is space on it, the CA issues again by itself"
        return "the CA cannot use its store; its log says why"


class NoCa(CaError):
    """The directory holds no CA."""

    name = "no_ca"


class CaExists(CaError):
    """The directory holds a CA, or something else, already; it is never overwritten."""

    name = "ca_exists"


class DamagedCa(CaError):
    """The directory's files contradict each other or the trust domain."""

    name = "damaged_ca"


class SlotTaken(CaError):
    """One signing key of its kind is prepared (or active) already; two never are."""

    name = "slot_taken"


class RotationRefused(CaError):
    """A rotation of the root cannot begin, go on, or turn back from here. The message says why."""

    name = "rotation_refused"


class RotationMoved(RotationRefused):
    """Another process has moved the rotation on since it was looked at."""

    name = "rotation_moved"


class FederationRefused(CaError):
    """Another trust domain, its endpoint or its bundle breaks a rule. The message names it."""

    name = "federation_refused"


class FederationUnreachable(CaError):
    """A bundle endpoint did not answer, or not as itself. The last bundle stays."""

    name = "federation_unreachable"


class LogBroken(CaError):
    """The log is not what it was: a line was changed, dropped, or cut off. The message names it."""

    name = "log_broken"


class InvalidBackup(CaError):
    """The file is not a back-up of a CA, or a damaged one."""

    name = "invalid_backup"


class ImportRefused(CaError):
    """A certificate from somebody else's PKI cannot serve as this CA's issuing CA. The message names the rule."""

    name = "import_refused"
