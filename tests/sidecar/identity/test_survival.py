"""How long we could go on without the CA."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.identity.status import IdentityStatus
from sidecar.identity.survival import first_end

STATUS = IdentityStatus("spiffe://demo.mesh/web", not_after=100.0, issuer_not_after=300.0, root_not_after=900.0)


@pytest.mark.parametrize(
    ("status", "max_age", "expected"),
    [
        (IdentityStatus("spiffe://demo.mesh/web"), None, (0.0, "")),
        (IdentityStatus("spiffe://demo.mesh/web"), 5.0, (0.0, "")),
        (STATUS, None, (100.0, "svid")),
        (replace(STATUS, issuer_not_after=50.0), None, (50.0, "issuer")),
        (replace(STATUS, root_not_after=20.0), None, (20.0, "root")),
        (replace(STATUS, denylist_at=30.0), 60.0, (90.0, "denylist")),
        (replace(STATUS, denylist_at=30.0), 600.0, (100.0, "svid")),
        (STATUS, 60.0, (60.0, "denylist")),
    ],
)
def test_the_first_link_that_ends(
    status: IdentityStatus, max_age: float | None, expected: tuple[float, str]
) -> None:
    assert first_end(status, max_age) == expected
