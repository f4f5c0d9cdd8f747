"""Is any link of a chain about to end, or late with its renewal? Arithmetic for `mesh certs check`.

A gate that only counts days fails every day of the year where certificates live for one, and is switched off. So a
link that renews itself is bad when it is *late*: it should have been replaced by now, and was not. A link that nobody
renews by himself (the root, a certificate in a file) is bad when less time is left than was asked for. Nothing is late
that has more time left than was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cryptography import x509

from certs.bundle import BundleSet
from certs.verify import issued

LinkName = Literal["leaf", "issuer", "root", "file"]
# Of its life, what may be left of a link that renews itself, at the least. A leaf is renewed with 0.45 to 0.55 left
# (certs.rotation); an issuing CA is followed with a sixth left (ca.slots), and leaves change over in their own time.
LATE: dict[LinkName, float | None] = {"leaf": 0.4, "issuer": 1 / 7, "root": None, "file": None}
BACKDATED_SECONDS = 60.0  # of its life before it was issued (semantics S5)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One certificate of a chain, and whether its end is far enough away. Times in seconds since the epoch."""

    link: LinkName
    serial: str
    subject: str
    not_after: float
    ok: bool
    detail: str

    def to_json(self, now: float) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "link": self.link, "serial": self.serial, "subject": self.subject, "not_after": self.not_after,
            "left_seconds": round(self.not_after - now), "ok": self.ok, "detail": self.detail,
        }  # fmt: skip


def check_chain(
    chain: Sequence[x509.Certificate], bundles: BundleSet | None, now: float, fail_before: float
) -> list[Verdict]:
    """Each link of a served chain (leaf first), and the root that vouches for it and ends last, where it is known."""
    verdicts = [check_link("leaf" if number == 0 else "issuer", one, now, fail_before) for number, one in
                enumerate(chain)]  # fmt: skip
    roots = [root for bundle in bundles or () for root in bundle.roots if chain and issued(root, chain[-1])]
    if roots:
        verdicts.append(check_link("root", max(roots, key=lambda one: one.not_valid_after_utc), now, fail_before))
    return verdicts


def check_link(link: LinkName, certificate: x509.Certificate, now: float, fail_before: float) -> Verdict:
    """One certificate. `fail_before` is in seconds."""
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    share, left = LATE[link], ends - now
    life = max(0.0, ends - begins - BACKDATED_SECONDS)
    least = fail_before if share is None else min(fail_before, share * life)
    if left <= 0:
        detail = "has ended"
    elif left >= least:
        detail = "good"
    elif share is not None:
        detail = "should have been renewed by now"
    else:
        detail = "ends too soon"
    serial, subject = f"{certificate.serial_number:x}", certificate.subject.rfc4514_string()
    return Verdict(link, serial, subject, ends, left > 0 and left >= least, detail)
