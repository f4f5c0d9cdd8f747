"""A CSR that asks for more than its entry gives: nothing of it reaches the certificate, at enrolment or at renewal."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from certs.keys import new_key
from certs.svid import check_leaf
from tests.ca.office import open_office
from tests.kit.trio_time import in_trio

DNS = ("orders", "orders.internal")
FOREIGN = ObjectIdentifier("1.3.6.1.4.1.55555.7")  # an extension that nobody knows


def names(*found: str | x509.GeneralName) -> x509.SubjectAlternativeName:
    """DNS names, and whatever else is given as what it is."""
    return x509.SubjectAlternativeName([x509.DNSName(one) if isinstance(one, str) else one for one in found])


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


ALL_USES = x509.KeyUsage(True, True, True, True, True, True, True, False, False)
GREEDY: dict[str, tuple[x509.ExtensionType, ...]] = {
    "a wildcard": (names("*.orders.internal"),),
    "a wildcard for everything": (names("*"),),
    "a wildcard beside names of the entry": (names(*DNS, "*.internal"),),
    "a foreign DNS name": (names("payments.internal"),),
    "a public DNS name": (names("www.example.com"),),
    "the entry's name, longer": (names("orders.internal.evil.example"),),
    "another service": (names(uri("spiffe://demo.mesh/ns/default/sa/admin")),),
    "the CA itself": (names(uri("spiffe://demo.mesh/mesh/ca")),),
    "the same service elsewhere": (names(uri("spiffe://other.mesh/ns/default/sa/orders")),),
    "two SPIFFE IDs, one of them right": (
        names(uri("spiffe://demo.mesh/ns/default/sa/orders"), uri("spiffe://demo.mesh/ns/default/sa/admin")),
    ),
    "an address": (names(x509.IPAddress(IPv4Address("10.0.0.1"))),),
    "a mail address": (names(x509.RFC822Name("root@demo.mesh")),),
    "CA:TRUE": (x509.BasicConstraints(ca=True, path_length=None),),
    "CA:TRUE that may sign": (x509.BasicConstraints(ca=True, path_length=5), ALL_USES),
    "any use": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),),
    "to sign code and OCSP": (
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.OCSP_SIGNING]),
    ),
    "names for those below": (x509.NameConstraints([x509.DNSName("internal")], None),),
    "a policy": (x509.CertificatePolicies([x509.PolicyInformation(FOREIGN, None)]),),
    "what nobody knows": (x509.UnrecognizedExtension(FOREIGN, b"\x05\x00"),),
    "all at once": (
        names("*", "payments.internal", uri("spiffe://demo.mesh/ns/default/sa/admin")),
        x509.BasicConstraints(ca=True, path_length=5), ALL_USES,
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    ),
}  # fmt: skip


def greedy(key: ec.EllipticCurvePrivateKey, extensions: Sequence[x509.ExtensionType]) -> bytes:
    """A well-signed request for this key that asks for these, with a subject of its own."""
    asked = ((NameOID.COMMON_NAME, "*.internal"), (NameOID.ORGANIZATION_NAME, "Us"))
    wanted = [x509.NameAttribute(oid, value) for oid, value in asked]
    builder = x509.CertificateSigningRequestBuilder(x509.Name(wanted))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def said(certificate: x509.Certificate) -> dict[str, tuple[bool, bytes]]:
    """Every extension of a certificate: whether it is critical, and its bytes."""
    return {one.oid.dotted_string: (one.critical, one.value.public_bytes()) for one in certificate.extensions}


@pytest.mark.parametrize("asked", GREEDY.values(), ids=list(GREEDY))
@pytest.mark.parametrize("way", ["enrolment", "renewal"])
def test_nothing_of_it_reaches_the_certificate(asked: tuple[x509.ExtensionType, ...], way: str) -> None:
    @in_trio
    async def play() -> None:
        office = open_office()
        entry, key = office.entry("orders", *DNS, ttl=3600.0), new_key()
        csr = greedy(key, asked)
        plain = await office.authority.enrol(office.csr, office.answer(entry.id, office.key(entry)))
        if way == "enrolment":
            issued = await office.authority.enrol(csr, office.answer(entry.id, office.key(entry), csr))
        else:
            issued = await office.authority.renew(csr, office.chain(plain))
        leaf = issued.leaf
        assert leaf.public_key() == key.public_key()  # the one thing that a CSR decides
        assert said(leaf) == said(plain.leaf)
        assert (leaf.subject, leaf.issuer) == (plain.leaf.subject, plain.leaf.issuer)
        assert leaf.subject == x509.Name([])
        assert check_leaf(leaf) == entry.spiffe_id
        assert leaf.not_valid_after_utc == plain.leaf.not_valid_after_utc
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [one.value for one in found] == [entry.spiffe_id.text, *DNS]
        [*_, line] = office.store.issuances()
        assert (line.spiffe_id, line.dns_names) == (entry.spiffe_id.text, DNS)

    play()
