"""Is this CA ready, and what should its operator do before it is not? Pure: certificates and time in, a report out.

Ready means: the chain under which we serve and sign holds at this moment, and the store takes a write. A warning comes
long before an end: for the issuing CA in its last sixth, but not more than 7 days (S6, SPIRE's point of activation),
for the root 60 days (Linkerd's `check`), and again when leaves begin to be cut short.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cryptography import x509

from ca.durations import DAY, format_duration
from ca.entries import DEFAULT_TTL
from ca.signers import Issuer
from ca.standing import Standing
from certs.bundle import BundleSet
from certs.errors import InvalidSvid, UntrustedSvid
from certs.svid import X509Svid
from certs.verify import explain_time, verify_chain

ISSUER_WARNING = 7 * DAY
ROOT_WARNING = 60 * DAY
LAST_PART = 1 / 6


@dataclass(frozen=True, slots=True)
class Health:
    """The CA's health at one moment. `reasons` say why it is not ready, `warnings` what will end it. Epoch seconds."""

    ready: bool
    trust_domain: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    root_not_after: float
    issuer_not_after: float
    svid_not_after: float | None
    bundle_sequence: int
    now: float
    standing: Standing | None = None
    """What else there is to tell; None where the store could not be read."""

    def as_json(self) -> dict[str, Any]:
        """For `GET /v1/health`."""
        return asdict(self)


def judge(
    issuer: Issuer,
    svid: X509Svid | None,
    bundles: BundleSet,
    now: float,
    *,
    trust_domain: str,
    store_error: str | None = None,
    schedule_problem: str | None = None,
    store_warnings: tuple[str, ...] = (),
    standing: Standing | None = None,
) -> Health:
    """The CA's health now. `svid` is what it serves under; `schedule_problem` why no issuing CA can follow this one."""
    reasons = [] if store_error is None else [store_error]
    for signer, name in ((issuer.certificate, "issuing CA"), (issuer.root, "root")):
        if not signer.not_valid_before_utc.timestamp() <= now < signer.not_valid_after_utc.timestamp():
            reasons.append(f"the {name}'s certificate is {explain_time(signer, now)}")
    if svid is None:
        reasons.append("the CA has no certificate of its own to serve under")
    else:
        try:
            verify_chain(svid.chain, bundles, now)
        except (InvalidSvid, UntrustedSvid) as error:
            reasons.append(f"the CA's own chain does not hold: {error}")
    return Health(
        ready=not reasons,
        trust_domain=trust_domain,
        reasons=tuple(reasons),
        warnings=(*warnings(issuer.certificate, issuer.root, now, problem=schedule_problem), *store_warnings),
        root_not_after=_end(issuer.root),
        issuer_not_after=_end(issuer.certificate),
        svid_not_after=None if svid is None else svid.not_after,
        bundle_sequence=max((bundle.sequence for bundle in bundles), default=0),
        now=now,
        standing=standing,
    )


def warnings(
    issuer: x509.Certificate, root: x509.Certificate, now: float, *, problem: str | None = None
) -> tuple[str, ...]:
    """What an operator should hear before the issuing CA or the root ends, each with what to do."""
    found = []
    renew = "`mesh ca serve` renews it by itself; without it run `mesh ca renew-issuer`"
    left = _end(issuer) - now
    if problem is not None:
        found.append(f"NO ISSUING CA CAN FOLLOW this one, which ends in {format_duration(left)}: {problem}")
    if left <= 0:
        found.append(f"THE ISSUING CA HAS EXPIRED and nothing can be issued: {renew}")
    elif left < min(ISSUER_WARNING, LAST_PART * _life(issuer)):
        found.append(f"THE ISSUING CA EXPIRES in {format_duration(left)}: {renew}")
    if 0 < left < DEFAULT_TTL <= _life(issuer):
        found.append("certificates are being cut short, because none may outlive the issuing CA")
    root_left = _end(root) - now
    if root_left < min(ROOT_WARNING, LAST_PART * _life(root)):
        remedy = "every sidecar needs a new root before then: mesh ca rotate-root"
        found.append(f"THE ROOT EXPIRES in {format_duration(root_left)}; {remedy}")
    return tuple(found)


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _life(certificate: x509.Certificate) -> float:
    return _end(certificate) - certificate.not_valid_before_utc.timestamp()
