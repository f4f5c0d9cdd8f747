"""How long we could go on if the CA stayed away from now on: arithmetic only."""

from __future__ import annotations

from sidecar.identity.status import IdentityStatus


def first_end(status: IdentityStatus, max_age: float | None = None) -> tuple[float, str]:
    """When, in seconds since the epoch, and by which link: `svid`, `issuer`, `root`, or the `denylist`, where its age
    is limited (`revocation.max_age`, seconds). (0, "") before there is a certificate.
    """
    ends = [
        (end, link)
        for end, link in (
            (status.not_after, "svid"), (status.issuer_not_after, "issuer"), (status.root_not_after, "root"),
        )
        if end
    ]  # fmt: skip
    if ends and max_age is not None:
        ends.append((status.denylist_at + max_age, "denylist"))
    return min(ends, default=(0.0, ""))
