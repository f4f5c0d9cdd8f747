"""Each rule of the X.509-SVID profile, broken one at a time, and the shapes that must pass."""

from __future__ import annotations

import base64
import warnings
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.errors import IdentityError, InvalidSvid
from certs.keys import new_key
from certs.svid import MAX_CHAIN, X509Svid, check_leaf, check_signer, parse_certificate, parse_chain
from tests.kit.identities import (
    BACKDATE,
    BOTH,
    CLIENT_AUTH,
    DAY,
    NOW,
    SERVER_AUTH,
    a_certificate,
    a_root,
    an_issuer,
    an_svid,
)

ROOT = a_root()
ISSUER = an_issuer(ROOT)
WEB = "spiffe://demo.mesh/ns/default/sa/web"
SAN_OID = x509.ObjectIdentifier("2.5.29.17")
NONSENSE_SAN = x509.UnrecognizedExtension(SAN_OID, b"\x30\x03\x86\x05")


BROKEN_LEAVES: list[tuple[str, dict[str, Any]]] = [
    ("one_uri_san", {"uris": []}),
    ("one_uri_san", {"uris": [], "dns": ["web.demo.mesh"]}),
    ("one_uri_san", {"uris": [WEB, "spiffe://demo.mesh/ns/default/sa/orders"]}),
    ("one_uri_san", {"uris": [WEB, WEB]}),
    ("one_uri_san", {"uris": [WEB, "https://demo.mesh/"]}),
    ("spiffe_scheme", {"uris": ["https://demo.mesh/ns/default/sa/web"]}),
    ("spiffe_scheme", {"uris": ["SPIFFE://demo.mesh/ns/default/sa/web"]}),
    ("spiffe_scheme", {"uris": ["spiffe:/demo.mesh/web"]}),
    ("spiffe_scheme", {"uris": [""]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://Demo.mesh/web"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://demo.mesh/a//b"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://demo.mesh/a/../b"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://demo.mesh/a%2fb"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://demo.mesh/a\0b"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://demo.mesh:443/web"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://user@demo.mesh/web"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://demo.mesh/web?x=1"]}),
    ("path_required", {"uris": ["spiffe://demo.mesh"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://demo.mesh/"]}),
    ("not_a_ca", {"ca": True}),
    ("digital_signature", {"key_usage": None}),
    ("digital_signature", {"key_usage": ["key_encipherment"]}),
    ("key_usage_critical", {"key_usage_critical": False}),
    ("no_cert_sign", {"key_usage": ["digital_signature", "key_cert_sign"]}),
    ("no_crl_sign", {"key_usage": ["digital_signature", "crl_sign"]}),
    ("eku_both", {"eku": [CLIENT_AUTH]}),
    ("eku_both", {"eku": [SERVER_AUTH]}),
    ("eku_both", {"eku": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]}),
    ("san_critical_when_subject_empty", {"san_critical": False}),
    ("key_strength", {"key": rsa.generate_private_key(65537, 1024)}),
    ("key_strength", {"key": ec.generate_private_key(ec.SECP256K1())}),
    ("key_strength", {"key": ed448.Ed448PrivateKey.generate()}),
    ("signature_hash", {"digest": hashes.SHA224()}),
    ("malformed", {"uris": [], "extra": [(NONSENSE_SAN, True)]}),
]


@pytest.mark.parametrize(("rule", "broken"), BROKEN_LEAVES)
def test_a_leaf_that_breaks_a_rule_is_refused_by_that_name(rule: str, broken: dict[str, Any]) -> None:
    bad = an_svid(ISSUER, "web", **broken)
    with pytest.raises(InvalidSvid) as refusal:
        check_leaf(bad.leaf)
    assert refusal.value.rule == rule
    assert f"[{rule}]" in str(refusal.value)
    assert isinstance(refusal.value, IdentityError)


GOOD_LEAVES: list[dict[str, Any]] = [
    {},
    {"dns": ["web", "web.default.svc"], "ips": ["127.0.0.1"]},
    {"eku": None},
    {"eku": [*BOTH, ExtendedKeyUsageOID.EMAIL_PROTECTION]},
    {"ca": None},
    {"key_usage": ["digital_signature", "key_encipherment", "key_agreement"]},
    {"subject": "web", "san_critical": False},
    {"subject": "web", "san_critical": True},
    {"key": ed25519.Ed25519PrivateKey.generate()},
    {"key": ec.generate_private_key(ec.SECP384R1())},
    {"digest": hashes.SHA512()},
    {"not_before": NOW - 9 * DAY, "not_after": NOW - 8 * DAY},
]


@pytest.mark.parametrize("shape", GOOD_LEAVES)
def test_a_leaf_within_the_rules_gives_its_spiffe_id(shape: dict[str, Any]) -> None:
    good = an_svid(ISSUER, "web", **shape)
    assert str(check_leaf(good.leaf)) == WEB


BROKEN_SIGNERS: list[tuple[str, dict[str, Any]]] = [
    ("signer_is_ca", {"ca": False}),
    ("signer_is_ca", {"ca": None}),
    ("signer_cert_sign", {"key_usage": None}),
    ("signer_cert_sign", {"key_usage": ["digital_signature", "crl_sign"]}),
    ("signer_eku", {"eku": [SERVER_AUTH]}),
    ("signer_eku", {"eku": [CLIENT_AUTH]}),
    ("signer_one_uri_san", {"uris": ["spiffe://demo.mesh", "spiffe://demo.mesh"]}),
    ("spiffe_scheme", {"uris": ["https://demo.mesh"]}),
    ("invalid_spiffe_id", {"uris": ["spiffe://"]}),
    ("signer_no_path", {"uris": ["spiffe://demo.mesh/mesh/ca"]}),
    ("signer_trust_domain", {"uris": ["spiffe://other.mesh"]}),
    ("key_strength", {"key": rsa.generate_private_key(65537, 1024)}),
    ("signature_hash", {"digest": hashes.SHA224()}),
    ("malformed", {"uris": [], "extra": [(NONSENSE_SAN, True)]}),
]


@pytest.mark.parametrize(("rule", "broken"), BROKEN_SIGNERS)
def test_an_issuer_that_breaks_a_rule_is_refused_by_that_name(rule: str, broken: dict[str, Any]) -> None:
    bad = an_issuer(ROOT, **broken)
    with pytest.raises(InvalidSvid) as refusal:
        check_signer(bad.certificate, an_svid(ISSUER).spiffe_id)
    assert refusal.value.rule == rule


@pytest.mark.parametrize(
    "shape", [{}, {"uris": []}, {"uris": [], "dns": ["ca.demo.mesh"]}, {"eku": BOTH}, {"path_length": 0}]
)
def test_an_issuer_within_the_rules_may_sign(shape: dict[str, Any]) -> None:
    check_signer(an_issuer(ROOT, **shape).certificate, an_svid(ISSUER).spiffe_id)


def test_whom_an_issuer_may_sign_for_is_asked_only_where_that_is_known() -> None:
    check_signer(an_issuer(ROOT, uris=["spiffe://other.mesh"]).certificate)


# ---- the value ---------------------------------------------------------------------------------------------------


def test_what_was_written_as_pem_is_read_back_as_the_same_svid() -> None:
    web = an_svid(ISSUER, "web", dns=["web"])
    again = X509Svid.parse(web.chain_pem(), web.key)
    assert again == web
    assert again.chain == (web.leaf, ISSUER.certificate)
    assert (again.not_before, again.not_after) == (NOW - BACKDATE, NOW + DAY)


def test_the_serial_is_lower_case_hex_and_the_key_is_never_shown() -> None:
    web = an_svid(ISSUER, "web", serial=0xABCDEF)
    assert web.serial == "abcdef"
    assert repr(web) == f"<X509Svid {WEB} serial abcdef>"


def test_a_chain_of_two_issuers_is_read_in_its_order() -> None:
    deep = an_svid(an_issuer(ISSUER, name="second"), "web")
    assert X509Svid.parse(deep.chain_pem(), deep.key).chain == deep.chain
    assert len(deep.chain) == 3


def rule_of_parsing(svid: X509Svid, key: Any = None) -> str:
    with pytest.raises(InvalidSvid) as refusal:
        X509Svid.parse(svid.chain_pem(), key or svid.key)
    return refusal.value.rule


def test_an_svid_for_another_key_is_refused() -> None:
    assert rule_of_parsing(an_svid(ISSUER), key=new_key()) == "key_matches"


def test_a_leaf_outside_the_profile_is_refused_when_read() -> None:
    assert rule_of_parsing(an_svid(ISSUER, uris=[WEB, WEB])) == "one_uri_san"


def test_an_issuer_outside_the_profile_is_refused_when_read() -> None:
    assert rule_of_parsing(an_svid(an_issuer(ROOT, ca=False))) == "signer_is_ca"


def test_a_root_in_the_chain_is_refused_when_read() -> None:
    assert rule_of_parsing(an_svid(ISSUER, chain=(ISSUER.certificate, ROOT.certificate))) == "chain_without_root"


def test_an_issuer_that_shares_its_name_with_the_one_above_is_no_root() -> None:
    twin = an_svid(an_issuer(ISSUER), "web")  # self-issued, as in a change of key; not self-signed
    assert X509Svid.parse(twin.chain_pem(), twin.key).chain == twin.chain


@pytest.mark.parametrize(
    "stranger",
    [
        an_issuer(ROOT, name="somebody else"),  # another name
        an_issuer(ROOT),  # the right name, another key
        an_issuer(ROOT, key=ed25519.Ed25519PrivateKey.generate()),  # the right name, another kind of key
    ],
)
def test_a_chain_whose_certificates_do_not_follow_each_other_is_refused(stranger: Any) -> None:
    assert rule_of_parsing(an_svid(ISSUER, chain=(stranger.certificate,))) == "chain_order"


@pytest.mark.parametrize(
    "pem", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_not_a_pem_chain_is_refused(pem: bytes) -> None:
    with pytest.raises(InvalidSvid, match="malformed"):
        parse_chain(pem)


def test_a_private_key_in_place_of_a_chain_is_refused() -> None:
    from certs.keys import key_to_pem

    with pytest.raises(InvalidSvid, match="malformed"):
        parse_chain(key_to_pem(new_key(), None))


def test_a_chain_is_read_up_to_its_greatest_length() -> None:
    pem = ISSUER.certificate.public_bytes(Encoding.PEM)
    assert len(parse_chain(pem * MAX_CHAIN)) == MAX_CHAIN
    with pytest.raises(InvalidSvid, match="chain_length"):
        parse_chain(pem * (MAX_CHAIN + 1))


def test_a_certificate_of_unknown_signature_is_refused() -> None:
    leaf = a_certificate(new_key(), ISSUER.certificate, ISSUER.key, uris=[WEB])
    der = leaf.public_bytes(Encoding.DER)
    ecdsa_sha256, unknown = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d04037f")
    assert der.count(ecdsa_sha256) == 2
    strange = x509.load_der_x509_certificate(der.replace(ecdsa_sha256, unknown))
    with pytest.raises(InvalidSvid, match="key_strength"):
        check_leaf(strange)


def test_an_extension_given_twice_is_refused() -> None:
    usage, other = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d25")  # keyUsage, extKeyUsage
    der = an_svid(ISSUER).leaf.public_bytes(Encoding.DER)
    assert der.count(other) == 1
    with pytest.raises(InvalidSvid, match="malformed"):
        check_leaf(x509.load_der_x509_certificate(der.replace(other, usage)))


def test_a_certificate_of_unknown_version_is_refused() -> None:
    der = an_svid(ISSUER).leaf.public_bytes(Encoding.DER)
    version_3, version_9 = bytes.fromhex("a003020102"), bytes.fromhex("a003020108")
    strange = der.replace(version_3, version_9)
    with pytest.raises(InvalidSvid, match="malformed"):
        parse_certificate(strange)
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(strange) + b"-----END CERTIFICATE-----\n"
    with pytest.raises(InvalidSvid, match="malformed"):
        parse_chain(pem)


def test_one_der_certificate_is_read() -> None:
    leaf = an_svid(ISSUER).leaf
    assert parse_certificate(leaf.public_bytes(Encoding.DER)) == leaf
    with pytest.raises(InvalidSvid, match="malformed"):
        parse_certificate(leaf.public_bytes(Encoding.PEM))


@pytest.mark.parametrize("serial", [b"\x00", b"\xff"])
def test_a_serial_number_that_is_not_positive_is_refused(serial: bytes) -> None:
    der = an_svid(ISSUER, serial=0x55).leaf.public_bytes(Encoding.DER)
    assert der.count(b"\x02\x01\x55") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography warns of such numbers, at the moment
        leaf = parse_certificate(der.replace(b"\x02\x01\x55", b"\x02\x01" + serial))
        with pytest.raises(InvalidSvid, match="serial_positive"):
            check_leaf(leaf)


def test_names_that_cannot_be_read_are_refused() -> None:
    der = an_svid(ISSUER).leaf.public_bytes(Encoding.DER)
    name = b"demo.mesh issuer"
    utf8, relative_oid = b"\x0c" + bytes([len(name)]) + name, b"\x0d" + bytes([len(name)]) + name
    assert der.count(utf8) == 1
    with pytest.raises(InvalidSvid, match="malformed"):
        check_leaf(x509.load_der_x509_certificate(der.replace(utf8, relative_oid)))
