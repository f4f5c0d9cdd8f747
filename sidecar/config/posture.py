"""How an inbound listener treats callers that a strict one would refuse, and until when (decision D12).

    strict       mTLS is demanded and the rules are in force; the default
    permissive   plaintext is let in too, for a migration; what speaks mTLS is judged as ever
    observe      mTLS is demanded; the rules are judged and counted, but refuse nobody

Any posture but strict has an end, at most fourteen days ahead. When that has come, the listener is strict again by
itself. Nothing has to happen for it: whoever asks says what time it is. A clock that is set back makes no posture last
longer than fourteen days either, because one whose end is further ahead than that is not in force.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from sidecar.config.document import Scalar
from sidecar.config.plain import BadValue, Scope, quoted
from sidecar.config.schema_inbound import Inbound

Weakened = Literal["permissive", "observe"]

LONGEST: Final = 14 * 86400.0  # seconds; decision D12
# By how much a clock may be set back after `mesh check` has found an end fourteen days ahead to be near enough.
SLACK: Final = 3600.0

MOMENT_SCHEMA: Final = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2}))?$",
}
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(Z|[+-][0-9]{2}:[0-9]{2})?)?\Z", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Posture:
    """A posture other than strict, with its end in seconds since the epoch."""

    kind: Weakened
    until: float

    def in_force(self, wall: float) -> bool:
        """Whether the listener has it at this moment (seconds since the epoch); otherwise it is strict."""
        return self.until - LONGEST - SLACK <= wall < self.until


def posture_of(listener: Inbound) -> Posture | None:
    """What this listener declares; None for strict, and for what has no end."""
    if listener.posture == "strict" or listener.until is None:
        return None
    return Posture(listener.posture, listener.until)


def read_moment(scalar: Scalar, _: Scope) -> float:
    """Seconds since the epoch; a date alone means its first moment in UTC. Raises BadValue."""
    text = scalar.text
    found = _MOMENT.match(text)
    if found is None:
        raise BadValue(f"{quoted(text)} is neither a date nor a moment", _HINT)
    day, time, zone = found.groups()
    if time and not zone:
        raise BadValue(f"{quoted(text)} names no time zone", f"did you mean {text}Z?")
    try:
        return datetime.fromisoformat(f"{day}T{time or '00:00'}{zone or 'Z'}").timestamp()
    except (ValueError, OverflowError):
        raise BadValue(f"{quoted(text)} is in no calendar", _HINT) from None


_HINT: Final = "write a date such as 2026-01-31 (its first moment, UTC), or 2026-01-31T18:00:00Z"


def show_moment(seconds: float) -> str:
    """A moment as it may stand in a config: `2026-01-31T18:00:00Z`; text for what no calendar holds."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"
