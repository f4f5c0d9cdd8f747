"""What a sidecar tells the caller's sidecar of the application behind it: that it failed, and whether it was asked.

A refusal by a peer's sidecar says nothing of the endpoint (decision D24), but some of its answers are no refusals: the
application is down, hung up, or silent for too long. The caller's sidecar alone can do something about that: it knows
other endpoints. So such an answer has a hop header (decision D21), which is believed from a verified peer alone and
never leaves the mesh:

    mesh-failed: unsent     the application could not be connected to: another may be asked, whatever the method
    mesh-failed: sent       it may have begun

It says nothing that 502, 503 and 504 do not say, only that they are not about the caller. Overload, drains and limits
of the sidecar itself do not have it, nor has a kept connection that had gone stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.errors import HopError, Retry
from sidecar.http.headers import first
from sidecar.traffic.outcome import Outcome, of_error

if TYPE_CHECKING:
    from sidecar.hop import Headers

FAILED: Final = b"mesh-failed"
UNSENT: Final = b"unsent"
SENT: Final = b"sent"


def told_of(error: HopError) -> Headers:
    """The field that an answer to a verified peer has for this error, if any."""
    if of_error(error) is not Outcome.LOCAL:
        return []
    return [(FAILED, UNSENT if error.retry is Retry.YES else SENT)]


def heard_in(headers: Headers) -> bytes | None:
    """`UNSENT`, `SENT`, or None where a peer's answer says nothing of the application."""
    said = first(headers, FAILED)
    return said if said in (UNSENT, SENT) else None
