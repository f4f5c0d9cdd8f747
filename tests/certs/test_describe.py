"""A chain in words: every check of the verifier, one by one, and never an exception for what a certificate says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import BundleSet
from certs.describe import bundle_of_pem, describe, judge
from certs.errors import InvalidSvid
from certs.spiffe import TrustDomain
from certs.svid import X509Svid
from tests.kit.identities import DAY, NOW, Authority, a_bundle_set, a_root, an_issuer, an_svid

ROOT = a_root()
ISSUER = an_issuer(ROOT)
BUNDLES = a_bundle_set(ROOT)


def test_a_good_chain_passes_every_check() -> None:
    findings = judge(an_svid(ISSUER, "web").chain, BUNDLES, NOW)
    assert [(finding.name, finding.ok) for finding in findings] == [
        ("profile", True), ("issuer", True), ("time", True), ("trust", True),
    ]  # fmt: skip
    assert "spiffe://demo.mesh/ns/default/sa/web" in findings[0].detail
    assert findings[0].to_json() == {"check": "profile", "ok": True, "detail": findings[0].detail}


Bad = Callable[[Authority], X509Svid]


@pytest.mark.parametrize(
    ("bad", "failing", "words"),
    [
        (lambda i: an_svid(i, uris=["spiffe://a/b", "spiffe://a/c"]), {"profile", "trust"}, "[one_uri_san]"),
        (lambda i: an_svid(i, ca=True), {"profile", "trust"}, "[not_a_ca]"),
        (lambda i: an_svid(i, not_after=NOW - 60), {"time", "trust"}, "expired"),
        (lambda i: an_svid(i, not_before=NOW + DAY, not_after=NOW + 2 * DAY), {"time", "trust"}, "not valid for"),
        (lambda i: an_svid(an_issuer(a_root()), "web"), {"trust"}, "[unknown_root]"),
        (lambda i: an_svid(an_issuer(a_root("other.mesh")), "web"), {"trust"}, "[no_bundle]"),
    ],
)
def test_each_fault_is_found_by_its_own_check(bad: Bad, failing: set[str], words: str) -> None:
    findings = judge(bad(ISSUER).chain, BUNDLES, NOW)
    assert {finding.name for finding in findings if not finding.ok} == failing
    assert any(words in finding.detail for finding in findings if not finding.ok)


def test_a_leaf_in_the_place_of_an_issuer_is_named() -> None:
    web, other = an_svid(ISSUER, "web"), an_svid(ISSUER, "other")
    findings = judge((web.leaf, other.leaf), None, NOW)
    assert [finding.name for finding in findings if not finding.ok] == ["issuer"]
    assert "[signer_is_ca]" in findings[1].detail


def test_without_bundles_trust_is_left_open_and_without_roots_it_is_refused() -> None:
    chain = an_svid(ISSUER, "web").chain
    assert "trust" not in {finding.name for finding in judge(chain, None, NOW)}
    assert not judge(chain, BundleSet(), NOW)[-1].ok


def test_what_a_certificate_says_of_itself() -> None:
    leaf = describe(an_svid(ISSUER, "web").leaf, NOW)
    assert leaf["uris"] == ["spiffe://demo.mesh/ns/default/sa/web"]
    assert (leaf["ca"], leaf["key"]) == (False, "EC secp256r1")
    assert leaf["not_after"] == NOW + DAY
    assert describe(ROOT.certificate, NOW)["ca"] is True


def test_roots_in_pem_speak_for_the_one_domain_they_are_read_for() -> None:
    pem = ROOT.certificate.public_bytes(Encoding.PEM)
    assert bundle_of_pem(TrustDomain.parse("demo.mesh"), pem).roots == (ROOT.certificate,)
    with pytest.raises(InvalidSvid):
        bundle_of_pem(TrustDomain.parse("demo.mesh"), an_svid(ISSUER, "web").leaf.public_bytes(Encoding.PEM))
    with pytest.raises(ValueError):
        bundle_of_pem(TrustDomain.parse("demo.mesh"), b"no PEM")
