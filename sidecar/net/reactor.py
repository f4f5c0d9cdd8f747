"""The driver on epoll: the engine of the hot path.

Theory of operation. One trio task owns an epoll descriptor and waits for *it*; trio's own machinery therefore runs once
per batch of events, not once per event. Each socket is registered once, level-triggered, and stays registered for life:

- A wire whose event fires while its reader waits gets its reader woken. This is the whole fast path: no epoll_ctl.
- A wire whose event fires while nobody reads it would fire again at once, for ever. So that interest is taken away
  then (*disarmed*), lazily, and given back by the next read. A busy keep-alive connection never pays for this.
- Hang-ups (EPOLLRDHUP, HUP, ERR) are wanted even while nobody reads: an exchange that waits for its upstream wants to
  know that its caller has left. They wake the watcher. EPOLLHUP and EPOLLERR cannot be disarmed, so such a wire
  leaves epoll.
- A descriptor closed in a batch may be given out again within that batch, and a stale event would then reach a
  stranger. Wires remember the batch they were born in and ignore its events; a level-triggered event comes again if
  it was real.

We wait first and read afterwards: on keep-alive traffic a try that fails costs an exception, 1 to 2 µs, for nothing.

Where a request has come, its answer is likely to come within milliseconds. So a turn does not end when nothing is left
to do: it lingers in our own epoll, and what comes meanwhile costs no trip through trio (a sixth of the latency of a
hop that is not busy, and a third of its CPU).

Fairness: after 10 ms trio's other tasks have their turn, at most one lingering later; while one of them works for us
(`call`), there is no lingering. Each poll's events, 64 at most, are served before one task, and no more, that has given
way: one step of one handshake. Deadlines are swept every 100 ms, so a time-out may be up to 100 ms late and is never
early.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from sidecar.net.openssl import SharedBuffer
from sidecar.net.port import Driver, Signal, Unreachable
from sidecar.net.splice import Pipes
from sidecar.net.wires import READ, SocketWire, Watched, connect

if TYPE_CHECKING:
    from sidecar.net.clock import Clock
    from sidecar.net.port import Wire

T = TypeVar("T")

SWEEP_SECONDS = 0.1
EVENTS_PER_POLL = 64
TURN_SECONDS = 0.01
LINGER_SECONDS = 0.005
READ_BYTES = 256 * 1024  # sixteen TLS records; what a body of many MiB is moved by


class Reactor(Driver):
    """Drives connection coroutines on one epoll descriptor, inside one trio task."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN | select.EPOLLET)  # one event for each time that it is rung
        self._watched: dict[int, Watched] = {}
        self._nursery: trio.Nursery | None = None
        self._calls = 0  # that trio works on
        self.batch = 0
        self.buffer = SharedBuffer(READ_BYTES)
        self.pipes = Pipes()

    # ---- life ----------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive until cancelled; then every connection is closed."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._sweep_forever)
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    self._turn(LINGER_SECONDS)
        finally:
            self.cancel_all()
            for watched in list(self._watched.values()):
                watched.close()
            self.pipes.close()
            self._epoll.close()
            os.close(self._bell)

    def _turn(self, linger: float = 0.0) -> None:
        watched_by_fd = self._watched
        until = self.clock.monotonic() + TURN_SECONDS
        while True:
            events = self._epoll.poll(0.0 if self.patient or self._calls else linger, EVENTS_PER_POLL)
            if not events and not self.patient:
                return
            self.now = self.clock.monotonic()
            self.batch = batch = self.batch + 1
            for fd, mask in events:
                watched = watched_by_fd.get(fd)
                if watched is None or watched.born == batch:
                    continue
                reader = watched.reader
                if mask != READ or reader is None:
                    watched.stirred(mask)
                elif not reader.queued:  # as Task.wake, without the call
                    reader.queued = True
                    reader.queue.append(reader)
            self.run_ready()
            if self.patient:
                self.run_patient()
            if self.now >= until:
                break
        self._remember_the_patient()

    def run_ready(self) -> None:
        """As the driver's own, with `step` written out for the task to which nothing has happened but its event."""
        ready, before = self.ready, self.current
        while ready:
            task = ready.popleft()
            task.queued = False
            if task.happened:
                continue
            error = task.thrown
            if error is not None:
                task.thrown = None
                self.step(task, error)
                continue
            self.current = task
            try:
                task.coro.send(None)
            except StopIteration:
                self.ended(task, None)
            except BaseException as problem:  # noqa: BLE001 - whatever ends one task must not end the driver
                self.ended(task, problem)
            self.current = before

    def _remember_the_patient(self) -> None:
        """Have the next turn begin at once where somebody who has given way is ready: no socket will tell of it."""
        if self.patient:
            os.eventfd_write(self._bell, 1)

    async def _sweep_forever(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            self.now = self.clock.monotonic()
            self.sweep()
            self.pipes.sweep()
            self.run_ready()
            self._remember_the_patient()

    def launch(self, coro: Coroutine[Any, Any, object]) -> None:
        """Start a task of its own, from trio's side."""
        self.start(coro)
        self.now = self.clock.monotonic()
        self.nudge()

    def nudge(self) -> None:
        """Step whatever was made ready from trio's side."""
        super().nudge()
        self._remember_the_patient()

    def awaits(self, more: int) -> None:
        """So many more (or fewer) connection coroutines wait for something that trio does: no lingering meanwhile."""
        self._calls += more

    # ---- the road between the two worlds ----------------------------------------------------------------------------

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a trio function from a connection coroutine and wait for its result. For slow paths only."""
        assert self._nursery is not None
        self._calls += 1
        done = Signal()
        outcome: list[Any] = [None, None]

        async def in_trio() -> None:
            try:
                outcome[0] = await function(*args)
            except Exception as error:  # noqa: BLE001 - it is raised again where it was asked for
                outcome[1] = error
            finally:
                self._calls -= 1
            done.fire()
            self.nudge()

        self._nursery.start_soon(in_trio)
        await self.wait(done)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    # ---- sockets ----------------------------------------------------------------------------------------------------

    @property
    def sockets(self) -> int:
        """How many are registered, listening ones included."""
        return len(self._watched)

    def watch(self, watched: Watched) -> None:
        """Register a socket, for life."""
        watched.born = self.batch
        self._watched[watched.fd] = watched
        self._epoll.register(watched.fd, watched.interest)

    def replace(self, old: Watched, new: Watched) -> None:
        """Let `new` have the descriptor that `old` had, and all that happens on it from now on."""
        if self._watched.get(old.fd) is not old:
            self.watch(new)
            return
        new.born = self.batch
        self._watched[new.fd] = new
        if old.interest != new.interest:
            self.rearm(new)

    def rearm(self, watched: Watched) -> None:
        """Tell epoll of a changed interest."""
        self._epoll.modify(watched.fd, watched.interest)

    def unwatch(self, watched: Watched) -> None:
        """Forget a socket that is about to be closed."""
        if self._watched.pop(watched.fd, None) is not None:
            self._epoll.unregister(watched.fd)

    def listen(self, sock: socket.socket, on_wire: Callable[[SocketWire], None]) -> Acceptor:
        """Accept on a listening socket, handing each connection over as a wire."""
        return Acceptor(self, sock, on_wire)

    async def dial(self, host: str, port: int) -> Wire:
        """Connect to an address, or to the first of a name's addresses that answers. Raises Unreachable."""
        return await connect(self, host, port)

    async def lookup(self, host: str) -> list[str]:
        """The IP addresses of a name. Raises Unreachable."""
        try:
            found = await self.resolve(host, 0)
        except OSError as error:
            raise Unreachable(f"{host} cannot be resolved: {error.strerror or error}") from None
        return list(dict.fromkeys(str(address[0]) for _, address in found))

    async def resolve(self, host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
        """The socket addresses of a name."""
        found = await self.call(partial(trio.socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
        return [(socket.AddressFamily(family), address) for family, _, _, _, address in found]


ACCEPTS_PER_EVENT = 32
PAUSE_SECONDS = 0.1
RETIRING_BATCHES = 64  # twice the backlog that we ask for: whoever still comes finds nobody
# accept(2): errors of the connection being accepted, not of the listener; and those that only time or luck will cure.
_OUT_OF_ROOM = {24, 23, 12, 105}  # EMFILE, ENFILE, ENOMEM, ENOBUFS


class Acceptor(Watched):
    """A listening socket."""

    __slots__ = ("_file", "_on_wire", "_retiring", "_tcp", "accepted", "starved")

    def __init__(self, reactor: Reactor, sock: socket.socket, on_wire: Callable[[SocketWire], None]) -> None:
        super().__init__(reactor, sock, READ)
        self._on_wire = on_wire
        self._tcp = sock.family != socket.AF_UNIX
        self._file = None if self._tcp else _file_of(sock)
        self._retiring = False
        self.accepted = 0
        self.starved = 0  # how often the process was out of descriptors or memory

    def stirred(self, mask: int) -> None:
        """Accept a batch."""
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                sock, _ = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_ROOM:
                    self.starved += 1
                    self.pause()
                    return
                continue
            self.accepted += 1
            sock.setblocking(False)
            if self._tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._on_wire(SocketWire(self.reactor, sock))
            if not self.interest:
                return

    def retire(self) -> None:
        """Close, but first hand over who had connected already: closing would reset them."""
        self._retiring, self.interest = True, READ
        for _ in range(RETIRING_BATCHES):
            before = self.accepted
            self.stirred(READ)
            if self.accepted - before < ACCEPTS_PER_EVENT:
                break
        self.close()

    def close(self) -> None:
        """Close, and take the file of a Unix socket away, unless another's stands there now."""
        if not self.closed and self._file is not None:
            path, inode = self._file
            with suppress(OSError):
                if os.lstat(path).st_ino == inode:
                    os.unlink(path)  # noqa: PTH108 - as the line above
        super().close()

    def pause(self) -> None:
        """Accept nobody for a moment: out of descriptors, or crowded. Who connects meanwhile waits in the kernel."""
        if self._retiring or not self.interest:
            return
        self.interest = 0
        self.reactor.rearm(self)
        self.reactor.start(self._resume())

    async def _resume(self) -> None:
        await self.reactor.sleep(PAUSE_SECONDS)
        if not self.closed:
            self.interest = READ
            self.reactor.rearm(self)


def _file_of(sock: socket.socket) -> tuple[str, int] | None:
    """The file of a listening Unix socket, with its inode; None where it has none."""
    path = sock.getsockname()
    try:
        return (path, os.lstat(path).st_ino) if isinstance(path, str) and path else None
    except OSError:
        return None


def open_files_limit() -> int:
    """How many descriptors this process may have."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def open_files() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the cheapest way, and no path is built
