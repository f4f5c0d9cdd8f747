"""Two callers of one server, one of which asks for more and more: with progressive throttling and without."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from sidecar.traffic.outcome import Outcome
from sidecar.traffic.throttle import Stage, Throttle, ThrottleRules
from tests.sim.engine import Engine
from tests.sim.world import Server, open_loop

SECONDS = 120
STEP = 3  # seconds of one point in the drawing
RULES = ThrottleRules(rate=100.0, burst=20, longest=2.0, places=500, strikes=2000, block=20.0)


@dataclass
class Waits:
    """What one caller's requests have waited for, by the second in which they were asked."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    stages: dict[int, dict[Stage, int]] = field(default_factory=dict)

    def percentile(self, at: int, share: float) -> float:
        """Milliseconds, of those asked from then on for one step; 0 where none was answered."""
        found = sorted(wait for second in range(at, at + STEP) for wait in self.seconds.get(second, ()))
        return 1000 * found[min(len(found) - 1, int(len(found) * share))] if found else 0.0

    def share(self, at: int, *stages: Stage) -> float:
        """What part of the requests asked from then on for one step came to one of these stages."""
        counts = [self.stages.get(second, {}) for second in range(at, at + STEP)]
        asked = sum(sum(each.values()) for each in counts)
        return sum(each.get(stage, 0) for each in counts for stage in stages) / max(1, asked)


def play(*, throttled: bool) -> dict[str, Waits]:
    """A server of 200 requests a second; `good` asks 50 a second, `abusive` 50 at first and 350 in the end."""
    engine, dice = Engine(), Random(8)
    server = Server(engine, dice, service=0.005, queue=400)
    throttle = Throttle(RULES)
    waits = {"good": Waits(), "abusive": Waits()}

    def ask(who: str) -> None:
        began = engine.now
        said = throttle.check(began, who) if throttled else None
        stage = said.stage if said is not None else Stage.FREE
        counts = waits[who].stages.setdefault(int(began), {})
        counts[stage] = counts.get(stage, 0) + 1

        def answered(outcome: Outcome) -> None:
            if outcome == Outcome.GOOD:
                waits[who].seconds.setdefault(int(began), []).append(engine.now - began)

        def go_on() -> None:
            throttle.leave(who)
            server.ask(answered)

        if stage == Stage.FREE:
            server.ask(answered)
        elif stage == Stage.DELAYED:
            assert said is not None
            engine.after(said.wait, go_on)

    open_loop(engine, dice, lambda now: 50.0, lambda: ask("good"))
    open_loop(engine, dice, lambda now: 50.0 + 300.0 * now / SECONDS, lambda: ask("abusive"))
    engine.run(float(SECONDS + 10))
    return waits
