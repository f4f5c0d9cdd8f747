"""Servers and sidecars.

A server has workers and a queue, first come, first served; it does not know who has given up, and works for them all
the same: that is what makes overload last. A sidecar asks by `sidecar.traffic.destination`, as the proxy does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from sidecar.config.terms import Address
from sidecar.traffic.destination import Destination, DestinationRules
from sidecar.traffic.endpoints import Declared, Endpoint
from sidecar.traffic.marks import Marks
from sidecar.traffic.outcome import Outcome
from sidecar.traffic.retry import Again, Kind
from tests.sim.engine import Engine

Mode = Literal["up", "down", "broken", "hole"]  # answers; refuses connections; answers 503 at once; says nothing
Answer = Callable[[Outcome], None]
TRIP = 0.0005  # seconds, there and back again


class Server:
    """One replica."""

    def __init__(self, engine: Engine, dice: Random, *, service: float, workers: int = 1, queue: int = 1000) -> None:
        self.mode: Mode = "up"
        self.slowness = 1.0
        self.asked = 0
        self._engine = engine
        self._dice = dice
        self._service = service  # seconds, on average
        self._idle = workers
        self._queue: deque[Answer] = deque()
        self._room = queue

    def ask(self, answer: Answer) -> None:
        """Work for somebody, in turn."""
        self.asked += 1
        if self.mode == "hole":
            return
        if self.mode == "down":
            self._engine.after(TRIP, lambda: answer(Outcome.LOCAL))
        elif self.mode == "broken" or len(self._queue) >= self._room:
            self._engine.after(TRIP, lambda: answer(Outcome.GATEWAY))
        elif self._idle:
            self._idle -= 1
            self._work(answer)
        else:
            self._queue.append(answer)

    def _work(self, answer: Answer) -> None:
        seconds = self._dice.expovariate(1.0 / (self._service * self.slowness))

        def done() -> None:
            answer(Outcome.GOOD)
            if self._queue:
                self._work(self._queue.popleft())
            else:
                self._idle += 1

        self._engine.after(seconds + TRIP, done)


@dataclass
class Books:
    """What has happened in each second."""

    requests: dict[int, int] = field(default_factory=dict)  # by when they came
    good: dict[int, int] = field(default_factory=dict)  # the same: those that were answered well
    attempts: dict[int, int] = field(default_factory=dict)  # by when they were made
    latencies: list[float] = field(default_factory=list)  # of good answers, seconds

    def rate(self, start: int, end: int) -> float:
        """The share of requests of those seconds that were answered well."""
        return _sum(self.good, start, end) / max(1, _sum(self.requests, start, end))

    def amplification(self, start: int, end: int) -> float:
        """Attempts for each request in those seconds."""
        return _sum(self.attempts, start, end) / max(1, _sum(self.requests, start, end))


def _sum(counts: dict[int, int], start: int, end: int) -> int:
    return sum(counts.get(second, 0) for second in range(start, end))


@dataclass(frozen=True)
class Habits:
    """How a sidecar treats its requests."""

    rules: DestinationRules
    bounded: bool = True  # retries are paid from the budget
    timeout: float = 1.0  # seconds, for one try
    nearest: bool = True  # whoever is told that others have tried already does not


class Sidecar:
    """Asks the servers for its application. `reach`: the names of those that it can reach; None for all."""

    def __init__(
        self, engine: Engine, dice: Random, servers: dict[str, Server], habits: Habits, books: Books,
        reach: Collection[str] | None = None,
    ) -> None:  # fmt: skip
        self.engine = engine
        self.dice = dice
        self.servers = servers
        self.habits = habits
        self.books = books
        self.reach = reach
        self.marks = Marks()
        declared = [Declared(Address(name, 80)) for name in servers]
        self.destination = Destination(declared, dice.random, engine.now, habits.rules)
        self.unbounded = Destination(declared, dice.random, engine.now, DestinationRules(budget_floor=1e9)).budget
        engine.every(1.0, lambda: self.destination.sweep(engine.now) and None)

    def request(self, told: Callable[[bool], None] | None = None) -> None:
        """One request; `told` hears whether it went well."""
        Request(self, told).begin()

    def send(self, endpoint: Endpoint, answer: Callable[[Outcome, bool], None]) -> None:
        """Put an attempt on the wire."""
        name = endpoint.address.host
        if self.reach is None or name in self.reach:
            self.servers[name].ask(lambda outcome: answer(outcome, False))


class Request:
    """One request on its way, through all its attempts."""

    __slots__ = ("began", "endpoint", "excluded", "sent", "sidecar", "told", "tries")

    def __init__(self, sidecar: Sidecar, told: Callable[[bool], None] | None) -> None:
        self.sidecar = sidecar
        self.told = told
        self.tries = 0
        self.excluded: tuple[Endpoint, ...] = ()
        self.endpoint: Endpoint | None = None
        self.began = sidecar.engine.now
        self.sent = 0.0

    def begin(self) -> None:
        """It comes from the application."""
        books, second = self.sidecar.books, int(self.began)
        books.requests[second] = books.requests.get(second, 0) + 1
        self.sidecar.destination.budget.request(self.began)
        self._try()

    def _try(self) -> None:
        sidecar, now = self.sidecar, self.sidecar.engine.now
        endpoint = sidecar.destination.begin(now, self.excluded)
        if endpoint is None:
            self._end(False)
            return
        self.tries += 1
        self.endpoint, self.sent = endpoint, now
        second = int(now)
        sidecar.books.attempts[second] = sidecar.books.attempts.get(second, 0) + 1
        number = self.tries
        sidecar.engine.after(sidecar.habits.timeout, lambda: self._answered(number, Outcome.LOCAL, False))
        sidecar.send(endpoint, lambda outcome, further: self._answered(number, outcome, further))

    def _answered(self, number: int, outcome: Outcome, further: bool) -> None:
        endpoint, sidecar = self.endpoint, self.sidecar
        if endpoint is None or number != self.tries:
            return  # nobody waits for it any more
        now = sidecar.engine.now
        self.endpoint = None
        sidecar.destination.end(endpoint, outcome, self.sent, now)
        if outcome == Outcome.GOOD:
            self._end(True)
            return
        self.excluded += (endpoint,)
        budget = sidecar.destination.budget if sidecar.habits.bounded else sidecar.unbounded
        said = sidecar.destination.retries.check(
            Kind.STATUS, self.tries, now, sidecar.dice.random(), budget, repeatable=True, replayable=True,
            deadline=float("inf"), elsewhere=further and sidecar.habits.nearest,
        )  # fmt: skip
        if isinstance(said, Again) or said.settled:
            sidecar.marks.settled("", now)
        if isinstance(said, Again):
            sidecar.engine.after(said.wait, self._try)
        else:
            self._end(False)

    def _end(self, good: bool) -> None:
        books = self.sidecar.books
        if good:
            second = int(self.began)
            books.good[second] = books.good.get(second, 0) + 1
            books.latencies.append(self.sidecar.engine.now - self.began)
        if self.told is not None:
            self.told(good)


class Relay(Sidecar):
    """A sidecar whose upstream is another service, which asks further on for every request that it gets. The service
    passes on no header: its sidecar knows by the time only which of its failing answers to mark.
    """

    next: Sidecar | None = None

    def send(self, endpoint: Endpoint, answer: Callable[[Outcome, bool], None]) -> None:
        """Ask the service, which asks its own upstream."""
        service, began = self.next, self.engine.now
        if service is None:
            super().send(endpoint, answer)
        else:
            service.request(
                lambda good: answer(Outcome.GOOD, False) if good
                else answer(Outcome.GATEWAY, service.marks.marks("", began))
            )  # fmt: skip


def open_loop(engine: Engine, dice: Random, rate: Callable[[float], float], ask: Callable[[], None]) -> None:
    """Requests that come at random, so many a second, whatever becomes of them."""

    def come() -> None:
        ask()
        engine.after(dice.expovariate(rate(engine.now)), come)

    engine.after(dice.expovariate(rate(0.0)), come)
