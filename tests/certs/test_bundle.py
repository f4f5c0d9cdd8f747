"""Trust bundles: written and read as SPIFFE's JWK Set, and every way in which such a document can be wrong."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from certs.bundle import MAX_BUNDLE_BYTES, BundleSet, TrustBundle, root_hash
from certs.errors import InvalidBundle
from certs.spiffe import TrustDomain
from tests.kit.identities import a_bundle, a_root, an_issuer, an_svid

DEMO = TrustDomain.parse("demo.mesh")
OTHER = TrustDomain.parse("other.mesh")
ROOT = a_root()
NEXT = a_root(name="root 2")
BUNDLE = a_bundle(ROOT, NEXT, sequence=7, refresh_hint=60)
ENTRY: dict[str, Any] = json.loads(a_bundle(ROOT).to_jwks())["keys"][0]


def read(document: object) -> TrustBundle:
    return TrustBundle.parse_jwks(DEMO, json.dumps(document).encode())


def x5c(certificate: x509.Certificate) -> list[str]:
    return [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]


# ---- there and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bundle",
    [
        BUNDLE,
        a_bundle(ROOT, sequence=0, refresh_hint=None),
        TrustBundle(DEMO, (), 9, 300),
        *(
            a_bundle(a_root(key=key))
            for key in (
                ec.generate_private_key(ec.SECP256R1()),
                ec.generate_private_key(ec.SECP384R1()),
                ed25519.Ed25519PrivateKey.generate(),
                rsa.generate_private_key(65537, 2048),
            )
        ),
    ],
)
def test_what_was_written_is_read_back_equal(bundle: TrustBundle) -> None:
    assert TrustBundle.parse_jwks(DEMO, bundle.to_jwks()) == bundle
    assert bundle.to_jwks() == TrustBundle.parse_jwks(DEMO, bundle.to_jwks()).to_jwks()


def test_the_document_is_the_one_of_the_standard() -> None:
    document = json.loads(BUNDLE.to_jwks())
    assert (document["spiffe_sequence"], document["spiffe_refresh_hint"], len(document["keys"])) == (7, 60, 2)
    for entry, root in zip(document["keys"], BUNDLE.roots, strict=True):
        assert entry["use"] == "x509-svid"
        assert (entry["kty"], entry["crv"]) == ("EC", "P-256")
        assert entry["x5c"] == x5c(root)
        assert "kid" not in entry
        assert len(base64.urlsafe_b64decode(entry["x"] + "=")) == 32


def test_ed25519_and_rsa_keys_are_written_as_their_rfcs_say() -> None:
    edwards, modular = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    edwards_entry, modular_entry = (
        json.loads(a_bundle(a_root(key=key)).to_jwks())["keys"][0] for key in (edwards, modular)
    )
    raw = base64.urlsafe_b64encode(edwards.public_key().public_bytes_raw()).rstrip(b"=").decode()
    assert (edwards_entry["kty"], edwards_entry["crv"], edwards_entry["x"]) == ("OKP", "Ed25519", raw)
    assert (modular_entry["kty"], modular_entry["e"]) == ("RSA", "AQAB")


def test_roots_are_named_by_the_sha256_of_their_der() -> None:
    expected = hashlib.sha256(ROOT.certificate.public_bytes(Encoding.DER)).hexdigest()
    assert BUNDLE.root_hashes() == (expected, root_hash(NEXT.certificate))


def test_the_roots_as_pem() -> None:
    assert tuple(x509.load_pem_x509_certificates(BUNDLE.to_pem())) == BUNDLE.roots


# ---- what the standard lets pass ---------------------------------------------------------------------------------


def test_an_empty_list_of_keys_means_trust_nothing() -> None:
    assert read({"keys": []}) == TrustBundle(DEMO, (), 0, None)


@pytest.mark.parametrize(
    "unknown",
    [
        {"kty": "EC", "use": "some-svid", "kid": "k1", "crv": "P-256"},
        {"kty": "EC", "use": "sig"},
        {"kty": "EC"},
        {"kty": "XYZ", "use": "x509-svid", "kid": "whatever", "x5c": ["nothing"]},
        {"kty": "oct", "use": "x509-svid"},
        {"use": "x509-svid"},
        {"kty": ["EC"], "use": "x509-svid"},
        {"kty": None, "use": None},
        {},
    ],
)
def test_entries_of_a_kind_that_we_do_not_know_are_skipped(unknown: dict[str, Any]) -> None:
    assert read({"keys": [unknown, ENTRY, unknown]}).roots == (ROOT.certificate,)


def test_members_that_we_do_not_know_are_skipped() -> None:
    assert read({"keys": [{**ENTRY, "alg": "ES256", "new": [1]}], "spiffe_new": {}}).roots == (ROOT.certificate,)


def test_the_same_root_twice_is_one_root() -> None:
    assert read({"keys": [ENTRY, ENTRY]}).roots == (ROOT.certificate,)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document", [None, [], "keys", 1, {}, {"keys": None}, {"keys": {}}, {"keys": "x"}, {"keys": [1]}, {"keys": [[]]}]
)
def test_a_document_of_another_shape_is_refused(document: object) -> None:
    with pytest.raises(InvalidBundle):
        read(document)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff{}",
        b'{"keys":[]} x',
        b'{"keys":[],"keys":[]}',
        b'{"keys":[{"use":"a","use":"x509-svid"}]}',
        b'{"keys":[],"x":NaN}',
        b'{"keys":[],"x":-Infinity}',
        b"[" * 100_000,
        b'{"keys":[]}' + b" " * MAX_BUNDLE_BYTES,
    ],
)
def test_bytes_that_are_not_one_clear_json_object_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        TrustBundle.parse_jwks(DEMO, data)


@pytest.mark.parametrize("member", ["spiffe_sequence", "spiffe_refresh_hint"])
@pytest.mark.parametrize("value", ["1", 1.0, 1.5, -1, True, None, [1], {}])
def test_a_count_that_is_no_whole_number_is_refused(member: str, value: object) -> None:
    with pytest.raises(InvalidBundle, match=member):
        read({"keys": [ENTRY], member: value})


BROKEN_ENTRIES: list[tuple[str, dict[str, Any]]] = [
    ("`kid`", {"kid": "k1"}),
    ("`kid`", {"kid": None}),
    ("exactly one", {"x5c": None}),
    ("exactly one", {"x5c": []}),
    ("exactly one", {"x5c": x5c(ROOT.certificate) * 2}),
    ("exactly one", {"x5c": [*x5c(ROOT.certificate), *x5c(NEXT.certificate)]}),
    ("exactly one", {"x5c": x5c(ROOT.certificate)[0]}),
    ("exactly one", {"x5c": [1]}),
    ("not a DER", {"x5c": [""]}),
    ("not base64", {"x5c": ["!!!!"]}),
    ("not base64", {"x5c": ["é"]}),
    ("not a DER", {"x5c": ["AAAA"]}),
    ("not a DER", {"x5c": [x5c(ROOT.certificate)[0][:-8]]}),
    ("not base64", {"x5c": [ROOT.certificate.public_bytes(Encoding.PEM).decode()]}),
    ("another key", {"x5c": x5c(NEXT.certificate)}),
    ("another key", {"x": ENTRY["y"]}),
    ("another key", {"crv": "P-384"}),
    ("another key", {"kty": "RSA"}),
    ("signer_is_ca", {"x5c": x5c(an_svid(an_issuer(ROOT)).leaf)}),
    ("signer_is_ca", {"x5c": x5c(a_root(ca=False).certificate)}),
    ("signer_cert_sign", {"x5c": x5c(a_root(key_usage=["crl_sign"]).certificate)}),
    ("signer_no_path", {"x5c": x5c(a_root(uris=["spiffe://demo.mesh/web"]).certificate)}),
    ("key_strength", {"x5c": x5c(a_root(key=rsa.generate_private_key(65537, 1024)).certificate)}),
]


@pytest.mark.parametrize(("words", "broken"), BROKEN_ENTRIES)
def test_a_root_that_is_not_clearly_one_spoils_the_bundle(words: str, broken: dict[str, Any]) -> None:
    with pytest.raises(InvalidBundle, match=words):
        read({"keys": [json.loads(a_bundle(NEXT).to_jwks())["keys"][0], {**ENTRY, **broken}]})


@pytest.mark.parametrize("missing", ["x5c", "crv", "x", "y"])
def test_an_entry_without_its_members_is_refused(missing: str) -> None:
    with pytest.raises(InvalidBundle):
        read({"keys": [{name: value for name, value in ENTRY.items() if name != missing}]})


@pytest.mark.parametrize("key", [ed448.Ed448PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())])
def test_a_root_whose_key_we_cannot_write_is_refused_on_the_way_out(key: Any) -> None:
    with pytest.raises(InvalidBundle, match="cannot express"):
        a_bundle(a_root(key=key)).to_jwks()


def test_a_root_whose_key_nobody_knows_is_refused_on_the_way_out() -> None:
    der = a_root().certificate.public_bytes(Encoding.DER)
    p256, unknown = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f")
    strange = x509.load_der_x509_certificate(der.replace(p256, unknown))
    with pytest.raises(InvalidBundle, match="unknown type"):
        TrustBundle(DEMO, (strange,)).to_jwks()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["EC", "x509-svid", "AAAA"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["keys", "use", "kty", "x5c", "kid", "crv", "spiffe_sequence"]), inner),
    max_leaves=12,
)


@given(json_values | st.builds(lambda keys: {"keys": keys}, st.lists(json_values, max_size=3)))
def test_any_json_is_either_refused_or_holds_no_root_out_of_nothing(document: object) -> None:
    try:
        assert read(document).roots == ()
    except InvalidBundle:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        TrustBundle.parse_jwks(DEMO, data)


# ---- sets --------------------------------------------------------------------------------------------------------

THEIRS = a_bundle(a_root("other.mesh"))


def test_a_set_finds_the_bundle_of_a_trust_domain() -> None:
    both = BundleSet.of_all([BUNDLE, THEIRS])
    assert both.of(DEMO) is BUNDLE
    assert both.of(OTHER) is THEIRS
    assert both.of(TrustDomain.parse("third.mesh")) is None
    assert list(both) == [BUNDLE, THEIRS]
    assert len(both) == 2
    assert both == BundleSet((BUNDLE, THEIRS))
    assert both.roots() == (*BUNDLE.roots, *THEIRS.roots)


def test_a_set_with_two_bundles_of_one_trust_domain_is_refused() -> None:
    with pytest.raises(InvalidBundle, match="more than one"):
        BundleSet.of_all([BUNDLE, THEIRS, a_bundle(NEXT)])


def test_a_newer_bundle_takes_the_place_of_the_older() -> None:
    newer = a_bundle(NEXT, sequence=8)
    both = BundleSet.of_all([BUNDLE, THEIRS]).with_bundle(newer)
    assert (both.of(DEMO), both.of(OTHER), len(both)) == (newer, THEIRS, 2)
    assert BundleSet().with_bundle(BUNDLE) == BundleSet((BUNDLE,))
