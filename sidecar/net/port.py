"""The small port that connection coroutines see, and the scheduler that both of its drivers share.

A connection is one ordinary `async def`. It never meets trio, epoll or a socket: it reads and writes *wires*, sets a
deadline, starts bounded children, and waits for whichever of several events comes first. Two drivers stand behind the
port: `sidecar.net.reactor` on epoll, and `sidecar.net.memory`, deterministic, with virtual time.

How it works. A *task* is a coroutine and the driver calls `coro.send(None)` itself; that is all the machinery there
is, and it is why a request costs no trio checkpoint (a park and reschedule there costs 8 µs, a whole request 25). A
task runs until it parks. Before it parks it leaves itself where the event will look for it: in `wire.reader`, in a
signal's list of waiters. Whoever fires the event puts the task on the ready queue; the driver steps the queue until
it is empty.

Rules that keep this sound:

- A wake-up promises nothing. Every wait is a loop that looks again, so a stale or doubled wake-up is harmless.
- There are two queues. Who has *given way* (a handshake: a stranger's millisecond of CPU) is stepped when nobody on
  the other queue is ready, and one at a time: after each such step the driver asks for new events again. So however
  many strangers there are, work for those whom we know waits for one of them at most.
- A task is stepped only from the driver's own loop, never from inside another task's step; cancelling is the one
  exception.
- `deadline` belongs to the task, not to a scope: one attribute, looked at by a sweep. When it passes, `Expired` is
  raised at the await, and the deadline is cleared. Whoever catches it knows what it was doing.
- A child belongs to the task that spawned it. A child that fails raises its error in its parent, at the parent's
  await. A parent that ends cancels its children. Cancelling throws `Cancelled` into a coroutine, whose `finally`
  blocks may close things but must not wait.
"""

from __future__ import annotations

import heapq
import math
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from certs.errors import MeshError

if TYPE_CHECKING:
    from sidecar.net.clock import Clock

T = TypeVar("T")

NEVER = math.inf
PIECE = 64 * 1024  # bytes that a read takes at most: what a slow reader on the other side may cost
BULK = 256 * 1024  # bytes for a reader that has just shown that it keeps up
UNIX = "unix:"  # before the path of a socket, where a host may stand


class Cancelled(BaseException):
    """Thrown into a task that is no longer wanted. Never caught, except to clean up."""


class Expired(MeshError):
    """The task's deadline has passed."""

    name = "expired"


class WireBroken(MeshError):
    """The other end reset the connection, or cut a TLS stream without close_notify."""

    name = "wire_broken"


class WireCut(WireBroken):
    """We have cut the connection ourselves, in the middle of whatever was on it: its other end was revoked.

    `reason` is that of the refusal.
    """

    name = "wire_cut"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class PeerGone(MeshError):
    """The wire that was watched beside a read hung up. `reset` tells a reset from an orderly half-close."""

    name = "peer_gone"

    def __init__(self, *, reset: bool) -> None:
        super().__init__("the other side hung up")
        self.reset = reset


class Unreachable(MeshError):
    """A connection could not be made."""

    name = "unreachable"


class Wire(Protocol):
    """One two-way stream of bytes. At most one task reads it, and one writes it, at a time."""

    @property
    def received(self) -> int:
        """Bytes read so far."""
        ...

    @property
    def sent(self) -> int:
        """Bytes written so far."""
        ...

    @property
    def reader(self) -> Task | None:
        """Who waits for something to read, at this moment."""
        ...

    @property
    def writer(self) -> Task | None:
        """Who waits for the other side to take what is written, at this moment."""
        ...

    async def read(self, beside: Wire | None = None) -> bytes:
        """The next bytes, or `b""` once the other side has finished.

        With `beside`, raise PeerGone as soon as that other wire hangs up. Raises WireBroken.
        """
        ...

    async def read_shared(self, beside: Wire | None = None, limit: int = PIECE) -> memoryview:
        """As `read`, not copied: good until this task waits for anything but writing it. At most BULK bytes."""
        ...

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it, waiting where the other side is slow. Raises WireBroken."""
        ...

    async def finish(self) -> None:
        """Send the end of our direction; the other one stays open (TCP half-close, TLS close_notify)."""
        ...

    def close(self) -> None:
        """Close both directions at once, politely where that needs no waiting. May be called twice."""
        ...

    def abort(self) -> None:
        """Close so that the other side cannot mistake what it has for a whole message (a reset)."""
        ...

    def rest(self, on_stir: Callable[[], None] | None) -> None:
        """While nobody reads this wire, call `on_stir` once if anything at all happens on it."""
        ...


class Port(Protocol):
    """What a connection coroutine may ask of its driver."""

    now: float  # monotonic seconds, as of the last event
    current: Task | None  # whoever runs at this moment

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    def read_clock(self) -> float:
        """Bring `now` up to date, and return it: for what is measured rather than waited for."""
        ...

    def deadline(self, at: float) -> None:
        """Raise Expired in the current task at this monotonic time; NEVER takes the deadline away."""
        ...

    def spawn(self, coro: Coroutine[Any, Any, object]) -> Task:
        """Start a child of the current task."""
        ...

    def start(self, coro: Coroutine[Any, Any, object]) -> Task:
        """Start a task that belongs to nobody, and ends with the driver at the latest."""
        ...

    async def give_way(self) -> None:
        """Let everybody go first who has not given way too: now, and at each wake-up until `hurry`."""
        ...

    def hurry(self) -> None:
        """The current task is like all others again."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait this long."""
        ...

    async def wait(self, *events: Event) -> Event:
        """Wait until one of these has happened, and return it."""
        ...

    async def lookup(self, host: str) -> list[str]:
        """The IP addresses of a name, in the order in which they are to be tried. Raises Unreachable."""
        ...

    async def dial(self, host: str, port: int) -> Wire:
        """Connect. `host` is an IP address, a name, or `unix:` and the path of a socket. Raises Unreachable."""
        ...


