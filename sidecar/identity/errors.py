"""Why the CA gave us nothing. None of these texts holds anything secret."""

from __future__ import annotations

from typing import ClassVar

from certs.errors import IdentityError


class CaError(IdentityError):
    """We have no answer from the CA that we could use."""

    name: ClassVar[str] = "ca"


class NoToken(CaError):
    """The proof that we are to show is not there: the file of the service-account token."""

    name = "no_token"


class CaUnreachable(CaError):
    """No connection, or it broke, or the CA took too long."""

    name = "ca_unreachable"


class CaUntrusted(CaError):
    """Whoever answers at the CA's address did not prove to be our CA. Nothing was sent to it.

    `reason` is short and stable: `clock`, `expired`, `not_yet_valid`, `not_pinned`, `unknown_ca`, `wrong_identity`, …
    `skew` is our clock minus the CA's, where that could be measured.
    """

    name = "ca_untrusted"

    def __init__(self, reason: str, detail: str, skew: float | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.skew = skew


class CaRefused(CaError):
    """The CA understood and said no (or that it failed, from 500 up). `error` is its short name for why."""

    name = "ca_refused"

    def __init__(self, status: int, error: str, detail: str) -> None:
        super().__init__(f"the CA answered {status} {error}: {detail}")
        self.status = status
        self.error = error
        self.detail = detail


class CaBusy(CaError):
    """The CA issues all that it may (decision D19): come back in `retry_after` seconds. Not a failure."""

    name = "ca_busy"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the CA is busy and asks us to come back in {retry_after:.0f} s")
        self.retry_after = retry_after


class BadAnswer(CaError):
    """The CA's answer is not what its API promises, or is for somebody else."""

    name = "ca_bad_answer"
