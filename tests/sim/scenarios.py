"""Bad days, each played with budget and breakers and without. The numbers of each are in its docstring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from sidecar.traffic.destination import DestinationRules
from tests.sim.engine import Engine
from tests.sim.world import Books, Habits, Relay, Server, Sidecar, open_loop

GUARDED = Habits(DestinationRules())
BARE = Habits(DestinationRules(watch=False), bounded=False, nearest=False)


@dataclass(frozen=True)
class Scenario:
    """A bad day."""

    name: str
    what: str  # one line for the plot
    play: Callable[[Habits], Books]
    seconds: int
    trouble: tuple[int, int]  # seconds between which something is wrong


def _servers(engine: Engine, dice: Random, count: int, **options: float) -> dict[str, Server]:
    return {f"10.0.{n // 250}.{n % 250 + 1}": Server(engine, dice, **options) for n in range(count)}  # type: ignore[arg-type]


def _set(servers: list[Server], **values: object) -> Callable[[], None]:
    def change() -> None:
        for server in servers:
            for name, value in values.items():
                setattr(server, name, value)

    return change


def metastable(habits: Habits) -> Books:
    """Ten servers of 10 requests a second each, asked 70 a second by ten sidecars that wait 1 s. For 20 s all of them
    are five times as slow. Their queues fill with requests that nobody waits for any more.
    """
    engine, dice, books = Engine(), Random(1), Books()
    servers = _servers(engine, dice, 10, service=0.1, queue=100)
    sidecars = [Sidecar(engine, dice, servers, habits, books) for _ in range(10)]
    open_loop(engine, dice, lambda now: 70.0, lambda: dice.choice(sidecars).request())
    engine.after(60.0, _set(list(servers.values()), slowness=5.0))
    engine.after(80.0, _set(list(servers.values()), slowness=1.0))
    engine.run(300.0)
    return books


def herd(habits: Habits) -> Books:
    """Five servers of 20 requests a second with a short queue, asked 30 a second by fifty sidecars; once a minute each
    sidecar's application asks for ten things at the same instant.
    """
    engine, dice, books = Engine(), Random(2), Books()
    servers = _servers(engine, dice, 5, service=0.05, queue=20)
    sidecars = [Sidecar(engine, dice, servers, habits, books) for _ in range(50)]
    open_loop(engine, dice, lambda now: 30.0, lambda: dice.choice(sidecars).request())

    def all_at_once() -> None:
        for sidecar in sidecars:
            for _ in range(10):
                sidecar.request()

    engine.every(60.0, all_at_once)
    engine.run(300.0)
    return books


def slow_replica(habits: Habits) -> Books:
    """Ten servers of 20 requests a second, asked 60 a second; one of them becomes 40 times as slow. Without: round
    robin.
    """
    engine, dice, books = Engine(), Random(3), Books()
    servers = _servers(engine, dice, 10, service=0.05, queue=100)
    if not habits.rules.watch:
        habits = replace(habits, rules=replace(habits.rules, balance="round_robin"))
    sidecars = [Sidecar(engine, dice, servers, habits, books) for _ in range(5)]
    open_loop(engine, dice, lambda now: 60.0, lambda: dice.choice(sidecars).request())
    slow = list(servers.values())[3]
    engine.after(60.0, _set([slow], slowness=40.0))
    engine.after(240.0, _set([slow], slowness=1.0))
    engine.run(300.0)
    return books


def flapping(habits: Habits) -> Books:
    """Three servers, asked 60 requests a second; one refuses connections for 5 s of every 10."""
    engine, dice, books = Engine(), Random(4), Books()
    servers = _servers(engine, dice, 3, service=0.02, workers=4)
    sidecars = [Sidecar(engine, dice, servers, habits, books) for _ in range(5)]
    open_loop(engine, dice, lambda now: 60.0, lambda: dice.choice(sidecars).request())
    bad = next(iter(servers.values()))

    def flip() -> None:
        if 60.0 <= engine.now < 240.0:
            bad.mode = "down" if bad.mode == "up" else "up"

    engine.every(5.0, flip)
    engine.run(300.0)
    return books


def partition(habits: Habits) -> Books:
    """Twelve servers, asked 60 requests a second by six sidecars; two of these cannot reach four of those for two
    minutes: what they send there is never answered.
    """
    engine, dice, books = Engine(), Random(5), Books()
    servers = _servers(engine, dice, 12, service=0.05, workers=2)
    sidecars = [Sidecar(engine, dice, servers, habits, books) for _ in range(6)]
    open_loop(engine, dice, lambda now: 60.0, lambda: dice.choice(sidecars).request())
    cut = set(list(servers)[4:])

    def part() -> None:
        for sidecar in sidecars[:2]:
            sidecar.reach = cut

    def join() -> None:
        for sidecar in sidecars:
            sidecar.reach = None

    engine.after(60.0, part)
    engine.after(180.0, join)
    engine.run(300.0)
    return books


def storm(habits: Habits, alone: bool = False) -> Books:
    """Three hops, 200 requests a second, and six leaves behind the last that all answer 503 for 30 s. What is counted
    is what the first is asked for, and what arrives at the leaves. No application passes on any header. `alone`: each
    hop for itself, with its budget but not knowing what the others have tried.
    """
    engine, dice, books = Engine(), Random(6), Books()
    if alone:
        habits = replace(habits, nearest=False)
    leaves = _servers(engine, dice, 6, service=0.005, workers=8)
    first, inner = Books(), Books()
    third = Relay(engine, dice, leaves, habits, books)
    second = Relay(engine, dice, _servers(engine, dice, 6, service=0.001), habits, inner)
    front = Relay(engine, dice, _servers(engine, dice, 6, service=0.001), habits, first)
    front.next, second.next = second, third
    engine.every(1 / 200, front.request)
    engine.after(20.0, _set(list(leaves.values()), mode="broken"))
    engine.after(50.0, _set(list(leaves.values()), mode="up"))
    engine.run(70.0)
    return Books(first.requests, first.good, books.attempts, first.latencies)


def fleet(habits: Habits, seconds: float = 3600.0, rate: float = 100.0) -> Books:
    """A thousand servers for an hour, 100 requests a second; at any time ten of them are broken, others each minute."""
    engine, dice, books = Engine(), Random(7), Books()
    servers = _servers(engine, dice, 1000, service=0.1, workers=2)
    sidecar = Sidecar(engine, dice, servers, habits, books)
    every = list(servers.values())
    broken: list[Server] = []

    def others() -> None:
        _set(broken, mode="up")()
        broken[:] = dice.sample(every, 10)
        _set(broken, mode="broken")()

    others()
    engine.every(60.0, others)
    open_loop(engine, dice, lambda now: rate, sidecar.request)
    engine.run(seconds)
    return books


SCENARIOS = (
    Scenario("Metastable failure", "all servers slow for 20 s", metastable, 300, (60, 80)),
    Scenario("Thundering herd", "500 requests at one instant, each minute", herd, 300, (60, 300)),
    Scenario("One slow replica", "one of ten is 40 times as slow", slow_replica, 300, (60, 240)),
    Scenario("Flapping", "one of three is gone for 5 s of every 10", flapping, 300, (60, 240)),
    Scenario("Partial partition", "two of six callers reach eight of twelve", partition, 300, (60, 180)),
    Scenario("Retry storm", "three hops, the last answers 503 for 30 s", storm, 70, (20, 50)),
)
