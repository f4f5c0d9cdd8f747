"""What there is to know about our own identity at this moment: for `mesh status`, metrics and readiness."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CLOCK_TOLERANCE = 60.0  # seconds: a certificate is back-dated by as much (S5), so a larger skew makes handshakes fail

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class IdentityStatus:
    """A snapshot. Times are seconds since the epoch by our own clock; 0 where there is none yet."""

    spiffe_id: str
    serial: str = ""  # of the SVID in hand, lower-case hex
    not_after: float = 0.0
    next_renewal_at: float = 0.0  # or of the next try
    consecutive_failures: int = 0  # a CA that is busy and names a time to come back is no failure
    last_error: str = ""  # why the last try failed; empty once one has succeeded
    watch_error: str = ""  # why the watch is not connected; empty while it is
    clock_skew_seconds: float | None = None  # our clock minus the CA's (positive: ours is ahead); None until measured
    bundle_sequence: int | None = None
    ca_connected: bool = False  # the watch stands
    bundle_error: str = ""  # why the last trust bundle that came was not taken; empty where it was
    revoked: str = ""  # our own certificate is on the denylist: "serial", "spiffe_id" or "issuer"
    denylist_sequence: int | None = None  # of the denylist in force
    denylist_at: float = 0.0  # when the CA signed it
    denylist_entries: int = 0  # serials, SPIFFE IDs and issuing CAs on it
    denylist_heard_at: float = 0.0  # when the CA told us last, in this life
    denylist_refused: int = 0  # denylists that came and were not believed
    denylist_error: str = ""  # why the last of these was not; empty where the last one was
    issuer_not_after: float = 0.0  # of the issuing CA whose end comes first in our chain
    root_not_after: float = 0.0  # of the root that our chain leads to

    @property
    def clock_warning(self) -> str:
        """What to do about the clock; empty where it is close enough to the CA's."""
        skew = self.clock_skew_seconds
        return "" if skew is None or abs(skew) <= CLOCK_TOLERANCE else describe_skew(skew)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, the warning included."""
        return asdict(self) | {"clock_warning": self.clock_warning}


def describe_skew(skew: float) -> str:
    """A clock difference in words: `this machine's clock is 2 d ahead of the CA's; set it`."""
    amount = abs(skew)
    unit, size = next((pair for pair in _UNITS if amount >= pair[1] * 0.95), _UNITS[-1])
    return f"this machine's clock is {amount / size:.2g} {unit} {'ahead of' if skew > 0 else 'behind'} the CA's; set it"
