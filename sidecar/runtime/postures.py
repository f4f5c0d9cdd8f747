"""Shouts while a listener is not strict, and notices when it is again (decision D12).

Nothing has to be noticed for a posture to end: every request asks what time it is. What is noticed here is for those
who do not ask any more (raw connections, upgrades: they are judged again) and for people: a warning at the start, at
each reload and every hour, and metrics that are computed at the moment of the scrape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sidecar.config.posture import Posture, posture_of, show_moment
from sidecar.telemetry.clock import rfc3339

if TYPE_CHECKING:
    from sidecar.config.schema_inbound import Inbound
    from sidecar.telemetry.metrics import Metrics
    from sidecar.telemetry.record import Recorder

REPEAT_SECONDS = 3600.0


class PostureWatch:
    """The postures of one sidecar's listeners, as they are declared and as they stand."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._clock = recorder.clock
        self._listeners: Sequence[Inbound] = ()
        self._declared: dict[str, Posture] = {}
        self._standing: dict[str, Posture] = {}  # those in force when we looked last
        self._shout_at = 0.0  # monotonic
        self._shown: set[tuple[str, str]] = set()  # listeners and postures that metrics have told of
        recorder.metrics.before_scrape(self._show)

    def declare(self, listeners: Sequence[Inbound]) -> None:
        """From now on these are the listeners: at the start, and with each reload."""
        self._listeners = listeners
        found = ((listener.name, posture_of(listener)) for listener in listeners)
        self._declared = {name: posture for name, posture in found if posture is not None}
        self._standing = self._in_force()
        self._shout()

    def look(self) -> bool:
        """Whether a listener is strict that was not when we looked last."""
        if not self._declared:
            return False
        before, self._standing = self._standing, self._in_force()
        ended = [name for name in before if name not in self._standing]
        for name in ended:
            self._warn(f"listener {name} is strict again", name, before[name])
        if len(self._standing) > len(before) - len(ended) or self._clock.monotonic() >= self._shout_at:
            self._shout()
        return bool(ended)

    def to_json(self, listener: Inbound) -> dict[str, Any]:
        """How this listener stands, for `mesh status`."""
        posture = posture_of(listener)
        if posture is None:
            return {"posture": "strict"}
        return {
            "posture": posture.kind if posture.in_force(self._clock.wall()) else "strict",
            "declared_posture": posture.kind,
            "until": rfc3339(posture.until),
            "would_refuse": self._recorder.metrics.would_refuse[listener.name],
        }

    def _in_force(self) -> dict[str, Posture]:
        wall = self._clock.wall()
        return {name: posture for name, posture in self._declared.items() if posture.in_force(wall)}

    def _shout(self) -> None:
        """Once for each that is not strict; the name is in the message, so that none is held back as a repetition."""
        self._shout_at = self._clock.monotonic() + REPEAT_SECONDS
        for name, posture in self._standing.items():
            self._warn(f"listener {name} is not strict", name, posture)

    def _warn(self, message: str, name: str, posture: Posture) -> None:
        if self._recorder.log is not None:
            self._recorder.log.warning(
                message, listener=name, posture=posture.kind, until=show_moment(posture.until),
                would_refuse=self._recorder.metrics.would_refuse[name],
            )  # fmt: skip

    def _show(self, metrics: Metrics) -> None:
        """Every label set that was told of before is told of again, for a gauge that vanishes keeps its last value."""
        now = self._standing_now(self._clock.wall())
        for labels in sorted(now.keys() | self._shown):
            until = now.get(labels)
            metrics.counter("mesh_posture").set(0 if until is None else 1, labels)
            if labels[1] != "strict":
                metrics.counter("mesh_posture_until_seconds").set(until or 0, labels)
        self._shown |= now.keys()

    def _standing_now(self, wall: float) -> dict[tuple[str, str], float]:
        """Each listener with the posture that it has, and the end of that; 0 for none."""
        found: dict[tuple[str, str], float] = {}
        for listener in self._listeners:
            posture = self._declared.get(listener.name)
            if posture is not None and posture.in_force(wall):
                found[listener.name, posture.kind] = posture.until
            else:
                found[listener.name, "strict"] = 0
        return found
