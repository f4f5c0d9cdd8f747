"""The certificate comes from the entry, ends with its issuer, and is looked at once more before it leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ca.errors import InvalidEntry, IssuerUnusable, TemplateViolation
from ca.signers import check_lifetimes, make_issuer, make_root
from ca.template import Template, draw_up, sign
from ca.validate import check_signed
from certs.bundle import BundleSet, TrustBundle
from certs.keys import new_key
from certs.svid import check_leaf, check_signer
from certs.verify import verify_chain
from tests.ca.office import DAY, DEMO, NOW, an_issuer

ORDERS = DEMO.id("ns", "default", "sa", "orders")
ISSUER = an_issuer()
KEY = new_key()


def a_template(ttl: float = DAY, now: float = NOW, issuer: Any = ISSUER, **changes: Any) -> Template:
    template = draw_up(ORDERS, ("a.b", "c"), ttl, KEY.public_key(), issuer.signers, now, bytes(range(16)))
    return replace(template, **changes)


def test_the_profile() -> None:
    template = a_template()
    leaf = sign(template, ISSUER.certificate, ISSUER.key)
    check_signed(leaf, template, ISSUER.certificate)
    assert check_leaf(leaf) == ORDERS
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert [name.value for name in names.value] == [ORDERS.text, "a.b", "c"]
    assert list(leaf.subject) == []
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
    assert (template.not_before, template.not_after) == (NOW - 60, NOW + DAY)
    bundles = BundleSet((TrustBundle(DEMO, (ISSUER.root,)),))
    assert verify_chain((leaf, ISSUER.certificate), bundles, NOW) == ORDERS


def test_root_and_issuing_ca_are_signers_by_the_verifiers_rules() -> None:
    check_signer(ISSUER.root)
    check_signer(ISSUER.certificate, ORDERS)
    assert ISSUER.certificate.subject != ISSUER.root.subject
    assert an_issuer().root.subject != ISSUER.root.subject


LIVES = [
    # root, issuing CA, ttl of the entry, asked at, and the life that comes out
    (3650 * DAY, 30 * DAY, DAY, 0.0, DAY),
    (3650 * DAY, 30 * DAY, DAY, 29.5 * DAY, 0.5 * DAY),
    (3650 * DAY, 30 * DAY, 7 * DAY, 24 * DAY, 6 * DAY),
    (10 * DAY, 10 * DAY, 7 * DAY, 9 * DAY, DAY),
    (3650 * DAY, 30 * DAY, DAY, 30 * DAY - 20, 20),
]


@pytest.mark.parametrize(("root_ttl", "issuer_ttl", "ttl", "at", "life"), LIVES)
def test_a_leaf_never_outlives_its_issuer(
    root_ttl: float, issuer_ttl: float, ttl: float, at: float, life: float
) -> None:
    issuer = an_issuer(NOW, root_ttl, issuer_ttl)
    template = a_template(ttl, NOW + at, issuer)
    assert template.not_after - (NOW + at) == life
    leaf = sign(template, issuer.certificate, issuer.key)
    assert leaf.not_valid_after_utc <= issuer.certificate.not_valid_after_utc <= issuer.root.not_valid_after_utc
    assert leaf.not_valid_before_utc >= issuer.certificate.not_valid_before_utc


@pytest.mark.parametrize(
    ("at", "says"),
    [(30 * DAY - 19, "renew"), (30 * DAY + 1, "expired"), (400 * DAY, "expired"), (-2 * DAY, "not valid for another")],
)
def test_an_issuer_at_its_end_signs_nothing(at: float, says: str) -> None:
    with pytest.raises(IssuerUnusable, match=says):
        a_template(now=NOW + at)


def test_an_expired_root_makes_its_issuer_unusable() -> None:
    root_key, key = new_key(), new_key()
    root = make_root(DEMO, root_key, NOW, DAY)
    certificate = make_issuer(DEMO, key, root, root_key, NOW, 30 * DAY)
    assert certificate.not_valid_after_utc == root.not_valid_after_utc
    with pytest.raises(IssuerUnusable, match="new root"):
        make_issuer(DEMO, key, root, root_key, NOW + DAY, DAY)


@pytest.mark.parametrize("lifetimes", [(DAY, 2 * DAY), (60.0, 30.0), (51 * 365 * DAY, DAY), (float("nan"), DAY)])
def test_lifetimes_that_make_no_sense(lifetimes: tuple[float, float]) -> None:
    with pytest.raises(InvalidEntry):
        check_lifetimes(*lifetimes)


DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"spiffe_id": DEMO.id("ns", "default", "sa", "web")}, "SPIFFE ID"),
    ({"dns_names": ("a.b",)}, "DNS names, other names"),
    ({"not_before": int(NOW)}, "not before"),
    ({"not_after": int(NOW) + 1}, "not after"),
    ({"serial": 5}, "serial"),
    ({"public_key": new_key().public_key()}, "public key"),
]


@pytest.mark.parametrize(("changes", "says"), DIFFERENCES)
def test_the_last_look_finds_every_difference(changes: dict[str, Any], says: str) -> None:
    leaf = sign(a_template(), ISSUER.certificate, ISSUER.key)
    with pytest.raises(TemplateViolation, match=says):
        check_signed(leaf, a_template(**changes), ISSUER.certificate)


def test_the_last_look_refuses_what_is_no_svid_or_not_ours() -> None:
    other = an_issuer()
    with pytest.raises(TemplateViolation, match="no SVID"):
        check_signed(ISSUER.certificate, a_template(), ISSUER.root)
    with pytest.raises(TemplateViolation, match="signature"):
        check_signed(sign(a_template(), ISSUER.certificate, other.key), a_template(), ISSUER.certificate)
    borrowed = a_template(public_key=ISSUER.certificate.public_key())
    late = a_template(not_after=int((ISSUER.certificate.not_valid_after_utc + timedelta(1)).timestamp()))
    for template, says in ((borrowed, "key of its own"), (late, "end before its issuer")):
        signed = sign(template, ISSUER.certificate, ISSUER.key)
        with pytest.raises(TemplateViolation, match=says):
            check_signed(signed, template, ISSUER.certificate)
