"""Who hears of a listener that is not strict, when and how often; and how its end is noticed."""

from __future__ import annotations

from typing import Any

from sidecar.config.posture import LONGEST
from sidecar.config.schema_inbound import Inbound
from sidecar.hop import Waived
from sidecar.net.memory import EPOCH, MemoryClock
from sidecar.runtime.postures import REPEAT_SECONDS, PostureWatch
from sidecar.telemetry.record import Recorder
from tests.kit.hops import a_hop
from tests.memory.test_postures import LASTS


class Ear:
    """An operational log that keeps warnings."""

    suppressed = 0

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def warning(self, message: str, **fields: Any) -> None:
        self.heard.append((message, fields))

    def take(self) -> list[str]:
        messages = [message for message, _ in self.heard]
        self.heard.clear()
        return messages


class Scene:
    """A watch, its clock, and what it tells."""

    def __init__(self, *listeners: Inbound) -> None:
        self.clock, self.ear = MemoryClock(), Ear()
        self.recorder = Recorder(instance="0a0b0c0d", clock=self.clock, log=self.ear)  # type: ignore[arg-type]
        self.watch = PostureWatch(self.recorder)
        self.watch.declare(listeners)

    def after(self, seconds: float) -> bool:
        """Look after so many seconds."""
        self.clock.advance_to(self.clock.monotonic() + seconds)
        return self.watch.look()

    def metrics(self) -> list[str]:
        lines = self.recorder.metrics.render().decode().splitlines()
        return [line for line in lines if line.startswith("mesh_posture")]


def listener(name: str, posture: Any = "strict", until: float | None = EPOCH + LASTS) -> Inbound:
    return Inbound(name=name, port=1, posture=posture, until=None if posture == "strict" else until)


def test_it_shouts_at_the_start_every_hour_and_once_when_it_is_over() -> None:
    scene = Scene(listener("a"), listener("b", "observe", EPOCH + 2.5 * REPEAT_SECONDS))
    assert scene.ear.heard == [
        ("listener b is not strict", {"listener": "b", "posture": "observe", "until": "2023-11-15T00:43:20Z",
                                      "would_refuse": 0})
    ]  # fmt: skip
    scene.ear.take()
    assert not scene.after(1.0)
    assert not scene.after(REPEAT_SECONDS - 2.0)
    assert scene.ear.take() == []
    assert not scene.after(1.0)
    assert scene.ear.take() == ["listener b is not strict"]
    assert not scene.after(REPEAT_SECONDS)
    assert scene.ear.take() == ["listener b is not strict"]
    assert scene.after(0.5 * REPEAT_SECONDS)
    assert scene.ear.take() == ["listener b is strict again"]
    assert not scene.after(10 * REPEAT_SECONDS)
    assert scene.ear.take() == []


def test_each_listener_is_told_of_so_that_none_is_held_back_as_a_repetition() -> None:
    scene = Scene(*(listener(f"l{number}", "permissive") for number in range(20)))
    assert len(set(scene.ear.take())) == 20


def test_a_reload_tells_again_and_what_it_takes_away_is_told_as_gone() -> None:
    scene = Scene(listener("a", "permissive"), listener("b", "observe"))
    assert scene.metrics() == [
        'mesh_posture{listener="a",posture="permissive"} 1',
        'mesh_posture{listener="b",posture="observe"} 1',
        f'mesh_posture_until_seconds{{listener="a",posture="permissive"}} {EPOCH + LASTS}',
        f'mesh_posture_until_seconds{{listener="b",posture="observe"}} {EPOCH + LASTS}',
    ]
    scene.ear.take()
    scene.watch.declare([listener("a", "strict"), listener("c", "observe")])
    assert scene.ear.take() == ["listener c is not strict"]
    shown = scene.metrics()
    for line in (
        'mesh_posture{listener="a",posture="permissive"} 0',
        'mesh_posture{listener="a",posture="strict"} 1',
        'mesh_posture{listener="b",posture="observe"} 0',
        'mesh_posture{listener="c",posture="observe"} 1',
        'mesh_posture_until_seconds{listener="a",posture="permissive"} 0',
        'mesh_posture_until_seconds{listener="b",posture="observe"} 0',
        f'mesh_posture_until_seconds{{listener="c",posture="observe"}} {EPOCH + LASTS}',
    ):
        assert line in shown
    assert not scene.after(1.0)  # what a reload made strict is the reload's affair


def test_metrics_know_the_end_at_once() -> None:
    scene = Scene(listener("a", "permissive"))
    scene.clock.advance_to(LASTS - 0.001)
    assert 'mesh_posture{listener="a",posture="permissive"} 1' in scene.metrics()
    scene.clock.advance_to(LASTS)
    assert {'mesh_posture{listener="a",posture="permissive"} 0', 'mesh_posture{listener="a",posture="strict"} 1',
            'mesh_posture_until_seconds{listener="a",posture="permissive"} 0'} <= set(scene.metrics())  # fmt: skip


def test_a_clock_that_jumps_ends_it_and_may_bring_it_back() -> None:
    scene = Scene(listener("a", "observe"))
    scene.ear.take()
    scene.clock.jump(LASTS)
    assert scene.after(0.5)
    assert scene.ear.take() == ["listener a is strict again"]
    scene.clock.jump(-LASTS)
    assert not scene.after(0.5)
    assert scene.ear.take() == ["listener a is not strict"]
    scene.clock.jump(-2 * LONGEST)
    assert scene.after(0.5)


def test_status_tells_how_it_stands_and_what_strict_would_have_refused() -> None:
    spec = listener("http", "observe")
    scene = Scene(spec, listener("other"))
    assert scene.watch.to_json(listener("other")) == {"posture": "strict"}
    waived = Waived("observe", EPOCH + LASTS, "policy_denied", "PD")
    for _ in range(3):
        scene.recorder.observe(a_hop(waived=waived, rule=waived.let_in_by, decision_id=scene.recorder.decision_id()))
    until = "2023-11-14T23:13:20.000000Z"
    assert scene.watch.to_json(spec) == {
        "posture": "observe", "declared_posture": "observe", "until": until, "would_refuse": 3
    }  # fmt: skip
    scene.clock.advance_to(LASTS)
    assert scene.watch.to_json(spec) == {
        "posture": "strict", "declared_posture": "observe", "until": until, "would_refuse": 3
    }  # fmt: skip
