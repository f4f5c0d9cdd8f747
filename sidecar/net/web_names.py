"""Whether a certificate is for a host, by RFC 9525: names in subjectAltName alone, a wildcard for one whole label."""

from __future__ import annotations

from ipaddress import ip_address

from cryptography import x509

LEAST_BELOW = 2  # labels after the `*`: a certificate for `*.com` is for nobody


def is_for(certificate: x509.Certificate, name: str) -> bool:
    """Whether the certificate is for this DNS name or IP address. The subject's common name never counts (section 2).

    Also False for one whose subjectAltName cannot be read.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = names.get_values_for_type(x509.DNSName)
        addresses = names.get_values_for_type(x509.IPAddress)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    try:
        wanted = ip_address(name)
    except ValueError:
        return any(_matches(each, name) for each in dns)
    return wanted in addresses


def _matches(presented: str, wanted: str) -> bool:
    """Section 6.3: labels are compared without case; `*` stands for the whole of the leftmost one and nothing else."""
    theirs, ours = presented.lower().removesuffix(".").split("."), wanted.lower().removesuffix(".").split(".")
    if len(theirs) != len(ours) or not all(theirs) or not all(ours):
        return False
    if theirs[0] == "*":
        return len(theirs) > LEAST_BELOW and theirs[1:] == ours[1:]
    return "*" not in presented and theirs == ours