class Event(Protocol):
    """Something that happens once: a signal, or the end of a task."""

    happened: bool

    def attach(self, task: Task) -> None:
        """Wake this task when it happens."""
        ...

    def detach(self, task: Task) -> None:
        """Forget the task."""
        ...


class Signal:
    """Something that one side announces and others wait for."""

    __slots__ = ("_waiters", "happened")

    def __init__(self) -> None:
        self.happened = False
        self._waiters: list[Task] = []

    def fire(self) -> None:
        """Let it have happened."""
        self.happened = True
        waiters, self._waiters = self._waiters, []
        for task in waiters:
            task.wake()

    def attach(self, task: Task) -> None:
        """Wake this task when it happens."""
        self._waiters.append(task)

    def detach(self, task: Task) -> None:
        """Forget the task."""
        if task in self._waiters:
            self._waiters.remove(task)


@types.coroutine
def park() -> Generator[None, None, None]:
    """Give the thread back to the driver until something wakes this task."""
    yield


class Task:
    """A coroutine that a driver steps, and an event that has happened once it ends."""

    __slots__ = (
        "_driver",
        "_waiters",
        "children",
        "coro",
        "deadline",
        "error",
        "happened",
        "parent",
        "queue",
        "queued",
        "thrown",
    )

    def __init__(self, driver: Driver, coro: Coroutine[Any, Any, object], parent: Task | None) -> None:
        self._driver = driver
        self.queue = driver.ready
        self.coro = coro
        self.parent = parent
        self.children: list[Task] | None = None
        self.deadline = NEVER
        self.happened = False
        self.error: BaseException | None = None
        self.queued = False
        self.thrown: BaseException | None = None
        self._waiters: list[Task] | None = None

    def wake(self) -> None:
        """Let the task look again at what it waits for."""
        if not self.queued and not self.happened:
            self.queued = True
            self.queue.append(self)

    def throw(self, error: BaseException) -> None:
        """Raise this at the task's await, when it is stepped next. The first error stands."""
        if self.thrown is None and not self.happened:
            self.thrown = error
            self.wake()

    def cancel(self) -> None:
        """End the task now, with all of its children. Its `finally` blocks have run when this returns."""
        if self.happened:
            return
        if self._driver.current is self:  # a task that cancels itself ends at its next await
            self.thrown = Cancelled()
            return
        self._driver.step(self, Cancelled())
        if not self.happened:
            self._driver.ended(self, RuntimeError("a cancelled task went on waiting"))

    def attach(self, task: Task) -> None:
        """Wake that task when this one ends."""
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(task)

    def detach(self, task: Task) -> None:
        """Forget the other task."""
        if self._waiters is not None and task in self._waiters:
            self._waiters.remove(task)


