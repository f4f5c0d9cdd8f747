"""For whom a certificate is (RFC 9525)."""

from __future__ import annotations

import datetime
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from sidecar.net.web_names import is_for

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(*names: x509.GeneralName, common_name: str = "api.partner.test") -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 7, now, now + datetime.timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, SHA256())


@pytest.mark.parametrize(("presented", "wanted", "good"), [
    ("api.partner.test", "api.partner.test", True), ("API.Partner.TEST", "api.partner.test", True),
    ("api.partner.test.", "api.partner.test", True), ("*.partner.test", "api.partner.test", True),
    ("*.partner.test", "a.b.partner.test", False), ("*.partner.test", "partner.test", False),
    ("*.partner.test", ".partner.test", False), ("a*.partner.test", "api.partner.test", False),
    ("*pi.partner.test", "api.partner.test", False), ("api.*.test", "api.partner.test", False),
    ("*.test", "partner.test", False), ("*", "partner", False), ("*.*.test", "a.b.test", False),
    ("www.partner.test", "api.partner.test", False), ("api.partner.test.evil.test", "api.partner.test", False),
    ("192.0.2.1", "192.0.2.1", False), ("*.0.2.1", "192.0.2.1", False), ("xn--a-ecp.test", "xn--a-ecp.test", True),
])  # fmt: skip
def test_names(presented: str, wanted: str, good: bool) -> None:
    assert is_for(certificate(x509.DNSName("other.test"), x509.DNSName(presented)), wanted) is good


@pytest.mark.parametrize(("presented", "wanted", "good"), [
    ("192.0.2.1", "192.0.2.1", True), ("192.0.2.2", "192.0.2.1", False), ("2001:db8::1", "2001:db8:0::1", True),
    ("::ffff:192.0.2.1", "192.0.2.1", False),
])  # fmt: skip
def test_addresses(presented: str, wanted: str, good: bool) -> None:
    assert is_for(certificate(x509.IPAddress(ip_address(presented))), wanted) is good


def test_the_common_name_never_counts() -> None:
    assert not is_for(certificate(), "api.partner.test")
    assert not is_for(certificate(x509.UniformResourceIdentifier("https://api.partner.test")), "api.partner.test")
    assert not is_for(certificate(x509.RFC822Name("a@api.partner.test")), "api.partner.test")
