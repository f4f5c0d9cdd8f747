"""What a gate for CI says of a chain: late, too close to its end, or good."""

from __future__ import annotations

import pytest

from certs.expiry import LinkName, check_chain, check_link
from tests.kit.identities import BACKDATE, DAY, NOW, a_bundle_set, a_root, an_issuer, an_svid

MONTH = 30 * DAY
ROOT = a_root(days=40)
ISSUER = an_issuer(ROOT, days=29)


@pytest.mark.parametrize(
    ("link", "left", "fail_before", "ok", "detail"),
    [
        ("leaf", 0.5 * DAY, MONTH, True, "good"),
        ("leaf", 0.4 * DAY, MONTH, True, "good"),
        ("leaf", 0.39 * DAY, MONTH, False, "should have been renewed by now"),
        ("leaf", 0.39 * DAY, 3600.0, True, "good"),  # nothing is late that has more time left than was asked for
        ("leaf", 0.0, 1.0, False, "has ended"),
        ("leaf", -DAY, 0.001, False, "has ended"),
        ("issuer", 0.15 * DAY, MONTH, True, "good"),
        ("issuer", 0.14 * DAY, MONTH, False, "should have been renewed by now"),
        ("root", 0.99 * DAY, DAY, False, "ends too soon"),
        ("root", DAY, DAY, True, "good"),
        ("file", 0.99 * DAY, DAY, False, "ends too soon"),
    ],
)
def test_a_link(link: LinkName, left: float, fail_before: float, ok: bool, detail: str) -> None:
    """Of a certificate whose life, without what it is back-dated by, is one day."""
    certificate = an_svid(ISSUER, not_before=NOW - BACKDATE, not_after=NOW + DAY).leaf
    verdict = check_link(link, certificate, NOW + DAY - left, fail_before)
    assert (verdict.ok, verdict.detail) == (ok, detail)


def test_a_chain_with_its_root() -> None:
    svid, others = an_svid(ISSUER), a_root(days=3)
    verdicts = check_chain(svid.chain, a_bundle_set(ROOT, others), NOW, MONTH)
    assert [(verdict.link, verdict.ok) for verdict in verdicts] == [("leaf", True), ("issuer", True), ("root", True)]
    late = check_chain(svid.chain, a_bundle_set(ROOT), NOW + 11 * DAY, MONTH)
    assert [verdict.ok for verdict in late] == [False, True, False]
    assert [verdict.link for verdict in check_chain(svid.chain, None, NOW, MONTH)] == ["leaf", "issuer"]
    assert late[2].to_json(NOW + 11 * DAY)["left_seconds"] == round(29 * DAY)