class Driver:
    """What both drivers share: the queues, children, deadlines and timers."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.now = clock.monotonic()
        self.ready: deque[Task] = deque()
        self.patient: deque[Task] = deque()  # those who have given way
        self.tasks: dict[Task, None] = {}  # in the order they began: what a driver does must not hang on addresses
        self.current: Task | None = None
        self._timers: list[tuple[float, int, Task]] = []
        self._timer_count = 0
        self.on_crash: Callable[[BaseException], None] | None = None

    # ---- what connection coroutines call ------------------------------------------------------------------------

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self.clock.wall()

    def read_clock(self) -> float:
        """Bring `now` up to date, and return it."""
        self.now = now = self.clock.monotonic()
        return now

    def deadline(self, at: float) -> None:
        """Raise Expired in the current task at this monotonic time."""
        task = self.current
        assert task is not None
        task.deadline = at

    def spawn(self, coro: Coroutine[Any, Any, object]) -> Task:
        """Start a task: a child of the current one, or one of its own where there is none."""
        parent = self.current
        task = Task(self, coro, parent)
        if parent is not None:
            if parent.children is None:
                parent.children = []
            parent.children.append(task)
        self.tasks[task] = None
        task.wake()
        return task

    async def give_way(self) -> None:
        """Let everybody go first who has not given way too: now, and at each wake-up until `hurry`."""
        task = self.current
        assert task is not None
        task.queue = self.patient
        task.wake()
        await park()

    def hurry(self) -> None:
        """The current task is like all others again."""
        assert self.current is not None
        self.current.queue = self.ready

    async def sleep(self, seconds: float) -> None:
        """Wait this long."""
        task = self.current
        assert task is not None
        until = self.now + seconds
        self._timer_count += 1
        heapq.heappush(self._timers, (until, self._timer_count, task))
        while self.now < until:
            await park()

    async def wait(self, *events: Event) -> Event:
        """Wait until one of these has happened, and return it."""
        task = self.current
        assert task is not None
        while True:
            for event in events:
                if event.happened:
                    return event
            for event in events:
                event.attach(task)
            try:
                await park()
            finally:
                for event in events:
                    event.detach(task)

    # ---- what drivers call --------------------------------------------------------------------------------------

    def start(self, coro: Coroutine[Any, Any, object]) -> Task:
        """Start a task that belongs to nobody: a new connection."""
        current, self.current = self.current, None
        try:
            return self.spawn(coro)
        finally:
            self.current = current

    def step(self, task: Task, error: BaseException | None = None) -> None:
        """Run a task until it parks or ends."""
        before, self.current = self.current, task
        try:
            if error is None:
                task.coro.send(None)
            else:
                task.coro.throw(error)
        except StopIteration:
            self.ended(task, None)
        except BaseException as problem:  # noqa: BLE001 - whatever ends one task must not end the driver
            self.ended(task, problem)
        finally:
            self.current = before

    def run_ready(self) -> None:
        """Step tasks until none is ready but those who have given way."""
        ready = self.ready
        while ready:
            task = ready.popleft()
            task.queued = False
            if not task.happened:
                error, task.thrown = task.thrown, None
                self.step(task, error)

    def run_patient(self) -> None:
        """Step one of those who have given way, and whoever that makes ready."""
        self.ready.append(self.patient.popleft())
        self.run_ready()

    def ended(self, task: Task, error: BaseException | None) -> None:
        """Take note that a task has ended; tell its parent and whoever waits for it."""
        if task.happened:
            return
        task.happened = True
        task.error = error
        self.tasks.pop(task, None)
        if task.children:
            for child in list(task.children):  # each takes itself off the list
                child.cancel()
        parent = task.parent
        if parent is not None and parent.children is not None and task in parent.children:
            parent.children.remove(task)
        if error is not None and not isinstance(error, Cancelled):
            if parent is not None and not parent.happened:
                parent.throw(error)
            elif self.on_crash is not None:
                self.on_crash(error)
        waiters, task._waiters = task._waiters, None
        for waiter in waiters or ():
            waiter.wake()

    def nudge(self) -> None:
        """Step whatever was made ready from outside the driver's own loop (a signal fired, an error thrown)."""
        if self.current is None:
            self.run_ready()

    def sweep(self) -> None:
        """Raise Expired where a deadline has passed, and wake sleepers. Cheap enough to call ten times a second."""
        now = self.now
        late = [task for task in self.tasks if task.deadline <= now]
        for task in late:
            task.deadline = NEVER
            task.throw(Expired("the deadline has passed"))
        timers = self._timers
        while timers and timers[0][0] <= now:
            heapq.heappop(timers)[2].wake()

    def next_deadline(self) -> float:
        """The monotonic time at which the next sweep has something to do."""
        soonest = min((task.deadline for task in self.tasks), default=NEVER)
        return min(soonest, self._timers[0][0]) if self._timers else soonest

    def cancel_all(self) -> None:
        """End every task."""
        for task in list(self.tasks):
            task.cancel()
        self.ready.clear()
        self.patient.clear()


Resolve = Callable[[str], Awaitable[list[str]]]  # a DNS name to its addresses, off the hot path
