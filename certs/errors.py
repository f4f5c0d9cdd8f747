"""The root of every error this project raises, and what can be wrong with an identity."""

from __future__ import annotations

from typing import ClassVar


class MeshError(Exception):
    """Something we understand went wrong. `name` is its short, stable name in logs and metrics."""

    name: ClassVar[str] = "error"


class IdentityError(MeshError):
    """An identity, or the proof of one, cannot be accepted."""

    name = "identity"


class InvalidSpiffeId(IdentityError):
    """The text is not a SPIFFE ID or trust domain (SPIFFE-ID.md section 2)."""

    name = "invalid_spiffe_id"


class InvalidSvid(IdentityError):
    """A certificate breaks the X.509-SVID profile. `rule` names the broken rule (X509-SVID.md sections 2 to 5)."""

    name = "invalid_svid"

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{detail} [{rule}]")
        self.rule = rule
        self.detail = detail


class UntrustedSvid(IdentityError):
    """No path leads from a certificate to a root of its own trust domain. `reason` is short and stable."""

    name = "untrusted_svid"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class InvalidBundle(IdentityError):
    """A trust bundle document cannot be read (SPIFFE_Trust_Domain_and_Bundle.md section 4)."""

    name = "invalid_bundle"


class InvalidCsr(IdentityError):
    """A certificate signing request cannot be honoured."""

    name = "invalid_csr"


class PrivateFileUnavailable(IdentityError):
    """A file or folder that must be ours alone is missing, unreadable, or open to others."""

    name = "private_file"


class KeyUnavailable(PrivateFileUnavailable):
    """A private key cannot be read: missing, unreadable by us, readable by others, or a wrong passphrase."""

    name = "key_unavailable"


class NothingYet(IdentityError, LookupError):
    """A source has not published its first value."""

    name = "nothing_yet"
