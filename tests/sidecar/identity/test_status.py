"""A clock that is wrong is named, with how much and which way."""

from __future__ import annotations

import json

import pytest

from sidecar.identity.status import IdentityStatus, describe_skew

MINUTES, DAYS = 60.0, 86400.0


@pytest.mark.parametrize(
    ("skew", "words"),
    [
        (2 * MINUTES, "2 min ahead of"),
        (-2 * MINUTES, "2 min behind"),
        (2 * DAYS, "2 d ahead of"),
        (-2 * DAYS + 1, "2 d behind"),
        (7200.0, "2 h ahead of"),
        (-61.0, "1 min behind"),
        (0.4, "0.4 s ahead of"),
    ],
)
def test_a_skew_in_words(skew: float, words: str) -> None:
    assert describe_skew(skew) == f"this machine's clock is {words} the CA's; set it"


@pytest.mark.parametrize(("skew", "warns"), [(None, False), (0.0, False), (59.0, False), (-60.0, False), (61.0, True)])
def test_only_a_skew_beyond_the_back_dating_is_worth_a_warning(skew: float | None, warns: bool) -> None:
    status = IdentityStatus("spiffe://demo.mesh/x", clock_skew_seconds=skew)
    assert bool(status.clock_warning) is warns


def test_it_is_json() -> None:
    status = IdentityStatus("spiffe://demo.mesh/x", clock_skew_seconds=120.0)
    document = json.loads(json.dumps(status.as_json()))
    assert document["spiffe_id"] == "spiffe://demo.mesh/x"
    assert "clock" in document["clock_warning"]
    assert document["bundle_sequence"] is None
