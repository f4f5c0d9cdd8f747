"""How long what lasts may go on: as long as all that it rests on.

That is the caller's certificate (decision D17), and the bearer token of the user behind it. An answer that only a
listener's posture let in ends with that too (decision D12); raw connections and upgrades are judged again then. A
request is judged once, before it begins: one whose answer has a length comes to its own end, whatever becomes of token
or posture meanwhile, but no end of a certificate is outlived.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.errors import CertificateEnded, HopError, PolicyDenied, TokenEnded
from sidecar.net.port import NEVER

if TYPE_CHECKING:
    from sidecar.hop import Hop
    from sidecar.net.port import Port

QUIET_SECONDS = 1.0
LAST_SHARE = 0.1  # of a certificate's time


def _none() -> HopError:
    raise AssertionError("a lease without an end is never over")


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a connection may last, in monotonic seconds."""

    end: float = NEVER  # the end of the certificate
    quiet_from: float = NEVER  # from here on the first quiet second is taken instead
    other_end: float = NEVER  # of what else it rests on
    other: Callable[[], HopError] = _none  # what is told then

    def limit(self, moved_at: float) -> float:
        """When it is over, if nothing moves after `moved_at`."""
        return min(self.end, self.other_end, max(self.quiet_from, moved_at + QUIET_SECONDS))

    def check(self, now: float, moved_at: float) -> None:
        """Raise CertificateEnded, TokenEnded or PolicyDenied where it is over."""
        if now >= self.end:
            raise CertificateEnded("the peer's certificate has reached its end, and the connection with it")
        if now >= self.other_end:
            raise self.other()
        if now >= self.limit(moved_at):
            raise CertificateEnded(
                f"the last tenth of the peer's certificate has begun, and for {QUIET_SECONDS:g} s nothing moved: "
                "better now than in the middle of something",
                quiet=True,
            )


def lease_of(hop: Hop, port: Port) -> Lease:
    """How long the certificate and the token allow that this hop rests on.

    Who connects in the last tenth already (the CA is away, say) is not cut in every quiet second: only at the end.
    """
    tls, token = hop.tls, hop.token
    token_end = NEVER if token is None else port.now + max(0.0, token.until - port.wall())
    if tls is None:
        return Lease(other_end=token_end, other=TokenEnded)
    left = tls.not_after - port.wall()
    end = port.now + max(0.0, left)
    last = (tls.not_after - tls.not_before) * LAST_SHARE
    return Lease(end, end - last if tls.not_before and left > last else NEVER, token_end, TokenEnded)


def lease_of_answer(hop: Hop, port: Port) -> Lease:
    """How long an answer without end may go on: also no longer than the posture that let it in."""
    lease = lease_of(hop, port)
    if hop.waived is None:
        return lease
    posture_end = port.now + max(0.0, hop.waived.until - port.wall())
    return lease if lease.other_end < posture_end else Lease(lease.end, lease.quiet_from, posture_end, _strict_again)


def _strict_again() -> PolicyDenied:
    error = PolicyDenied("the listener is strict again, and only its posture had let this pass")
    error.midway = "policy"
    return error
