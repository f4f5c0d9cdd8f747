"""Revocation on the CA's side: what an operator names, the denylist for the mesh, and the CRL for everybody else.

By serial, one certificate is denied. By SPIFFE ID, all that it has, and nothing new is issued to it until that is
lifted (decision D10). Both are rows of the store and lines of its log; the denylist is drawn up from them at each
change and signed by the active issuing CA. A CRL (RFC 5280 section 5) lists serials only, of one issuing CA, and is
signed by that very one: whatever of a revoked SPIFFE ID has not ended yet is spelled out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ca.durations import DAY
from ca.entries import find_entry, parse_identity
from ca.errors import BadRequest, InvalidEntry, UnknownEntry
from ca.roots import certificate_of
from ca.signers import Issuer
from ca.store.base import Issuance, Revocation, Store
from ca.template import authority_key_id, digest_for
from certs.denylist import Denylist
from certs.spiffe import SpiffeId, TrustDomain, ca_id

CRL_TTL = DAY  # nextUpdate: a new one is made whenever somebody asks, so this is for whoever keeps copies
MAX_REVOKED = 100_000  # certificates of one SPIFFE ID that a CRL spells out
REASONS: dict[str, x509.ReasonFlags] = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
    "hold": x509.ReasonFlags.certificate_hold,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}
"""RFC 5280 section 5.3.1, those that fit a leaf."""

_SERIAL = re.compile(r"[0-9a-f]{1,40}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class SignedDenylist:
    """A denylist, and the JSON object that carries it over the watch."""

    denylist: Denylist
    document: dict[str, Any]
    signer: str
    """Serial of the issuing CA that signed it."""


def draw_up(store: Store, trust_domain: TrustDomain, issuer: Issuer, now: float) -> SignedDenylist:
    """The denylist of this moment, signed by this issuing CA. Blocks on disk. Raises StoreUnavailable."""
    sequence = store.denylist_sequence()  # read first: a change in between makes this list too new, never too old
    revoked = store.revocations(now)
    denied = Denylist(
        trust_domain,
        sequence,
        now,
        frozenset(one.target for one in revoked if one.kind == "serial"),
        frozenset(SpiffeId.parse(one.target) for one in revoked if one.kind == "spiffe_id"),
        frozenset(f"{one.serial_number:x}" for one in _revoked_issuers(store, now)),
    )
    return SignedDenylist(denied, denied.sign(issuer.key, issuer.signers[:-1]).to_json(), issuer.serial)


def find_target(store: Store, trust_domain: TrustDomain, text: str, now: float, reason: str) -> Revocation:
    """What an operator means: a serial of the log, an entry's id, a service name, or a SPIFFE ID.

    Raises BadRequest: nothing of this name was ever issued or registered, or it is the CA itself.
    """
    wanted = text.strip().lower().replace(":", "").removeprefix("0x").lstrip("0")
    issued = store.issuance(wanted) if _SERIAL.match(wanted) else None
    if issued is not None:
        if issued.not_after <= now:
            raise BadRequest(f"certificate {wanted} of {issued.spiffe_id} has ended already")
        return Revocation("serial", wanted, reason, now, issued.not_after)
    try:
        spiffe_id = _identity(store, trust_domain, text)
    except InvalidEntry as error:
        raise BadRequest(f"{text!r} is neither a serial in the log nor an identity: {error}") from None
    if spiffe_id == ca_id(trust_domain) or not spiffe_id.path:
        raise BadRequest("the CA cannot be revoked by name: use `mesh ca renew-issuer --revoke` for its issuing CA")
    if spiffe_id.trust_domain != trust_domain:
        raise BadRequest(f"{spiffe_id} is of another trust domain; only its own CA can revoke it")
    known = any(one.spiffe_id == spiffe_id for one in store.entries())
    if not known and not store.issuances(1, spiffe_id=spiffe_id.text):
        raise BadRequest(f"{spiffe_id} has no entry and was never issued anything; see `mesh ca entry list`")
    return Revocation("spiffe_id", spiffe_id.text, reason, now)


def _identity(store: Store, trust_domain: TrustDomain, text: str) -> SpiffeId:
    try:
        return find_entry(text, store.entries(), trust_domain).spiffe_id
    except UnknownEntry:
        return parse_identity(text, trust_domain)


def find_lifted(store: Store, trust_domain: TrustDomain, text: str) -> Revocation:
    """The revocation that an operator wants lifted. Raises BadRequest where there is none."""
    wanted = text.strip().lower().replace(":", "").removeprefix("0x").lstrip("0")
    found = store.revocation("serial", wanted)
    if found is None:
        try:
            found = store.revocation("spiffe_id", _identity(store, trust_domain, text).text)
        except InvalidEntry:
            found = None
    if found is None:
        raise BadRequest(f"{text!r} is not revoked; see `mesh certs revoke --list`")
    return found


def make_crl(store: Store, issuer: Issuer, now: float) -> bytes:
    """The CRL of this issuing CA, DER. It takes a number from the store. Blocks on disk. Raises StoreUnavailable."""
    number = store.next_crl_number(now)
    moment = datetime.fromtimestamp(int(now), UTC)
    aki = authority_key_id(issuer.certificate)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(moment)
        .next_update(moment + timedelta(seconds=CRL_TTL))
        .add_extension(aki, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, (at, reason) in sorted(_revoked_serials(store, issuer.serial, now).items()):
        builder = builder.add_revoked_certificate(_crl_entry(serial, at, reason))
    return builder.sign(issuer.key, digest_for(issuer.key)).public_bytes(Encoding.DER)


def _revoked_serials(store: Store, issuer_serial: str, now: float) -> dict[str, tuple[float, str]]:
    """Serial → (when, why), of certificates by this issuing CA that have not ended."""
    found: dict[str, tuple[float, str]] = {}
    for one in store.revocations(now):
        if one.kind == "serial":
            issued = store.issuance(one.target)
            lines: tuple[Issuance, ...] = () if issued is None else (issued,)
        else:
            lines = store.issuances(MAX_REVOKED, spiffe_id=one.target, ends_after=now)
        for line in lines:
            if line.issuer_serial == issuer_serial and line.not_after > now:
                why = (one.revoked_at, one.reason)
                found[line.serial] = min(found.get(line.serial, why), why)
    return found


def _crl_entry(serial: str, at: float, reason: str) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(serial, 16))
        .revocation_date(datetime.fromtimestamp(int(at), UTC))
    )
    flag = REASONS.get(reason, x509.ReasonFlags.unspecified)
    if flag is not x509.ReasonFlags.unspecified:  # RFC 5280 5.3.1: absent rather than unspecified
        builder = builder.add_extension(x509.CRLReason(flag), critical=False)
    return builder.build()


def _revoked_issuers(store: Store, now: float) -> list[x509.Certificate]:
    certificates = [certificate_of(slot) for slot in store.slots() if (slot.kind, slot.state) == ("issuer", "revoked")]
    return [one for one in certificates if one.not_valid_after_utc.timestamp() > now]
