"""Words for what a listener's posture lets pass and a strict one would refuse (decision D12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.config.posture import posture_of, show_moment
from sidecar.policy.reasons import reason_for
from sidecar.policy.words import Reason

if TYPE_CHECKING:
    from sidecar.config.schema import Service
    from sidecar.hop import Waived


def strict_says(waived: Waived) -> str:
    """What a strict listener would have done, in a line."""
    reason = f" ({waived.reason})" if waived.reason else ""
    rule = f", deny rule {waived.rule!r}" if waived.rule else ""
    return (
        f"strict would refuse this: flag {waived.flag}, {waived.error}{reason}{rule}; posture {waived.posture} lets it "
        f"pass until {show_moment(waived.until)}"
    )


def reason_of_waived(waived: Waived, **facts: Any) -> Reason:
    """What strict would tell of it, and what to do before that day; `facts` as in `reasons.reason_for`."""
    why = reason_for(waived.error, waived.reason, **(facts | {"detail": waived.detail}))
    happened = f"It passed only because the listener is not strict yet. {why.happened}"
    return Reason(happened, f"Before {show_moment(waived.until)}: {why.todo[:1].lower()}{why.todo[1:]}")


def observed(service: Service, listener: str, wall: float) -> str:
    """Of a caller whom the rules refuse: that it passes at this moment all the same; empty where it does not."""
    postures = (posture_of(spec) for spec in service.inbound if spec.name == listener)
    for posture in postures:
        if posture is not None and posture.kind == "observe" and posture.in_force(wall):
            until = show_moment(posture.until)
            return f"strict would refuse this; listener {listener} is in posture observe, so it passes until {until}"
    return ""
