"""How long an answer without end may go on that only a listener's posture let in (decision D12).

Raw connections and upgrades are judged again when a posture ends. An answer is judged once, before it begins; one that
has a length comes to its own end, and one that has none comes to the posture's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.errors import PolicyDenied
from sidecar.net.port import NEVER
from sidecar.proxy.tcp import Lease, lease_of

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.net.port import Port


@dataclass(frozen=True, slots=True)
class PostureLease(Lease):
    """A lease that ends with a posture, if the certificate does not end before."""

    posture_end: float = NEVER  # monotonic

    def limit(self, moved_at: float) -> float:
        """When it is over, if nothing moves after `moved_at`."""
        return min(self.posture_end, Lease.limit(self, moved_at))

    def check(self, now: float, moved_at: float) -> None:
        """Raise CertificateEnded or PolicyDenied where it is over."""
        if now >= self.posture_end:
            error = PolicyDenied("the listener is strict again, and only its posture had let this pass")
            error.midway = "policy"
            raise error
        Lease.check(self, now, moved_at)


def lease_of_answer(hop: Hop, port: Port) -> Lease:
    """How long an answer without end may go on: as its certificate allows, and the posture that let it in."""
    lease = lease_of(hop, port)
    if hop.waived is None:
        return lease
    left = hop.waived.until - port.wall()
    return PostureLease(lease.end, lease.quiet_from, port.now + max(0.0, left))
