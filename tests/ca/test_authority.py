"""Who gets a certificate, for what, and for how long: the entry decides, and renewal keeps to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.attest.join_token import hash_token
from ca.errors import (
    ClientCertificateNeeded,
    RenewalRefused,
)
from certs.bundle import BundleSet
from certs.csr import make_csr
from certs.errors import InvalidCsr
from certs.keys import new_key
from certs.svid import X509Svid
from certs.verify import verify_chain
from tests.ca.office import DAY, NOW, open_office, sha256
from tests.kit.trio_time import in_trio

# ---- the entry decides -------------------------------------------------------------------------------------------


def a_greedy_csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request that asks for everything that it has no business to ask for."""
    names = [
        x509.UniformResourceIdentifier("spiffe://demo.mesh/mesh/ca"),
        x509.UniformResourceIdentifier("spiffe://demo.mesh/ns/default/sa/admin"),
        x509.DNSName("admin.internal"),
    ]
    usage = x509.KeyUsage(True, True, True, True, True, True, True, False, False)
    return (
        x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")]))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


@in_trio
async def test_a_csr_decides_nothing_but_the_key() -> None:
    office = open_office()
    entry, key = office.entry("orders", "orders.internal", ttl=3600.0), new_key()
    csr = a_greedy_csr(key)
    issued = await office.authority.enrol(csr, office.answer(entry.id, office.key(entry), csr))
    svid = X509Svid.parse(issued.chain_pem, key)
    names = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [entry.spiffe_id.text, "orders.internal"]
    assert list(svid.leaf.subject) == []
    assert svid.not_after == NOW + 3600
    assert verify_chain(svid.chain, office.bundles.current, NOW) == entry.spiffe_id
    assert svid.chain[1] == office.issuer.certificate


@in_trio
async def test_every_certificate_has_its_line_in_the_log() -> None:
    office = open_office()
    entry = office.entry("orders", "a.b")
    issued = await office.issue(entry)
    [line] = office.store.issuances()
    assert line.serial == f"{issued.leaf.serial_number:x}"
    assert (line.entry, line.spiffe_id) == (entry.id, entry.spiffe_id.text)
    assert (line.dns_names, line.issued_at, line.proof) == (("a.b",), NOW, "enrolment_key")
    assert line.proof_detail == office.store.keys(entry.id)[0].key_id
    assert line.certificate_sha256 == sha256(issued.leaf)
    assert line.issuer_serial == office.issuer.serial
    assert (line.not_before, line.not_after) == (NOW - 60, NOW + DAY)


@in_trio
async def test_the_ca_serves_under_its_own_name_and_cannot_be_renewed_from_outside() -> None:
    office = open_office()
    svid = await office.authority.issue_own(new_key())
    assert svid.spiffe_id.text == "spiffe://demo.mesh/mesh/ca"
    assert office.store.issuances()[0].proof == "self"
    with pytest.raises(RenewalRefused, match="entry"):
        await office.authority.renew(office.csr, svid.chain)


BAD_CSRS = [
    b"",
    b"nonsense",
    make_csr(new_key())[:-1],
    make_csr(new_key())[:-1] + b"\0",
    make_csr(new_key()) + b"\0",
    b"\x30" * 20_000,
]


@pytest.mark.parametrize("csr", BAD_CSRS)
def test_a_csr_that_cannot_be_read_costs_no_token(csr: bytes) -> None:
    office = open_office()
    proof = office.token(office.entry())

    async def ask() -> None:
        with pytest.raises(InvalidCsr):
            await office.authority.enrol(csr, proof)

    trio.run(ask)
    assert office.store.issuances() == ()
    found = office.store.token(hash_token(proof.token))
    assert found is not None
    assert found.used_at is None


def test_a_weak_key_gets_nothing() -> None:
    office = open_office()
    weak = rsa.generate_private_key(65537, 1024)
    for key in (weak, ec.generate_private_key(ec.SECP256K1())):
        csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        with pytest.raises(InvalidCsr):
            trio.run(office.authority.enrol, csr, office.token(office.entry(f"a{id(key)}")))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 250), st.binary(min_size=1, max_size=4), st.integers(0, 4))
def test_a_damaged_csr_is_refused_or_is_still_the_same_key(at: int, junk: bytes, cut: int) -> None:
    good = make_csr(DAMAGE_KEY)
    damaged = good[:at] + junk + good[at + cut :]
    office = DAMAGE_OFFICE
    entry = office.store.entries()[0]

    async def ask() -> bytes | None:
        try:
            issued = await office.authority.enrol(damaged, office.answer(entry.id, DAMAGE_ENROLMENT, damaged))
        except InvalidCsr:
            return None
        return issued.chain_pem

    pem = trio.run(ask)
    if pem is not None:
        X509Svid.parse(pem, DAMAGE_KEY)


DAMAGE_KEY = new_key()
DAMAGE_OFFICE = open_office()
DAMAGE_ENROLMENT = DAMAGE_OFFICE.key(DAMAGE_OFFICE.entry())


# ---- renewal -----------------------------------------------------------------------------------------------------


@in_trio
async def test_renewal_takes_what_the_entry_says_now() -> None:
    office = open_office()
    entry = office.entry()
    first = await office.issue(entry)
    office.clock.now += DAY / 2
    second = await office.authority.renew(office.csr, office.chain(first))
    third = await office.authority.renew(office.csr, office.chain(second))
    assert third.spiffe_id == entry.spiffe_id
    line = office.store.issuances()[0]
    assert (line.proof, line.proof_detail) == ("renewal", f"{second.leaf.serial_number:x}")


def test_renewals_that_are_refused() -> None:
    office, stranger = open_office(), open_office()
    entry = office.entry()
    issued = trio.run(office.issue, entry)
    foreign = trio.run(stranger.issue, stranger.entry())
    unlogged_office = open_office(office.issuer)
    unlogged = trio.run(unlogged_office.issue, unlogged_office.entry())
    with pytest.raises(ClientCertificateNeeded):
        trio.run(office.authority.renew, office.csr, ())
    for chain, says in (
        (stranger.chain(foreign), "does not hold"),
        (unlogged_office.chain(unlogged), "no record"),
        ((office.issuer.certificate, office.issuer.root), "does not hold"),
    ):
        with pytest.raises(RenewalRefused, match=says):
            trio.run(office.authority.renew, office.csr, chain)
    office.clock.now += DAY + 1
    with pytest.raises(RenewalRefused, match="expired"):
        trio.run(office.authority.renew, office.csr, office.chain(issued))
    office.clock.now = NOW - 120
    with pytest.raises(RenewalRefused, match="not valid for another"):
        trio.run(office.authority.renew, office.csr, office.chain(issued))


def test_renewal_ends_with_the_entry_even_if_it_comes_back() -> None:
    office = open_office()
    entry = office.entry()
    issued = trio.run(office.issue, entry)
    office.store.remove_entry(entry.id, NOW)
    office.entry()
    with pytest.raises(RenewalRefused, match="was removed"):
        trio.run(office.authority.renew, office.csr, office.chain(issued))


def test_an_emptied_bundle_trusts_nobody() -> None:
    office = open_office()
    issued = trio.run(office.issue, office.entry())
    bundle = next(iter(office.bundles.current))
    office.bundles.publish(BundleSet((replace(bundle, roots=()),)))
    with pytest.raises(RenewalRefused):
        trio.run(office.authority.renew, office.csr, office.chain(issued))
