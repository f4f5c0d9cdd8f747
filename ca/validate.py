"""The last look at a certificate before it is recorded and leaves: is it what we meant to sign, and nothing more?

It reads the finished bytes again, with the verifier's own rules (`certs.svid.check_leaf`), so that a mistake in
`template`, or in the library under it, is caught here instead of by every sidecar.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ca.errors import TemplateViolation
from ca.template import Template
from certs.errors import InvalidSvid
from certs.keys import public_bytes
from certs.svid import check_leaf

_EXTENSIONS = {
    x509.SubjectAlternativeName.oid,
    x509.BasicConstraints.oid,
    x509.KeyUsage.oid,
    x509.ExtendedKeyUsage.oid,
    x509.AuthorityKeyIdentifier.oid,
}


def check_signed(signed: x509.Certificate, template: Template, issuer: x509.Certificate) -> None:
    """Hold a signed certificate against its template. Raises TemplateViolation, naming what differs."""
    try:
        spiffe_id = check_leaf(signed)
    except InvalidSvid as error:
        raise TemplateViolation(f"the signed certificate is no SVID: {error}") from error
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    facts = {
        "SPIFFE ID": spiffe_id == template.spiffe_id,
        "DNS names": tuple(names.get_values_for_type(x509.DNSName)) == template.dns_names,
        "other names": len(names) == 1 + len(template.dns_names),
        "subject": not list(signed.subject),
        "not before": signed.not_valid_before_utc.timestamp() == template.not_before,
        "not after": signed.not_valid_after_utc.timestamp() == template.not_after,
        "serial": signed.serial_number == template.serial,
        "public key": _same_key(signed, template),
        "key of its own": not _same_public_key(signed, issuer),
        "lifetime": template.not_before < template.not_after,
        "end before its issuer": signed.not_valid_after_utc <= issuer.not_valid_after_utc,
        "extensions": {extension.oid for extension in signed.extensions} == _EXTENSIONS,
        "signature": _is_signed_by(signed, issuer),
    }
    if wrong := [name for name, holds in facts.items() if not holds]:
        raise TemplateViolation(f"the signed certificate differs from its template: {', '.join(wrong)}")


def _same_key(signed: x509.Certificate, template: Template) -> bool:
    return public_bytes(signed.public_key()) == public_bytes(template.public_key)  # type: ignore[arg-type]


def _same_public_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    return public_bytes(one.public_key()) == public_bytes(other.public_key())  # type: ignore[arg-type]


def _is_signed_by(signed: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        signed.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
