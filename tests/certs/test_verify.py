"""One chain, some bundles and a time: whose identity is it, or why is it nobody's?"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import BundleSet, TrustBundle, root_hash
from certs.errors import IdentityError, InvalidSvid, UntrustedSvid
from certs.keys import new_key
from certs.spiffe import TrustDomain
from certs.svid import MAX_CHAIN, X509Svid, parse_certificate
from certs.verify import explain_time, verify_chain, verify_pinned
from tests.kit.identities import (
    DAY,
    HOUR,
    NOW,
    SERVER_AUTH,
    Authority,
    a_bundle,
    a_bundle_set,
    a_certificate,
    a_root,
    an_issuer,
    an_svid,
)

ROOT = a_root("demo.mesh")
ISSUER = an_issuer(ROOT)
OTHER_ROOT = a_root("other.mesh")
OTHER_ISSUER = an_issuer(OTHER_ROOT)
OURS = a_bundle_set(ROOT)
UNION = a_bundle_set(ROOT, OTHER_ROOT)
WEB = "spiffe://demo.mesh/ns/default/sa/web"
DEMO = TrustDomain.parse("demo.mesh")


def reason(chain: Any, bundles: BundleSet = OURS, now: float = NOW) -> str:
    """The short reason, or the broken rule, for which this chain is refused."""
    with pytest.raises(IdentityError) as refusal:
        verify_chain(chain.chain if isinstance(chain, X509Svid) else chain, bundles, now)
    assert isinstance(refusal.value, InvalidSvid | UntrustedSvid)
    return refusal.value.rule if isinstance(refusal.value, InvalidSvid) else refusal.value.reason


def spoilt(certificate: x509.Certificate) -> x509.Certificate:
    """The certificate with the last bit of its signature turned."""
    der = bytearray(certificate.public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_certificate(bytes(der))


# ---- who is believed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "svid",
    [
        an_svid(ISSUER),
        an_svid(ROOT),
        an_svid(an_issuer(ISSUER, name="second")),
        an_svid(an_issuer(ROOT, path_length=0)),
        an_svid(an_issuer(ROOT, key=ed25519.Ed25519PrivateKey.generate())),
        an_svid(ISSUER, chain=(ISSUER.certificate, ROOT.certificate)),
        an_svid(ISSUER, chain=(OTHER_ISSUER.certificate, ISSUER.certificate)),  # order and extras do not matter
        an_svid(ISSUER, eku=None),
        an_svid(ISSUER, key=rsa.generate_private_key(65537, 2048)),
    ],
    ids=["issuer", "root", "two", "path length", "ed25519", "with root", "with extras", "no eku", "rsa"],
)
@pytest.mark.parametrize("bundles", [OURS, UNION], ids=["ours", "union"])
def test_a_chain_to_a_root_of_its_own_trust_domain_is_whose_it_says(svid: X509Svid, bundles: BundleSet) -> None:
    assert str(verify_chain(svid.chain, bundles, NOW)) == WEB


def test_each_of_two_trust_domains_is_believed_about_its_own() -> None:
    theirs = an_svid(OTHER_ISSUER, "web")
    assert verify_chain(theirs.chain, UNION, NOW) == theirs.spiffe_id


def test_while_a_root_changes_both_old_and_new_vouch() -> None:
    new_root = a_root("demo.mesh", name="root 2")
    both = BundleSet((a_bundle(ROOT, new_root),))
    for issuer in (ISSUER, an_issuer(new_root)):
        assert str(verify_chain(an_svid(issuer).chain, both, NOW)) == WEB
    only_new = BundleSet((a_bundle(new_root),))
    assert reason(an_svid(ISSUER), only_new) == "unknown_root"


# ---- time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW - 61, "not_yet_valid"),
        (NOW - 60, None),
        (NOW, None),
        (NOW + DAY - 1, None),
        (NOW + DAY + 1, "expired"),
        (NOW - 2 * DAY, "not_yet_valid"),
        (NOW + 2 * DAY, "expired"),
    ],
    ids=range(7),  # NOW differs between the processes of pytest-xdist
)
def test_the_time_it_is_told_decides(now: float, expected: str | None) -> None:
    svid = an_svid(ISSUER)
    if expected is None:
        assert str(verify_chain(svid.chain, OURS, now)) == WEB
    else:
        assert reason(svid, now=now) == expected


def test_an_expired_issuer_and_an_expired_root_end_every_svid_below() -> None:
    assert reason(an_svid(an_issuer(ROOT, days=-0.5))) == "expired"
    old = a_root(days=-0.5)
    assert reason(an_svid(an_issuer(old)), a_bundle_set(old)) == "expired"


def test_a_refusal_for_time_speaks_of_the_clock() -> None:
    with pytest.raises(UntrustedSvid, match=r"sa/web: its certificate: expired 2 d ago; check the clock"):
        verify_chain(an_svid(ISSUER).chain, OURS, NOW + 3 * DAY)
    with pytest.raises(UntrustedSvid, match="issuer 1 above it: expired 12 h ago"):
        verify_chain(an_svid(an_issuer(ROOT, days=-0.5)).chain, OURS, NOW)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (NOW - 60 - 2 * DAY, "not valid for another 2 d; check the clock"),
        (NOW - 60 - 120, "not valid for another 2 min; check the clock"),
        (NOW - 60 - 5, "not valid for another 5 s; check the clock"),
        (NOW - 60, "valid for another 1 d"),
        (NOW, "valid for another 1 d"),
        (NOW + 1 * HOUR, "valid for another 23 h"),
        (NOW + DAY, "valid for another 0 s"),
        (NOW + DAY + 90 * 60, "expired 2 h ago; check the clock"),
    ],
    ids=range(8),  # NOW differs between the processes of pytest-xdist
)
def test_dates_are_told_in_words(now: float, words: str) -> None:
    assert explain_time(an_svid(ISSUER).leaf, now) == words


# ---- trust -------------------------------------------------------------------------------------------------------


def test_a_trust_domain_that_we_do_not_know_is_refused() -> None:
    assert reason(an_svid(OTHER_ISSUER)) == "no_bundle"
    assert reason(an_svid(ISSUER), BundleSet()) == "no_bundle"


def test_an_empty_bundle_trusts_nothing() -> None:
    assert reason(an_svid(ISSUER), BundleSet((TrustBundle(DEMO, ()),))) == "unknown_root"


@pytest.mark.parametrize("issuer", [OTHER_ISSUER, an_issuer(OTHER_ROOT, uris=[]), OTHER_ROOT])
def test_a_root_of_another_trust_domain_cannot_vouch_for_ours_though_both_are_trusted(issuer: Authority) -> None:
    forged = an_svid(issuer, WEB)
    assert reason(forged, UNION) == "wrong_trust_domain"
    assert reason(forged, OURS) == "unknown_root"


def test_an_issuer_named_for_another_trust_domain_cannot_sign_for_ours_even_below_our_root() -> None:
    assert reason(an_svid(an_issuer(ROOT, uris=["spiffe://other.mesh"])), UNION) == "signer_trust_domain"


def test_a_root_that_we_hold_under_the_wrong_name_vouches_for_nobody() -> None:
    mislabelled = BundleSet((TrustBundle(DEMO, (OTHER_ROOT.certificate,)),))
    assert reason(an_svid(OTHER_ISSUER, WEB), mislabelled) == "signer_trust_domain"


@pytest.mark.parametrize("identifiers", [True, False], ids=["by key identifier", "by name alone"])
def test_an_impostor_with_the_name_of_our_root_is_refused(identifiers: bool) -> None:
    impostor = a_root("demo.mesh", key_identifiers=identifiers)
    forged = an_svid(an_issuer(impostor, key_identifiers=identifiers))
    assert reason(forged) in ("unknown_root", "bad_signature")
    with_its_root = an_svid(an_issuer(impostor), chain=(*forged.chain[1:], impostor.certificate))
    assert reason(with_its_root) in ("unknown_root", "bad_signature")


def test_a_self_signed_certificate_is_refused() -> None:
    key = new_key()
    assert reason([a_certificate(key, None, key, uris=[WEB], subject="me")]) == "unknown_root"


def test_a_chain_that_brings_a_root_we_do_not_hold_is_refused() -> None:
    stranger = a_root("demo.mesh", name="another root")
    issuer = an_issuer(stranger)
    assert reason(an_svid(issuer, chain=(issuer.certificate, stranger.certificate))) == "unknown_root"


def test_a_missing_intermediate_is_refused_and_said() -> None:
    with pytest.raises(UntrustedSvid, match=r"not a root of the demo\.mesh bundle, or an intermediate is missing"):
        verify_chain(an_svid(ISSUER, chain=()).chain, OURS, NOW)


def test_a_broken_signature_is_refused_wherever_it_is() -> None:
    svid = an_svid(ISSUER)
    assert reason([spoilt(svid.leaf), *svid.chain[1:]]) == "bad_signature"
    assert reason([svid.leaf, spoilt(svid.chain[1])]) == "bad_signature"


def test_no_certificate_at_all_is_refused() -> None:
    assert reason([]) == "no_certificate"


def test_a_chain_too_long_to_be_honest_is_refused_before_any_signature_is_checked() -> None:
    svid = an_svid(ISSUER)
    assert reason([svid.leaf, *[ISSUER.certificate] * MAX_CHAIN]) == "chain_too_long"
    assert verify_chain([svid.leaf, *[ISSUER.certificate] * (MAX_CHAIN - 1)], OURS, NOW) == svid.spiffe_id


def test_an_issuer_may_not_make_issuers_beyond_its_path_length() -> None:
    bounded = an_issuer(ROOT, name="bounded", path_length=0)
    assert reason(an_svid(an_issuer(bounded, name="below"))) == "path_length"


def test_name_constraints_of_an_issuer_bind() -> None:
    for domain, allowed in (("demo.mesh", True), ("other.mesh", False)):
        only = x509.NameConstraints([x509.UniformResourceIdentifier(domain)], None)
        svid = an_svid(an_issuer(ROOT, extra=[(only, True)]))
        if allowed:
            assert str(verify_chain(svid.chain, OURS, NOW)) == WEB
        else:
            assert reason(svid) == "bad_chain"


def test_a_critical_extension_that_nobody_knows_is_refused() -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    assert reason(an_svid(ISSUER, extra=[(strange, True)])) == "bad_chain"
    assert str(verify_chain(an_svid(ISSUER, extra=[(strange, False)]).chain, OURS, NOW)) == WEB


# ---- the profile, seen through the whole verification ------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("one_uri_san", {"uris": [WEB, "spiffe://demo.mesh/ns/default/sa/orders"]}),
        ("one_uri_san", {"uris": []}),
        ("not_a_ca", {"ca": True}),
        ("no_cert_sign", {"key_usage": ["digital_signature", "key_cert_sign"]}),
        ("eku_both", {"eku": [SERVER_AUTH]}),
        ("path_required", {"uris": ["spiffe://demo.mesh"]}),
        ("key_strength", {"key": rsa.generate_private_key(65537, 1024)}),
    ],
)
def test_a_leaf_outside_the_profile_is_refused_though_its_path_is_good(rule: str, broken: dict[str, Any]) -> None:
    assert reason(an_svid(ISSUER, **broken)) == rule


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("signer_is_ca", {"ca": False}),
        ("signer_cert_sign", {"key_usage": ["crl_sign"]}),
        ("signer_no_path", {"uris": ["spiffe://demo.mesh/mesh/ca"]}),
        ("signer_eku", {"eku": [SERVER_AUTH]}),
    ],
)
def test_an_issuer_outside_the_profile_is_refused(rule: str, broken: dict[str, Any]) -> None:
    assert reason(an_svid(an_issuer(ROOT, **broken))) == rule


def test_a_workload_cannot_act_as_issuer() -> None:
    web = an_svid(ISSUER, "web", subject="web")
    as_issuer = Authority(DEMO, web.leaf, web.key, ROOT.certificate, web.chain)
    assert reason(an_svid(as_issuer, "orders")) == "signer_is_ca"


def test_a_bundle_that_holds_what_is_no_ca_vouches_for_nobody() -> None:
    no_ca = a_root(ca=False)
    assert reason(an_svid(no_ca, chain=()), a_bundle_set(no_ca)) == "invalid_issuer"
    with_path = a_root(uris=[WEB])
    assert reason(an_svid(with_path, chain=()), a_bundle_set(with_path)) == "signer_no_path"


def test_what_openssl_cannot_read_is_refused_wherever_it_is() -> None:
    """`cryptography` takes an OCTET STRING for a name, OpenSSL does not: what two readers disagree on is refused."""
    svid = an_svid(ISSUER)
    for text, place in ((b"demo.mesh issuer", "leaf"), (b"demo.mesh root", "bundle")):
        utf8, octets = (bytes([tag, len(text)]) + text for tag in (0x0C, 0x04))
        der = (svid.leaf if place == "leaf" else ROOT.certificate).public_bytes(Encoding.DER)
        strange = parse_certificate(der.replace(utf8, octets))
        bundles = OURS if place == "leaf" else BundleSet((TrustBundle(DEMO, (strange,)),))
        assert reason([strange if place == "leaf" else svid.leaf, *svid.chain[1:]], bundles) == "bad_chain"


# ---- first contact (decision D15) --------------------------------------------------------------------------------

CA = an_svid(ISSUER, "spiffe://demo.mesh/mesh/ca", chain=(ISSUER.certificate, ROOT.certificate))
PIN = root_hash(ROOT.certificate)


def pinned_reason(svid: X509Svid, pins: set[str], domain: TrustDomain = DEMO, now: float = NOW) -> str:
    with pytest.raises(UntrustedSvid) as refusal:
        verify_pinned(svid.chain, pins, domain, now)
    return refusal.value.reason


def test_a_pinned_root_vouches_for_the_ca() -> None:
    assert str(verify_pinned(CA.chain, {PIN}, DEMO, NOW)) == "spiffe://demo.mesh/mesh/ca"
    assert str(verify_pinned(CA.chain, {"00" * 32, PIN}, DEMO, NOW)) == "spiffe://demo.mesh/mesh/ca"


def test_a_root_that_is_not_pinned_does_not() -> None:
    assert pinned_reason(CA, set()) == "not_pinned"
    assert pinned_reason(CA, {"00" * 32}) == "not_pinned"
    assert pinned_reason(CA, {PIN.upper()}) == "not_pinned"


def test_a_pinned_root_that_is_not_shown_does_not() -> None:
    assert pinned_reason(an_svid(ISSUER, "spiffe://demo.mesh/mesh/ca"), {PIN}) == "not_pinned"


def test_showing_the_pinned_root_beside_somebody_elses_chain_does_not_help() -> None:
    impostor = an_issuer(a_root("demo.mesh"))
    forged = an_svid(impostor, "spiffe://demo.mesh/mesh/ca", chain=(impostor.certificate, ROOT.certificate))
    assert pinned_reason(forged, {PIN}) == "unknown_root"


def test_a_pinned_issuer_is_no_root() -> None:
    assert pinned_reason(CA, {root_hash(ISSUER.certificate)}) == "unknown_root"


def test_a_pinned_leaf_is_no_root() -> None:
    key = new_key()
    alone = a_certificate(key, None, key, uris=["spiffe://demo.mesh/mesh/ca"])
    with pytest.raises(UntrustedSvid) as refusal:
        verify_pinned([alone], {root_hash(alone)}, DEMO, NOW)
    assert refusal.value.reason == "not_pinned"


def test_a_ca_of_another_trust_domain_is_refused_at_first_contact() -> None:
    theirs = an_svid(
        OTHER_ISSUER, "spiffe://other.mesh/mesh/ca", chain=(OTHER_ISSUER.certificate, OTHER_ROOT.certificate)
    )
    assert pinned_reason(theirs, {root_hash(OTHER_ROOT.certificate)}) == "wrong_trust_domain"


def test_time_counts_at_first_contact_too() -> None:
    assert pinned_reason(CA, {PIN}, now=NOW + 2 * DAY) == "expired"
    assert pinned_reason(CA, {PIN}, now=NOW - 2 * DAY) == "not_yet_valid"


# ---- any damage at all -------------------------------------------------------------------------------------------

DERS = [certificate.public_bytes(Encoding.DER) for certificate in an_svid(ISSUER, dns=["web"]).chain]


@pytest.mark.parametrize("which", [0, 1], ids=["leaf", "issuer"])
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_no_byte_of_a_chain_can_be_changed_unnoticed(which: int, flip: int) -> None:
    believed = []
    for place in range(len(DERS[which])):
        damaged = bytearray(DERS[which])
        damaged[place] ^= flip
        ders = [bytes(damaged) if index == which else der for index, der in enumerate(DERS)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cryptography warns of odd serial numbers, at the moment
            try:
                verify_chain([parse_certificate(der) for der in ders], OURS, NOW)
                believed.append(place)
            except (InvalidSvid, UntrustedSvid):
                continue
    assert believed == []
